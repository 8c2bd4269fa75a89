"""The main job on a market of our own: capture, query, analyse, draw, with nothing to configure."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import altair as alt
import polars as pl

from mdcapture.capture.recorder import Recorder
from mdcapture.charts.drawing import save
from mdcapture.charts.price import cumulative_delta, price_and_trades
from mdcapture.config import Config
from mdcapture.errors import UnreachableError
from mdcapture.metrics.summary import summarize
from mdcapture.session import Session, open_lake

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mdcapture.capture.recorder import Captured

__all__ = ["CONTRACTS", "Demo", "run_demo"]

CONTRACTS: Final = ("MNQ", "MES", "GC")
_DIGITS: Final = 6


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


def _figures(session: Session) -> pl.DataFrame:
    names = {contract.contract_id: contract.name for contract in session.contracts}
    return (
        summarize(session.quotes(), session.trades())
        .with_columns(pl.col("contract_id").replace(names), pl.col("value").round_sig_figs(_DIGITS))
        .pivot("contract_id", index=["group", "metric", "unit"], values="value", maintain_order=True)
    )


def _draw(session: Session, picture: Path) -> None:
    contract = session.contracts[0]
    quotes = session.quotes(contract.contract_id).collect()
    trades = session.trades(contract.contract_id).collect()
    title = f"{contract.name} ({contract.description})"
    save(alt.vconcat(price_and_trades(quotes, trades, title=title), cumulative_delta(trades)), picture)
