"""Records that no gateway should send: the benchmark that sends a million of them, run for a few thousand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks/fuzz.py"


@pytest.mark.parametrize("seed", ["1", "2"])
def test_whatever_comes_is_accounted_for(seed: str):
    command = [sys.executable, str(BENCHMARK), "--records", "3000", "--seed", seed]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    account = json.loads(done.stdout)
    assert account["stored"] + account["control_messages"] == account["records"] == 3000
    assert (account["unexplained"], account["problems"]) == (0, [])
    assert min(account["rows"].values()) > 50
    assert account["control_messages"] > 0
    assert {"malformed_json", "not_utf8", "not_invocation", "bad_arguments", "bad_field"} <= account["rejects"].keys()
