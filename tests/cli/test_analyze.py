"""`analyze`, `plot` and `report` at the command line."""

from __future__ import annotations

import csv
import io
import json
import re
from typing import TYPE_CHECKING

import markets
import pytest
from programs import called

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lake")
    markets.market(folder)
    return folder


def done(*arguments: str) -> str:
    result = called(*arguments)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return result.stdout


def test_json_is_one_object_and_csv_the_same_figures(lake: Path):
    told = json.loads(done("analyze", "latest", "--lake", str(lake), "--contract", "ESH6", "--json"))
    rows = list(
        csv.DictReader(io.StringIO(done("analyze", "--lake", str(lake), "--contract", "ESH6", "--format", "csv")))
    )
    assert [one["name"] for one in told["contracts"]] == ["ESH6"]
    assert [row["metric"] for row in rows] == [figure["metric"] for figure in told["figures"]]
    values = [float(row["value"]) if row["value"] else None for row in rows]
    assert values == [figure["value"] for figure in told["figures"]]


def test_a_table_is_for_people(lake: Path):
    text = done("analyze", "--lake", str(lake), "--from", "2026-03-04T14:40", "--to", "2026-03-04T14:50")
    assert "2026-03-04 14:40:00 to 2026-03-04 14:50:00 UTC" in text
    assert "quoted_spread_bps" in text
    assert "ESH6/MNQH6" in text


def test_intervals_and_single_metrics(lake: Path):
    rows = done(*f"analyze --lake {lake} --every 10m --metric volume --contract MNQH6 --format jsonl".split())
    assert [json.loads(row)["metric"] for row in rows.splitlines()] == ["volume"] * 3


@pytest.mark.long
def test_sessions_are_compared(lake: Path):
    result = called(*f"compare latest latest --lake {lake} --every 4m --metric volume --json".split())
    rows = json.loads(result.stdout)
    assert result.stderr == "8 intervals that a session's start or end cuts off: left out\n"
    assert [row["contract"] for row in rows] == ["EP", "MNQ"]
    assert all(row["difference"] == 0 and row["low"] < 0 < row["high"] for row in rows)


def test_days_and_times_are_compared_and_drawn(lake: Path, tmp_path: Path):
    chart = tmp_path / "volume.svg"
    asked = (
        f"compare latest --lake {lake} --every 1m --split 2026-03-04T14:42 --metric volume --contract MNQ -o {chart}"
    )
    rows = json.loads(done(*asked.split(), "--json"))
    assert [(row["a"], row["b"], row["n_a"], row["n_b"]) for row in rows] == [("before", "after", 12, 12)]
    assert "before" in chart.read_text()


def test_a_total_of_what_is_cut_off_is_not_compared_and_that_is_said(lake: Path):
    asked = f"compare latest --lake {lake} --every 8m --split 2026-03-04T14:42 --metric volume --contract MNQ --json"
    result = called(*asked.split())
    assert result.returncode == 0
    assert [(row["difference"], row["left_out_a"]) for row in json.loads(result.stdout)] == [(None, 1)]
    assert "1 interval that a session's start or end cuts off: left out" in result.stderr
    assert "not compared: volume: a part has only intervals that are cut off" in result.stderr


@pytest.mark.parametrize("asked", ["history volume vwap", "analyze --every 8m --metric volume --metric vwap"])
def test_a_table_of_figures_is_for_people(lake: Path, asked: str):
    text = done(*asked.split(), "--lake", str(lake))
    assert "2026-03-04 14:30:00" in text
    assert not re.search(r"\d{15}|\.\d{5}", text)


def test_history_says_which_sessions_have_no_value(lake: Path):
    result = called("history", "volume", "hasbrouck_lambda", "--contract", "MNQ", "--lake", str(lake))
    assert result.returncode == 0
    assert "hasbrouck_lambda" not in result.stdout
    assert re.fullmatch(r"session_\w+, MNQH6: no hasbrouck_lambda: only \d+ bars, 12 are needed\n", result.stderr)


def test_one_metric_over_all_sessions(lake: Path, tmp_path: Path):
    chart = tmp_path / "volume.png"
    rows = json.loads(done("history", "volume", "--lake", str(lake), "--json", "-o", str(chart)))
    assert [(row["contract"], row["day"], row["weekday"]) for row in rows] == [
        ("EP", "2026-03-04", "Wednesday"),
        ("MNQ", "2026-03-04", "Wednesday"),
    ]
    told = json.loads(done("analyze", "--lake", str(lake), "--metric", "volume", "--json"))
    assert [row["value"] for row in rows] == [row["value"] for row in told["figures"]]
    assert chart.stat().st_size > 10_000


def test_a_lake_has_a_report_of_its_own(lake: Path, tmp_path: Path):
    path = tmp_path / "lake.html"
    assert done("report", "--all", "--lake", str(lake), "-o", str(path)).strip() == str(path)
    assert "Captured share of market hours" in path.read_text()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.long
@pytest.mark.parametrize("name", ["book.svg", "book.png", "book.html"])
def test_a_chart_is_written(lake: Path, tmp_path: Path, name: str):
    path = tmp_path / name
    assert done("plot", "book", "--lake", str(lake), "-o", str(path)).strip() == str(path)
    assert path.stat().st_size > 10_000


def test_a_report_names_the_command_that_made_it(lake: Path, tmp_path: Path):
    path = tmp_path / "report.html"
    done("report", "latest", "--lake", str(lake), "--contract", "ESH6", "-o", str(path))
    page = path.read_text()
    assert f"mdcapture report latest --lake {lake} --contract ESH6 -o {path}" in page


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (("analyze", "--from", "soon"), 2, "soon"),
        (("analyze", "--from", "2031-01-01"), 2, "2031"),
        (("analyze", "--contract", "GC"), 3, "ESH6"),
        (("analyze", "--metric", "vwapp"), 2, "vwap"),
        (("analyze", "--every", "often"), 2, "often"),
        (("analyze", "--json", "--format", "csv"), 2, "csv"),
        (("analyze", "session_1999"), 3, "session_1999"),
        (("plot", "pie"), 2, "pie"),
        (("plot", "price", "-o", "chart.gif"), 2, "gif"),
        (("plot", "price", "--zone", "Mars"), 2, "Mars"),
        (("plot", "book", "--contract", "ES", "--contract", "MNQ"), 2, "epps and leads compare"),
        (("plot", "price", "-o", "/nowhere/chart.svg"), 6, "/nowhere"),
        (("report", "-o", "/nowhere/report.html"), 6, "/nowhere"),
        (("report", "--all", "--contract", "ES"), 2, "--all"),
        (("report", "session_1999", "--all"), 2, "--all"),
        (("compare",), 2, "--all"),
        (("compare", "latest", "latest", "-o", "chart.png"), 2, "one metric"),
        (("compare", "latest"), 2, "two parts"),
        (("compare", "latest", "--split", "soon"), 2, "soon"),
        (("history", "vwapp"), 2, "vwap"),
    ],
)
def test_what_is_wrong_is_said(lake: Path, arguments: tuple[str, ...], code: int, word: str):
    result = called(*arguments, "--lake", str(lake))
    assert result.returncode == code, result.stderr
    assert word in result.stderr
    assert "Traceback" not in result.stderr
