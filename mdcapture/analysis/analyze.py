"""From a session to its figures: every metric of the catalogue, or the reason why there is none."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Final

import polars as pl

from mdcapture.analysis.catalogue import METRICS
from mdcapture.analysis.extract import Extract, Source, take
from mdcapture.analysis.figures import PARTS, QUALITY, tall
from mdcapture.analysis.hours import Moment, Window, cut, regular_windows
from mdcapture.analysis.pairs import pair_figures, together
from mdcapture.analysis.result import COLUMNS, Analysis, counted
from mdcapture.errors import NotFoundError, UsageError
from mdcapture.lake.manifest import contracts_named
from mdcapture.wire.timestamps import format_ns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from mdcapture.analysis.catalogue import Needs
    from mdcapture.analysis.figures import Part
    from mdcapture.lake.manifest import Contract

__all__ = ["analyze", "analyze_contract", "extracts", "figures", "quality"]

_CORRELATIONS: Final = "correlations"


def analyze(
    source: Source,
    contracts: Sequence[str] | None = None,
    start: Moment | None = None,
    end: Moment | None = None,
    *,
    regular_hours: bool = False,
    every_ns: int | None = None,
    progress: Callable[[int], object] = lambda _: None,
) -> Analysis:
    """Compute every metric that the data of a session support.

    Args:
        source: The session.
        contracts: Their ids or names; without them, all that it has.
        start: From when on; by default from the first message.
        end: Until before when; by default with the last message.
        regular_hours: Only the hours of regular trading (see `hours.regular_windows`).
        every_ns: Compute each interval of this length for itself (whole multiples in UTC).
        progress: Told how many groups of figures are computed.

    Raises:
        NotFoundError: The session has no such contract, or nothing at all.
        UsageError: The times leave nothing, or the interval is not positive.
    """
    parts = extracts(source, contracts, start, end, regular_hours=regular_hours, every_ns=every_ns)
    return figures(source, parts, progress=progress)


def analyze_contract(
    source: Source,
    contract_id: str,
    *,
    start: Moment | None = None,
    end: Moment | None = None,
    regular_hours: bool = False,
    every_ns: int | None = None,
) -> Analysis:
    """Analyze one contract alone, as a task of its own; arguments and errors are those of `analyze`."""
    return analyze(source, [contract_id], start, end, regular_hours=regular_hours, every_ns=every_ns)


def extracts(
    source: Source,
    contracts: Sequence[str] | None = None,
    start: Moment | None = None,
    end: Moment | None = None,
    *,
    regular_hours: bool = False,
    every_ns: int | None = None,
) -> list[Extract]:
    """What `analyze` reads, an extract a contract; arguments and errors are its own."""
    if every_ns is not None and every_ns <= 0:
        raise UsageError(f"an interval is longer than nothing, not {every_ns} ns: nothing was computed")
    whole = cut(_whole(source), start, end)
    chosen = _chosen(source, contracts)
    parts = {one.contract_id: regular_windows(_root(one), whole) if regular_hours else [whole] for one in chosen}
    open_ones = [one for one in chosen if parts[one.contract_id]]
    if not open_ones:
        raise UsageError("no regular trading hours lie within these times: nothing was computed")
    return [take(source, one, parts[one.contract_id], every_ns=every_ns) for one in open_ones]


def _whole(source: Source) -> Window:
    first_ns, last_ns = source.start_ns, source.end_ns
    if first_ns is None or last_ns is None:
        raise NotFoundError(f"{source.session_id} holds no message yet: there is nothing to analyze")
    return Window(first_ns, last_ns + 1)


def _chosen(source: Source, names: Sequence[str] | None) -> list[Contract]:
    known = list(source.contracts)
    if not names:
        return known
    chosen = {one.contract_id: one for name in names for one in contracts_named(known, name)}
    return list(chosen.values())


def _root(contract: Contract) -> str:
    """`MNQ` of `CON.F.US.MNQ.Z26`."""
    parts = contract.contract_id.split(".")
    return parts[-2] if len(parts) > 1 else parts[0]


def quality(source: Source) -> Analysis:
    """How good a session's data are: the figures of `analyze` that cost little, of all of it.

    Raises:
        NotFoundError: The session has nothing at all.
    """
    whole = _whole(source)
    parts = [take(source, one, [whole], with_quotes=False) for one in source.contracts]
    analysis = figures(source, parts, QUALITY, pairs=False)
    return replace(analysis, figures=analysis.figures.filter(pl.col("value").is_not_null()), left_out=())


def figures(
    source: Source,
    parts: Sequence[Extract],
    computed: Mapping[Part, frozenset[Needs]] = PARTS,
    *,
    pairs: bool = True,
    progress: Callable[[int], object] = lambda _: None,
) -> Analysis:
    """The figures of extracts of one session.

    Args:
        source: The session.
        parts: An extract a contract.
        computed: What makes them, of `figures.PARTS`.
        pairs: Whether to compute what contracts have together.
        progress: Told how many groups of figures are computed.
    """
    done = count(1)
    rows = [_of_contract(x, computed, lambda: progress(next(done))) for x in parts]
    if pairs and len(parts) > 1:
        rows.append(_of_pairs(parts))
    order = {metric: place for place, metric in enumerate(METRICS)}
    place = pl.col("metric").replace_strict(order, return_dtype=pl.Int64)
    contract = pl.col("contract_id").replace_strict(
        {x.contract.contract_id: number for number, x in enumerate(parts)}, return_dtype=pl.Int64
    )
    table = pl.concat(rows, how="diagonal").with_columns(session_id=pl.lit(source.session_id))
    return Analysis(
        session_id=source.session_id,
        contracts=tuple(x.contract for x in parts),
        windows=parts[0].windows,
        every_ns=parts[0].every_ns,
        figures=table.sort(pl.col("other_id").is_not_null(), "start_ns", contract, place, "other_id").select(COLUMNS),
        left_out=(*_unfinished(source, parts), *_left_out(parts)),
    )


def _of_contract(x: Extract, computed: Mapping[Part, frozenset[Needs]], progress: Callable[[], object]) -> pl.DataFrame:
    """A row an interval and metric, whether it could be computed or not."""
    made: list[pl.DataFrame] = []
    for part, needs in computed.items():
        if needs <= x.streams:
            made += part(x)
        progress()
    names = [name for name, metric in METRICS.items() if metric.group != _CORRELATIONS]
    wanted = _intervals(x).join(_catalogue(names, x), how="cross")
    found = pl.concat([_EMPTY, *map(tall, made)])
    rows = wanted.join(found, on=["session_id", "metric"], how="left")
    return _judged(rows).with_columns(contract_id=pl.lit(x.contract.contract_id), other_id=pl.lit(None, pl.String))


_EMPTY: Final = pl.DataFrame(
    schema={"session_id": pl.String, "metric": pl.String, "value": pl.Float64, "error": pl.Float64, "n": pl.Int64}
)


def _of_pairs(parts: Sequence[Extract]) -> pl.DataFrame:
    pair = {"contract_x": "contract_id", "contract_y": "other_id"}
    found = pl.concat(tall(wide, *pair) for wide in pair_figures(together(parts)))
    names = [name for name, metric in METRICS.items() if metric.group == _CORRELATIONS]
    wanted = found.select("session_id", *pair).unique().join(_catalogue(names, parts[0]), how="cross")
    rows = wanted.join(found, on=["session_id", "metric", *pair], how="left")
    return _judged(rows.join(_intervals(parts[0]), on="session_id")).rename(pair)


def _intervals(x: Extract) -> pl.DataFrame:
    by_interval = x.spans.group_by("session_id", maintain_order=True)
    return by_interval.agg(start_ns=pl.col("from_ns").min(), end_ns=pl.col("to_ns").max())


def _catalogue(names: Iterable[str], x: Extract) -> pl.DataFrame:
    """The metrics as rows, with what this contract lacks for each."""
    rows = [
        (name, one.group, one.unit, 0 if one.total else one.least, one.counts, _lacking(one.needs, x))
        for name, one in ((name, METRICS[name]) for name in names)
    ]
    names_of_columns = ["metric", "group", "unit", "least", "counts", "lacking"]
    return pl.DataFrame(rows, names_of_columns, orient="row", schema_overrides={"lacking": pl.String})


def _lacking(needs: Sequence[str], x: Extract) -> str | None:
    missing = [stream for stream in needs if stream != "contracts" and stream not in x.streams]
    return f"no {' and no '.join(missing)}" if missing else None


def _unfinished(source: Source, parts: Sequence[Extract]) -> Iterator[str]:
    if source.status == "open":
        until = format_ns(parts[0].windows[-1].to_ns, 0)[:19].replace("T", " ")
        yield f"what comes after {until} UTC: the session is not sealed yet"


def _left_out(parts: Sequence[Extract]) -> Iterator[str]:
    for x in parts:
        missing_s = int((x.missing["to_ns"] - x.missing["from_ns"]).sum()) / 1e9
        if missing_s:
            gaps = counted(x.missing.height, "gap")
            yield f"{x.name}: {gaps}, {missing_s:,.3f} s together; no figure reaches across one"
        for stream in ("quotes", "trades", "depth"):
            if stream not in x.streams:
                yield f"{x.name}: no {stream}, and nothing that needs them"
        if x.modelled is not x:
            yield (
                f"{x.name}: models of single orders are of {x.modelled.trades.height:,} of {x.trades.height:,} trades, "
                "in blocks that are spread over all of the time"
            )
    if len(parts) == 1:
        yield "correlations: they need two contracts, and this is one"


def _judged(rows: pl.DataFrame) -> pl.DataFrame:
    """Take back what too small a sample says, note why a value is not there, and 0 where nothing says that."""
    nothing = (pl.col("least") == 0) & pl.col("lacking").is_null() & (pl.col("n").fill_null(0) == 0)
    told = rows.with_columns(pl.when(nothing).then(pl.col("value", "n").fill_null(0)).otherwise(pl.col("value", "n")))
    few = pl.col("n") < pl.col("least")
    note = (
        pl.when(pl.col("lacking").is_not_null())
        .then("lacking")
        .when(few)
        .then(pl.format("only {} {}, {} are needed", "n", "counts", "least"))
        .when(pl.col("value").is_null())
        .then(pl.lit("not determined by these data"))
    )
    return told.with_columns(
        value=pl.when(~few.fill_null(value=False)).then("value"),
        error=pl.when(~few.fill_null(value=False)).then("error"),
        note=note,
    )
