"""Object storage from the command line: beside a capture, for reading, and what is said when it does not work."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest
from lake_builder import record, trade
from object_storage import KEY_ID, SECRET, S3Server, Way, aws, s3_server
from programs import LIMIT_S, mdcapture, simulator, start

import mdcapture as md
from mdcapture.lake.schema import TABLES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as running:
        running.make_bucket("lakes")
        yield running


@pytest.fixture
def way(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Way:
    """The way to the server for this test and what it starts; it is not open yet."""
    to_server = Way(server.endpoint)
    for name, value in aws(to_server.endpoint).items():
        monkeypatch.setenv(name, value)
    return to_server


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"s3://lakes/{tmp_path.name}"


def equal(one: str | Path, other: str | Path) -> bool:
    lakes = [md.open_lake(place) for place in (one, other)]
    return all(lakes[0].sql(f"from {table}").pl().equals(lakes[1].sql(f"from {table}").pl()) for table in TABLES)


def uploaded(url: str) -> int:
    """How many messages of a session that is still open have arrived."""
    try:
        return sum(one.counts["messages"] for one in md.open_lake(url).sessions() if one.status == "open")
    except md.NotFoundError:
        return 0


def test_a_capture_keeps_its_copy_up_to_date_and_never_waits_for_it(tmp_path: Path, way: Way, url: str):
    lake, log = tmp_path / "lake", tmp_path / "log"
    record(lake, trade(), trade())  # from before: it is brought, too
    with simulator("--rate", "300", "--contract", "MNQ") as gateway:
        options = ("--gateway", gateway["api"], "--contract", "MNQ", "--lake", str(lake), "--upload", url)
        often = ("--set", "segment_s=0.5", "--set", "upload_s=0.3", "--stats", "none", "--json")
        process = start("capture", *options, *often, "--log-file", str(log))
        while not log.exists() or "it is tried again" not in log.read_text():
            assert process.poll() is None  # nobody answers there, and the capture goes on
            time.sleep(0.05)
        with way:
            while not (early := uploaded(url)):
                assert process.poll() is None
                time.sleep(0.05)
            process.terminate()
            output, errors = process.communicate(timeout=LIMIT_S)
            assert process.returncode == 0, errors
            assert [one.status for one in md.open_lake(url).sessions()] == ["sealed", "sealed"]
            assert equal(lake, url)
    assert json.loads(output)["messages"] > early
    assert SECRET not in log.read_text() + output + errors
    assert not [path for path in lake.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


def test_a_lake_comes_back_from_its_copy(tmp_path: Path, way: Way, url: str):
    record(tmp_path / "lake", trade())
    with way:
        up = mdcapture("backup", url, "--lake", str(tmp_path / "lake"), "--json")
        assert json.loads(up.stdout)["files"] == 2
        assert mdcapture("backup", str(tmp_path / "home"), "--lake", url).returncode == 0
        assert mdcapture("verify", "--lake", url).returncode == 0
    assert equal(tmp_path / "home", tmp_path / "lake")


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (("sessions", "--lake", "s3://nobucket/lake"), 3, "nothing there"),
        (("backup", "s3://nobucket/lake", "--lake", "LAKE"), 6, "create the bucket"),
        (("sessions", "--lake", f"s3://me:{SECRET}@lakes/x"), 2, "holds a secret"),
        (("backup", f"s3://me:{SECRET}@lakes/x", "--lake", "LAKE"), 2, "holds a secret"),
        (("capture", "--contract", "MNQ", "--upload", f"s3://me:{SECRET}@lakes/x"), 2, "holds a secret"),
        (("capture", "--contract", "MNQ", "--lake", "s3://lakes/x"), 2, "`upload` says where"),
        (("recover", "--lake", "s3://lakes/x"), 2, "a lake in a folder"),
        (("prune", "--keep", "1", "--lake", "s3://lakes/x"), 2, "a lake in a folder"),
    ],
)
def test_what_does_not_work_is_said_without_a_secret(
    tmp_path: Path, way: Way, command: tuple[str, ...], code: int, said: str
):
    record(tmp_path / "lake", trade())
    arguments = [str(tmp_path / "lake") if one == "LAKE" else one for one in command]
    with way:
        result = mdcapture(*arguments)
    assert said in result.stderr
    assert result.returncode == code
    assert SECRET not in result.stdout + result.stderr


@pytest.mark.parametrize(
    "command", [("sessions", "--lake", "s3://lakes/x"), ("backup", "s3://lakes/x", "--lake", "LAKE")]
)
def test_wrong_credentials_are_said_and_not_shown(tmp_path: Path, server: S3Server, command: tuple[str, ...]):
    record(tmp_path / "lake", trade())
    arguments = [str(tmp_path / "lake") if one == "LAKE" else one for one in command]
    server.check_credentials(on=True)
    try:
        result = mdcapture("--debug", *arguments, **aws(server.endpoint))
    finally:
        server.check_credentials(on=False)
    assert result.returncode != 0
    assert "check the credentials in the environment" in result.stderr
    assert not [one for one in (SECRET, KEY_ID) if one in result.stdout + result.stderr]
