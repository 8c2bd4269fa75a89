"""The lake for people: sessions by name, their tables as lazy polars frames, and SQL.

    lake = open_lake("data")
    session = lake.session("latest")
    session.trades().filter(pl.col("volume") > 10).collect()
    session.sql("select side, sum(volume) from trades group by side").pl()

Frames have the columns of the lake's tables (`mdcapture.lake.schema`), led by `session_id` and `contract_id`; the rows
of a contract are in the order (`recv_ns`, `seq`, `pos`). What has ended is read from its files, as any Parquet reader
would; what is still being captured is read when the frame is collected, with all that had arrived by then.

Clean rows are those received while nothing was missing:

    session.trades(clean=True)                    outside of the gaps of trades
    session.trades(clean=("trades", "quotes"))    outside of those of quotes, too: for what joins the two
    session.quotes(clean=True)                    and only where both sides are known since the last subscription

A gap has no rows of its own stream, so the first form drops little: what it can't do is make a return, or a state that
is held, stop at a gap. Metrics do that when they are given `incidents=session.gaps()`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

import polars as pl

from mdcapture.config import parse_duration
from mdcapture.interop.opening import open_catalog
from mdcapture.lake.catalog import Catalog, Snapshot, listed
from mdcapture.lake.manifest import contracts_named
from mdcapture.lake.schema import GAP_KINDS, NO_END_NS, PARTITIONS, STREAMS
from mdcapture.tables import frame_of, outside
from mdcapture.wire.timestamps import NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from concurrent.futures import Executor
    from pathlib import Path

    import duckdb

    from mdcapture.analysis.hours import Moment
    from mdcapture.analysis.result import Analysis
    from mdcapture.interop.cluster import Done
    from mdcapture.interop.postgres.publish import Brought
    from mdcapture.lake.manifest import Contract, Manifest, State
    from mdcapture.lake.remote import RemotePath
    from mdcapture.lake.schema import Stream
    from mdcapture.live.features import Feature
    from mdcapture.query.sql import Database
    from mdcapture.query.sqlite import SQLiteConnection

__all__ = ["Lake", "Session", "open_lake"]

T = TypeVar("T")


def open_lake(path: str | Path | RemotePath = "data") -> Lake:
    """Open a lake for reading; recorders may be writing to it.

    Args:
        path: Its folder, its place in object storage (`s3://bucket/prefix`, see `mdcapture.lake.remote`), or the
            database that its sessions were published to (`postgresql://user@host/database`).

    Raises:
        NotFoundError: There is no such folder, or it is no lake.
        UsageError: The address holds a secret.
        StorageError: Whoever keeps its objects can't be reached, or refused.
        ServerError: The database can't be reached, or refused.
    """
    return Lake(open_catalog(path))


class _Tables:
    """The tables of some sessions, or of all that the lake has whenever it is asked, as frames and in SQL."""

    def __init__(self, catalog: Catalog, only: Sequence[str] | None = None) -> None:
        self._catalog = catalog
        self._only = only
        self._named = only is not None

    def quotes(self, contract_id: str | None = None, *, clean: bool | Sequence[Stream] = False) -> pl.LazyFrame:
        """The state of the top of the market after each quote message.

        Args:
            contract_id: A contract's id, or what its name or root (`MNQZ6`, `MNQ`) means; without it, all of them.
            clean: Leave out what was received in a gap, of this stream or of those that are named, and quotes that
                don't know both sides yet.

        Raises:
            NotFoundError: No session here has that contract.
        """
        quotes = self._stream("quotes", contract_id, clean)
        return quotes.filter(pl.all_horizontal(pl.col("best_bid", "best_ask").is_not_null())) if clean else quotes

    def trades(self, contract_id: str | None = None, *, clean: bool | Sequence[Stream] = False) -> pl.LazyFrame:
        """The prints; arguments as those of `quotes`."""
        return self._stream("trades", contract_id, clean)

    def depth(self, contract_id: str | None = None, *, clean: bool | Sequence[Stream] = False) -> pl.LazyFrame:
        """The changes of the book, as they came; arguments as those of `quotes`."""
        return self._stream("depth", contract_id, clean)

    def backfill(self, contract_id: str | None = None) -> pl.LazyFrame:
        """Bars of one second of the times in which trades can be missing; arguments as those of `quotes`."""
        return self._frame("backfill", contract_id)

    def gaps(self, contract_id: str | None = None, streams: Sequence[Stream] = STREAMS) -> pl.LazyFrame:
        """The times in which messages can be missing: a row a stream of a contract, as metrics take them.

        Args:
            contract_id: As `quotes` takes it.
            streams: The streams that matter.

        Returns:
            `session_id`, `contract_id`, `stream`, `from_ns` (the last good message) and `to_ns` (the first new one, or
            `NO_END_NS`), by stream and time.
        """
        ids = self._sessions()
        meant = self._contract_ids(ids) if contract_id is None else self._meant(ids, contract_id)
        wanted = pl.LazyFrame(
            [(one, each) for one, contract_ids in meant.items() for each in contract_ids],
            schema=dict.fromkeys(PARTITIONS, pl.String()),
            orient="row",
        )
        every = wanted.join(pl.LazyFrame({"stream": list(streams)}, {"stream": pl.String()}), how="cross")
        about = [
            pl.col(name).is_null() | (pl.col(name) == pl.col(f"{name}_right")) for name in ("contract_id", "stream")
        ]
        return (
            self._frame("incidents", None)
            .filter(pl.col("kind").is_in([kind.value for kind in GAP_KINDS]))
            .join(every, on="session_id", how="inner", suffix="_right")
            .filter(*about)
            .group_by("session_id", contract_id="contract_id_right", stream="stream_right", from_ns="from_ns")
            .agg(pl.col("to_ns").max().fill_null(NO_END_NS))
            .sort("session_id", "contract_id", "stream", "from_ns")
        )

    def signals(self, contract_id: str | None = None) -> pl.LazyFrame:
        """What signals said, and when it was known; arguments as those of `quotes`."""
        return self._frame("signals", contract_id)

    def messages(self, contract_id: str | None = None) -> pl.LazyFrame:
        """Every hub message in its original text; arguments as those of `quotes`."""
        return self._frame("messages", contract_id)

    def rejects(self, contract_id: str | None = None) -> pl.LazyFrame:
        """What could not be used, and why; arguments as those of `quotes`."""
        return self._frame("rejects", contract_id)

    def incidents(self, contract_id: str | None = None) -> pl.LazyFrame:
        """What happened to the capture; arguments as those of `quotes`.

        With a contract, those that concern it alone: those without one concern all.
        """
        return self._frame("incidents", contract_id)

    def sql(
        self, query: str, parameters: Sequence[object] | Mapping[str, object] | None = None
    ) -> duckdb.DuckDBPyRelation:
        """Ask in SQL: see `mdcapture.query.sql` for the views.

        Args:
            query: One statement in DuckDB's dialect.
            parameters: The values of its `?` or `$name`.

        Returns:
            A relation: `.pl()`, `.fetchall()`, `.to_arrow_reader()`, or printed.

        Raises:
            UsageError: The query is wrong; the message is DuckDB's.
        """
        return self._database.sql(query, parameters)

    def sqlite(self) -> SQLiteConnection:
        """Ask as if this were the replaced system's SQLite file: a connection of DB-API 2.0 (`docs/sqlite.md`)."""
        from mdcapture.query.sqlite import SQLiteConnection, SQLiteDatabase  # noqa: PLC0415  # as below

        return SQLiteConnection(SQLiteDatabase(self._catalog, self._only))

    def export(
        self,
        target: str | Path,
        *,
        tables: Sequence[str] = (),
        query: str | None = None,
        contract_id: str | None = None,
        from_ns: int | None = None,
        to_ns: int | None = None,
        bars_ns: int | None = None,
        form: str | None = None,
        levels: int = 10,
    ) -> dict[str, int]:
        """Export to files of other tools: see `mdcapture.interop.export` for formats, targets and errors.

        Args:
            target: A file, a folder of a file for each table, or `-` for the standard output.
            tables: These alone; without them, all.
            query: A query in DuckDB's dialect, in place of tables.
            contract_id: One contract, by its id or name; without it, all of them.
            from_ns: What was received at this time or later (ns UTC).
            to_ns: What was received before this time (ns UTC).
            bars_ns: Bars of this length (ns), in place of tables.
            form: The format; without it, what the target's suffix says.
            levels: How many levels a side the book of a backtester's format has.

        Returns:
            The number of rows by table.
        """
        from mdcapture.interop.export import Selection, export  # noqa: PLC0415  # as below

        asked = Selection(tables, query, contract_id, from_ns, to_ns, bars_ns)
        return export(self._database, target, asked, form=form, levels=levels)

    def publish(self, address: str) -> list[Brought]:
        """Publish to a PostgreSQL database, each row once: see `mdcapture.interop.postgres.publish` for errors.

        Args:
            address: `postgresql://user@host/database`; the password is in `PGPASSWORD` or `~/.pgpass`.

        Returns:
            By session, what is there and how many rows were new.
        """
        from mdcapture.interop.postgres.publish import publish  # noqa: PLC0415  # an extra

        return publish(self._catalog, self._sessions(), address)

    @cached_property
    def _database(self) -> Database:
        from mdcapture.query.sql import Database  # noqa: PLC0415  # duckdb takes its time, and frames do without

        return Database(self._catalog, self._only)

    def _stream(self, table: Stream, contract_id: str | None, clean: bool | Sequence[Stream]) -> pl.LazyFrame:  # noqa: FBT001
        rows = self._frame(table, contract_id)
        if clean is False:
            return rows
        return outside(rows, self.gaps(contract_id, [table] if clean is True else clean))

    def _sessions(self) -> Sequence[str]:
        return self._catalog.session_ids() if self._only is None else self._only

    def _frame(self, table: str, contract_id: str | None) -> pl.LazyFrame:
        ids = self._sessions()
        if contract_id is None:
            return frame_of(self._catalog, ids, table, named=self._named)
        meant = self._meant(ids, contract_id)
        contract_ids = sorted({each for found in meant.values() for each in found})
        return frame_of(self._catalog, list(meant), table, contract_ids, named=self._named)

    def _contract_ids(self, ids: Sequence[str]) -> dict[str, list[str]]:
        """The contracts of each session."""
        now = self._catalog.snapshots(ids, named=self._named)
        return {one.manifest.session_id: [each.contract_id for each in one.contracts] for one in now}

    def _meant(self, ids: Sequence[str], text: str) -> dict[str, list[str]]:
        """The contracts that an id, a name or a root means, by session; without those that have none."""
        held = {one.manifest.session_id: one.contracts for one in self._catalog.snapshots(ids, named=self._named)}
        known = {each.contract_id: each for contracts in held.values() for each in contracts}
        wanted = {one.contract_id for one in contracts_named(known.values(), text)}
        found = {one: [each.contract_id for each in held[one] if each.contract_id in wanted] for one in held}
        return {one: contract_ids for one, contract_ids in found.items() if contract_ids}


