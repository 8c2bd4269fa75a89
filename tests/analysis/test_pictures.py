"""Charts can be drawn of anything, keep what matters, say what is missing, and need no network."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import lake_builder
import numpy as np
import polars as pl
import pytest
import vl_convert
from hypothesis import given
from hypothesis import strategies as st

from mdcapture.analysis.analyze import extracts
from mdcapture.analysis.coverage import coverage
from mdcapture.analysis.figures import sampled_volatility
from mdcapture.analysis.kinds import Kind
from mdcapture.analysis.pictures import PICTURES, draw
from mdcapture.charts.curves import recovery, signature_plot
from mdcapture.charts.drawing import BUY, SELL, per_pixel, save, stacked, theme, wall_clock_ms
from mdcapture.charts.price import price_and_trades
from mdcapture.charts.sessions import coverage_calendar, distributions, over_sessions
from mdcapture.demo import START_NS, synthesize
from mdcapture.errors import UsageError
from mdcapture.session import open_lake

if TYPE_CHECKING:
    from pathlib import Path

    from mdcapture.analysis.extract import Extract
    from mdcapture.analysis.result import Analysis
    from mdcapture.session import Session


@pytest.fixture(scope="module")
def parts(session: Session) -> list[Extract]:
    return extracts(session)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> list[Extract]:
    """A session of one quote, of one side."""
    lake = tmp_path_factory.mktemp("bare")
    lake_builder.record(lake, lake_builder.quote(bestBid=4800.0))
    return extracts(open_lake(lake).session())


def drawn(chart: object) -> str:
    """The chart as the engine draws it, which refuses what it can't."""
    return vl_convert.vegalite_to_svg(chart.to_dict(), config=dict(theme()))  # type: ignore[attr-defined]


def test_every_kind_has_a_picture_and_a_caption():
    assert list(PICTURES) == list(Kind)
    assert all(picture.title and picture.caption.endswith(".") for picture in PICTURES.values())


@pytest.mark.parametrize("kind", Kind)
def test_a_market_can_be_drawn(parts: list[Extract], kind: Kind):
    picture = drawn(draw(kind, parts))
    marks = re.findall(r'class="mark-(?:symbol|line|rect|area|rule|text) role-mark', picture)
    assert marks
    assert "NaN" not in picture
    assert "Infinity" not in picture
    assert "ESH6" in picture


def test_a_recovery_stays_in_its_frame_however_far_the_book_overshoots():
    left = {"horizon_s": [0.01, 0.1, 1.0, 10.0], "left": [17.0, 1.0, 0.2, -9.0]}
    picture = drawn(recovery(pl.DataFrame(left).with_columns(series=pl.lit("lots"), half_life_s=0.5)))
    size = re.search(r'viewBox="0 0 (\d+) (\d+)"', picture)
    assert size is not None
    assert int(size[2]) < 500
    assert "clip-path" in picture
    assert "half-life: lots 0.5 s; below 0 is more than before, and below -0.5 it is cut off" in picture


def test_a_recovery_tells_the_half_lives_of_the_analysis(parts: list[Extract], analysis: Analysis):
    of = parts[0].contract.contract_id
    halves = [analysis.value(metric, of) for metric in ("sweep_half_life_s", "widening_half_life_s")]
    picture = drawn(draw("recovery", parts))
    assert any(halves)
    assert all(f" {half:.2g} s" in picture for half in halves if half is not None)


BANDED = (Kind.SIGNATURE, Kind.RESPONSE, Kind.EPPS)


def areas(picture: str) -> list[str]:
    """The paths of the bands, each with its opacity."""
    return re.findall(r'<g class="mark-area[^>]*>(<path [^>]*>)', picture)


@pytest.mark.parametrize("kind", Kind)
def test_curves_of_estimates_have_light_bands_that_are_explained(parts: list[Extract], kind: Kind):
    picture = drawn(draw(kind, parts))
    banded = kind in BANDED
    assert ("band: 95 %" in picture) == banded
    assert not banded or (areas(picture) and all('opacity="0.15"' in area for area in areas(picture)))


def signature(*, low: list[float | None], high: list[float | None]) -> str:
    curve = {"interval_s": [1.0, 2.0, 5.0, 10.0], "volatility": [10.0, 9.0, 9.0, 8.0], "low": low, "high": high}
    frame = pl.DataFrame(curve, schema_overrides={"low": pl.Float64, "high": pl.Float64})
    return drawn(signature_plot(frame.with_columns(series=pl.lit("mid")), robust=9.0, band="95 %"))


