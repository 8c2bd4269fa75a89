"""A capture whose gateway is not there when it starts."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

from programs import LIMIT_S, free_port, mdcapture, simulator, start

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path


def begun_in_vain(api: str, lake: Path, *options: str) -> subprocess.Popen[str]:
    """A capture that has told of its first try."""
    settings = ("--set", "reconnect_first_s=0.1", "--set", "reconnect_max_s=0.2", "--json")
    process = start("capture", "--gateway", api, "--lake", str(lake), "--contract", "MNQ", *settings, *options)
    assert process.stderr is not None
    assert "nothing is captured yet, the next try is in" in process.stderr.readline()
    return process


def test_it_begins_when_the_gateway_comes(tmp_path: Path):
    port = free_port()
    process = begun_in_vain(f"http://127.0.0.1:{port}", tmp_path, "--count", "50", "--duration", "100s")
    assert not list(tmp_path.iterdir())
    with simulator("--port", str(port), "--contract", "MNQ", "--rate", "200"):
        output, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, errors
    assert json.loads(output)["messages"] >= 50


def test_it_can_be_ended_before(tmp_path: Path):
    process = begun_in_vain(f"http://127.0.0.1:{free_port()}", tmp_path)
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 4
    assert "nothing was captured" in errors
    assert not output
    assert not list(tmp_path.iterdir())


def test_it_does_not_wait_for_longer_than_it_was_to_last(tmp_path: Path):
    process = begun_in_vain(f"http://127.0.0.1:{free_port()}", tmp_path, "--duration", "2s")
    _, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 4, errors


def test_a_key_that_is_wrong_is_not_tried_again(tmp_path: Path):
    with simulator("--key", "another", "--contract", "MNQ") as gateway:
        result = mdcapture("capture", "--gateway", gateway["api"], "--lake", str(tmp_path), "--contract", "MNQ")
    assert result.returncode == 5
    assert "next try" not in result.stderr
