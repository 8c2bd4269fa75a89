"""The value of an analysis: figures that print well, show themselves in a notebook, and go to JSON and polars."""

from __future__ import annotations

from dataclasses import dataclass, replace
from difflib import get_close_matches
from html import escape
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from mdcapture.analysis.catalogue import GROUPS, METRICS
from mdcapture.errors import UsageError
from mdcapture.wire.timestamps import format_ns

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mdcapture.analysis.hours import Window
    from mdcapture.lake.manifest import Contract

__all__ = ["COLUMNS", "HEADLINES", "Analysis", "known_metrics", "shown"]

COLUMNS: Final = (
    "session_id",
    "contract_id",
    "other_id",
    "start_ns",
    "end_ns",
    "group",
    "metric",
    "value",
    "error",
    "unit",
    "n",
    "note",
)

HEADLINES: Final = (
    "trades",
    "volume",
    "vwap",
    "quoted_spread_bps",
    "effective_spread_bps",
    "price_impact_5s_bps",
    "realized_volatility",
    "imbalance",
)
"""What is printed of intervals, a row each; the others are in the frame."""

_DIGITS: Final = 4
_DECIMALS: Final = 2
_TINY: Final = 1e-4
_GAP: Final = "  "


@dataclass(frozen=True, eq=False)
class Analysis:
    """The figures of one session. `Session.analyze` makes one.

    Attributes:
        session_id: The session.
        contracts: The contracts that were analysed.
        windows: The times.
        every_ns: The length of an interval, where each has figures of its own.
        figures: What `frame` gives.
        left_out: What is not in the figures, and why, in words.
    """

    session_id: str
    contracts: tuple[Contract, ...]
    windows: tuple[Window, ...]
    every_ns: int | None
    figures: pl.DataFrame
    left_out: tuple[str, ...]

    def frame(self) -> pl.DataFrame:
        """A row a contract (or pair of contracts), interval and metric.

        Returns:
            `session_id`, `contract_id`, `other_id` (of a pair: the second contract), `start_ns`, `end_ns`, `group`,
            `metric`, `value` (null where it could not be had), `error` (standard error, where there is one), `unit`,
            `n` (the size of the sample) and `note` (why there is no value).
        """
        return self.figures

    def value(self, metric: str, contract: str | None = None) -> float | None:
        """One figure; of the first interval, where there are intervals.

        Args:
            metric: Its name.
            contract: The contract's id or name; by default the first one.
        """
        chosen = next(one for one in self.contracts if contract in (None, one.name, one.contract_id))
        here = (pl.col("metric") == metric) & (pl.col("contract_id") == chosen.contract_id)
        values = self.figures.filter(here)["value"]
        return values[0] if len(values) else None

    def only(self, metrics: Sequence[str]) -> Analysis:
        """The same with these metrics alone.

        Raises:
            UsageError: There is no such metric; the nearest is named.
        """
        return replace(self, figures=self.figures.filter(pl.col("metric").is_in(known_metrics(metrics))))

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON has it; the names are kept from version to version."""
        return {
            "session_id": self.session_id,
            "start_ns": self.windows[0].from_ns,
            "end_ns": self.windows[-1].to_ns,
            "every_ns": self.every_ns,
            "contracts": [
                {name: getattr(one, name) for name in ("contract_id", "name", "description", "tick_size", "tick_value")}
                for one in self.contracts
            ],
            "windows": [window._asdict() for window in self.windows],
            "figures": self.figures.to_dicts(),
            "left_out": list(self.left_out),
        }

    def __str__(self) -> str:
        parts = [f"{self.session_id}{_GAP}{_clock(self.windows[0].from_ns)} to {_clock(self.windows[-1].to_ns)} UTC"]
        for title, header, rows in self._tables():
            parts.append("\n".join([f"\n{title}", *_aligned([header, *rows])]))
        reasons = [f"  {reason}" for reason in self.reasons()]
        if reasons:
            parts.append("\n".join(["\nnot in these figures", *reasons]))
        return "\n".join(parts)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        tables = "".join(
            f"<h4>{escape(title)}</h4><table><thead>{_html_row(header, 'th')}</thead>"
            f"<tbody>{''.join(_html_row(row, 'td') for row in rows)}</tbody></table>"
            for title, header, rows in self._tables()
        )
        reasons = "".join(f"<li>{escape(reason)}</li>" for reason in self.reasons())
        return f"<h3>{escape(self.session_id)}</h3>{tables}<ul>{reasons}</ul>"

    def reasons(self) -> Iterator[str]:
        """What was left out, and what could not be had of the first interval."""
        yield from self.left_out
        names = {one.contract_id: one.name or one.contract_id for one in self.contracts}
        first = self.figures.filter(pl.col("start_ns") == pl.col("start_ns").min(), pl.col("note").is_not_null())
        alike = first.group_by("contract_id", "note", maintain_order=True).agg("metric")
        for contract_id, note, metrics in alike.rows():
            if not note.startswith("no "):
                yield f"{names[contract_id]}: {note}: {', '.join(metrics)}"

    def _tables(self) -> Iterator[tuple[str, list[str], list[list[str]]]]:
        """Title, header and rows of each table."""
        return self._by_interval() if self.every_ns else self._by_group()

    def _by_group(self) -> Iterator[tuple[str, list[str], list[list[str]]]]:
        names = {one.contract_id: one.name or one.contract_id for one in self.contracts}
        for group in GROUPS:
            rows = self.figures.filter((pl.col("group") == group) & pl.col("value").is_not_null())
            if rows.is_empty():
                continue
            columns = rows.select("contract_id", "other_id").unique(maintain_order=True).rows()
            cells = {(row["metric"], (row["contract_id"], row["other_id"])): row for row in rows.iter_rows(named=True)}
            title = [f"{names[one]}/{names[two]}" if two else names[one] for one, two in columns]
            table = [
                [
                    metric,
                    *(_cell(cells.get((metric, column))) for column in columns),
                    METRICS[metric].unit,
                    "/".join(_count(cells.get((metric, column))) for column in columns),
                ]
                for metric in rows["metric"].unique(maintain_order=True)
            ]
            yield group, ["", *title, "unit", "n"], table

    def _by_interval(self) -> Iterator[tuple[str, list[str], list[list[str]]]]:
        rows = self.figures.filter(pl.col("metric").is_in(HEADLINES))
        for contract in self.contracts:
            own = rows.filter(pl.col("contract_id") == contract.contract_id)
            wide = own.pivot("metric", index="start_ns", values="value", maintain_order=True)
            table = [[_clock(row[0]), *map(shown, row[1:])] for row in wide.iter_rows()]
            yield contract.name or contract.contract_id, ["from", *wide.columns[1:]], table


def known_metrics(names: Sequence[str]) -> Sequence[str]:
    """The names, if each is a metric's.

    Raises:
        UsageError: One is not; the nearest is named.
    """
    for name in names:
        if name not in METRICS:
            near = get_close_matches(name, METRICS, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]}?" if near else "`analyze --format csv` lists them all"
            raise UsageError(f"there is no metric {name!r}: {hint}")
    return names


def shown(value: float | None, error: float | None = None) -> str:
    """A figure for people: four digits and at least two decimals; with an error, as many digits as that leaves."""
    if value is None:
        return ""
    if error and abs(value) > error * 1e-3:
        decimals = max(0, 1 - _exponent(error))
        if max(abs(value), error) >= _TINY:
            return f"{value:,.{decimals}f} ± {error:,.{decimals}f}"
        return f"{value:.2e} ± {error:.0e}"
    if value == int(value) and abs(value) < 10**15:
        return f"{value:,.0f}"
    if abs(value) < _TINY:
        return f"{value:.3e}"
    return f"{value:,.{max(_DECIMALS, _DIGITS - 1 - _exponent(value))}f}"


def _exponent(value: float) -> int:
    """Of ten, of the first digit."""
    return int(f"{abs(value):e}".partition("e")[2])


def _cell(row: dict[str, Any] | None) -> str:
    return "" if row is None else shown(row["value"], row["error"])


def _count(row: dict[str, Any] | None) -> str:
    return "-" if row is None or row["n"] is None else f"{row['n']:,}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    text = ["", "unit"]  # what is read from the left; numbers are compared by their ends
    left = [name in text for name in rows[0]]
    return [
        _GAP
        + _GAP.join(
            cell.ljust(width) if words else cell.rjust(width)
            for cell, width, words in zip(row, widths, left, strict=True)
        ).rstrip()
        for row in rows
    ]


def _html_row(cells: Sequence[str], tag: str) -> str:
    first, *others = (escape(cell) for cell in cells)
    explained = METRICS[first].definition if first in METRICS else ""
    head = f'<th scope="row" title="{escape(explained)}">{first}</th>'
    return f"<tr>{head}{''.join(f'<{tag}>{cell}</{tag}>' for cell in others)}</tr>"


def _clock(time_ns: int) -> str:
    return format_ns(time_ns, 0)[:19].replace("T", " ")