def test_a_band_is_only_where_it_is_known():
    whole = signature(low=[9.0, 8.0, 7.0, 6.0], high=[11.0, 12.0, 13.0, 14.0])
    half = signature(low=[9.0, 8.0, None, None], high=[11.0, 12.0, None, None])
    nowhere = signature(low=[None] * 4, high=[None] * 4)

    def width(picture: str) -> float:
        across = [float(x) for path in areas(picture) for x in re.findall(r"[ML](-?[\d.]+),", path)]
        return max(across) - min(across) if across else 0

    assert width(whole) > 2 * width(half) > 0 == width(nowhere)
    assert "NaN" not in whole + half + nowhere
    assert "band: 95 %" in half
    assert "band" not in nowhere


def test_a_volatility_is_within_its_band_however_it_moves():
    """The volatility of each set of a minute's returns doubles and halves; the band is on the scale of logarithms."""
    rng, sets, n = np.random.default_rng(14), 2_000, 60
    sigma = 1e-4 * np.exp2(np.sin(np.linspace(0, 7, n)))
    returns = pl.DataFrame({"log_return": rng.normal(0, sigma, (sets, n)).ravel(), "set": np.repeat(range(sets), n)})
    volatility, error = sampled_volatility(1)
    found = returns.group_by("set").agg(volatility=volatility, error=error)
    true = 100 * float(np.sqrt(np.square(sigma).mean() * 252 * 23 * 3600))
    away = (pl.col("volatility").log() - np.log(true)).abs() < 1.96 * pl.col("error") / pl.col("volatility")
    assert 0.9 < found.select(away.mean()).item() < 0.97


def test_a_huge_band_leaves_the_line_half_of_the_height():
    picture = signature(low=[9.0, 8.0, 7.0, 0.0], high=[11.0, 12.0, 13.0, 1e6])
    labels = [int(label) for label in re.findall(r">(\d+)</text>", picture)]
    assert 14 <= max(labels) <= 16
    assert "clip-path" in picture


@pytest.mark.parametrize("kind", [Kind.EPPS, Kind.LEADS])
def test_what_compares_contracts_names_them(parts: list[Extract], kind: Kind):
    assert "ESH6 and MNQH6: " in drawn(draw(kind, parts))
    assert ("to the right ESH6 leads" in drawn(draw(kind, parts))) == (kind is Kind.LEADS)


@pytest.mark.parametrize(("time_s", "written"), [(1440, False), (20, True)])
def test_a_footprint_has_labels_where_they_fit(session: Session, time_s: int, *, written: bool):
    picture = drawn(draw("footprint", extracts(session, ["ES"], end=START_NS + time_s * 10**9)))
    assert bool(re.search(r">\d+x\d+<", picture)) == written


def test_charts_below_each_other_keep_their_own_colours(parts: list[Extract], tmp_path: Path):
    """One legend for both would give the delta the colour of what was bought."""
    save(stacked(draw("price", parts), draw("flow", parts)), tmp_path / "both.svg")
    save(draw("flow", parts), tmp_path / "flow.svg")
    strokes = re.compile(r'aria-label="[^"]*delta[^"]*"[^>]* stroke="([^"]+)"')
    alone = strokes.findall((tmp_path / "flow.svg").read_text())
    assert alone
    assert set(strokes.findall((tmp_path / "both.svg").read_text())) == set(alone)


@pytest.mark.parametrize("kind", Kind)
def test_what_is_not_there_is_said_in_words(bare: list[Extract], kind: Kind):
    picture = drawn(draw(kind, bare))
    words = " ".join(re.findall(r"<text[^>]*>([^<]*)</text>", picture))
    something = {Kind.PRICE, Kind.RATES, Kind.SPREAD}
    said = re.search(r"\bno\b|one contract only|nothing", words)
    assert kind in something or said, words


@pytest.mark.parametrize("zone", ["UTC", "America/Chicago"])
def test_the_clock_is_that_of_the_zone(parts: list[Extract], zone: str):
    picture = drawn(draw("price", parts, zone))
    opens = datetime.fromtimestamp(parts[0].windows[0].from_ns / 1e9, ZoneInfo(zone))
    assert f"{opens:%H}:3" in picture
    assert zone.rpartition("/")[2] in picture


def test_an_unknown_zone_or_kind_is_refused(parts: list[Extract]):
    with pytest.raises(UsageError, match="Chicag0"):
        draw("price", parts, "America/Chicag0")
    with pytest.raises(UsageError, match="footprint"):
        draw("pricy", parts)


@given(
    st.lists(st.tuples(st.integers(0, 10**12), st.integers(-100, 100)), min_size=1, max_size=400),
    st.integers(1, 30),
)
def test_a_reduced_chart_keeps_the_extremes_of_each_pixel(rows: list[tuple[int, int]], width_px: int):
    frame = pl.DataFrame(sorted(rows), ["recv_ns", "value"], orient="row")
    kept = per_pixel(frame, "value", width_px=width_px)
    assert kept.height <= max(4 * width_px, 2 * width_px)
    start, end = frame["recv_ns"][0], frame["recv_ns"][-1]
    pixel = (pl.col("recv_ns") - start) * width_px // max(1, end - start + 1)
    extremes = [pl.col("value").min().alias("low"), pl.col("value").max().alias("high")]
    by_pixel = [each.group_by(pixel.alias("pixel")).agg(extremes).sort("pixel") for each in (frame, kept)]
    assert by_pixel[0].equals(by_pixel[1])
    assert kept["recv_ns"].is_sorted()


