"""Commands that bring data in: `capture`, `import`, `simulate`, `contracts`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from mdcapture.cli.options import (
    Contracts,
    Duration,
    Gateway,
    HubUrl,
    Json,
    LakeFolder,
    OutputFormat,
    Username,
    chosen_format,
    lake_name,
    lake_root,
)
from mdcapture.config import load_config, read_api_key
from mdcapture.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import FrameType

    from mdcapture.config import Config
    from mdcapture.gateway.rest import Listing

__all__ = ["COMMANDS", "COUNTS", "import_", "print_summary", "troubles_of"]


def capture(
    contract: Contracts = None,
    lake: LakeFolder = None,
    gateway: Gateway = None,
    hub: HubUrl = None,
    username: Username = None,
    *,
    quotes: Annotated[bool | None, typer.Option(help="Capture quotes.")] = None,
    trades: Annotated[bool | None, typer.Option(help="Capture trades.")] = None,
    depth: Annotated[bool | None, typer.Option(help="Capture market depth.")] = None,
    duration: Duration = None,
    count: Annotated[int | None, typer.Option(metavar="N", help="Stop after this many messages.", min=1)] = None,
    config: Annotated[Path | None, typer.Option("--config", metavar="FILE", help="The configuration file.")] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Any other setting (`mdcapture config show` lists them)."),
    ] = None,
    stats: Annotated[
        str, typer.Option(help="Live statistics on stderr: auto, live, plain, json or none.", metavar="HOW")
    ] = "auto",
    log_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Log to this file instead of stderr; SIGHUP reopens it.")
    ] = None,
    log_format: Annotated[
        str | None, typer.Option(metavar="FORM", help="How the log is written: text or json.")
    ] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option(metavar="PORT", help="Serve figures for Prometheus at this port of this machine; 0 for any."),
    ] = None,
    upload: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Keep a copy of what is sealed there, as s3://bucket/prefix (see the docs)."),
    ] = None,
    publish: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Publish to this database meanwhile, as postgresql://user@host/database."),
    ] = None,
    json: Json = False,
) -> None:
    """Capture quotes, trades and market depth until interrupted.

    The API key is read from MDCAPTURE_API_KEY, from the file that MDCAPTURE_API_KEY_FILE names, or asked for. Ctrl-C
    ends the capture and seals what has arrived; a second one does not wait for the sealing.
    """
    from mdcapture.capture.recorder import Recorder
    from mdcapture.cli.logs import reopen_log, start_log
    from mdcapture.cli.statistics import show_statistics

    arguments: dict[str, Any] = {
        "contracts": contract or None,
        "lake": lake,
        "gateway": gateway,
        "hub": hub,
        "username": username,
        "quotes": quotes,
        "trades": trades,
        "depth": depth,
        "duration_s": duration,
        "count": count,
        "log_file": None if log_file is None else str(log_file),
        "log_format": log_format,
        "metrics_port": metrics_port,
        "upload": upload,
        "publish": publish,
    }
    pairs = _pairs(setting)
    spelt = _OPTIONS | dict.fromkeys(pairs, "--set")
    settings, key = _who(load_config(arguments | pairs, spelt=spelt, file=config).config)
    start_log(settings, [key], debug=bool(os.environ.get("MDCAPTURE_DEBUG")))
    signal.signal(signal.SIGHUP, lambda *_: reopen_log())
    with Recorder(settings, api_key=key) as recorder:
        signal.signal(signal.SIGTERM, lambda *_: recorder.stop())
        signal.signal(signal.SIGINT, _Interrupt(recorder.stop))
        recorder.start()
        captured = show_statistics(recorder, how=stats, every_s=settings.stats_s)
    print_summary(Path(settings.lake), msgspec.structs.asdict(captured), json=json)


def import_(
    tape: Annotated[
        str,
        typer.Argument(
            metavar="TAPE",
            help="A tape (plain, .zst, .gz), - for standard input, or an old database: a file, or a URL.",
        ),
    ],
    lake: LakeFolder = None,
    *,
    again: Annotated[bool, typer.Option("--again", help="Import what the lake has already once more.")] = False,
    json: Json = False,
) -> None:
    """Import a tape (lines of a receive time in nanoseconds, a space, and a hub record), or an old system's database.

    That is its SQLite file, or postgresql://user@host/database with the password in PGPASSWORD or ~/.pgpass. A database
    gives a session for each that it holds, and of one that has grown the new rows. What is in the lake already is not
    imported twice: a tape is known by its checksum (not from standard input).
    """
    from mdcapture.cli.progress import counting
    from mdcapture.interop.importing import import_tape
    from mdcapture.interop.postgres.connection import is_postgres
    from mdcapture.interop.postgres.moving import import_postgres
    from mdcapture.interop.sqlite import import_sqlite, is_sqlite

    with counting("messages") as progress:
        if is_sqlite(tape):
            manifests = import_sqlite(tape, lake_root(lake), again=again, progress=progress)
        elif is_postgres(tape):
            manifests = import_postgres(tape, lake_root(lake), again=again, progress=progress)
        else:
            manifests = [import_tape(tape, lake_root(lake), again=again, progress=progress)]
    if not manifests:
        typer.echo(f"{tape}: all of it is in the lake already", err=True)
    for manifest in manifests:
        counts = {name: manifest.counts.get(name, 0) for name in COUNTS}
        print_summary(
            lake_root(lake), {"session_id": manifest.session_id, **counts, "status": manifest.state}, json=json
        )


def simulate(
    contract: Contracts = None,
    lake: LakeFolder = None,
    *,
    tape: Annotated[str | None, typer.Option(help="Play this tape (- for standard input).", metavar="TAPE")] = None,
    session: Annotated[
        str | None, typer.Option(help="Play this session of the lake: an id, a unique prefix, or latest.")
    ] = None,
    speed: Annotated[str, typer.Option(help="Market seconds a second, or max: as fast as the clients read.")] = "1",
    rate: Annotated[float, typer.Option(help="Messages a second of each contract of the synthetic market.")] = 124.0,
    seed: Annotated[int, typer.Option(help="Of the synthetic market, of packing and of random faults.")] = 1,
    pack: Annotated[bool, typer.Option("--pack", help="Pack records into frames, and split them, at random.")] = False,
    fault: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND[:STREAM][@S][+S]", help="Let something go wrong; repeat for more (docs/simulator.md)."
        ),
    ] = None,
    fault_rate: Annotated[float, typer.Option(help="Random faults a minute.")] = 0.0,
    rate_limits: Annotated[bool, typer.Option("--rate-limits", help="Hold clients to the REST limits.")] = False,
    once: Annotated[bool, typer.Option("--once", help="End when the tape has, and the clients have gone.")] = False,
    host: Annotated[str, typer.Option(help="The address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0 for any that is free.")] = 0,
    key: Annotated[str, typer.Option(help="The API key that lets any user in.")] = "demo",
) -> None:
    """Run a local gateway: a tape, a captured session, or a synthetic market. Its first line names its addresses.

    Point `mdcapture capture --gateway` at the `api` address; any user name and the key `demo` will do.
    """
    from mdcapture.simulator.server import SimulatorConfig, parse_speed, serve

    serve(
        SimulatorConfig(
            tape=tape,
            session=session,
            lake=lake_name(lake),
            speed=parse_speed(speed),
            contracts=tuple(contract or ()),
            rate=rate,
            seed=seed,
            pack=pack,
            faults=tuple(fault or ()),
            fault_rate=fault_rate,
            rate_limits=rate_limits,
            once=once,
            host=host,
            port=port,
            api_key=key,
        )
    )


def contracts(
    text: Annotated[str, typer.Argument(help="A name, a root or an id; nothing lists what is available.")] = "",
    gateway: Gateway = None,
    username: Username = None,
    *,
    format_: OutputFormat = None,
    json: Json = False,
) -> None:
    """Look contracts up at the gateway."""
    import asyncio

    from mdcapture.cli.output import write_records

    settings, key = _who(load_config({"gateway": gateway, "username": username}).config)
    found = asyncio.run(_look_up(settings, key, text))
    rows = [msgspec.structs.asdict(listing.contract) | {"active": listing.active} for listing in found]
    write_records(rows, chosen_format(format_, json=json).value)


async def _look_up(config: Config, key: str, text: str) -> list[Listing]:
    from mdcapture.gateway.endpoints import endpoints
    from mdcapture.gateway.rest import Credentials, RestClient

    assert config.username is not None
    async with RestClient(endpoints(config.gateway, config.hub).api, Credentials(config.username, key)) as rest:
        return await (rest.search(text) if text else rest.available())


def demo(
    folder: Annotated[Path, typer.Argument(help="Gets the lake and the picture.")] = Path("demo"),
    duration: Duration = None,
) -> None:
    """Capture a local synthetic market for a while, query it, analyse it, and draw it; nothing to configure."""
    from mdcapture.cli.output import write_records
    from mdcapture.cli.statistics import show_statistics
    from mdcapture.demo import CONTRACTS, run_demo

    duration_s = duration or _DEMO_S
    lake = folder / "lake"
    typer.echo(f"Capturing {', '.join(CONTRACTS)} from a local gateway for {duration_s:g} s …", err=True)
    made = run_demo(folder, duration_s, lambda recorder: show_statistics(recorder, how="auto", every_s=1.0))
    query = "select contract_id, count(*) as trades, sum(volume) as lots, max(price) as high from trades group by 1"
    print_summary(
        lake,
        {"session_id": made.session.session_id, "status": made.session.status, **dict.fromkeys(COUNTS, 0)}
        | made.session.counts,
        json=False,
    )
    typer.echo(f'\n$ mdcapture sql "{query}" --lake {lake}')
    write_records(made.session.sql(query).pl().to_dicts(), "table")
    typer.echo("\nFigures")
    write_records(made.figures.to_dicts(), "table")
    typer.echo(f"\nThe picture is {made.picture}. Go on with: mdcapture sessions --lake {lake}")


COMMANDS = (capture, demo, simulate, contracts)
_DEMO_S = 20.0
_OPTIONS = {"duration_s": "--duration", "metrics_port": "--metrics-port", "log_format": "--log-format"}
"""Options whose values a setting's rules may refuse."""

