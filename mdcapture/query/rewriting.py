"""What SQLite does otherwise than DuckDB, rewritten: an expression in, an expression out, from the leaves upwards.

A rule chooses among macros by the kind of its operands: `…_i`, `…_r`, `…_t` for integer, real and text; the bare name,
by which DuckDB chooses itself, where the kind is not known.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Final

from sqlglot import exp

from mdcapture.errors import UsageError
from mdcapture.query.kinds import (
    has_affinity,
    has_digits,
    is_condition,
    kind_of,
    leading_number,
    note,
    number_kind,
)
from mdcapture.query.printing import printf
from mdcapture.query.replaced import columns_of
from mdcapture.query.times import TIME_FUNCTIONS, call, time_function

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Rewriter", "bare_columns"]

_AGGREGATES: Final = ("total", "arg_max_null", "arg_min_null")
_COMPARISONS: Final = (exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT, exp.GTE, exp.NullSafeEQ, exp.NullSafeNEQ)
_WRAPPERS: Final = (exp.Filter, exp.Window)
_SUFFIX: Final = {"integer": "_i", "real": "_r", "text": "_t", None: ""}


def _is_aggregate(node: exp.Expr) -> bool:
    return isinstance(node, exp.AggFunc) or (isinstance(node, exp.Anonymous) and node.name.lower() in _AGGREGATES)


def _aggregates(node: exp.Expr) -> bool:
    """Whether an aggregate is in it: DuckDB can't choose among macros by what one gives."""
    return any(_is_aggregate(one) for one in node.walk())


def _typed(name: str, *arguments: exp.Expr, kind: str | None) -> exp.Expr:
    if kind is None and any(map(_aggregates, arguments)):
        kind = "real"
    return call(name + _SUFFIX[kind], *arguments)


def _text(node: exp.Expr) -> exp.Expr:
    """A value as the text that SQLite makes of it."""
    if isinstance(node, exp.Null):
        return exp.cast(node, "VARCHAR")
    return node if kind_of(node) == "text" else _typed("sqlite_text", node, kind=kind_of(node))


def _number(node: exp.Expr) -> exp.Expr:
    """A value as the number that SQLite takes it for."""
    kind = kind_of(node)
    if isinstance(node, exp.Null):
        return exp.cast(node, "BIGINT")
    if kind == "integer" and isinstance(node, exp.Literal):
        return exp.cast(node, "BIGINT")
    if kind in ("integer", "real"):
        return node
    if isinstance(node, exp.Literal):
        return _plain_number(leading_number(node.name))
    if has_digits(node):
        return exp.cast(node, "BIGINT")
    return _typed("sqlite_number", node, kind=kind)


def _plain_number(text: str) -> exp.Expr:
    whole = text.lstrip("+-").isdigit()
    return exp.cast(exp.Literal.string(text), "BIGINT" if whole else "DOUBLE")


def _numbers(node: exp.Expr) -> exp.Expr:
    node.set("this", _number(node.this))
    node.set("expression", _number(node.expression))
    return node


def _both(node: exp.Expr) -> str | None:
    """The kind in which an operator calculates."""
    kinds = {number_kind(node.this), number_kind(node.expression)}
    if None in kinds:
        return None
    return "real" if "real" in kinds else "integer"


def _divide(node: exp.Div) -> exp.Expr:
    kind = _both(node)
    loose = [one for one in (node.this, node.expression) if kind_of(one) == "text" and not has_digits(one)]
    if loose:  # a text may be a whole number, by which SQLite divides as such
        return call("sqlite_divide_t", _text(node.this), _text(node.expression))
    return _typed("sqlite_divide", _number(node.this), _number(node.expression), kind=kind)


def _modulo(node: exp.Mod) -> exp.Expr:
    return _typed("sqlite_modulo", _number(node.this), _number(node.expression), kind=_both(node))


