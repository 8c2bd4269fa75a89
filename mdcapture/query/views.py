# ruff: noqa: S608  # a name in a statement is a column of our own, a value is quoted
"""What the views add to the lake's tables, as SQL that DuckDB and PostgreSQL understand alike.

Each engine brings two functions: `utc(ns)` makes a timestamp of a time in nanoseconds (microseconds, cut), and
`symbol_of(contract_id)` the symbol of a contract's id.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from mdcapture.lake.schema import GAP_KINDS, NO_END_NS, PARTITIONS, STREAMS, TABLES, DomType

__all__ = ["TABLE_VIEWS", "View", "columns_of", "gaps_view", "named", "quoted", "rows_view"]

_TIMESTAMPS: Final = {"recv_ns": "received_timestamp", "exch_ns": "exchange_timestamp"}
_SIDE: Final = "CASE dom_type {} ELSE 'unknown' END".format(
    " ".join(f"WHEN {kind.value} THEN '{kind.name.lower().removeprefix('best_')}'" for kind in DomType)
)


class View(NamedTuple):
    """A view of a table: what it adds to the columns, and whether each row can show the text that it was made of."""

    table: str
    extra: Mapping[str, str] = {}
    raw_data: bool = False


TABLE_VIEWS: Final = {
    **{table: View(table) for table in TABLES},
    "quotes": View("quotes", raw_data=True),
    "trades": View("trades", {"trade_type": "side"}, raw_data=True),
    "depth": View("depth", raw_data=True),
    "market_depth": View("depth", {"depth_type": "dom_type", "side": _SIDE}, raw_data=True),
}


def rows_view(view: View, source: str) -> str:
    """The statement of a view of a table: our columns, and what the view adds.

    Args:
        view: The view.
        source: A statement that gives the table's rows, led by the partitions.
    """
    names = columns_of(view.table)
    times = {_TIMESTAMPS.get(name, name.replace("_ns", "_timestamp")): name for name in names if name.endswith("_ns")}
    columns = [
        *PARTITIONS,
        "symbol_of(contract_id) AS symbol",
        *map(named, names),
        *(f"{expression} AS {name}" for name, expression in view.extra.items()),
        *(f"utc({column}) AS {name}" for name, column in times.items()),
    ]
    return f"SELECT {', '.join(columns)} FROM ({source}) AS rows"


def gaps_view(incidents: str, contracts: str) -> str:
    """A row for each stream and contract that an incident is about; one that was told twice is the longer one.

    Args:
        incidents: A statement that gives the incidents.
        contracts: The name of a table of the sessions' contracts.
    """
    return f"""
        WITH told AS (
            SELECT session_id, known.contract_id, streams.stream, from_ns, coalesce(max(to_ns), {NO_END_NS}) AS to_ns
            FROM ({incidents}) AS incidents
            JOIN (SELECT session_id, contract_id FROM {contracts}) AS known USING (session_id)
            JOIN (VALUES {", ".join(f"({quoted(stream)})" for stream in STREAMS)}) AS streams(stream)
              ON coalesce(incidents.stream, streams.stream) = streams.stream
            WHERE kind IN ({", ".join(map(quoted, GAP_KINDS))})
              AND coalesce(incidents.contract_id, known.contract_id) = known.contract_id
            GROUP BY session_id, known.contract_id, streams.stream, from_ns
        )
        SELECT session_id, contract_id, symbol_of(contract_id) AS symbol, stream, from_ns, to_ns,
            utc(from_ns) AS from_timestamp, utc(to_ns) AS to_timestamp
        FROM told ORDER BY session_id, contract_id, stream, from_ns"""


def columns_of(table: str) -> list[str]:
    """The names of a table's columns."""
    return [column.name for column in TABLES[table].columns]


def named(column: str) -> str:
    """A column as SQL writes it: `table` is one of ours, and a word of the language."""
    return f'"{column}"'


def quoted(text: str) -> str:
    """A text as SQL writes it."""
    return "'" + text.replace("'", "''") + "'"
