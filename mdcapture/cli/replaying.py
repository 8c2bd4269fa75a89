"""The command that plays what was captured: `replay`."""

from __future__ import annotations

import csv
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from mdcapture.cli import completion
from mdcapture.cli.options import ContractNames, LakeFolder, lake_name, time_ns

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

    from mdcapture.capture.events import Event
    from mdcapture.session import Session

__all__ = ["COMMANDS"]


class ReplayFormat(StrEnum):
    """How events are printed: an object a line, or a line of all columns that any of them has."""

    JSONL = "jsonl"
    CSV = "csv"


class Pace(StrEnum):
    """Whose clock events keep."""

    RECV = "recv"
    EXCH = "exch"


def replay(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SESSION|TAPE",
            help="An id, a unique prefix, or latest; or a tape's path, or -. Several are merged by receive time.",
            autocompletion=completion.sessions,
        ),
    ],
    lake: LakeFolder = None,
    *,
    speed: Annotated[str, typer.Option(help="Market seconds a second, or max: without waiting.")] = "max",
    pace: Annotated[Pace, typer.Option(help="Keep the pace of the receive times, or of the gateway's.")] = Pace.RECV,
    from_: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="Received then or later: 2026-08-19T13:30Z (UTC).")
    ] = None,
    to: Annotated[str | None, typer.Option("--to", metavar="TIME", help="Received before.")] = None,
    contract: ContractNames = None,
    format_: Annotated[ReplayFormat, typer.Option("--format", help="How events are printed.")] = ReplayFormat.JSONL,
) -> None:
    """Print the events of sessions or tapes in their order, at their own pace if asked to.

    Quotes have the state after the message, as live handlers are given them. Other programs that speak to a gateway can
    be played a session by `mdcapture simulate --session`.
    """
    from mdcapture.live.replay import Replay
    from mdcapture.simulator.server import parse_speed

    events = Replay(
        *(_source(one, lake) for one in sources),
        contracts=contract or (),
        from_ns=time_ns(from_, "--from"),
        to_ns=time_ns(to, "--to"),
        speed=parse_speed(speed),
        pace="recv_ns" if pace is Pace.RECV else "exch_ns",
    )
    stream = sys.stdout
    write = _json_writer(stream) if format_ is ReplayFormat.JSONL else _csv_writer(stream)
    for event in events:
        write(event)
        if speed != "max":
            stream.flush()


def _source(text: str, lake: str | None) -> Session | str:
    """A tape where there is such a file, otherwise a session."""
    from mdcapture.gateway.tape import STDIN
    from mdcapture.session import open_lake

    return text if text == STDIN or Path(text).is_file() else open_lake(lake_name(lake)).session(text)


def _name(event: Event) -> str:
    return type(event).__name__.removesuffix("Event").lower()


def _json_writer(stream: TextIO) -> Callable[[Event], object]:
    encode = msgspec.json.Encoder().encode
    return lambda event: stream.write(encode({"event": _name(event), **event._asdict()}).decode() + "\n")


def _csv_writer(stream: TextIO) -> Callable[[Event], object]:
    from mdcapture.capture.events import DepthEvent, QuoteEvent, TradeEvent

    columns = dict.fromkeys(["event", *QuoteEvent._fields, *TradeEvent._fields, *DepthEvent._fields])
    writer = csv.DictWriter(stream, list(columns), lineterminator="\n")
    writer.writeheader()
    return lambda event: writer.writerow({"event": _name(event), **event._asdict()})


COMMANDS = (replay,)
