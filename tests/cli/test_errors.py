"""What goes wrong is one clear message with the next step, and the right exit code; no traceback, no secret."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from programs import mdcapture, simulator
from tapes import CONTRACT, records, write_tape

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "canary-7f3a91"  # noqa: S105  # nobody's key


def failed(result: object, code: int, *words: str) -> None:
    errors = result.stderr  # type: ignore[attr-defined]
    assert result.returncode == code, errors  # type: ignore[attr-defined]
    assert "Traceback" not in errors
    assert SECRET not in errors + result.stdout  # type: ignore[attr-defined]
    for word in words:
        assert word in errors, errors


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory):
    tape = write_tape(tmp_path_factory.mktemp("tape") / "market.ndjson", records(100))
    with simulator("--tape", str(tape)) as addresses:
        yield addresses["api"]


def test_a_wrong_key(gateway: str, tmp_path: Path):
    options = ("--gateway", gateway, "--contract", CONTRACT, "--lake", str(tmp_path / "lake"))
    result = mdcapture("capture", *options, MDCAPTURE_API_KEY=SECRET)
    failed(result, 5, "API key")
    assert not (tmp_path / "lake").exists()


def test_no_key(gateway: str):
    result = mdcapture("capture", "--gateway", gateway, "--contract", CONTRACT, MDCAPTURE_API_KEY="")
    failed(result, 2, "MDCAPTURE_API_KEY")


def test_an_unknown_contract(gateway: str, tmp_path: Path):
    result = mdcapture("capture", "--gateway", gateway, "--contract", "NOPE", "--lake", str(tmp_path))
    failed(result, 3, "NOPE")


def test_no_contract(gateway: str):
    failed(mdcapture("capture", "--gateway", gateway), 2, "--contract")


def test_an_unreachable_gateway(tmp_path: Path):
    options = ("--gateway", "http://127.0.0.1:9", "--contract", CONTRACT, "--lake", str(tmp_path))
    patience = ("--set", "reconnect_attempts=1", "--set", "reconnect_first_s=0.1")
    result = mdcapture("capture", *options, *patience, MDCAPTURE_API_KEY=SECRET)
    failed(result, 4, "127.0.0.1:9", "the next try is in", "given up after 2 tries")
    assert not (tmp_path / "sessions").exists()


def test_a_lake_that_cannot_be_written(gateway: str, tmp_path: Path):
    (tmp_path / "file").write_text("")
    options = ("--gateway", gateway, "--contract", CONTRACT, "--lake", str(tmp_path / "file" / "lake"))
    failed(mdcapture("capture", *options), 6, str(tmp_path / "file"))


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("capture", "--nonsense"), "--nonsense"),
        (("capture", "--duration", "soon"), "soon"),
        (("capture", "--contract", "MNQ", "--set", "flush_ms"), "NAME=VALUE"),
        (("capture", "--contract", "MNQ", "--set", "flushms=3"), "flush_ms"),
        (("capture", "--contract", "MNQ", "--set", "flush_ms=99999"), "--set: flush_ms = '99999'"),
        (("capture", "--contract", "MNQ", "--duration", "0"), "--duration: duration_s"),
        (("capture", "--contract", "MNQ", "--gateway", "topstpx"), "did you mean topstepx"),
        (("capture", "--contract", "MNQ", "--stats", "loud"), "plain"),
        (("nonsense",), "nonsense"),
        (("simulate", "--speed", "fast"), "fast"),
        (("simulate", "--fault", "flood"), "flood"),
    ],
)
def test_a_bad_option(arguments: tuple[str, ...], word: str):
    failed(mdcapture(*arguments), 2, word)


def test_a_setting_from_the_environment_that_does_not_exist():
    failed(mdcapture("config", "show", MDCAPTURE_CONTRACT="MNQ"), 2, "MDCAPTURE_CONTRACT", "contracts")


@pytest.mark.parametrize(("arguments"), [("import", "nowhere.ndjson"), ("sessions", "--lake", "nowhere")])
def test_what_is_not_there(arguments: tuple[str, ...]):
    failed(mdcapture(*arguments), 3, "nowhere")


def test_a_tape_that_is_none(tmp_path: Path):
    (tmp_path / "tape").write_text("1 {}\nnonsense\n")
    failed(mdcapture("import", str(tmp_path / "tape"), "--lake", str(tmp_path / "lake")), 2, "line 2")
