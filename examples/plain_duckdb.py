"""Query a lake with plain DuckDB: the files need no mdcapture.

    python examples/plain_duckdb.py LAKE

The best quote before each trade by an ASOF join, outside of gaps, and the effective spread by contract and side.

The two partition columns are compared as a pair: DuckDB 2.0.0 loses rows of an ASOF join that compares two hive
partitions one by one (`t.session_id = q.session_id and t.contract_id = q.contract_id`). What was right before is
told by `seq`, the number of the message: several can have come within one `recv_ns`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

if TYPE_CHECKING:
    import polars as pl

INCIDENTS = "read_parquet($lake || '/incidents/*/*/*.parquet', hive_partitioning = true)"
NO_INCIDENTS = "(select null::text as session_id, null::text as contract_id, '' as kind, 0 as from_ns, 0 as to_ns)"
QUERY = """
with
    trades as (from read_parquet($lake || '/trades/*/*/*.parquet', hive_partitioning = true)),
    quotes as (from read_parquet($lake || '/quotes/*/*/*.parquet', hive_partitioning = true)),
    gaps as (
        select session_id, contract_id, from_ns, coalesce(to_ns, 9223372036854775807) as to_ns
        from {incidents}
        where kind in ('gap', 'stalled', 'journal_damaged', 'crashed')
    )
select t.contract_id, t.side, count(*) as trades, sum(t.volume) as lots,
       avg(2 * (case t.side when 0 then 1 else -1 end) * (t.price - (q.best_bid + q.best_ask) / 2)) as effective_spread
from trades t
asof join quotes q
    on (t.session_id, t.contract_id) = (q.session_id, q.contract_id) and t.seq > q.seq
anti join gaps g
    on t.session_id = g.session_id and coalesce(g.contract_id, t.contract_id) = t.contract_id
    and t.recv_ns > g.from_ns and t.recv_ns < g.to_ns
where q.best_bid < q.best_ask
group by all
order by all
"""


def effective_spreads(lake: str) -> pl.DataFrame:
    """The mean effective spread by contract and side, in price units."""
    happened = any(Path(lake).glob("incidents/*/*/*.parquet"))  # a table without rows has no files
    query = QUERY.format(incidents=INCIDENTS if happened else NO_INCIDENTS)
    with duckdb.connect() as connection:
        result = connection.sql(query, params={"lake": lake})
        assert result is not None  # a statement that reads has one
        frame: pl.DataFrame = result.pl()
        return frame


if __name__ == "__main__":
    print(effective_spreads(sys.argv[1]))
