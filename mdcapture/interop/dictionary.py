"""The data dictionary of an export: what each of its columns is, as the schema declares it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from mdcapture.lake.schema import TABLES, Column

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Entry", "dictionary"]


class Entry(NamedTuple):
    """A column of an export, in words; `unit` and `meaning` are empty where a query made the column."""

    table: str
    column: str
    type: str
    unit: str
    meaning: str


_EVERYWHERE: Final = (
    Column("session_id", "string", "", "the session: its UTC start, with a suffix where two began in one second"),
    Column("contract_id", "string", "", "the gateway's id of the contract; null where none could be read"),
)
_MADE: Final = {
    "sessions": (
        Column("status", "string", "", "open, sealed, or recovered after a crash"),
        Column("source", "string", "", "where the messages came from"),
        Column("start_ns", "int64", "ns UTC", "when the first message was received"),
        Column("end_ns", "int64", "ns UTC", "when the last message was received"),
        Column("start_time", "string", "UTC", "start_ns for people, cut to microseconds"),
        Column("end_time", "string", "UTC", "end_ns for people, cut to microseconds"),
        Column("contracts", "string", "", "the contracts' ids"),
        *(Column(name, "int64", "rows", f"rows of the table {name}") for name in TABLES),
        Column("software", "string", "", "the version that wrote the session"),
    ),
    "contracts": (
        Column("name", "string", "", "the contract's short name"),
        Column("description", "string", "", "the gateway's description"),
        Column("tick_size", "float64", "price", "the smallest step of the price"),
        Column("tick_value", "float64", "currency", "the worth of one tick of one lot"),
        Column("symbol_id", "string", "", "the gateway's id of the product"),
        Column("source", "string", "", "where these figures are from"),
    ),
    "bars": (
        Column("timestamp", "string", "UTC", "when the bar begins"),
        Column("symbol", "string", "", "the gateway's id of the contract"),
        Column("open", "float64", "price", "first price"),
        Column("high", "float64", "price", "highest price"),
        Column("low", "float64", "price", "lowest price"),
        Column("close", "float64", "price", "last price"),
        Column("volume", "int64", "lots", "lots traded"),
        Column("buy_volume", "int64", "lots", "lots that buyers took"),
        Column("sell_volume", "int64", "lots", "lots that sellers took"),
        Column("trades", "int64", "", "number of trades"),
        Column("vwap", "float64", "price", "average price, weighted by volume"),
    ),
}


def dictionary(table: str, schema: pa.Schema) -> list[Entry]:
    """Describe the columns of an exported table.

    Args:
        table: Its name; that of a query's result is none of the lake's.
        schema: Its columns.

    Returns:
        An entry a column. A column of a query is described where all tables that have one of that name agree on it.
    """
    known = _declared(table)
    return [Entry(table, field.name, str(field.type), *known.get(field.name, ("", ""))) for field in schema]


def _declared(table: str) -> dict[str, tuple[str, str]]:
    if table in TABLES or table in _MADE:
        own = TABLES[table].columns if table in TABLES else _MADE[table]
        return {column.name: (column.unit, column.meaning) for column in (*_EVERYWHERE, *own)}
    said: dict[str, set[tuple[str, str]]] = {}
    everything = (column for one in TABLES.values() for column in one.columns)
    for column in (*_EVERYWHERE, *everything):
        said.setdefault(column.name, set()).add((column.unit, column.meaning))
    return {name: next(iter(meanings)) for name, meanings in said.items() if len(meanings) == 1}