def _texts(*names: str) -> Callable[[exp.Expr], exp.Expr]:
    def rule(node: exp.Expr) -> exp.Expr:
        for name in names:
            if node.args.get(name) is not None:
                node.set(name, _text(node.args[name]))
        return node

    return rule


def _like(node: exp.Like) -> exp.Expr:
    return exp.ILike(this=_text(node.this), expression=_text(node.expression), negate=node.args.get("negate"))


def _glob(node: exp.Glob) -> exp.Expr:
    pattern = call("replace", _text(node.expression), exp.Literal.string("[^"), exp.Literal.string("[!"))
    return exp.Glob(this=_text(node.this), expression=pattern)


def _cast(node: exp.Cast) -> exp.Expr:
    kind = kind_of(node)
    if kind == "text":
        return _text(node.this)
    if kind == "integer":
        return _typed("sqlite_integer", node.this, kind=kind_of(node.this))
    return exp.cast(_number(node.this), "DOUBLE")


def _literal(node: exp.Literal) -> exp.Expr:
    if node.is_string or node.this.isdigit() or "e" in node.this.lower():
        return node
    return exp.Literal.number(f"{node.this}e0")


def _round(node: exp.Round) -> exp.Expr:
    decimals = node.args.get("decimals")
    digits = exp.cast(_number(decimals), "INT") if decimals is not None else None
    return exp.Round(this=exp.cast(_number(node.this), "DOUBLE"), decimals=digits)


def _collate(node: exp.Collate) -> exp.Expr:
    name = node.expression.name.upper()
    if name == "BINARY":
        plain: exp.Expr = node.this
        return plain
    if name != "NOCASE":
        raise UsageError(f"the collation {name} has no counterpart here: there are BINARY and NOCASE")
    return node


def _json(node: exp.JSONExtract) -> exp.Expr:
    if node.args.get("expressions"):
        raise UsageError("json_extract takes one path here: write several calls")
    return exp.cast(exp.JSONExtract(this=_text(node.this), expression=node.expression), "VARCHAR")


def _json_value(node: exp.JSONExtractScalar) -> exp.Expr:
    value = exp.JSONExtractScalar(this=_text(node.this), expression=node.expression)
    types = {"integer": "BIGINT", "real": "DOUBLE"}
    kind = types.get(kind_of(node) or "")
    return exp.TryCast(this=value, to=exp.DataType.build(kind)) if kind else exp.Paren(this=value)


def _typeof(node: exp.Typeof) -> exp.Expr:
    kind = kind_of(node.this)
    if isinstance(node.this, exp.Null):
        return exp.Literal.string("null")
    if kind is None:
        return call("sqlite_typeof", node.this)
    return exp.If(
        this=exp.Is(this=node.this, expression=exp.Null()),
        true=exp.Literal.string("null"),
        false=exp.Literal.string(kind),
    )


def _summed(node: exp.Expr) -> exp.Expr:
    """A sum, with all that belongs to it, of the type that its kind says."""
    if isinstance(node.parent, _WRAPPERS) and node.arg_key == "this":
        return node
    inner = node
    while isinstance(inner, _WRAPPERS):
        inner = inner.this
    if isinstance(inner, exp.Sum) and kind_of(inner) == "integer":
        return exp.cast(node, "BIGINT")
    if isinstance(inner, exp.Anonymous) and inner.name.lower() == "total":
        made = exp.Sum(this=exp.cast(_number(inner.expressions[0]), "DOUBLE"))
        if inner is node:
            node = made
        else:
            inner.replace(made)
        return exp.Coalesce(this=node, expressions=[exp.Literal.number("0.0e0")])
    return node


def _aggregated(node: exp.Expr) -> exp.Expr:
    inner = node.this
    if isinstance(inner, exp.Distinct):
        inner.set("expressions", [_number(one) for one in inner.expressions])
    else:
        node.set("this", _number(inner))
    return _summed(node) if isinstance(node, exp.Sum) else node


