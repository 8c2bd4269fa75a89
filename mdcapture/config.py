"""The one validated configuration: defaults, `mdcapture.toml`, `MDCAPTURE_*`, and what the caller says, rising.

    Config(contracts=["MNQ"])         these values, and defaults: it reads nothing
    load_config(contracts=["MNQ"])    likewise above what the file and the environment say, with where each is from

The API key is no setting: it comes from the environment (`MDCAPTURE_API_KEY`), from a file (`MDCAPTURE_API_KEY_FILE`)
or from a prompt, and is never kept here, where a manifest or an error could show it.
"""

from __future__ import annotations

import difflib
import logging
import os
import re
import stat
import tomllib
from functools import cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NamedTuple, get_args, get_origin, get_type_hints
from urllib.parse import unquote

import msgspec

from mdcapture.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["CONFIG_FILE", "ENV_PREFIX", "Config", "Loaded", "check_address", "load_config", "parse_duration"]
__all__ += ["read_api_key"]

_log = logging.getLogger(__name__)

CONFIG_FILE: Final = "mdcapture.toml"
ENV_PREFIX: Final = "MDCAPTURE_"
_NO_SETTINGS: Final = {"API_KEY", "API_KEY_FILE", "CONFIG", "REFERENCE", "DEBUG"}
_EMPTY: Final = {"contracts", "roll_time"}
"""Settings that an empty variable leaves empty; of others it says none."""