COUNTS = ("messages", "quotes", "trades", "depth", "rejects", "incidents")


def _pairs(texts: list[str] | None) -> dict[str, str]:
    """`NAME=VALUE` settings."""
    pairs = {}
    for text in texts or ():
        name, sign, value = text.partition("=")
        if not sign:
            raise ConfigError(f"--set {text}: write NAME=VALUE, as --set segment_s=60")
        pairs[name.strip()] = value.strip()
    return pairs


def _who(config: Config) -> tuple[Config, str]:
    """The configuration with a user name, and the API key; asked for where a person can answer."""
    key = read_api_key()
    username = config.username
    if sys.stdin.isatty():
        username = username or typer.prompt("User name", err=True)
        key = key or typer.prompt("API key", hide_input=True, err=True)
    if not username:
        raise ConfigError("no user name: say it as --username, MDCAPTURE_USERNAME, or `username` in mdcapture.toml")
    if not key:
        raise ConfigError(
            "no API key: put it into a file that is yours alone and name that in MDCAPTURE_API_KEY_FILE, or set "
            "MDCAPTURE_API_KEY"
        )
    return msgspec.structs.replace(config, username=username), key


class _Interrupt:
    """The first Ctrl-C ends the capture; the second ends the program, with everything in the journal."""

    def __init__(self, stop: Callable[[], None]) -> None:
        self._stop = stop
        self._again = False

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        if self._again:
            sys.stderr.write("\nended at once: the journal has everything; `mdcapture recover` seals it\n")
            sys.stderr.flush()
            os._exit(130)
        self._again = True
        sys.stderr.write("\nending: what has arrived is being sealed (Ctrl-C again to leave that for later)\n")
        self._stop()


def print_summary(root: Path, summary: dict[str, Any], *, json: bool) -> None:
    """The counts of one session, as JSON or as a line for people, who are told of the incidents that matter."""
    if json:
        typer.echo(msgspec.json.encode(summary).decode())
    else:
        from mdcapture.lake.manifest import read_manifest

        counts = [f"{summary[name]:,} {name}" for name in COUNTS if name != "incidents"]
        troubles = troubles_of(read_manifest(root, summary["session_id"]).incidents)
        found = ", ".join([*counts, *(f"{count:,} {name}" for name, count in troubles.items())])
        typer.echo(f"{summary['session_id']} ({summary['status']}): {found}")


def troubles_of(incidents: Mapping[str, int]) -> dict[str, int]:
    """Incidents by kind to gaps, and to all else that is no routine."""
    from mdcapture.lake.schema import GAP_KINDS, ROUTINE_KINDS

    gaps = sum(incidents.get(kind, 0) for kind in GAP_KINDS)
    routine = sum(incidents.get(kind, 0) for kind in ROUTINE_KINDS)
    return {"gaps": gaps, "other troubles": sum(incidents.values()) - gaps - routine}