def _concatenated(node: exp.GroupConcat) -> exp.Expr:
    inner = node.this
    separator = node.args.get("separator") or exp.Literal.string(",")
    if isinstance(inner, exp.Distinct):
        inner.set("expressions", [_text(one) for one in inner.expressions])
    else:
        inner = _text(inner)
    return exp.GroupConcat(this=inner, separator=_text(separator))


def _compare(node: exp.Expr) -> exp.Expr:
    """SQLite compares a number with a text by the kind of the column at one side; without one a text is the greater."""
    left, right = _matched(node.this, node.expression)
    node.set("this", left)
    node.set("expression", right)
    return node


def _matched(left: exp.Expr, right: exp.Expr) -> tuple[exp.Expr, exp.Expr]:
    kinds = kind_of(left), kind_of(right)
    if "text" not in kinds or None in kinds or kinds == ("text", "text"):
        return left, right
    number, text = (right, left) if kinds[0] == "text" else (left, right)
    if has_affinity(number):
        text = call("sqlite_as_number", text)
    elif has_affinity(text):
        number = _text(number)
    else:
        text = call("sqlite_above", text)
    return (text, number) if kinds[0] == "text" else (number, text)


def _between(node: exp.Between) -> exp.Expr:
    for name in ("low", "high"):
        value, bound = _matched(node.this, node.args[name])
        if value is node.this:
            node.set(name, bound)
    return node


def _in(node: exp.In) -> exp.Expr:
    if node.expressions:
        pairs = [_matched(node.this, one) for one in node.expressions]
        if all(value is node.this for value, _ in pairs):
            node.set("expressions", [item for _, item in pairs])
    return node


def _limit(node: exp.Expr) -> exp.Expr | None:
    return None if isinstance(node.expression, exp.Neg) else node


def _function(node: exp.Anonymous) -> exp.Expr:
    name, arguments = node.name.lower(), node.expressions
    if name in TIME_FUNCTIONS:
        return time_function(name, arguments, _text)
    if name == "printf":
        return printf(arguments, _text, _number)
    if name == "total":
        return _summed(node)
    if name in ("likely", "unlikely", "likelihood"):
        hinted: exp.Expr = arguments[0]
        return hinted
    if name == "quote":
        return call("sqlite_quote" + _SUFFIX[kind_of(arguments[0])], arguments[0])
    if name == "json_valid":
        return exp.cast(call("json_valid", _text(arguments[0])), "BIGINT")
    return node


def _character(node: exp.Chr) -> exp.Expr:
    made: exp.Expr = exp.Literal.string("")
    for one in node.expressions:
        made = exp.DPipe(this=made, expression=call("chr", exp.cast(one, "INT")))
    return made


def _timed(name: str) -> Callable[[exp.Expr], exp.Expr]:
    def rule(node: exp.Expr) -> exp.Expr:
        given = [one for one in (node.args.get("this"), *(node.args.get("expressions") or ())) if one is not None]
        return time_function(name, given, _text)

    return rule


def _time_to_str(node: exp.TimeToStr) -> exp.Expr:
    value = node.this.this if isinstance(node.this, exp.TsOrDsToTimestamp) else node.this
    return time_function("strftime", [node.args["format"], value], _text)


