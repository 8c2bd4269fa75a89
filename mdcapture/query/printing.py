"""SQLite's printf, as an expression of DuckDB."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from sqlglot import exp

from mdcapture.errors import UsageError
from mdcapture.query.times import call

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Turned = Callable[[exp.Expr], exp.Expr]

__all__ = ["printf"]

_FIELD: Final = re.compile(r"%([-+ 0,#!]*)(\d*)(?:\.(\d+))?(?:ll|l)?([a-zA-Z%])")
_WHOLE: Final = "diuxXo"
_REAL: Final = "feEgG"


def printf(arguments: Sequence[exp.Expr], text: Turned, number: Turned) -> exp.Expr:
    """Translate `printf(format, …)`.

    Args:
        arguments: The format, which must be written as a text, and the values.
        text: Makes text of a value.
        number: Makes a number of a value.

    Raises:
        UsageError: The format is computed, or has a field without a counterpart.
    """
    if not arguments or not isinstance(arguments[0], exp.Literal):
        raise UsageError("the format of printf must be written as a text: a computed one has no counterpart here")
    values = list(arguments[1:])
    turned: list[exp.Expr] = []

    def field(found: re.Match[str]) -> str:
        flags, width, precision, kind = found.groups()
        if kind == "%":
            return "%%"
        value = values.pop(0) if values else exp.Null()
        digits = f".{precision}" if precision else ""
        if kind in _WHOLE:
            turned.append(_or(exp.cast(call("trunc", number(value)), "BIGINT"), exp.Literal.number(0)))
            return f"%{flags}{width}{'d' if kind in 'iu' else kind}"
        if kind in _REAL:
            unsigned_zero = exp.cast(number(value), "DOUBLE") + exp.Literal.number(0)
            turned.append(_or(unsigned_zero, exp.Literal.number("0e0")))
            return f"%{flags.replace('!', '')}{width}{digits}{kind}"
        if kind in "sz":
            turned.append(_or(text(value), exp.Literal.string("")))
            return f"%{flags}{width}{digits}s"
        raise UsageError(f"the field {found[0]!r} of printf has no counterpart here")

    made = _FIELD.sub(field, arguments[0].name)
    return call("printf", exp.Literal.string(made), *turned)


def _or(value: exp.Expr, otherwise: exp.Expr) -> exp.Expr:
    return exp.Coalesce(this=value, expressions=[otherwise])
