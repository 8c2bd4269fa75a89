"""What backtesters are given: the book that the lake shows, and its trades, at the exchange's time and at ours.

hftbacktest and NautilusTrader want other versions of what we stand on, so each is read back by an interpreter of its
own: `make backtesters` makes both, and runs these tests with them.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import databento_dbn as dbn
import duckdb
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lake_builder import ES, MS, depth, record, recording, trade
from programs import environment, mdcapture
from tapes import records, write_tape

import mdcapture as md
from mdcapture.interop import hftbacktest
from mdcapture.interop.books import PRINT, changes, delivery_month, settled
from mdcapture.interop.dbn import instrument_id
from mdcapture.interop.importing import import_tape
from mdcapture.metrics.book import book_snapshots, level_columns
from mdcapture.wire.timestamps import NS_PER_S

if TYPE_CHECKING:
    from numpy.typing import NDArray

HERE = Path(__file__).resolve().parent
TICK = 0.25
EXCHANGE, LOCAL, KIND = 1 << 31, 1 << 30, 0xFF


@pytest.fixture(scope="module")
def lake(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("backtesters")
    import_tape(str(shared / "tapes" / "es_20231225.ndjson.zst"), root)
    return root


@pytest.fixture(scope="module")
def session(lake: Path) -> md.Session:
    return md.open_lake(lake).session()


def interpreter(project: str) -> str:
    variable = f"MDCAPTURE_{project.upper()}_PYTHON"
    if not (found := os.environ.get(variable)):
        pytest.skip(f"{project} needs an environment of its own: `make backtesters`, or {variable}=its python")
    return found


def run(python: str, script: str, *arguments: Path) -> SimpleNamespace:
    """What a script of that interpreter makes of our files."""
    out = arguments[0].parent / "seen.npz"
    subprocess.run([python, str(HERE / script), str(out), *map(str, arguments)], check=True, capture_output=True)
    return SimpleNamespace(**np.load(out))


def book_of(session: md.Session) -> pl.DataFrame:
    """The book at the end of each moment in which it changed."""
    book = book_snapshots(session.depth().collect(), 10, tick_size=TICK, changes_only=True)
    return book.group_by("recv_ns", maintain_order=True).last()


def as_seen(book: pl.DataFrame) -> NDArray[np.float64]:
    """A frame of snapshots as (moment, side, level, price or size)."""
    columns = [book[name].cast(pl.Float64).fill_null(np.nan).to_numpy() for name in level_columns(10)]
    return np.stack(columns, axis=1).reshape(-1, 10, 2, 2).swapaxes(1, 2)


def assert_same_books(times: NDArray[np.int64], books: NDArray[np.float64], expected: pl.DataFrame) -> None:
    place = np.searchsorted(times, expected["recv_ns"].to_numpy(), side="right") - 1
    np.testing.assert_array_equal(times[place], expected["recv_ns"].to_numpy())
    np.testing.assert_array_equal(books[place], as_seen(expected))


def trades_of(session: md.Session) -> NDArray[np.int64]:
    ticks = (pl.col("price") / TICK).cast(pl.Int64)
    return session.trades().select("exch_ns", "recv_ns", ticks, "volume", "side").collect().to_numpy().astype(np.int64)


def to_nautilus(lake: Path, catalog: Path, session: str = "latest") -> subprocess.CompletedProcess[str]:
    """Export a session by the interpreter that has NautilusTrader."""
    python = interpreter("nautilus")
    command = ["-m", "mdcapture", "export", session, "--lake", str(lake), "--format", "nautilus", "-o", str(catalog)]
    environ = environment() | {"PYTHONPATH": str(HERE.parent.parent)}
    return subprocess.run([python, *command], check=False, env=environ, capture_output=True, text=True)


# By their own readers.


def test_hftbacktest_sees_the_same_book_and_trades(session: md.Session, tmp_path: Path):
    python = interpreter("hftbacktest")
    session.export(tmp_path / "hft", form="hftbacktest")
    (file,) = (tmp_path / "hft").iterdir()
    seen = run(python, "read_by_hftbacktest.py", file)
    assert_same_books(seen.times, seen.books, book_of(session).filter(pl.col("kind") != "unknown"))
    expected = trades_of(session)
    expected[:, 4] = np.where(expected[:, 4] == 0, 1, -1)
    np.testing.assert_array_equal(seen.trades, expected)


def test_hftbacktest_reads_one_day_after_the_other(tmp_path: Path):
    python = interpreter("hftbacktest")
    for day, price in enumerate((4800.0, 4700.0)):
        ladder = [{"type": 6, "volume": 0}, {"type": 1, "price": price + TICK}, {"type": 2, "price": price}]
        record(tmp_path / "lake", depth(ES, *ladder), start_ns=1_703_545_200_000_000_000 + day * NS_PER_S)
    md.open_lake(tmp_path / "lake").export(tmp_path / "hft", form="hftbacktest")
    seen = run(python, "read_by_hftbacktest.py", *sorted((tmp_path / "hft").iterdir()))
    assert seen.books[:, :, 0, 0].tolist() == [[4800.0, 4800.25], [4700.0, 4700.25]]
    assert np.isnan(seen.books[:, :, 1]).all()


def test_nautilus_sees_the_same_book_quotes_and_trades(lake: Path, session: md.Session, tmp_path: Path):
    exported = to_nautilus(lake, tmp_path / "catalog")
    assert exported.returncode == 0, exported.stderr
    seen = run(interpreter("nautilus"), "read_by_nautilus.py", tmp_path / "catalog")
    book = book_of(session).filter(pl.col("kind") != "unknown")
    last = np.append(np.diff(seen.times) > 0, True)
    assert_same_books(seen.times[last], seen.books[last], book)
    np.testing.assert_array_equal(seen.trades, trades_of(session))
    top = ["bid_price_0", "ask_price_0", "bid_size_0", "ask_size_0"]
    quotes = pl.DataFrame(seen.quotes, schema=top).with_columns(recv_ns=seen.quote_times)
    quotes = quotes.group_by("recv_ns", maintain_order=True).last()
    shown = book.join(quotes, on="recv_ns", how="semi", maintain_order="left")
    np.testing.assert_array_equal(quotes[top].to_numpy(), shown[top].to_numpy())
    moved = book.filter(pl.any_horizontal(pl.col(name).ne_missing(pl.col(name).shift()) for name in top))
    assert set(moved["recv_ns"]) <= set(quotes["recv_ns"])
    assert seen.instrument.tolist() == ["0.25", "50", "2024-04-01 00:00:00+00:00"]


def test_a_catalog_takes_no_two_sessions_of_one_time(tmp_path: Path):
    for name, count in (("one", 300), ("two", 400)):
        import_tape(str(write_tape(tmp_path / name, records(count))), tmp_path / "lake")
    refused = to_nautilus(tmp_path / "lake", tmp_path / "catalog", "all")
    assert refused.returncode == 2, refused.stderr
    assert "the catalog does not take this session beside the others" in refused.stderr


def test_nautilus_wants_to_know_what_a_tick_is_worth(tmp_path: Path):
    record(tmp_path / "lake", trade("CON.F.US.XYZ.H24"))
    refused = to_nautilus(tmp_path / "lake", tmp_path / "catalog")
    assert refused.returncode == 2, refused.stderr
    assert "what a tick of CON.F.US.XYZ.H24 is and is worth is not known" in refused.stderr


def test_dbn_holds_the_same_book_and_trades(session: md.Session, tmp_path: Path):
    assert session.export(tmp_path / "dbn", form="dbn")["definition"] == 1
    read = {path.name.split(".")[-3]: decode(path) for path in (tmp_path / "dbn").iterdir()}
    assert sorted(str(metadata.schema) for metadata, *_ in read.values()) == sorted(read)
    assert all(metadata.symbols == [ES] for metadata, *_ in read.values())
    expected = book_snapshots(session.depth().collect(), 10, tick_size=TICK, changes_only=True)
    shown = zip(read["mbp-10"][1:], expected.iter_rows(named=True), strict=True)
    for message, book in shown:
        assert (message.ts_recv, message.sequence) == (book["recv_ns"], book["seq"])
        assert str(message.action) == ("R" if book["kind"] == "unknown" else "M")
        for m, level in enumerate(message.levels):
            seen = level.pretty_bid_px, level.bid_sz, level.pretty_ask_px, level.ask_sz
            there = [book[f"{side}_{what}_{m}"] for side in ("bid", "ask") for what in ("price", "size")]
            assert [None if one != one or not one else one for one in seen] == there  # noqa: PLR0124  # a NaN
    trades = [
        (one.ts_event, one.ts_recv, round(one.pretty_price / TICK), one.size, "BA".index(str(one.side)))
        for one in read["trades"][1:]
    ]
    assert trades == [tuple(row) for row in trades_of(session).tolist()]
    (definition,) = read["definition"][1:]
    assert (definition.raw_symbol, definition.instrument_id) == (ES, instrument_id(ES))
    assert (definition.pretty_min_price_increment, definition.pretty_unit_of_measure_qty) == (TICK, 50)
    assert (definition.asset, definition.maturity_year, definition.maturity_month) == ("EP", 2024, 3)


def decode(path: Path) -> list[Any]:
    return dbn.DBNDecoder(compression=dbn.Compression.ZSTD).write_and_decode(path.read_bytes())


# By the rules.

ENTRY = st.tuples(
    st.sampled_from([1, 1, 2, 2, 3, 4, 5, 6, 9, 10, 0]),
    st.sampled_from([99.0, 99.25, 99.5, 99.75, 100.0, 100.1, None]),
    st.sampled_from([0, 1, 2, 3, -1]),
)
MESSAGES = st.lists(st.lists(ENTRY, min_size=1, max_size=4), min_size=1, max_size=25)
DEPTH = pl.Schema(
    {"seq": pl.Int64, "recv_ns": pl.Int64, "pos": pl.Int32, "exch_ns": pl.Int64}
    | {"dom_type": pl.Int8, "price": pl.Float64, "volume": pl.Int64}
)


def depth_frame(messages: list[list[tuple[Any, ...]]]) -> pl.DataFrame:
    rows = [
        (seq, 10 * seq, pos, 10 * seq - pos, *entry)
        for seq, entries in enumerate(messages)
        for pos, entry in enumerate(entries)
    ]
    return pl.DataFrame(rows, DEPTH, orient="row")


@settings(max_examples=60)
@given(MESSAGES, st.sets(st.integers(0, 25)), st.lists(st.integers(0, 250), max_size=2), st.sampled_from([None, TICK]))
def test_a_book_is_the_same_however_it_is_sliced(
    messages: list[list[tuple[Any, ...]]], cuts: set[int], gaps: list[int], tick_size: float | None
):
    rows = depth_frame(messages)
    missing = pl.DataFrame(
        {"from_ns": gaps, "to_ns": [gap + 15 for gap in gaps]}, {"from_ns": pl.Int64, "to_ns": pl.Int64}
    )
    edges = sorted({0, len(messages), *(cut for cut in cuts if cut < len(messages))})
    slices = [rows.filter(pl.col("seq").is_between(one, other - 1)) for one, other in pairwise(edges)]
    whole = book_snapshots(rows, 2, tick_size=tick_size, incidents=missing)
    names = ["kind", *level_columns(2)]
    expected = {row[0]: row[1:] for row in whole.select("seq", *names).iter_rows()}
    told: dict[int, Any] = {}
    for book in settled(slices, 2, tick_size=tick_size, gaps=missing):
        told |= {row[0]: row[1:] for row in book.select("seq", *names).iter_rows()}
    carried: Any = None
    for seq, book in expected.items():
        carried = told.get(seq, carried)
        assert carried == book


@settings(max_examples=60)
@given(MESSAGES)
def test_changes_make_the_book_again(messages: list[list[tuple[Any, ...]]]):
    books = list(
        settled(
            [depth_frame(messages)],
            2,
            tick_size=None,
            gaps=pl.DataFrame(schema={"from_ns": pl.Int64, "to_ns": pl.Int64}),
        )
    )
    sides: dict[bool, dict[float, int]] = {True: {}, False: {}}
    found = pl.concat(changes(books, 2))
    for row in pl.concat(books).iter_rows(named=True):
        for change in found.filter(pl.col("seq") == row["seq"]).iter_rows(named=True):
            side = sides[change["bid"]]
            assert (change["action"] == "add") == (change["price"] not in side)
            side[change["price"]] = change["size"]
            if change["action"] == "delete":
                assert side.pop(change["price"]) == 0
        for bid, name, outwards in ((True, "bid", -1), (False, "ask", 1)):
            shown = {row[f"{name}_price_{m}"]: row[f"{name}_size_{m}"] for m in range(2)}
            shown.pop(None, None)
            assert sorted(sides[bid].items(), key=lambda level: outwards * level[0]) == list(shown.items())


@given(st.lists(st.tuples(st.integers(0, 50), st.one_of(st.none(), st.integers(-100, 100))), max_size=30))
def test_events_are_in_order_for_the_exchange_and_for_us(times: list[tuple[int, int | None]]):
    recv_ns = np.cumsum([step for step, _ in times], dtype=np.int64) + 10**18
    exch_ns = [None if late is None else int(at) - late for at, (_, late) in zip(recv_ns, times, strict=True)]
    rows = [
        (seq, int(at), 0, exch, 100.0 + seq, 1, 0) for seq, (at, exch) in enumerate(zip(recv_ns, exch_ns, strict=True))
    ]
    made = hftbacktest.events([], [pl.DataFrame(rows, PRINT, orient="row")])
    ours, theirs = made[made["ev"] & LOCAL > 0], made[made["ev"] & EXCHANGE > 0]
    assert (np.diff(ours["local_ts"]) >= 0).all()
    assert (np.diff(theirs["exch_ts"]) >= 0).all()
    prices = [100.0 + seq for seq in range(len(times))]
    assert ours["px"][ours["ev"] & KIND == 2].tolist() == prices
    assert sorted(theirs["px"][theirs["ev"] & KIND == 2].tolist()) == prices
    moved = ours["local_ts"][1:] - recv_ns
    assert len(set(moved.tolist())) <= 1
    assert (ours["local_ts"] >= ours["exch_ts"]).all()
    known = [
        (at + shift, exch)
        for at, exch, shift in zip(recv_ns.tolist(), exch_ns, moved.tolist(), strict=True)
        if exch is not None
    ]
    assert set(known) <= set(zip(ours["local_ts"].tolist(), ours["exch_ts"].tolist(), strict=True))


def test_an_exchange_time_that_can_not_be_is_not_believed():
    hour = 3600 * NS_PER_S
    late = [5, 7, hour, -hour, None]
    at = 10**18
    rows = [(seq, at, 0, None if ns is None else at - ns, 100.0, 1, 0) for seq, ns in enumerate(late)]
    made = hftbacktest.events([], [pl.DataFrame(rows, PRINT, orient="row")])
    trades = made[(made["ev"] & KIND == 2) & (made["ev"] & LOCAL > 0)]
    assert (at - trades["exch_ts"]).tolist() == [5, 7, 6, 6, 6]


# As users ask for it.


def test_bars_are_those_of_the_trades(lake: Path, session: md.Session, tmp_path: Path):
    assert session.export(tmp_path / "bars.parquet", bars_ns=60 * NS_PER_S) == {"bars": 60}
    trades = session.trades().collect()  # noqa: F841  # the query reads it
    query = """SELECT make_timestamptz(recv_ns // 60000000000 * 60000000) AS timestamp, contract_id AS symbol,
        first(price) AS open, max(price) AS high, min(price) AS low, last(price) AS close,
        sum(volume)::BIGINT AS volume,
        (sum(volume) FILTER (side = 0))::BIGINT AS buy_volume FROM trades GROUP BY 1, 2 ORDER BY 1"""
    expected = duckdb.sql(query).pl()
    bars = pl.read_parquet(tmp_path / "bars.parquet")
    assert bars.select(expected.columns).equals(expected.cast(dict(bars.select(expected.columns).schema)))
    done = mdcapture("export", "latest", "-o", str(tmp_path / "b.csv"), "--bars", "30m", "--lake", str(lake))
    assert done.returncode == 0
    head, *lines = (tmp_path / "b.csv").read_text().splitlines()
    assert head.startswith('"timestamp","symbol","open","high","low","close","volume"')
    assert lines[0].startswith('"2023-12-25T23:00:00.000000Z","CON.F.US.EP.H24",4800.25,4810.75')
    assert len(lines) == 2


def test_a_part_of_a_session_begins_with_the_book_of_that_time(session: md.Session, tmp_path: Path):
    middle = session.start_ns + 1800 * NS_PER_S  # type: ignore[operator]
    session.export(tmp_path / "part", form="dbn", from_ns=middle, to_ns=middle + 60 * NS_PER_S)
    (file,) = (tmp_path / "part").glob("*.mbp-10.*")
    first, *_, last = decode(file)[1:]
    expected = book_of(session).filter(pl.col("recv_ns").is_between(middle, middle + 60 * NS_PER_S - 1))
    assert [message.ts_recv for message in (first, last)] == [expected["recv_ns"][0], expected["recv_ns"][-1]]
    assert first.levels[9].pretty_bid_px == expected["bid_price_9"][0]


def test_a_running_session_and_one_without_depth(tmp_path: Path):
    with recording(tmp_path / "lake", tick_sizes={ES: TICK}) as running:
        running.receive(trade(volume=2), trade(volume=3, side=1), step_ns=MS)
        lake = md.open_lake(tmp_path / "lake")
        assert lake.export(tmp_path / "dbn", form="dbn") == {"mbp-10": 0, "trades": 2, "definition": 1}
        assert lake.export(tmp_path / "hft", form="hftbacktest") == {"events": 3}
        running.finish()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"form": "dbn", "levels": 5}, "10 levels"),
        ({"form": "dbn", "tables": ["trades"]}, "leave out tables"),
        ({"form": "hftbacktest", "bars_ns": 1}, "leave out tables"),
        ({"form": "hftbacktest", "contract_id": "ES"}, "no contract ES"),
        ({"form": "csv", "bars_ns": 1, "tables": ["trades"]}, "a table of their own"),
    ],
)
def test_what_does_not_go_together_says_so(tmp_path: Path, arguments: dict[str, Any], says: str):
    import_tape(str(write_tape(tmp_path / "tape", records(50))), tmp_path / "lake")
    with pytest.raises(md.UsageError, match=says):
        md.open_lake(tmp_path / "lake").export(tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(importlib.util.find_spec("nautilus_trader") is not None, reason="it is installed here")
def test_what_is_not_installed_says_how_to_get_it(tmp_path: Path):
    record(tmp_path / "lake", trade())
    with pytest.raises(md.UsageError, match=r"pip install 'mdcapture\[nautilus\]'"):
        md.open_lake(tmp_path / "lake").export(tmp_path / "out", form="nautilus")
    assert [path.name for path in tmp_path.iterdir()] == ["lake"]


def test_the_month_of_delivery_is_in_the_id():
    assert str(delivery_month("CON.F.US.EP.H24")) == "2024-03-01"
    assert delivery_month("CON.F.US.EP") is None
    assert delivery_month("") is None
