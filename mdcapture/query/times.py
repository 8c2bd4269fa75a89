"""SQLite's functions of date and time, as expressions of DuckDB.

A time is a TIMESTAMP in UTC on the way. SQLite counts in milliseconds as soon as it calculates; a text that is only
written in another form keeps its digits.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from sqlglot import exp

from mdcapture.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["TIME_FUNCTIONS", "call", "time_function"]

_FORMATS: Final = {"date": "%Y-%m-%d", "time": "%H:%M:%S", "datetime": "%Y-%m-%d %H:%M:%S"}
TIME_FUNCTIONS: Final = (*_FORMATS, "strftime", "julianday", "unixepoch")
"""The names of the functions."""

_SHIFT: Final = re.compile(r"([+-]?\s*\d+(?:\.\d+)?)\s*(second|minute|hour|day|month|year)s?", re.IGNORECASE)
_CLOCK: Final = re.compile(r"([+-])(\d\d):(\d\d)(?::(\d\d(?:\.\d+)?))?")
_SECONDS: Final = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
_MONTHS: Final = {"month": 1, "year": 12}
_ALIKE: Final = frozenset("dHjmMSwWYFRTIpu%")
_PIECES: Final = re.compile(r"((?:%[^fsJ]|[^%])+)|%([fsJ])|(%)$", re.DOTALL)
_LONG: Final = {"%F": "%Y-%m-%d", "%R": "%H:%M", "%T": "%H:%M:%S"}


def call(name: str, *arguments: exp.Expr) -> exp.Anonymous:
    """A call of one of our macros, or of a function of DuckDB."""
    return exp.Anonymous(this=name, expressions=list(arguments))


def _string(text: str) -> exp.Expr:
    return exp.Literal.string(text)


def time_function(
    name: str,
    arguments: Sequence[exp.Expr],
    text: Callable[[exp.Expr], exp.Expr],
) -> exp.Expr:
    """Translate a call.

    Args:
        name: One of `TIME_FUNCTIONS`.
        arguments: Its arguments.
        text: Makes text of an argument.

    Raises:
        UsageError: It uses a format or a modifier that has no counterpart.
    """
    given = list(arguments)
    wanted = given.pop(0) if name == "strftime" and given else None
    value, *modifiers = given or [_string("now")]
    at = _modified(value, modifiers, text)
    if name == "strftime":
        return _strftime(wanted, at)
    if name == "julianday":
        return call("sqlite_julianday", at)
    if name == "unixepoch":
        return call("sqlite_unixepoch", at)
    return call("strftime", at, _string(_FORMATS[name]))


def _modified(value: exp.Expr, modifiers: list[exp.Expr], text: Callable[[exp.Expr], exp.Expr]) -> exp.Expr:
    if modifiers and modifiers[0].name.lower() == "unixepoch":
        modifiers = modifiers[1:]
        at: exp.Expr = call("sqlite_epoch", text(value))
    else:
        at = call("sqlite_time", text(value))
    if modifiers:
        at = call("sqlite_milliseconds", at)
    for modifier in modifiers:
        at = _apply(_folded(modifier), at, text)
    return at


def _folded(modifier: exp.Expr) -> exp.Expr:
    """`'-' || 5 || ' days'` as one text, where all of it is known."""
    if isinstance(modifier, exp.DPipe):
        left, right = _folded(modifier.this), _folded(modifier.expression)
        if isinstance(left, exp.Literal) and isinstance(right, exp.Literal):
            return exp.Literal.string(left.name + right.name)
    if isinstance(modifier, exp.Anonymous) and modifier.name == "sqlite_text_i":
        return _folded(modifier.expressions[0])
    return modifier


def _apply(modifier: exp.Expr, at: exp.Expr, text: Callable[[exp.Expr], exp.Expr]) -> exp.Expr:
    if not isinstance(modifier, exp.Literal):
        return call("sqlite_shift", at, text(modifier))
    words = modifier.name.strip().lower()
    if words in ("start of day", "start of month", "start of year"):
        return call("date_trunc", _string(words.removeprefix("start of ")), at)
    if re.fullmatch(r"weekday [0-6]", words):
        return call("sqlite_weekday", at, exp.Literal.number(words[-1]))
    shift = _SHIFT.fullmatch(words)
    if shift:
        amount, unit = float(shift[1].replace(" ", "")), shift[2]
        if unit in _SECONDS:
            return _plus_ms(at, round(amount * _SECONDS[unit] * 1000))
        if amount.is_integer():
            return call("sqlite_months", at, _whole(int(amount) * _MONTHS[unit]))
    clock = _CLOCK.fullmatch(words)
    if clock:
        seconds = int(clock[2]) * 3600 + int(clock[3]) * 60 + float(clock[4] or 0)
        return _plus_ms(at, round(seconds * 1000) * (-1 if clock[1] == "-" else 1))
    raise UsageError(
        f"the modifier {modifier.name!r} has no counterpart here: times are UTC, and there are 'start of …', "
        "'weekday N', 'unixepoch', and '+N seconds' to years"
    )


def _whole(number: int) -> exp.Expr:
    return exp.convert(number)


def _plus_ms(at: exp.Expr, milliseconds: int) -> exp.Expr:
    return call("sqlite_plus", at, _whole(milliseconds))


def _strftime(wanted: exp.Expr | None, at: exp.Expr) -> exp.Expr:
    if not isinstance(wanted, exp.Literal) or not wanted.is_string:
        raise UsageError("the format of strftime must be written as a text: a computed one has no counterpart here")
    parts: list[exp.Expr] = []
    for same, own, _ in _PIECES.findall(wanted.name):
        if own:
            name = {"f": "sqlite_seconds", "s": "sqlite_unixtext", "J": "sqlite_juliantext"}[own]
            parts.append(call(name, at.copy()))
        elif same:
            parts.append(call("strftime", at.copy(), _string(_same(same))))
    if not parts:
        return _string("")
    made = parts[0]
    for part in parts[1:]:
        made = exp.DPipe(this=made, expression=part)
    return exp.Paren(this=made) if len(parts) > 1 else made


def _same(text: str) -> str:
    """The part of a format that DuckDB reads alike."""
    for field in re.findall(r"%(.)", text):
        if field not in _ALIKE:
            raise UsageError(f"%{field} of strftime has no counterpart here")
    for short, long in _LONG.items():
        text = text.replace(short, long)
    return text