class Lake(_Tables):
    """A folder of sessions. `open_lake` makes one.

    Attributes:
        path: The folder.
    """

    def __init__(self, catalog: Catalog) -> None:
        super().__init__(catalog)
        self.path = catalog.root

    def __repr__(self) -> str:
        ids = self._sessions()
        span = f", {ids[0]} to {ids[-1]}" if ids else ""
        return f"<Lake {self._catalog.place}: {len(ids)} session{'' if len(ids) == 1 else 's'}{span}>"

    def map(
        self,
        function: Callable[[Session, str], T],
        *,
        sessions: Sequence[str] | None = None,
        contracts: Sequence[str] | None = None,
        executor: Executor | None = None,
    ) -> Iterator[Done[T]]:
        """Call a function for each session and contract, wherever there are processors for it (`docs/scaling.md`).

        Args:
            function: Gets a `Session` and the id of one of its contracts; a function of a module, where it travels.
            sessions: As `session` takes them; without them, all.
            contracts: Their ids or names; without them, all.
            executor: Any of `concurrent.futures`, or a Dask client's `get_executor()`; without it, here and in turn.

        Yields:
            In the order of sessions and contracts: `session_id`, `contract_id`, and `result()`, which returns what the
            function returned or raises what it raised.

        Raises:
            NotFoundError: There is no such session, or none that has such a contract.
        """
        from mdcapture.interop.cluster import run_tasks  # noqa: PLC0415  # few readers need it

        chosen = self.sessions() if sessions is None else [self.session(one) for one in sessions]
        return run_tasks(function, list(self._tasks(chosen, contracts)), executor)

    def _tasks(self, sessions: Sequence[Session], names: Sequence[str] | None) -> Iterator[tuple[Session, str]]:
        known = self._contract_ids([one.session_id for one in sessions])
        wanted = {each for ids in known.values() for each in ids}
        if names is not None:
            contracts = {each.contract_id: each for one in sessions for each in one.contracts}
            wanted = {each.contract_id for name in names for each in contracts_named(contracts.values(), name)}
        for one in sessions:
            yield from ((one, each) for each in known.get(one.session_id, ()) if each in wanted)

    def sessions(self) -> list[Session]:
        """The sessions, the oldest first."""
        return [Session(self._catalog, one) for one in self._sessions()]

    def session(self, ref: str = "latest") -> Session:
        """One session.

        Args:
            ref: Its id, the beginning of it that no other id has, or `latest`.

        Raises:
            NotFoundError: No session, or more than one, is called that.
        """
        return Session(self._catalog, self._catalog.find(ref))


