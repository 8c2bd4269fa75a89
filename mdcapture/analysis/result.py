"""The value of an analysis: figures that print well, show themselves in a notebook, and go to JSON and polars."""

from __future__ import annotations

from dataclasses import dataclass, replace
from difflib import get_close_matches
from html import escape
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from mdcapture.analysis.catalogue import GROUPS, METRICS
from mdcapture.errors import UsageError
from mdcapture.lake.manifest import contract_named
from mdcapture.wire.timestamps import format_ns

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mdcapture.analysis.hours import Window
    from mdcapture.lake.manifest import Contract

__all__ = ["COLUMNS", "HEADLINES", "Analysis", "counted", "known_metrics", "readable", "shown"]

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
            contract: The contract's id, name or root, of a pair either's; the only one need not be named.

        Returns:
            None where the data do not support it: `frame` has the reason, as `note`.

        Raises:
            UsageError: There is no such metric (the nearest is named), or several contracts could be meant.
            NotFoundError: There is no such contract.
        """
        known_metrics([metric])
        here = pl.col("metric") == metric
        if contract is not None:
            contract_id = contract_named(self.contracts, contract).contract_id
            here &= (pl.col("contract_id") == contract_id) | (pl.col("other_id") == contract_id).fill_null(value=False)
        found = self.figures.filter(here)
        of = found.select("contract_id", "other_id").unique(maintain_order=True).rows()
        if len(of) > 1:
            names = ", ".join("/".join(self._name(one) for one in several if one) for several in of)
            raise UsageError(
                f"there are several values of {metric} here, of {names}: name one contract, or take `frame`"
            )
        return found["value"][0] if of else None

    def _name(self, contract_id: str) -> str:
        return next((one.name for one in self.contracts if one.contract_id == contract_id), "") or contract_id

    def listed(self) -> list[dict[str, Any]]:
        """The rows of `frame` as people read them, see `readable`."""
        contract = (
            {"contract": "/".join(self._name(one) for one in (row["contract_id"], row["other_id"]) if one)} | row
            for row in self.figures.rows(named=True)
        )
        return list(map(readable, contract))

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


def readable(row: Mapping[str, Any]) -> dict[str, Any]:
    """A figure's row as people read it: value and error in one, clocks (UTC), the long id last."""
    before = {name: row[name] for name in ("contract", "day", "weekday", "metric") if name in row}
    value = {"value": shown(row["value"], row["error"]), "unit": row["unit"], "n": row["n"]}
    clocks = {"from": _clock(row["start_ns"]), "to": _clock(row["end_ns"])}
    after = {name: row[name] for name in ("note", "session_id") if name in row}
    return before | value | clocks | after


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


def counted(number: int, thing: str) -> str:
    """So many things: 1 gap, 2 gaps."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


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
