"""A figure beside what a user would do instead: measured in one run, printed as a line of JSON.

What is printed is the interface: `run.py` collects these lines into the results.
"""

from __future__ import annotations

import gc
import json
import statistics
import time
from typing import TYPE_CHECKING, NamedTuple, NotRequired, TypedDict

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Figure", "Result", "Timing", "interleaved", "say"]


class Timing(NamedTuple):
    """Seconds that repetitions of one thing took."""

    median_s: float
    spread: float
    """The distance from the fastest to the slowest, as a share of the median."""

    @classmethod
    def of(cls, seconds: list[float]) -> Timing:
        """The summary of some repetitions."""
        median_s = statistics.median(seconds)
        return cls(median_s, (max(seconds) - min(seconds)) / median_s)


class Figure(NamedTuple):
    """One row of the results.

    `ratio` is how many times better than the peer (or, where `goal` begins with ≤, how many times as much as it).
    """

    figure: str
    value: float
    unit: str
    beside: str = ""
    peer: float | None = None
    ratio: float | None = None
    goal: str = ""
    spread: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None where there is none."""
        if not self.goal:
            return None
        sign, bound = self.goal.split()[:2]
        measured = self.value if self.ratio is None else self.ratio
        return measured >= float(bound) if sign == "≥" else measured <= float(bound)


class Result(TypedDict):
    """What is read of a figure that was printed: only what it has."""

    benchmark: str
    figure: str
    value: float
    unit: str
    beside: NotRequired[str]
    peer: NotRequired[float]
    ratio: NotRequired[float]
    goal: NotRequired[str]
    spread: NotRequired[float]
    met: NotRequired[bool]


def interleaved(repeats: int, **candidates: Callable[[], object]) -> dict[str, Timing]:
    """Time each candidate by turns, so that noise hits all alike, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for repeat in range(repeats + 1):
        for name, run in candidates.items():
            gc.collect()
            begin_s = time.perf_counter()
            run()
            if repeat:
                seconds[name].append(time.perf_counter() - begin_s)
    return {name: Timing.of(times) for name, times in seconds.items()}


def say(figure: Figure) -> None:
    """Print a figure."""
    rounded = {
        name: float(f"{value:.4g}") if isinstance(value, float) else value
        for name, value in figure._asdict().items()
        if value not in (None, "")
    }
    print(
        json.dumps({**rounded, **({} if figure.met is None else {"met": figure.met})}, ensure_ascii=False), flush=True
    )