class Session(_Tables):
    """One session of a lake, as it is whenever it is asked. `Lake.session` finds one.

    Attributes:
        session_id: Its id.
    """

    def __init__(self, catalog: Catalog, session_id: str) -> None:
        super().__init__(catalog, [session_id])
        self.session_id = session_id

    def __reduce__(self) -> tuple[object, ...]:
        return Session, (self._catalog, self.session_id)

    def __repr__(self) -> str:
        now = self.snapshot()
        names = [contract.contract_id for contract in now.contracts]
        rows = ", ".join(f"{table} {count:,}" for table, count in now.counts.items() if count)
        parts = [
            f"{self.session_id} ({now.manifest.state})",
            listed(names) if names else "no contract yet",
            f"{_clock(now.start_ns)} to {_clock(now.end_ns)}" if now.start_ns is not None else "",
            rows or "nothing received yet",
        ]
        return f"<Session {'; '.join(part for part in parts if part)}>"

    @property
    def manifest(self) -> Manifest:
        """What its owner wrote of it: configuration, files with checksums, what was implausible."""
        return self._catalog.manifest(self.session_id)

    @property
    def status(self) -> State:
        """`open` while it is captured (or until what a dead recorder left is recovered), `sealed` or `recovered`."""
        return self.manifest.state

    @property
    def contracts(self) -> list[Contract]:
        """Its contracts, with tick size and value where they are known."""
        return self.snapshot().contracts

    @property
    def counts(self) -> dict[str, int]:
        """Rows by table."""
        return self.snapshot().counts

    @property
    def start_ns(self) -> int | None:
        """When the first message was received (ns UTC)."""
        return self.snapshot().start_ns

    @property
    def end_ns(self) -> int | None:
        """When the last message was received (ns UTC)."""
        return self.snapshot().end_ns

    def analyze(
        self,
        contracts: Sequence[str] | None = None,
        start: Moment | None = None,
        end: Moment | None = None,
        *,
        regular_hours: bool = False,
        every: str | None = None,
    ) -> Analysis:
        """Compute all metrics that the data support: see `mdcapture.analysis.catalogue`.

        Args:
            contracts: Their ids or names; without them, all.
            start: From when on: nanoseconds, ISO 8601 text (UTC where it names no zone), or a datetime with a zone.
            end: Until before when.
            regular_hours: Only the hours of regular trading.
            every: Compute each interval of this length for itself: `5m`, `30s`.

        Returns:
            A value that prints, shows itself in a notebook, and has `.frame()` and `.to_dict()`.

        Raises:
            NotFoundError: The session has no such contract, or nothing at all.
            UsageError: The times leave nothing.
            ConfigError: `every` is no duration.
        """
        from mdcapture.analysis.analyze import analyze  # noqa: PLC0415  # scipy takes its time

        every_ns = None if every is None else round(parse_duration(every) * NS_PER_S)
        return analyze(self, contracts, start, end, regular_hours=regular_hours, every_ns=every_ns)

    def features(
        self,
        *,
        every: str | int | pl.DataFrame | pl.LazyFrame,
        metrics: Sequence[str] | Mapping[str, Feature] = ("mid", "quoted_spread", "delta", "order_flow_imbalance"),
        labels: Sequence[str | int] = (),
        contract_id: str | None = None,
        levels: int = 1,
    ) -> pl.DataFrame:
        """One aligned frame for machine learning, a row a moment: see `mdcapture.live.features.features`.

        Args:
            every: "1s", nanoseconds, or bars, whose ends are the moments.
            metrics: Names of `mdcapture.live.features.FEATURES`, or features of your own by name.
            labels: Horizons of the mid's returns, as "5s".
            contract_id: As `quotes` takes it.
            levels: How many levels of the book features of your own see.
        """
        from mdcapture.live.features import features  # noqa: PLC0415  # few readers need it

        return features(self, every=every, metrics=metrics, labels=labels, contract_id=contract_id, levels=levels)

    def store_signals(self, rows: pl.DataFrame, names: Collection[str] | None = None) -> None:
        """Store what signals said in the table `signals`; storing the same again changes nothing.

        Args:
            rows: `seq`, `recv_ns`, `contract_id`, `name`, `value`, as `mdcapture.live.signals.Signals.run` gives them.
            names: The signals that these are all the rows of, in place of what the session has of them; by default
                those that have rows.

        Raises:
            BusyError: The session is still recorded.
            UsageError: A row is of a message that the session does not have, or of another name; or the lake is in
                object storage, where it is only read.
        """
        from mdcapture.lake.signals import store_signals  # noqa: PLC0415  # few readers need it

        names = rows["name"].unique().sort().to_list() if names is None else names
        store_signals(self._catalog.root, self.session_id, rows.to_arrow(), names)

    def snapshot(self) -> Snapshot:
        """The session at this moment, for those who need several of its figures to agree."""
        return self._catalog.snapshot(self.session_id)


def _clock(time_ns: int | None) -> str:
    return "" if time_ns is None else f"{datetime.fromtimestamp(time_ns // 1_000_000_000, UTC):%Y-%m-%d %H:%M:%S}Z"
