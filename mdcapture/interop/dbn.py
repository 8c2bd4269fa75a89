"""Databento's DBN: ten levels after each message that changed them, prints, and what the contract is.

Records have the layout that `databento_dbn` declares, prices in its billionths, and each file its metadata, so that
whatever reads Databento's files reads these. What the gateway does not say is undefined there, or zero.
"""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple
from zlib import crc32

import numpy as np
import polars as pl
import pyarrow as pa

from mdcapture.errors import UsageError
from mdcapture.interop.books import books, delivery_month, prints
from mdcapture.lake.schema import Side
from mdcapture.wire.timestamps import NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from mdcapture.interop.books import Market

__all__ = ["DATASET", "LEVELS", "instrument_id", "write"]

DATASET: Final = "PROJECTX"
LEVELS: Final = 10

_SCALE: Final = 1e9
_MOST: Final = 9.2e9  # a price above it does not fit 64 bits of billionths
_SIDES: Final = {Side.BUY: "B", Side.SELL: "A"}


def instrument_id(contract_id: str) -> int:
    """The number by which records name a contract: the same in every session."""
    return crc32(contract_id.encode())


def write(folder: Path, market: Market, levels: int, progress: Callable[[int], object]) -> dict[str, int]:
    """Write `SESSION_CONTRACT.mbp-10.dbn.zst`, and likewise `trades` and `definition`.

    A record of `mbp-10` is the book after a message: its action is `M`, of no side and price, or `R` where the book
    became unknown.

    Args:
        folder: Where to.
        market: What to write.
        levels: Must be ten.
        progress: Told of the records so far.

    Returns:
        The number of records by schema.

    Raises:
        UsageError: Another number of levels, or `databento_dbn` is not installed.
    """
    if levels != LEVELS:
        raise UsageError(f"dbn has {LEVELS} levels a side (its schema mbp-10), not {levels}")
    dbn = _library()
    counts = dict.fromkeys(("mbp-10", "trades", "definition"), 0)
    sources = {
        "mbp-10": (_book_records(dbn, market, book) for book in books(market, levels)),
        "trades": (_trade_records(dbn, market, rows) for rows in prints(market)),
    }
    for schema, slices in sources.items():
        with _file(dbn, folder, market, schema) as file:
            for records in slices:
                file.write(records.tobytes())
                counts[schema] += len(records)
                progress(sum(counts.values()))
    with _file(dbn, folder, market, "definition") as file:
        file.write(bytes(_definition(dbn, market)))
        counts["definition"] = 1
    return counts


def _library() -> Any:  # noqa: ANN401  # a module
    try:
        import databento_dbn  # noqa: PLC0415  # an extra
    except ImportError as error:
        raise UsageError("dbn needs the extra: pip install 'mdcapture[dbn]'") from error
    return databento_dbn


class _Interval(NamedTuple):
    start_date: date
    end_date: date
    symbol: str


class _Mapping(NamedTuple):
    raw_symbol: str
    intervals: list[_Interval]


