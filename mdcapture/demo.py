"""The main job on a market of our own: capture, query, analyse, draw, with nothing to configure."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import chain, takewhile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import polars as pl

from mdcapture.analysis.analyze import extracts
from mdcapture.analysis.pictures import draw
from mdcapture.analysis.result import HEADLINES
from mdcapture.capture.recorder import Recorder
from mdcapture.charts.drawing import save, stacked
from mdcapture.config import Config
from mdcapture.errors import UnreachableError
from mdcapture.gateway.instruments import list_contracts, select
from mdcapture.interop.importing import import_tape
from mdcapture.session import Session, open_lake
from mdcapture.simulator.market import Market
from mdcapture.wire.timestamps import NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from mdcapture.capture.recorder import Captured

__all__ = ["CONTRACTS", "Demo", "run_demo", "synthesize"]

CONTRACTS: Final = ("MNQ", "MES", "GC")
START_NS: Final = 1_772_634_600_000_000_000
"""2026-03-04, 14:30 UTC: a Wednesday, when regular trading begins in Chicago."""

_DIGITS: Final = 6
_TRAVEL_NS: Final = 2_000_000


class Demo(NamedTuple):
    """What the demo made: the session, its figures (a row a metric, a column a contract), and the picture's path."""

    session: Session
    figures: pl.DataFrame
    picture: Path


def run_demo(folder: Path, duration_s: float, watch: Callable[[Recorder], Captured]) -> Demo:
    """Capture a local synthetic market for a while, and look at what came.

    Args:
        folder: Gets the lake and the picture.
        duration_s: How long to capture (s).
        watch: Shows a started recorder, and waits for its end.

    Raises:
        StorageError: The folder can't be written.
    """
    with _gateway() as api:
        config = Config(
            gateway=api,
            contracts=list(CONTRACTS),
            lake=str(folder / "lake"),
            username="demo",
            duration_s=duration_s,
        )
        with Recorder(config, api_key="demo") as recorder:
            recorder.start()
            captured = watch(recorder)
    session = open_lake(folder / "lake").session(captured.session_id)
    picture = folder / f"{session.session_id}.png"
    _draw(session, picture)
    return Demo(session, _figures(session), picture)


@contextmanager
def _gateway() -> Iterator[str]:
    """A local gateway in a process of its own; gives the API's address."""
    command = [sys.executable, "-m", "mdcapture", "simulate"]
    for contract in CONTRACTS:
        command += ["--contract", contract]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:  # noqa: S603  # ours
        assert process.stdout is not None
        try:
            addresses: dict[str, Any] = json.loads(process.stdout.readline() or b"{}")
            if "api" not in addresses:
                raise UnreachableError("the local gateway did not start: try `mdcapture simulate`")
            yield str(addresses["api"])
        finally:
            process.terminate()


def synthesize(
    lake: Path,
    *,
    duration_s: float,
    contracts: Sequence[str] = CONTRACTS,
    start_ns: int = START_NS,
    rate: float = 25.0,
    seed: int = 1,
) -> Session:
    """Make a session of the synthetic market without waiting for it, as if each message took some milliseconds.

    Args:
        lake: The lake; it is made where there is none.
        duration_s: How long the market runs (s of its own time).
        contracts: Roots of the contracts, as `MNQ`.
        start_ns: When it begins (ns UTC).
        rate: Messages a second of a contract, on average.
        seed: Equal seeds give equal sessions.

    Raises:
        NotFoundError: There is no such contract.
        StorageError: The lake can't be written.
    """
    day = datetime.fromtimestamp(start_ns // NS_PER_S, UTC).date()
    listings = select(contracts, list_contracts(day))
    names = [listing.contract.contract_id for listing in listings]
    market = Market(listings, dict.fromkeys(names, rate), seed)
    _, messages = market.play(start_ns)
    first = [each for name in names for stream in ("quotes", "depth") for each in market.snapshot(stream, name)]
    end_ns = start_ns + round(duration_s * NS_PER_S)
    with TemporaryDirectory() as folder:
        tape = Path(folder) / "market.ndjson"
        with tape.open("wb") as lines:
            for message in chain(first, takewhile(lambda each: each.time_ns < end_ns, messages)):
                lines.write(b"%d %s\n" % (message.time_ns + _TRAVEL_NS, message.record))
        manifest = import_tape(str(tape), lake, again=True)
    return open_lake(lake).session(manifest.session_id)


def _figures(session: Session) -> pl.DataFrame:
    names = {contract.contract_id: contract.name for contract in session.contracts}
    headlines = session.analyze().only(HEADLINES).frame().drop_nulls("value")
    return headlines.with_columns(pl.col("contract_id").replace(names), pl.col("value").round_sig_figs(_DIGITS)).pivot(
        "contract_id", index=["group", "metric", "unit"], values="value", maintain_order=True
    )


def _draw(session: Session, picture: Path) -> None:
    parts = extracts(session, [session.contracts[0].contract_id])
    save(stacked(draw("price", parts), draw("flow", parts)), picture)