_RULES: Final[dict[type[exp.Expr], Callable[..., exp.Expr | None]]] = {
    **dict.fromkeys((exp.Add, exp.Sub, exp.Mul), _numbers),
    **dict.fromkeys((exp.BitwiseAnd, exp.BitwiseOr, exp.BitwiseLeftShift, exp.BitwiseRightShift), _numbers),
    **dict.fromkeys(_COMPARISONS, _compare),
    **dict.fromkeys(_WRAPPERS, _summed),
    **dict.fromkeys((exp.Sum, exp.Avg), _aggregated),
    **dict.fromkeys((exp.Upper, exp.Lower, exp.Length, exp.Hex, exp.Unicode, exp.Substring), _texts("this")),
    exp.Div: _divide,
    exp.Mod: _modulo,
    exp.DPipe: _texts("this", "expression"),
    exp.Glob: _glob,
    exp.Trim: _texts("this", "expression"),
    exp.Replace: _texts("this", "expression", "replacement"),
    exp.StrPosition: _texts("this", "substr"),
    exp.Neg: lambda node: exp.Neg(this=_number(node.this)),
    exp.Abs: lambda node: exp.Abs(this=_number(node.this)),
    exp.Like: _like,
    exp.Cast: _cast,
    exp.Literal: _literal,
    exp.Round: _round,
    exp.Collate: _collate,
    exp.JSONExtract: _json,
    exp.JSONExtractScalar: _json_value,
    exp.JSONType: lambda node: call("sqlite_json_type", _text(node.this), node.expression or exp.Literal.string("$")),
    exp.Typeof: _typeof,
    exp.GroupConcat: _concatenated,
    exp.Between: _between,
    exp.In: _in,
    exp.Limit: _limit,
    exp.Anonymous: _function,
    exp.Chr: _character,
    exp.Date: _timed("date"),
    exp.TimeToStr: _time_to_str,
    exp.CurrentTimestamp: _timed("datetime"),
    exp.CurrentDate: _timed("date"),
    exp.CurrentTime: _timed("time"),
    exp.CurrentVersion: lambda _: exp.Literal.string(sqlite3.sqlite_version),
    exp.Format: lambda node: printf([node.this, *node.expressions], _text, _number),
    exp.Rand: lambda _: call("sqlite_random"),
}


class Rewriter:
    """The rules, applied to each node of a statement whose kinds are noted, the leaves first."""

    def rewrite(self, node: exp.Expr) -> None:
        """Rewrite a statement, in its place."""
        for child in list(node.iter_expressions()):
            self.rewrite(child)
        parent, key, index = node.parent, node.arg_key, node.index
        if parent is None or key is None:
            return
        rule = _RULES.get(type(node))
        made = rule(node) if rule is not None else node
        if made is None:
            parent.set(key, None)
            return
        if made is not node:
            note(made, node)
            if has_digits(node):
                made.meta["digits"] = True
        made = _in_context(made, parent, key)
        if made is not node:
            parent.set(key, made, index)


def _in_context(node: exp.Expr, parent: exp.Expr, key: str) -> exp.Expr:
    """A condition where a value is wanted is 0 or 1; a value where a condition is wanted is true unless it is zero."""
    if isinstance(node, exp.Query | exp.Star | exp.Tuple) and not isinstance(node, exp.Subquery):
        return node
    wanted = _wants_condition(parent, key)
    if is_condition(node):
        stays = wanted or isinstance(parent, exp.Paren | exp.Escape) or not _is_value(parent, key)
        return node if stays else _as_integer(node)
    if wanted and isinstance(node, exp.Condition | exp.Subquery):
        made = _typed("sqlite_truth", node, kind=kind_of(node))
        made.meta.update(node.meta)
        return made
    return node


def _as_integer(node: exp.Expr) -> exp.Expr:
    made = exp.cast(node, "BIGINT")
    note(made, node)
    return made


def _wants_condition(parent: exp.Expr, key: str) -> bool:
    if isinstance(parent, exp.Where | exp.Having | exp.Connector | exp.Not):
        return True
    if isinstance(parent, exp.Join):
        return key == "on"
    if isinstance(parent, exp.If) and key == "this":
        case = parent.parent
        return not (isinstance(case, exp.Case) and case.this is not None)
    return False


def _is_value(parent: exp.Expr, key: str) -> bool:
    """Whether a node in that place is a value of the statement."""
    places = exp.Condition | exp.Alias | exp.Select | exp.Ordered | exp.Group | exp.Distinct | exp.Tuple
    return isinstance(parent, places) or (isinstance(parent, exp.Window) and key == "partition_by")


