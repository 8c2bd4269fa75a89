"""The reference data of the metrics' tests: published values, and the ES tape decoded in the plainest way."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl
import pyarrow as pa
import pytest

if TYPE_CHECKING:
    from pathlib import Path

ENTRY = {"session_id": pl.String, "contract_id": pl.String, "seq": pl.Int64, "pos": pl.Int64, "recv_ns": pl.Int64}


class Tape(NamedTuple):
    quotes: pl.DataFrame
    trades: pl.DataFrame


@pytest.fixture(scope="session")
def expected(shared: Path) -> dict[int, Any]:
    """The published values by their id."""
    values = json.loads((shared / "reference" / "expected.json").read_text())
    return {value["id"]: value for value in values}


@pytest.fixture(scope="session")
def es_tape(shared: Path) -> Tape:
    """One hour of ES: each message a line, its place in the file its `seq`; quotes are changes of a state."""
    with pa.input_stream(str(shared / "tapes" / "es_20231225.ndjson.zst"), compression="zstd") as stream:
        lines = stream.read().splitlines()
    quotes, trades = [], []
    state: dict[str, float | None] = {"bestBid": None, "bestAsk": None}
    for seq, line in enumerate(lines):
        recv_ns, payload = line.split(b" ", 1)
        message = json.loads(payload)
        contract_id, content = message["arguments"]
        key = ("es", contract_id, seq)
        if message["target"] == "GatewayQuote":
            state |= {name: content[name] for name in state if name in content}
            quotes.append((*key, 0, int(recv_ns), *state.values()))
        elif message["target"] == "GatewayTrade":
            trades += [
                (*key, pos, int(recv_ns), entry["price"], entry["volume"], entry["type"])
                for pos, entry in enumerate(content)
                if entry is not None
            ]
    prices = {"best_bid": pl.Float64, "best_ask": pl.Float64}
    entry = {"price": pl.Float64, "volume": pl.Int64, "side": pl.Int8}
    return Tape(
        pl.DataFrame(quotes, ENTRY | prices, orient="row"),
        pl.DataFrame(trades, ENTRY | entry, orient="row"),
    )