def test_two_measures_keep_the_extremes_of_both():
    frame = pl.DataFrame({"recv_ns": range(10_000), "bid": [(7 * n) % 1001 for n in range(10_000)]})
    frame = frame.with_columns(ask=1000 - pl.col("bid"))
    kept = per_pixel(frame, "bid", "ask", width_px=50)
    assert kept.height <= 6 * 50
    assert kept.select(pl.col("bid", "ask").min()).row(0) == frame.select(pl.col("bid", "ask").min()).row(0)


@pytest.mark.parametrize("utc", ["2026-03-08T07:59:59", "2026-03-08T08:00:00", "2026-11-01T06:30:00"])
def test_summer_time_comes_and_goes(utc: str):
    time = datetime.fromisoformat(f"{utc}+00:00")
    frame = pl.DataFrame({"recv_ns": [int(time.timestamp()) * 10**9]})
    shown = frame.select(wall_clock_ms("recv_ns", "America/Chicago")).item()
    local = time.astimezone(ZoneInfo("America/Chicago")).replace(tzinfo=ZoneInfo("UTC"))
    assert shown == int(local.timestamp()) * 1000


@pytest.mark.parametrize("suffix", [".png", ".svg", ".html"])
def test_a_chart_is_one_file_that_asks_nobody(parts: list[Extract], tmp_path: Path, suffix: str):
    path = tmp_path / f"chart{suffix}"
    save(draw("signature", parts), path)
    content = path.read_bytes()
    if suffix == ".png":
        assert content.startswith(b"\x89PNG")
    else:
        assert not re.search(rb'(?:src|href)="https?:', content)
        assert b"cdn.jsdelivr" not in content


def test_another_suffix_is_refused(parts: list[Extract], tmp_path: Path):
    with pytest.raises(UsageError, match="gif"):
        save(draw("signature", parts), tmp_path / "chart.gif")


def test_the_sides_differ_in_a_grey_print():
    def grey(colour: str) -> float:
        red, green, blue = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
        return 0.299 * red + 0.587 * green + 0.114 * blue

    assert abs(grey(BUY) - grey(SELL)) > 0.25


@pytest.mark.parametrize("sessions", [0, 1, 3])
def test_many_sessions_can_be_drawn(sessions: int):
    day_ns = 86_400 * 10**9
    starts = [START_NS + number * day_ns for number in range(sessions)]
    named = {"contract": ["ES"] * sessions, "start_ns": starts, "value": [1.0 + start / 1e20 for start in starts]}
    figures = pl.DataFrame(named, {"contract": pl.String, "start_ns": pl.Int64, "value": pl.Float64})
    days = coverage(
        [("ES", (start, start + day_ns // 4)) for start in starts], [("ES", (one, one + 1)) for one in starts]
    )
    charts = [
        over_sessions(figures.with_columns(error=0.1), unit="lots", title="volume"),
        over_sessions(figures.with_columns(error=pl.lit(None, pl.Float64)), unit="share", title="volume"),
        distributions(figures.with_columns(part=pl.format("{}", "start_ns")), unit="lots", title="volume"),
        coverage_calendar(days),
    ]
    for chart in charts:
        picture = drawn(chart)
        assert "NaN" not in picture
        assert ("role-mark" in picture) == bool(sessions) or re.search(r">no ", picture) or "nothing" in picture


def test_more_lines_than_colours_are_still_told_apart():
    names = [f"contract {number}" for number in range(9)]
    figures = pl.DataFrame({"part": names * 2, "contract": "ES", "value": [float(n) for n in range(18)]})
    looks = distributions(figures, unit="lots", title="volume").to_dict()["layer"][0]["encoding"]
    both = list(zip(looks["color"]["scale"]["range"], map(str, looks["strokeDash"]["scale"]["range"]), strict=True))
    assert len(set(both)) == len(names)


def test_too_few_intervals_are_no_regression(tmp_path: Path):
    short = extracts(synthesize(tmp_path, duration_s=40, contracts=("ES",), rate=8.0))
    assert "intervals of 10 s, 30 are needed" in drawn(draw("imbalance", short))


def test_the_chart_of_a_long_session_is_small(parts: list[Extract]):
    x = parts[0]
    many = pl.concat([x.quotes.with_columns(pl.col("recv_ns") + hour * 3_600 * 10**9) for hour in range(50)])
    text = price_and_trades(many, x.trades).to_json()
    assert many.height > 150_000
    assert len(text) < 700_000