Positive = Annotated[float, msgspec.Meta(gt=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every setting, with its default; what is not said is its default, whatever the environment says.

    Texts are taken as a file's: `duration_s="5m"`, `contracts="MNQ, ES"`.

    Raises:
        ConfigError: A value is out of its range, or of another kind.

    Attributes:
        lake: The folder of the lake.
        gateway: A preset's name (`topstepx`, `demo`, another firm's) or the URL of an API.
        hub: The URL of the market hub, where it can't be derived from the API's.
        username: The gateway's user name.
        contracts: Contract ids (`CON.F.US.MNQ.Z26`), names (`MNQZ6`) or roots (`MNQ`).
        quotes: Capture quotes.
        trades: Capture trades.
        depth: Capture market depth.
        duration_s: Stop after this time; None to go on.
        count: Stop after this many messages; None to go on.
        flush_ms: The longest time that a message waits in memory before it is written to the journal.
        flush_kb: The journal is written at once when this much waits.
        sync_ms: How often the journal is forced onto the disk.
        segment_s: A journal's segment is closed and sealed after this time.
        segment_mb: A journal's segment is closed and sealed at this size.
        roll_time: The trading day's end, when a long run begins a new session; empty for never.
        roll_zone: The time zone of `roll_time`.
        reconnect_attempts: Attempts to connect in a row before giving up, at the start, too; None for no limit.
        reconnect_first_s: The first pause before reconnecting; each further one grows.
        reconnect_max_s: The longest pause.
        logout_first_s: The first pause after the gateway has logged this user out.
        logout_max_s: The longest pause after logouts: two clients of one user would throw each other out in turns.
        answer_s: The longest time for a connection to be made, and for the hub to complete a subscription.
        silence_s: Without a byte from the hub for this time, its connection is dead.
        watchdog: Subscribe anew, then reconnect, when a stream is silent for longer than is plausible.
        watch_s: How often streams and clocks are looked at.
        stall_min_s: No shorter silence of a stream is implausible.
        stall_max_s: Every longer one is, while the market is open.
        stall_factor: A silence is implausible beyond this many times the stream's longest pause of late.
        calendar: When the market is open: a calendar of `pandas_market_calendars` where that is installed, the hours of
            CME Globex without holidays otherwise (`weekly`), or `always`.
        clock_step_ms: A clock that jumps by more than this was set, which is an incident.
        suspended_s: A process that is late by more than this did not run, or this machine slept: an incident.
        backfill: Fetch the bars of one second of times in which trades can be missing.
        backfill_delay_s: How long after a gap its bars are fetched.
        stats_s: How often live statistics are shown.
        live_queue: Batches that wait for live handlers and statistics at most; beyond, they pass by the handlers.
        gc_threshold: Allocations before Python's collector of garbage looks at the youngest objects.
        memory_check_s: How often memory, disk and open files are looked at.
        memory_soft_mb: Above this, the journal's segment is closed early and live queues are emptied.
        memory_hard_mb: Above this, live handlers and statistics stop; the journal goes on.
        disk_warn_mb: Below this much free disk, warn.
        disk_stop_mb: Below this much free disk, stop cleanly; 0 to go on and wait for room.
        disk_wait_mb: So much may wait in memory while the disk refuses to be written; what comes then is lost.
        files_warn: Above this many open files, warn.
        log_file: Where the log goes; None for stderr.
        log_level: What is logged: `debug`, `info`, `warning` or `error`, and all that is worse.
        log_format: `text` for people, `json` for programs.
        log_mb: A log file of this size is closed, numbered, and followed by a new one.
        log_files: So many log files are kept beside the current one.
        metrics_port: Where Prometheus may ask, on this machine only; 0 for any free port, None for nowhere.
        publish: The PostgreSQL database that sessions are published to while they are captured, as
            `postgresql://user@host/database`; None for none.
        publish_s: How often what is new goes there.
        upload: Where a copy of what is sealed is kept up to date (`s3://bucket/prefix`, or a folder); None for nowhere.
        upload_s: How often it is looked whether there is something to upload.
    """

    lake: str = "./data"
    gateway: str = "topstepx"
    hub: str | None = None
    username: str | None = None
    contracts: list[str] = []
    quotes: bool = True
    trades: bool = True
    depth: bool = True
    duration_s: Positive | None = None
    count: Count | None = None
    flush_ms: Annotated[float, msgspec.Meta(gt=0, le=1000)] = 3.0
    flush_kb: Count = 256
    sync_ms: Positive = 100.0
    segment_s: Positive = 300.0
    segment_mb: Count = 64
    roll_time: Annotated[str, msgspec.Meta(pattern=r"^(([01]\d|2[0-3]):[0-5]\d)?$")] = "17:00"
    roll_zone: str = "America/Chicago"
    reconnect_attempts: Count | None = None
    reconnect_first_s: Positive = 1.0
    reconnect_max_s: Positive = 60.0
    logout_first_s: Positive = 30.0
    logout_max_s: Positive = 900.0
    answer_s: Positive = 15.0
    silence_s: Positive = 30.0
    watchdog: bool = True
    watch_s: Positive = 0.5
    stall_min_s: Positive = 60.0
    stall_max_s: Positive = 3600.0
    stall_factor: Annotated[float, msgspec.Meta(ge=1)] = 5.0
    calendar: str = "CME Globex Equity"
    clock_step_ms: Positive = 100.0
    suspended_s: Positive = 2.0
    backfill: bool = True
    backfill_delay_s: NotNegative = 10.0
    stats_s: Positive = 1.0
    live_queue: Count = 1000
    gc_threshold: Count = 50_000
    memory_check_s: Positive = 5.0
    memory_soft_mb: Count = 1024
    memory_hard_mb: Count = 2048
    disk_warn_mb: NotNegative = 2048.0
    disk_stop_mb: NotNegative = 256.0
    disk_wait_mb: Count = 64
    files_warn: Count = 512
    log_file: str | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "warning"
    log_format: Literal["text", "json"] = "text"
    log_mb: Count = 10
    log_files: Count = 5
    metrics_port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] | None = None
    publish: str | None = None
    publish_s: Positive = 2.0
    upload: str | None = None
    upload_s: Positive = 30.0

    def __post_init__(self) -> None:
        """Refuse what is out of its range, and what a manifest must not show."""
        for name in self.__struct_fields__:
            msgspec.structs.force_setattr(self, name, _checked(name, getattr(self, name), _ARGUMENT))
        for address in (self.lake, self.publish):
            if address is not None and address.startswith("postgres"):
                check_address(address)


class Loaded(NamedTuple):
    """A configuration, and where each value comes from: `default`, a file's path, a variable's name, or `argument`.

    Where the caller has names of its own for its arguments, it is these.
    """

    config: Config
    origins: dict[str, str]


_ARGUMENT: Final = "argument"
_PASSWORD: Final = re.compile(r"(?i)[?&]\w*(password|secret|token)=")
_UNITS: Final = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION: Final = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(ms|s|m|h|d|)", re.ASCII)


def parse_duration(text: str) -> float:
    """Parse `90`, `90s`, `5m`, `2h`, `250ms` or `1d` to seconds.

    Raises:
        ConfigError: It is no duration.
    """
    match = _DURATION.fullmatch(text.strip().lower())
    if match is None:
        raise ConfigError(f"{text!r} is no duration: write 90, 90s, 5m or 2h")
    return float(match[1]) * _UNITS[match[2]]


def check_address(address: str) -> str:
    """The address of a server, when it holds no secret: command lines, settings and manifests are no place for one.

    Raises:
        ConfigError: It holds a password.
    """
    rest = address.partition("://")[2]
    user, at, _ = rest.rpartition("@")  # the last one: a password may hold all of / ? # and @
    if (at and user.partition(":")[2]) or _PASSWORD.search(unquote(rest)):
        raise ConfigError(
            "the address holds a password, which whoever lists processes or reads this session's manifest could see: "
            "put it into PGPASSWORD or ~/.pgpass, and out of the address (and change it, where others are on this "
            "machine)"
        )
    return address


def load_config(
    arguments: Mapping[str, Any] | None = None,
    *,
    spelt: Mapping[str, str] | None = None,
    file: str | Path | None = None,
    environ: Mapping[str, str] | None = None,
    **settings: Any,  # noqa: ANN401  # each is checked as its setting
) -> Loaded:
    """Put the configuration together: `load_config(contracts=["MNQ"]).config`.

    Args:
        arguments: What the caller says; None values are not said.
        spelt: What the caller calls those, in place of `argument`: `{"duration_s": "--duration"}`.
        file: The configuration file; by default `MDCAPTURE_CONFIG`, or `mdcapture.toml` in this folder if there is one.
        environ: The environment, by default the process's.
        settings: More of `arguments`.

    Raises:
        ConfigError: A setting is unknown (the nearest known one is named) or out of its range.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    origins = dict.fromkeys(Config.__struct_fields__, "default")
    for origin, more in chain(_said_by_file(file, environ), _said_by_environment(environ)):
        _take(values, origins, more, origin)
    for name, value in {**(arguments or {}), **settings}.items():
        if value is not None:
            _take(values, origins, {name: value}, (spelt or {}).get(name, _ARGUMENT))
    return Loaded(Config(**{name: _checked(name, value, origins[name]) for name, value in values.items()}), origins)


def read_api_key(environ: Mapping[str, str] | None = None) -> str | None:
    """The gateway's API key from the environment, or the file that it names; None if neither is there.

    A file that others can read is warned of.

    Raises:
        ConfigError: The file can't be read, or is empty.
    """
    environ = os.environ if environ is None else environ
    if environ.get("MDCAPTURE_API_KEY"):
        return environ["MDCAPTURE_API_KEY"].strip()
    if "MDCAPTURE_API_KEY_FILE" not in environ:
        return None
    path = Path(environ["MDCAPTURE_API_KEY_FILE"])
    try:
        key = path.read_text().strip()
        mode = path.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the API key's file {path} can't be read ({type(error).__name__})") from None
    if not key:
        raise ConfigError(f"the API key's file {path} is empty")
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        _log.warning("others on this machine can read the API key in %s: `chmod 600 %s`", path, path)
    return key


def _said_by_file(file: str | Path | None, environ: Mapping[str, str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """What the configuration file says; one that nobody named need not be there."""
    path = Path(file) if file else Path(environ.get("MDCAPTURE_CONFIG", CONFIG_FILE))
    if file or "MDCAPTURE_CONFIG" in environ or path.is_file():
        yield str(path), _read_file(path)


def _said_by_environment(environ: Mapping[str, str]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, text in environ.items():
        setting = name.removeprefix(ENV_PREFIX)
        if setting != name and setting not in _NO_SETTINGS:
            is_none = text.strip().lower() in ("", "none") and setting.lower() not in _EMPTY
            yield name, {setting.lower(): None if is_none else text.strip()}


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"the configuration file {path} can't be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the configuration file {path} is no TOML: {error}") from None


def _take(values: dict[str, Any], origins: dict[str, str], more: Mapping[str, Any], origin: str) -> None:
    for name, value in more.items():
        if name not in origins:
            near = difflib.get_close_matches(name, origins, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else "`mdcapture config show` lists the settings"
            raise ConfigError(f"{origin}: there is no setting {name!r}; {hint}")
        values[name] = value
        origins[name] = origin


def _parsed(name: str, value: Any) -> Any:  # noqa: ANN401  # whatever was said
    """A text as the setting wants it: seconds for a duration, a list at its commas, the rest by msgspec."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, str) and name.endswith("_s"):
        return parse_duration(value)
    if isinstance(value, str) and name == "contracts":
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


@cache
def _kinds() -> dict[str, Any]:
    return get_type_hints(Config, include_extras=True)


def _checked(name: str, value: Any, origin: str) -> Any:  # noqa: ANN401  # of the setting's type
    """A value as its setting's type has it, if it is within its range."""
    kind = _kinds()[name]
    try:
        return msgspec.convert(_parsed(name, value), kind, strict=False)
    except ConfigError as error:
        raise ConfigError(f"{origin}: {name}: {error}") from None
    except msgspec.ValidationError as error:
        expected = str(error).partition(" - at ")[0]
        if get_origin(kind) is Literal:
            *choices, last = (f"`{choice}`" for choice in get_args(kind))
            expected = f"expected {', '.join(choices)} or {last}"
        raise ConfigError(f"{origin}: {name} = {value!r}: {expected[0].lower()}{expected[1:]}") from None
