"""Is this machine fit to record? Checks that look, and change nothing that stays."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import statistics
import tempfile
import time
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import msgspec

from mdcapture.capture.health import is_recorded, unfinished
from mdcapture.errors import MdcaptureError, NotFoundError, RefusedError
from mdcapture.gateway.endpoints import endpoints
from mdcapture.gateway.probe import probe
from mdcapture.gateway.rest import Credentials, RestClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from mdcapture.config import Config

__all__ = ["Check", "Outcome", "examine_gateway", "examine_machine"]

_MB: Final = 1024 * 1024
_SYNCS: Final = 20
_CLOCK_WARN_S: Final = 0.5
_CLOCK_FAIL_S: Final = 60.0


class Outcome(StrEnum):
    """How a check went."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Check(msgspec.Struct, frozen=True):
    """What was looked at, how it is, and what to do about it."""

    check: str
    outcome: Outcome
    found: str
    next_step: str = ""


def examine_machine(config: Config, root: Path) -> Iterator[Check]:
    """Look at Python, the lake's disk, and what is in the lake."""
    yield Check("python", Outcome.OK, f"{platform.python_implementation()} {platform.python_version()}")
    yield _open_files(config)
    place = next(path for path in (root.absolute(), *root.absolute().parents) if path.exists())
    if not place.is_dir():
        yield Check("lake", Outcome.FAIL, f"{place} is a file", "choose another folder with --lake")
        return
    yield from _writing(config, root, place)
    yield _space(config, place)
    yield from _journals(root)


async def examine_gateway(config: Config, api_key: str | None) -> AsyncIterator[Check]:
    """Look at the gateway, at the clock by it, and whether it lets us in."""
    try:
        api = endpoints(config.gateway, config.hub).api
        answer = await probe(api)
    except MdcaptureError as error:
        yield Check("gateway", Outcome.FAIL, str(error), "check --gateway, the network and the firewall")
        return
    yield Check("gateway", Outcome.OK, f"{api} answers within {answer.took_s * 1000:.0f} ms")
    yield _clock(answer.ahead_s)
    if not config.username or not api_key:
        what = "a user name" if not config.username else "an API key"
        step = "set MDCAPTURE_USERNAME and MDCAPTURE_API_KEY, or name the key's file in MDCAPTURE_API_KEY_FILE"
        yield Check("credentials", Outcome.FAIL, f"{what} is missing", step)
        return
    try:
        async with RestClient(api, Credentials(config.username, api_key)) as rest:
            await rest.token()
    except RefusedError as error:
        yield Check("credentials", Outcome.FAIL, str(error), "check the user name and the key")
    except MdcaptureError as error:
        yield Check("credentials", Outcome.WARN, str(error), "try again later")
    else:
        yield Check("credentials", Outcome.OK, f"{config.username} is let in")


def _open_files(config: Config) -> Check:
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most < config.files_warn:
        return Check("open files", Outcome.WARN, f"{most} are allowed", f"ulimit -n {config.files_warn}")
    return Check("open files", Outcome.OK, f"{most} are allowed")


def _writing(config: Config, root: Path, place: Path) -> Iterator[Check]:
    try:
        sync_ms = statistics.median(_sync_ms(place))
    except OSError as error:
        step = "give this user the right to write there, or choose another folder with --lake"
        yield Check("lake", Outcome.FAIL, f"{place} can't be written ({error.strerror})", step)
        return
    yield Check("lake", Outcome.OK, f"{root} can be written" if root.is_dir() else f"{root} can be made in {place}")
    found = f"a write is on the disk within {sync_ms:.1f} ms"
    if sync_ms > config.sync_ms:
        step = f"a power loss may cost more than sync_ms ({config.sync_ms:g} ms) says: use a faster disk"
        yield Check("disk speed", Outcome.WARN, found, step)
    else:
        yield Check("disk speed", Outcome.OK, found)


def _sync_ms(place: Path) -> Iterator[float]:
    """How long writes take to be on the disk; the file has no name that could stay."""
    with tempfile.TemporaryFile(dir=place) as file:
        for _ in range(_SYNCS):
            file.write(bytes(4096))
            file.flush()
            begin_s = time.perf_counter()
            os.fdatasync(file.fileno())
            yield (time.perf_counter() - begin_s) * 1000


def _space(config: Config, place: Path) -> Check:
    free_mb = shutil.disk_usage(place).free / _MB
    found = f"{free_mb / 1024:.1f} GB are free"
    if free_mb < config.disk_stop_mb:
        step = f"free some space: a capture stops below disk_stop_mb ({config.disk_stop_mb:g} MB)"
        return Check("disk space", Outcome.FAIL, found, step)
    if free_mb < config.disk_warn_mb:
        step = f"free some space: that is less than disk_warn_mb ({config.disk_warn_mb:g} MB)"
        return Check("disk space", Outcome.WARN, found, step)
    return Check("disk space", Outcome.OK, found)


def _journals(root: Path) -> Iterator[Check]:
    """Sessions that have not ended: recorded just now, or left by a process that died."""
    try:
        sessions = unfinished(root)
    except NotFoundError:
        return
    left = [session_id for session_id in sessions if not is_recorded(root, session_id)]
    if left:
        found = f"{', '.join(left)}: left by a process that died"
        yield Check("journals", Outcome.WARN, found, "`mdcapture recover`; the next capture does it by itself")
    else:
        yield Check("journals", Outcome.OK, f"{len(sessions)} sessions are being recorded, none is left over")


def _clock(ahead_s: tuple[float, float] | None) -> Check:
    if ahead_s is None:
        return Check("clock", Outcome.WARN, "the gateway does not say what time it is", "make sure that NTP is on")
    low_s, high_s = ahead_s
    off_s = max(low_s, -high_s, 0.0)
    if off_s < _CLOCK_WARN_S:
        return Check("clock", Outcome.OK, "it agrees with the gateway's, to the second")
    found = f"it is at least {off_s:.1f} s {'ahead of' if low_s > 0 else 'behind'} the gateway's"
    return Check("clock", Outcome.FAIL if off_s > _CLOCK_FAIL_S else Outcome.WARN, found, "turn on NTP (timedatectl)")