@contextmanager
def _file(dbn: Any, folder: Path, market: Market, schema: str) -> Iterator[IO[bytes]]:  # noqa: ANN401  # a module
    """A new file with its metadata."""
    contract_id = market.contract.contract_id
    first, last = (
        datetime.fromtimestamp(time_ns // NS_PER_S, UTC).date() for time_ns in (market.start_ns, market.end_ns)
    )
    interval = _Interval(first, last + timedelta(days=1), str(instrument_id(contract_id)))
    metadata = dbn.Metadata(
        dataset=DATASET,
        start=market.start_ns,
        end=market.end_ns + 1,
        stype_in=dbn.SType.RAW_SYMBOL,
        stype_out=dbn.SType.INSTRUMENT_ID,
        schema=dbn.Schema.from_str(schema),
        symbols=[contract_id],
        mappings=[_Mapping(contract_id, [interval])],
    )
    path = folder / f"{market.session_id}_{contract_id}.{schema}.dbn.zst"
    with path.open("wb") as file, pa.CompressedOutputStream(pa.PythonFile(file, "w"), "zstd") as compressed:
        compressed.write(bytes(metadata))
        yield compressed


def _records(layout: Any, kind: int, market: Market, rows: pl.DataFrame, undefined_ns: int) -> NDArray[np.void]:  # noqa: ANN401
    """Records of a layout with what all kinds have: who, when, and which message it was."""
    made = np.zeros(rows.height, np.dtype(layout._dtypes))  # noqa: SLF001  # by which their own client reads them
    made["length"], made["rtype"] = made.dtype.itemsize // 4, kind
    made["instrument_id"] = instrument_id(market.contract.contract_id)
    made["ts_event"] = rows["exch_ns"].cast(pl.UInt64, strict=False).fill_null(undefined_ns).to_numpy()
    made["ts_recv"] = rows["recv_ns"].cast(pl.UInt64).to_numpy()
    made["sequence"] = rows["seq"].cast(pl.UInt32).to_numpy()
    return made


def _book_records(dbn: Any, market: Market, book: pl.DataFrame) -> NDArray[np.void]:  # noqa: ANN401  # a module
    made = _records(dbn.MBP10Msg, dbn.RType.MBP_10.value, market, book, dbn.UNDEF_TIMESTAMP)
    unknown = (book["kind"] == "unknown").to_numpy()
    made["price"], made["side"] = dbn.UNDEF_PRICE, "N"
    made["action"] = np.where(unknown, b"R", b"M")
    made["flags"] = dbn.F_LAST | np.where(unknown, dbn.F_MAYBE_BAD_BOOK, 0)
    for m in range(LEVELS):
        for side in ("bid", "ask"):
            made[f"{side}_px_{m:02}"] = _fixed(book[f"{side}_price_{m}"], dbn.UNDEF_PRICE)
            made[f"{side}_sz_{m:02}"] = _sizes(book[f"{side}_size_{m}"])
    return made


def _trade_records(dbn: Any, market: Market, trades: pl.DataFrame) -> NDArray[np.void]:  # noqa: ANN401  # a module
    made = _records(dbn.TradeMsg, dbn.RType.MBP_0.value, market, trades, dbn.UNDEF_TIMESTAMP)
    made["price"], made["size"] = _fixed(trades["price"], dbn.UNDEF_PRICE), _sizes(trades["volume"])
    made["action"], made["flags"] = "T", dbn.F_LAST
    made["side"] = trades["side"].replace_strict(_SIDES, default="N", return_dtype=pl.String).to_numpy().astype("S1")
    return made


def _fixed(prices: pl.Series, undefined: int) -> NDArray[np.int64]:
    values = prices.fill_null(np.nan).to_numpy()
    fits = np.abs(values) < _MOST
    return np.where(fits, np.rint(np.where(fits, values, 0) * _SCALE).astype(np.int64), undefined)


def _sizes(sizes: pl.Series) -> NDArray[np.uint32]:
    return sizes.fill_null(0).clip(0, 2**32 - 1).to_numpy().astype(np.uint32)


def _definition(dbn: Any, market: Market) -> Any:  # noqa: ANN401  # a module, and a record of it
    contract = market.contract
    month = delivery_month(contract.contract_id)
    tick, worth = contract.tick_size, contract.tick_value
    return dbn.InstrumentDefMsg(
        publisher_id=0,
        instrument_id=instrument_id(contract.contract_id),
        ts_event=market.start_ns,
        ts_recv=market.start_ns,
        min_price_increment=dbn.UNDEF_PRICE if tick is None else round(tick * _SCALE),
        min_price_increment_amount=dbn.UNDEF_PRICE if worth is None else round(worth * _SCALE),
        unit_of_measure_qty=dbn.UNDEF_PRICE if tick is None or worth is None else round(worth / tick * _SCALE),
        display_factor=round(_SCALE),
        raw_symbol=contract.contract_id,
        asset=contract.symbol_id.rpartition(".")[2],
        security_type="FUT",
        instrument_class=dbn.InstrumentClass.FUTURE,
        security_update_action=dbn.SecurityUpdateAction.ADD,
        maturity_year=month and month.year,
        maturity_month=month and month.month,
    )
