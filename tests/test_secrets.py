"""No secret anywhere: a canary for a key, and tokens, looked for in all that a troubled capture leaves behind."""

from __future__ import annotations

import json
import re
import stat
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from programs import LIMIT_S, mdcapture, simulator, start

from mdcapture.errors import UsageError
from mdcapture.gateway.endpoints import endpoints

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = "canary-5b1f0c77e2"
FAULTS = ("reset@1", "revoke@1.5", "expire@2", "logout@2.2", "close@2.5", "garbage@2.7", "http:503@3+1", "refuse@3.2+1")


def leaks(name: str, content: bytes) -> Iterator[str]:
    """What a text shows that it must not: the key, and whatever looks like a token or the way one is sent."""
    for secret in (KEY.encode(), rb"eyJ[\w-]{8,}", rb"access_token=(?!\[hidden\])", rb"Bearer (?!\[hidden\])\S"):
        yield from (f"{name}: {found[0]!r}" for found in re.finditer(secret, content))


def leaks_of_process(pid: int) -> Iterator[str]:
    """What anybody on the machine can see of a process and its children."""
    for path in (Path(f"/proc/{pid}/cmdline"), *Path("/proc").glob("[0-9]*/cmdline")):
        try:
            content = path.read_bytes()
        except OSError:
            continue  # it has just ended
        if b"mdcapture" in content and b"simulate" not in content:
            yield from leaks(str(path), content)


def test_the_gateway_deals_in_tokens_that_would_be_recognised():
    with simulator("--key", KEY) as gateway:
        body = json.dumps({"userName": "me", "apiKey": KEY}).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{gateway['api']}/api/Auth/loginKey", body, headers)  # noqa: S310  # our own
        with urllib.request.urlopen(request, timeout=LIMIT_S) as answer:  # noqa: S310  # our own
            token = json.loads(answer.read())["token"]
    assert list(leaks("token", token.encode()))


@pytest.mark.parametrize("log", [True, False])
def test_a_troubled_capture_shows_neither_key_nor_token(tmp_path: Path, log: bool):  # noqa: FBT001  # a test's parameter
    faults = [option for fault in FAULTS for option in ("--fault", fault)]
    lake = tmp_path / "lake"
    found: list[str] = []
    with simulator("--rate", "300", "--contract", "MNQ", "--key", KEY, *faults) as gateway:
        settings = ("--set", "reconnect_first_s=0.1", "--set", "logout_first_s=0.1", "--set", "log_level=debug")
        options = ("--gateway", gateway["api"], "--lake", str(lake), "--contract", "MNQ", "--duration", "7s")
        logged = ("--log-file", str(tmp_path / "log")) if log else ()
        process = start("--debug", "capture", *options, *settings, *logged, "--stats", "json", MDCAPTURE_API_KEY=KEY)
        assert process.stderr is not None
        for line in process.stderr:  # a look at each second, while it runs
            found += leaks("stderr", line.encode())
            found += leaks_of_process(process.pid)
            for status in lake.glob("journal/*/status.json"):
                found += leaks("status", status.read_bytes())
        output, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0
    found += leaks("stdout", output.encode())
    for path in tmp_path.rglob("*"):
        if path.is_file():
            found += leaks(path.name, path.read_bytes())
    incidents = mdcapture("sql", "from incidents", "--lake", str(lake), "--json").stdout
    found += leaks("incidents", incidents.encode())
    assert not found
    assert {"disconnected", "reconnecting", "logged_out"} <= {row["kind"] for row in json.loads(incidents)}
    assert mdcapture("verify", "--deep", "--lake", str(lake)).returncode == 0


@pytest.mark.parametrize("command", [("capture", "--contract", "MNQ"), ("contracts", "MNQ"), ("doctor",)])
@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "SIMULATOR"])
def test_what_fails_shows_no_key_either(tmp_path: Path, command: tuple[str, ...], address: str):
    with simulator("--key", "another") as gateway:
        api = gateway["api"] if address == "SIMULATOR" else address
        settings = {"MDCAPTURE_LAKE": str(tmp_path), "MDCAPTURE_RECONNECT_ATTEMPTS": "1"}
        result = mdcapture("--debug", *command, "--gateway", api, MDCAPTURE_API_KEY=KEY, **settings)
    assert result.returncode != 0
    assert not list(leaks("output", (result.stdout + result.stderr).encode()))


@pytest.mark.parametrize(
    ("gateway", "hub"),
    [
        ("http://api.thefirm.com", None),
        ("http://192.168.1.5:5000", None),
        ("http://127.0.0.1.evil.com", None),
        ("http://localhost.evil.com", None),
        ("topstepx", "ws://rtc.topstepx.com/hubs/market"),
        ("topstepx", "http://rtc.topstepx.com/hubs/market"),
    ],
)
def test_a_key_travels_unencrypted_within_this_machine_only(gateway: str, hub: str | None):
    with pytest.raises(UsageError, match="https or wss"):
        endpoints(gateway, hub)


@pytest.mark.parametrize(
    "api", ["http://127.0.0.1:5000", "http://[::1]:5000", "http://localhost:5000", "http://127.9.9.9"]
)
def test_a_gateway_on_this_machine_may_be_plain(api: str):
    assert endpoints(api).api == api


def test_other_users_have_no_business_in_a_lake(tmp_path: Path):
    lake, copy = tmp_path / "lake", tmp_path / "copy"
    with simulator("--rate", "200", "--contract", "MNQ") as gateway:
        options = ("--gateway", gateway["api"], "--lake", str(lake), "--contract", "MNQ")
        assert mdcapture("capture", *options, "--duration", "1s").returncode == 0
    assert mdcapture("backup", str(copy), "--lake", str(lake)).returncode == 0
    paths = [lake, copy, *lake.rglob("*"), *copy.rglob("*")]
    assert len(paths) > 20
    modes = {(path.is_dir(), stat.S_IMODE(path.stat().st_mode)) for path in paths}
    assert modes == {(True, 0o750), (False, 0o640)}
