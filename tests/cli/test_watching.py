"""A recorder that nobody watches: what it tells to those who ask, to systemd, to Prometheus, and to its log."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import socket
import stat
import threading
import time
import urllib.request
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import psutil
import pytest
from lake_builder import recording as recording_by_hand
from lake_builder import trade
from programs import LIMIT_S, mdcapture, simulator, start
from tapes import CONTRACT

import mdcapture as md
from mdcapture.capture.health import problems, read_status
from mdcapture.cli.logs import reopen_log, start_log
from mdcapture.config import load_config
from mdcapture.lake.writer import open_session

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

Found = TypeVar("Found")

NS_PER_S = 10**9
MARKET = ("--rate", "200", "--contract", "MNQ")


@pytest.fixture(scope="module")
def gateway() -> Iterator[str]:
    with simulator(*MARKET) as addresses:
        yield addresses["api"]


@contextmanager
def capturing(api: str, lake: Path, *options: str, **more: str) -> Iterator[subprocess.Popen[str]]:
    process = start("capture", "--gateway", api, "--lake", str(lake), "--contract", "MNQ", *options, **more)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def until(process: subprocess.Popen[str], found: Callable[[], Found]) -> Found:
    """Look until there is something, or the process ends."""
    while process.poll() is None:
        if something := found():
            return something
    _, errors = process.communicate()
    pytest.fail(f"it ended: {errors}")


def published(lake: Path) -> list[Any]:
    """The figures of all recorders that have been connected."""
    found = [read_status(lake, path.name) for path in lake.glob("journal/session_*")]
    return [figures for figures in found if figures is not None and figures.connected and figures.messages]


def health(lake: Path) -> tuple[int, dict[str, Any]]:
    result = mdcapture("health", "--lake", str(lake), "--json")
    return result.returncode, json.loads(result.stdout or "{}")


def test_a_recorder_that_runs_is_healthy_and_then_gone(gateway: str, tmp_path: Path):
    with capturing(gateway, tmp_path) as process:
        until(process, lambda: published(tmp_path))
        code, report = health(tmp_path)
        assert (code, report["ok"]) == (0, True)
        (session,) = report["sessions"]
        assert session["figures"]["pid"] == process.pid
        assert session["figures"]["messages"] > 0
        assert session["session_id"] in mdcapture("health", "--lake", str(tmp_path)).stdout
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=LIMIT_S)
    assert health(tmp_path)[0] == 3


def test_a_recorder_that_was_killed_is_not_healthy(gateway: str, tmp_path: Path):
    with capturing(gateway, tmp_path) as process:
        (figures,) = until(process, lambda: published(tmp_path))
        until(process, lambda: not psutil.Process(process.pid).children())  # its recovery would find what it left
        process.kill()
        process.communicate(timeout=LIMIT_S)
    code, report = health(tmp_path)
    assert (code, report["ok"]) == (1, False)
    assert f"process {figures.pid}) is dead" in report["sessions"][0]["problems"][0]


def test_a_recorder_that_hangs_is_not_healthy(gateway: str, tmp_path: Path):
    with capturing(gateway, tmp_path) as process:
        (figures,) = until(process, lambda: published(tmp_path))
        process.send_signal(signal.SIGSTOP)
        assert problems(figures, figures.at_ns + 9 * NS_PER_S, lives=True) == []
        (problem,) = problems(figures, figures.at_ns + 11 * NS_PER_S, lives=True)
        assert "it hangs" in problem
        status = tmp_path / "journal" / figures.session_id / "status.json"
        status.write_text(json.dumps(json.loads(status.read_text()) | {"at_ns": 0}))
        code, report = health(tmp_path)
        assert (code, report["ok"]) == (1, False)
        assert "it hangs" in report["sessions"][0]["problems"][0]


def test_a_recorder_without_its_gateway_is_not_healthy(tmp_path: Path):
    with simulator(*MARKET) as addresses:
        process = start("capture", "--gateway", addresses["api"], "--lake", str(tmp_path), "--contract", "MNQ")
        until(process, lambda: published(tmp_path))
    try:
        until(process, lambda: not published(tmp_path))
        code, report = health(tmp_path)
        assert code == 1
        assert report["sessions"][0]["problems"] == ["it is not connected to the gateway"]
    finally:
        process.kill()
        process.communicate()


def test_a_session_that_is_only_being_sealed_is_healthy_while_somebody_does_it(tmp_path: Path):
    with open_session(tmp_path, NS_PER_S) as session:
        session.journal.append(NS_PER_S, 1, [trade()])
        session.journal.end()
        assert health(tmp_path)[0] == 0
    code, report = health(tmp_path)
    assert code == 1
    assert "recover" in report["sessions"][0]["problems"][0]


def test_health_of_nothing(tmp_path: Path):
    assert mdcapture("health", "--lake", str(tmp_path / "nowhere")).returncode == 3
    assert mdcapture("health", "--lake", str(tmp_path)).returncode == 3


def examined(*options: str, **more: str) -> tuple[int, dict[str, dict[str, str]]]:
    result = mdcapture("doctor", "--json", *options, **more)
    report = json.loads(result.stdout)
    assert report["ok"] == (result.returncode == 0)
    return result.returncode, {check["check"]: check for check in report["checks"]}


def test_a_machine_that_is_fit(gateway: str, tmp_path: Path):
    options = ("--gateway", gateway, "--lake", str(tmp_path / "lake"))
    code, checks = examined(*options, MDCAPTURE_SYNC_MS="60000")
    assert code == 0, checks
    assert {check["outcome"] for check in checks.values()} == {"ok"}
    assert {"python", "lake", "disk speed", "disk space", "gateway", "clock", "credentials"} < set(checks)
    assert not list(tmp_path.iterdir())
    lines = mdcapture("doctor", *options, MDCAPTURE_SYNC_MS="60000").stdout.splitlines()
    assert all(line.startswith("ok ") for line in lines)


@pytest.mark.parametrize(
    ("options", "variables", "check", "outcome", "words"),
    [
        ((), {"MDCAPTURE_API_KEY": "wrong"}, "credentials", "fail", "key"),
        ((), {"MDCAPTURE_API_KEY": ""}, "credentials", "fail", "MDCAPTURE_API_KEY"),
        (("--gateway", "http://127.0.0.1:9"), {}, "gateway", "fail", "127.0.0.1:9"),
        (("--gateway", "http://example.com"), {}, "gateway", "fail", "https"),
        ((), {"MDCAPTURE_DISK_STOP_MB": "1e12"}, "disk space", "fail", "disk_stop_mb"),
        ((), {"MDCAPTURE_DISK_WARN_MB": "1e12"}, "disk space", "warn", "disk_warn_mb"),
        ((), {"MDCAPTURE_SYNC_MS": "0.0000001"}, "disk speed", "warn", "sync_ms"),
        ((), {"MDCAPTURE_FILES_WARN": "1000000000"}, "open files", "warn", "ulimit"),
        (("--lake", "/dev/null/lake"), {}, "lake", "fail", "/dev/null"),
    ],
)
def test_what_is_unfit_is_named_with_the_next_step(  # noqa: PLR0917  # a table's columns
    gateway: str,
    tmp_path: Path,
    options: tuple[str, ...],
    variables: dict[str, str],
    check: str,
    outcome: str,
    words: str,
):
    code, checks = examined("--gateway", gateway, "--lake", str(tmp_path), *options, **variables)
    assert checks[check]["outcome"] == outcome
    assert words in checks[check]["found"] + checks[check]["next_step"]
    assert checks[check]["next_step"]
    assert (code != 0) == (outcome == "fail")


def test_journals_that_a_crash_left_are_noticed(gateway: str, tmp_path: Path):
    with recording_by_hand(tmp_path) as session:
        session.receive(trade())
        _, checks = examined("--gateway", gateway, "--lake", str(tmp_path))
        assert checks["journals"]["outcome"] == "ok"
    _, checks = examined("--gateway", gateway, "--lake", str(tmp_path))
    assert checks["journals"]["outcome"] == "warn"
    assert session.session_id in checks["journals"]["found"]
    assert "recover" in checks["journals"]["next_step"]


def test_a_clock_that_is_wrong_is_noticed(tmp_path: Path):
    class HourAgo(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response_only(404)
            self.send_header("Date", self.date_time_string(self.server.started_s - 3600))  # type: ignore[attr-defined]
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    with HTTPServer(("127.0.0.1", 0), HourAgo) as server:
        server.started_s = int(time.time())  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        _, checks = examined("--gateway", f"http://127.0.0.1:{server.server_port}", "--lake", str(tmp_path))
        server.shutdown()
        thread.join()
    assert checks["clock"]["outcome"] == "fail"
    ahead_s = float(re.search(r"([\d.]+) s ahead", checks["clock"]["found"])[1])
    assert 3598 < ahead_s < 3700


def test_prometheus_is_served_on_this_machine_only(gateway: str, tmp_path: Path):
    log = tmp_path / "log"
    options = ("--metrics-port", "0", "--log-file", str(log), "--set", "log_level=info")
    with capturing(gateway, tmp_path / "lake", *options) as process:
        url = until(process, lambda: log.exists() and re.search(r"http://127\.0\.0\.1:\d+/metrics", log.read_text()))[0]
        until(process, lambda: published(tmp_path / "lake"))
        with urllib.request.urlopen(url, timeout=LIMIT_S) as answer:  # noqa: S310  # of our own making
            assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            text = answer.read().decode()
    assert text.endswith("\n")
    sample = re.compile(r'(mdcapture_[a-z_]+)(\{[a-z]+="[^"]*"\})? (-?[\d.e+-]+)')
    values: dict[str, float] = {}
    declared: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("# TYPE"):
            _, _, name, kind = line.split()
            assert name not in declared
            declared[name] = kind
        elif not line.startswith("# HELP"):
            name, labels, value = sample.fullmatch(line).groups()
            assert declared[name] == ("counter" if name.endswith("_total") else "gauge")
            values[name + (labels or "")] = float(value)
    assert values["mdcapture_messages_total"] > 0
    assert values["mdcapture_connected"] == 1
    assert values["mdcapture_memory_bytes"] > 10e6
    assert any(name.startswith('mdcapture_rows_total{stream="') for name in values)


def test_a_port_that_is_taken_is_an_error_that_says_so(gateway: str, tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        options = ("--gateway", gateway, "--lake", str(tmp_path), "--contract", "MNQ", "--metrics-port", port)
        result = mdcapture("capture", *options)
    assert result.returncode == 2
    assert "metrics_port" in result.stderr
    assert port in result.stderr


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told(gateway: str, tmp_path: Path, abstract: bool):  # noqa: FBT001  # a parameter of the test
    address = f"@mdcapture-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(LIMIT_S)
        manager.bind("\0" + address[1:] if abstract else address)
        with capturing(gateway, tmp_path / "lake", "--duration", "3s", NOTIFY_SOCKET=address):
            told = [manager.recv(4096).decode().split("\n")]
            while told[-1] != ["STOPPING=1"]:
                told.append(manager.recv(4096).decode().split("\n"))
    assert told[0] == ["READY=1"]
    assert len(told) > 3
    for watchdog, status in told[1:-1]:
        assert watchdog == "WATCHDOG=1"
        assert re.fullmatch(r"STATUS=session_\S+: .*messages.*", status)


def test_the_log_can_be_moved_away_and_is_json_where_that_is_asked_for(gateway: str, tmp_path: Path):
    log, moved = tmp_path / "log", tmp_path / "moved"
    options = ("--log-file", str(log), "--log-format", "json", "--set", "log_level=info", "--stats", "none")
    with capturing(gateway, tmp_path / "lake", *options) as process:
        until(process, lambda: log.exists() and log.read_text().count("subscribed") == 3)
        log.rename(moved)
        process.send_signal(signal.SIGHUP)
        until(process, log.exists)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, errors
    before, after = ([json.loads(line) for line in path.read_text().splitlines()] for path in (moved, log))
    assert all(set(line) == {"at", "level", "logger", "message"} for line in before + after)
    assert "capturing" in before[0]["message"]
    assert "sealed" in after[-1]["message"]
    assert stat.S_IMODE(log.stat().st_mode) == 0o640


@pytest.fixture
def root_logger() -> Iterator[None]:
    """The log as it was before, afterwards."""
    root, own = logging.getLogger(), logging.getLogger("mdcapture")
    handlers, level, own_level = root.handlers[:], root.level, own.level
    root.handlers = []
    yield
    for handler in root.handlers:
        handler.close()
    root.handlers, root.level = handlers, level
    own.setLevel(own_level)


@pytest.mark.usefixtures("root_logger")
def test_the_log_is_rotated_by_size(tmp_path: Path):
    log = tmp_path / "log"
    start_log(md.Config(log_file=str(log), log_mb=1, log_files=2), [])
    for number in range(50):
        logging.getLogger("mdcapture.test").warning("%d %s", number, "x" * 100_000)
    reopen_log()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "log.1", "log.2"]
    assert all(path.stat().st_size <= 1024 * 1024 for path in tmp_path.iterdir())
    assert "49 x" in log.read_text()


@pytest.mark.usefixtures("root_logger")
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_the_log_hides_what_is_secret_also_in_tracebacks(tmp_path: Path, log_format: str):
    token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJtZSJ9.c2lnbmF0dXJl"  # noqa: S105  # nobody's
    config = md.Config(log_file=str(tmp_path / "log"), log_format=log_format)
    start_log(config, ["canary-key"])
    try:
        int(f"wss://host/hubs/market?access_token=opaque-token-1&x=1 canary-key {token}")
    except ValueError:
        logging.getLogger("mdcapture.test").exception("Authorization: Bearer opaque-token-2")
    text = (tmp_path / "log").read_text()
    assert "ValueError" in text
    assert "x=1" in text
    for secret in ("canary-key", "opaque-token", token, "c2lnbmF0dXJl"):
        assert secret not in text


def test_a_log_that_cannot_be_written_is_an_error_that_says_so(gateway: str, tmp_path: Path):
    options = ("--gateway", gateway, "--lake", str(tmp_path), "--contract", CONTRACT)
    result = mdcapture("capture", *options, "--log-file", "/dev/null/log")
    assert result.returncode == 6
    assert "/dev/null/log" in result.stderr


def test_the_unit_of_systemd_says_only_what_is_a_setting():
    unit = (Path(__file__).resolve().parents[2] / "docs/mdcapture.service").read_text()
    environ = dict(re.findall(r"^Environment=(\w+)=(.*)$", unit, re.MULTILINE))
    config = load_config(environ=environ, file=Path(os.devnull)).config
    assert config.contracts == ["MNQ", "MES"]
    assert config.log_format == "json"
    assert "MDCAPTURE_API_KEY" not in environ
    for directive in (
        "Type=notify",
        "WatchdogSec=",
        "Restart=on-failure",
        "StateDirectory=",
        "LoadCredential=api-key:",
    ):
        assert f"\n{directive}" in unit
