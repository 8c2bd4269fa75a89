"""The replaced system's tables, as expressions over our views: what its queries find, and what its files hold.

Timestamps are text as Python's `isoformat` writes them, always with six digits. Columns that it did not have (`seq`,
`recv_ns`, …) stand behind its own. Of a table only the columns that a query names are computed; some are there only for
those queries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from mdcapture.lake.schema import PARTITIONS, TABLES

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["REPLACED", "Kind", "SQLiteColumn", "columns_of", "create_table", "replaced_table", "table_source"]

Kind = Literal["integer", "real", "text"]

REPLACED: Final = ("sessions", "quotes", "trades", "market_depth")
"""The names of its tables."""

_DECLARED: Final[dict[Kind, str]] = {"integer": "INTEGER", "real": "REAL", "text": "TEXT"}


class SQLiteColumn(NamedTuple):
    """A column: what it is in the views, and whether `SELECT *` has it."""

    name: str
    kind: Kind
    expression: str
    visible: bool = True


def _integer(name: str, expression: str | None = None, *, visible: bool = True) -> SQLiteColumn:
    return SQLiteColumn(name, "integer", f"CAST({expression or name} AS BIGINT)", visible)


def _text(name: str, expression: str | None = None, *, visible: bool = True) -> SQLiteColumn:
    return SQLiteColumn(name, "text", f"CAST({expression or name} AS VARCHAR)", visible)


def _real(name: str, expression: str | None = None, *, visible: bool = True) -> SQLiteColumn:
    return SQLiteColumn(name, "real", f"CAST({expression or name} AS DOUBLE)", visible)


def _time(name: str, expression: str | None = None, *, visible: bool = True) -> SQLiteColumn:
    text = f"strftime(CAST({expression or name} AS TIMESTAMP), '%Y-%m-%dT%H:%M:%S.%f+00:00')"
    return SQLiteColumn(name, "text", text, visible)


_WHO: Final = (_text("session_id"), _text("contract_id"))
_TIMES: Final = (_time("received_timestamp"), _time("exchange_timestamp"))
_PLACE: Final = tuple(map(_integer, ("seq", "pos", "recv_ns", "exch_ns")))
_RAW: Final = _text("raw_data")
_ID: Final = tuple(
    SQLiteColumn(name, "integer", "row_number() OVER (ORDER BY session_id, recv_ns, seq, pos)", visible=False)
    for name in ("id", "rowid", "_rowid_", "oid")
)
_ENTRY: Final = (_integer("trade_sequence", "pos", visible=False), _integer("level_rank", "NULL", visible=False))
_COUNTS: Final = tuple(map(_integer, ("quotes", "trades", "depth", "messages", "rejects", "incidents")))
_CONTRACTS: Final = "array_to_string(contracts, ',')"


def _quoted_number(name: str, wire: str) -> SQLiteColumn:
    return _real(name, f"raw_data ->> '$.{wire}'", visible=False)


_TABLES: Final[dict[str, tuple[str, tuple[SQLiteColumn, ...]]]] = {
    "quotes": (
        "quotes",
        (
            *(*_WHO, _text("symbol"), *_TIMES),
            *map(_real, ("best_bid", "best_ask", "last_price")),
            _integer("volume"),
            *map(_real, ('"open"', "high", "low")),
            _time("updated_timestamp"),
            *(*_PLACE, _integer("updated_ns"), _integer("changed"), _RAW, *_ID),
            _time("last_updated", "updated_timestamp", visible=False),
            _quoted_number("change_amount", "change"),
            _quoted_number("change_percent", "changePercent"),
        ),
    ),
    "trades": (
        "trades",
        (
            *(*_WHO, _text("symbol"), *_TIMES, _real("price"), *map(_integer, ("volume", "trade_type", "side"))),
            *(*_PLACE, _RAW, *_ID, *_ENTRY),
            _text("symbol_id", "symbol", visible=False),
            _integer("is_buy", "trade_type = 0", visible=False),
        ),
    ),
    "market_depth": (
        "market_depth",
        (
            *(*_WHO, _text("symbol"), *_TIMES, _real("price"), *map(_integer, ("volume", "current_volume"))),
            *(_integer("depth_type"), _text("side"), *_PLACE, _RAW, *_ID, *_ENTRY),
        ),
    ),
    "sessions": (
        "sessions",
        (
            *(_text("session_id"), _text("status"), _text("source"), _time("start_time"), _time("end_time")),
            *(_text("contracts", _CONTRACTS), *_COUNTS, _integer("start_ns"), _integer("end_ns"), _text("software")),
            _text("contract_id", _CONTRACTS, visible=False),
            *(_integer(f"{name}_count", name, visible=False) for name in ("quotes", "trades", "depth")),
        ),
    ),
}
_TABLES["data_sessions"] = _TABLES["sessions"]


def _plain(view: str) -> tuple[str, tuple[SQLiteColumn, ...]]:
    """A view that the replaced system did not have: the columns that the lake declares."""
    if view == "contracts":
        texts = ("session_id", "contract_id", "name", "description", "symbol_id", "source")
        return view, (*map(_text, texts), _real("tick_size"), _real("tick_value"))
    made = {"int": _integer, "flo": _real, "str": _text}
    columns = [made[column.type[:3]](f'"{column.name}"') for column in TABLES[view].columns]
    return view, (*map(_text, PARTITIONS), *columns)


_TABLES.update({view: _plain(view) for view in (*TABLES, "contracts") if view not in _TABLES})


def columns_of(table: str) -> tuple[SQLiteColumn, ...] | None:
    """The columns of a table; None if there is none of that name."""
    found = _TABLES.get(table.lower())
    return None if found is None else tuple(one._replace(name=one.name.strip('"')) for one in found[1])


def table_source(table: str, named: Iterable[str], *, star: bool) -> str:
    """The statement that is a table to a query.

    Args:
        table: Its name.
        named: The names that stand in the query, in lower case: what is not among them is not computed.
        star: Whether the query wants all visible columns, too.
    """
    wanted = set(named)
    view = _TABLES[table.lower()][0]
    columns = [one for one in columns_of(table) or () if one.name in wanted or (star and one.visible)]
    return _select(view, columns)


def replaced_table(table: str, where: str = "") -> str:
    """All rows of one of the replaced system's tables, `raw_data` included, as it would have them in its file."""
    return _select(_TABLES[table][0], [one for one in columns_of(table) or () if one.visible]) + where


def _select(view: str, columns: list[SQLiteColumn]) -> str:
    listed = ", ".join(f'{one.expression} AS "{one.name}"' for one in columns)
    return f"SELECT {listed or '1'} FROM {view}"  # noqa: S608  # names of ours


def create_table(table: str) -> str:
    """How SQLite would have been told of a table."""
    columns = ", ".join(f"{one.name} {_DECLARED[one.kind]}" for one in columns_of(table) or () if one.visible)
    return f"CREATE TABLE {table} ({columns})"