def bare_columns(tree: exp.Expr) -> None:
    """Columns beside an aggregate: those of the row of the one minimum or maximum, else of any row."""
    for select in list(tree.find_all(exp.Select)):
        having = select.args.get("having")
        found = [one for item in (*select.expressions, having) if item for one in _own_aggregates(item)]
        if found or select.args.get("group") is not None:
            _expand_star(select)
            extremes = [one for one in found if isinstance(one, exp.Max | exp.Min)]
            _take_bare(select, extremes[0] if len({one.sql() for one in extremes}) == 1 else None)


def _take_bare(select: exp.Select, extreme: exp.Expr | None) -> None:
    keys = _group_keys(select)
    aliases = {one.alias.lower() for one in select.expressions if isinstance(one, exp.Alias)}
    for item in list(select.expressions):
        made = _taken(item, keys, extreme)
        if made is not item:
            item.replace(exp.alias_(made, item.name, quoted=True) if isinstance(item, exp.Column) else made)
    clauses = [one for one in (select.args.get("having"), select.args.get("order")) if one is not None]
    for child in [one for clause in clauses for one in clause.iter_expressions()]:
        made = _taken(child, keys | aliases, extreme)
        if made is not child:
            child.replace(made)


def _own_aggregates(node: exp.Expr) -> list[exp.Expr]:
    if isinstance(node, exp.Window | exp.Query):
        return []
    if _is_aggregate(node):
        return [node]
    return [one for child in node.iter_expressions() for one in _own_aggregates(child)]


def _group_keys(select: exp.Select) -> set[str]:
    """What a SELECT groups by, as it is written there, and where an alias or a number stands for it."""
    group = select.args.get("group")
    named = {item.alias.lower(): item.this for item in select.expressions if isinstance(item, exp.Alias)}
    keys: set[str] = set()
    for one in group.expressions if group else ():
        expression = one
        if isinstance(one, exp.Literal) and not one.is_string and int(one.this) <= len(select.expressions):
            expression = select.expressions[int(one.this) - 1].unalias()
        keys.add(expression.sql().lower())
        if isinstance(expression, exp.Column):
            name = expression.name.lower()
            keys |= {name, *([named[name].sql().lower()] if name in named else [])}
    return keys


def _taken(node: exp.Expr, keys: set[str], extreme: exp.Expr | None) -> exp.Expr:
    """A node with each bare column as an aggregate."""
    if _is_aggregate(node) or isinstance(node, exp.Filter | exp.Window | exp.Query) or node.sql().lower() in keys:
        return node
    if isinstance(node, exp.Column):
        if node.name.lower() in keys:
            return node
        if extreme is None:
            return exp.First(this=node.copy())
        name = "arg_max_null" if isinstance(extreme, exp.Max) else "arg_min_null"
        return call(name, node.copy(), extreme.this.copy())
    for child in list(node.iter_expressions()):
        made = _taken(child, keys, extreme)
        if made is not child:
            child.replace(made)
    return node


def _expand_star(select: exp.Select) -> None:
    """`*` and `t.*` beside an aggregate as the columns that they stand for."""
    sources = [select.args.get("from_"), *(select.args.get("joins") or ())]
    tables = [one.this for one in sources if one is not None and isinstance(one.this, exp.Table)]
    items: list[exp.Expr] = []
    for item in select.expressions:
        owner = item.text("table").lower() if isinstance(item, exp.Column) else ""
        chosen = [one for one in tables if item.is_star and owner in ("", one.alias_or_name.lower())]
        items += [column for table in chosen for column in _visible(table)] or [item]
    select.set("expressions", items)


def _visible(table: exp.Table) -> list[exp.Expr]:
    columns = [one.name for one in columns_of(table.name) or () if one.visible]
    return [exp.column(name, table=table.alias_or_name, quoted=True) for name in columns]
