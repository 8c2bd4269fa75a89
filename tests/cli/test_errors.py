"""What goes wrong is one clear message with the next step, and the right exit code; no traceback, no secret."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from programs import called, environment, mdcapture, simulator
from tapes import CONTRACT, records, write_tape

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "canary-7f3a91"  # noqa: S105  # nobody's key
ON_A_TERMINAL = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"


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
    failed(result, 2, "no API key", "MDCAPTURE_API_KEY_FILE")
    assert "user name" not in result.stderr


def test_no_user_name(gateway: str):
    result = mdcapture("capture", "--gateway", gateway, "--contract", CONTRACT, MDCAPTURE_USERNAME="")
    failed(result, 2, "no user name", "--username")
    assert "key" not in result.stderr


@pytest.mark.parametrize(("mode", "warned"), [(0o644, 1), (0o600, 0)])
@pytest.mark.parametrize("command", ["capture", "doctor"])
def test_a_key_file_that_others_can_read_is_warned_of_once(
    gateway: str, tmp_path: Path, command: str, mode: int, warned: int
):
    key = tmp_path / "key"
    key.write_text("demo")
    key.chmod(mode)
    options = ("--contract", CONTRACT, "--duration", "0.2s", "--stats", "none") if command == "capture" else ()
    files = {"MDCAPTURE_API_KEY": "", "MDCAPTURE_API_KEY_FILE": str(key)}
    result = mdcapture(command, "--gateway", gateway, "--lake", str(tmp_path / "lake"), *options, **files)
    assert result.stderr.count(f"others on this machine can read the API key in {key}") == warned
    assert command == "doctor" or result.returncode == 0


def test_ctrl_c_at_the_prompt_for_the_key_is_an_interruption():
    clean = {name: value for name, value in environment().items() if name != "MDCAPTURE_API_KEY"}
    words = [sys.executable, "-c", ON_A_TERMINAL, sys.executable, "-m", "mdcapture", "capture", "--contract", CONTRACT]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env=clean) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        said = b""
        while b"API key:" not in said:
            said += process.stdout.read(1024)
        process.stdin.write(b"\x03")
        said += b"".join(iter(lambda: process.stdout.read(1024), b""))  # type: ignore[union-attr]
    assert b"interrupted" in said
    assert process.returncode == 130


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
    failed(called(*arguments), 2, word)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("capture", "--duration", "soon"), "'--duration': 'soon' is no duration"),
        (("config", "show", "--format", "xml"), "'--format': 'xml' is not one of 'table', 'json', 'jsonl', 'csv'"),
        (("capture", "--log-format", "xml"), "--log-format: log_format = 'xml': expected `text` or `json`"),
        (("capture", "--set", "segment_s=soon"), "--set: segment_s: 'soon' is no duration"),
    ],
)
def test_a_refused_value_is_named_with_its_option_and_what_would_do(arguments: tuple[str, ...], says: str):
    result = called(*arguments)
    failed(result, 2, says)
    assert "Value error" not in result.stderr


def test_a_setting_from_the_environment_that_does_not_exist():
    failed(called("config", "show", MDCAPTURE_CONTRACT="MNQ"), 2, "MDCAPTURE_CONTRACT", "contracts")


@pytest.mark.parametrize(("arguments"), [("import", "nowhere.ndjson"), ("sessions", "--lake", "nowhere")])
def test_what_is_not_there(arguments: tuple[str, ...]):
    failed(called(*arguments), 3, "nowhere")


def test_a_tape_that_is_none(tmp_path: Path):
    (tmp_path / "tape").write_text("1 {}\nnonsense\n")
    failed(called("import", str(tmp_path / "tape"), "--lake", str(tmp_path / "lake")), 2, "line 2")
