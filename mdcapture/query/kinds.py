"""What kind of value each expression of a statement gives: integer, real or text.

SQLite chooses what an operator does by the values it meets, DuckDB by types, which must stand in the statement. Kinds
come from the tables' columns and flow upwards, through subqueries too; None is a kind that could not be found.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from sqlglot import exp
from sqlglot.optimizer.scope import Scope, traverse_scope

from mdcapture.lake.schema import TABLES
from mdcapture.query.replaced import Kind, columns_of

__all__ = ["DIGITS", "Kinds", "has_affinity", "has_digits", "is_condition", "kind_of", "leading_number", "note"]
__all__ += ["number_kind"]

DIGITS: Final = frozenset({"%Y", "%m", "%d", "%H", "%M", "%S", "%s", "%j", "%w", "%W"})
"""Formats of strftime whose text is an integer."""

_NUMBER_TEXT: Final = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_KIND: Final = "kind"
_FIELDS: Final[dict[str, Kind]] = {
    **{
        one.wire: "real" if one.type == "float64" else "integer"
        for t in TABLES.values()
        for one in t.columns
        if one.wire
    },
    **dict.fromkeys(("timestamp", "lastUpdated"), "text"),
    **dict.fromkeys(("change", "changePercent"), "real"),
}
"""What the gateway's entries hold, by the name of the field."""

_ALWAYS: Final[dict[type[exp.Expr], Kind]] = {
    **dict.fromkeys((exp.Count, exp.Length, exp.StrPosition, exp.Unicode, exp.Boolean, exp.Rand, exp.Sign), "integer"),
    **dict.fromkeys((exp.RowNumber, exp.Rank, exp.DenseRank, exp.Ntile, exp.BitwiseNot, exp.Escape), "integer"),
    **dict.fromkeys((exp.Avg, exp.Round, exp.Pow, exp.Sqrt, exp.Ln, exp.Log, exp.Exp, exp.CumeDist), "real"),
    **dict.fromkeys((exp.PercentRank, exp.Median, exp.Pi), "real"),
    **dict.fromkeys((exp.Substring, exp.Upper, exp.Lower, exp.Trim, exp.Replace, exp.GroupConcat, exp.DPipe), "text"),
    **dict.fromkeys((exp.Concat, exp.ConcatWs, exp.Hex, exp.Chr, exp.Date, exp.TimeToStr, exp.Typeof), "text"),
    **dict.fromkeys((exp.JSONExtract, exp.JSONType, exp.Format, exp.CurrentVersion, exp.CurrentTimestamp), "text"),
    **dict.fromkeys((exp.CurrentDate, exp.CurrentTime), "text"),
}
_ALWAYS_NAMED: Final[dict[str, Kind]] = {
    **dict.fromkeys(("date", "time", "datetime", "strftime", "printf", "quote"), "text"),
    **dict.fromkeys(("julianday", "total"), "real"),
    **dict.fromkeys(("unixepoch", "json_valid", "json_array_length", "changes"), "integer"),
}
_FROM_FIRST: Final = (
    *(exp.Paren, exp.Alias, exp.Abs, exp.Sum, exp.Max, exp.Min, exp.Lag, exp.Lead, exp.FirstValue, exp.LastValue),
    *(exp.NthValue, exp.Filter, exp.Window, exp.First, exp.Nullif, exp.Neg, exp.Collate, exp.Subquery),
)
_ARITHMETIC: Final = (exp.Add, exp.Sub, exp.Mul, exp.Div, exp.Mod)
_BITS: Final = (exp.BitwiseAnd, exp.BitwiseOr, exp.BitwiseLeftShift, exp.BitwiseRightShift)
_NAMED_LIKE_FIRST: Final = ("likely", "unlikely", "likelihood", "arg_max_null", "arg_min_null")
_NUMBER: Final = (exp.Sum, exp.Neg, exp.Abs)


class Found(NamedTuple):
    """A kind, and whether the value comes from a column or a cast, whose kind a comparison makes the other side's."""

    kind: Kind | None
    affinity: bool = False


_UNKNOWN: Final = Found(None)


def kind_of(node: exp.Expr) -> Kind | None:
    """The kind that was noted."""
    found: Found = node.meta.get(_KIND, _UNKNOWN)
    return found.kind


def has_affinity(node: exp.Expr) -> bool:
    """Whether a comparison turns the other side into this side's kind."""
    found: Found = node.meta.get(_KIND, _UNKNOWN)
    return found.affinity


def note(node: exp.Expr, like: exp.Expr) -> None:
    """Let a node that takes another's place have its kind."""
    if _KIND in like.meta:
        node.meta[_KIND] = like.meta[_KIND]


def number_kind(node: exp.Expr) -> Kind | None:
    """The kind of an expression where a number is wanted."""
    kind = kind_of(node)
    if kind == "text":
        return "integer" if has_digits(node) else "real"
    return kind


def has_digits(node: exp.Expr) -> bool:
    """Whether a text is an integer's: what strftime makes of one field."""
    node = node.unnest()
    if node.meta.get("digits"):
        return True
    if isinstance(node, exp.TimeToStr):
        return node.args["format"].name in DIGITS
    if isinstance(node, exp.Anonymous) and node.name.lower() == "strftime":
        return bool(node.expressions) and node.expressions[0].name in DIGITS
    return isinstance(node, exp.Literal) and node.is_string and leading_number(node.name).lstrip("+-").isdigit()


def leading_number(text: str) -> str:
    """What SQLite takes a text for where it wants a number: the number that it begins with, else zero."""
    found = _NUMBER_TEXT.match(text)
    return found[0].strip() if found else "0"


def is_condition(node: exp.Expr) -> bool:
    """Whether an expression is true or false by itself."""
    bare = node.unnest() if isinstance(node, exp.Paren) else node
    return isinstance(bare, exp.Predicate | exp.Connector | exp.Not | exp.Escape | exp.Boolean | exp.NullSafeEQ)


class Kinds:
    """The kinds of a statement's expressions.

    Args:
        tree: The statement, as it was parsed.
    """

    def __init__(self, tree: exp.Expr) -> None:
        self._tree = tree
        self._scopes = {id(scope.expression): scope for scope in traverse_scope(tree)}

    def note(self) -> None:
        """Note every expression's kind at its node."""
        for node in list(self._tree.walk()):
            self._find(node)
            if has_digits(node):
                node.meta["digits"] = True

    def _find(self, node: exp.Expr) -> Found:
        if _KIND not in node.meta:
            node.meta[_KIND] = _UNKNOWN  # what refers to itself, as a recursive table does, ends here
            node.meta[_KIND] = self._infer(node)
        found: Found = node.meta[_KIND]
        return found

    def _infer(self, node: exp.Expr) -> Found:
        if isinstance(node, exp.Column):
            return self._column(node)
        if isinstance(node, exp.Cast):
            return Found(_cast_kind(node), affinity=True)
        if isinstance(node, exp.Literal):
            return Found("text" if node.is_string else "integer" if node.this.isdigit() else "real")
        if isinstance(node, exp.Paren):
            return self._find(node.this)
        if is_condition(node):
            return Found("integer")
        return Found(self._kind(node))

    def _kind(self, node: exp.Expr) -> Kind | None:
        always = _ALWAYS.get(type(node))
        if always is not None:
            return always
        if isinstance(node, exp.Anonymous):
            return self._function(node)
        if isinstance(node, exp.Select):
            return self._find(node.expressions[0]).kind
        if isinstance(node, exp.SetOperation):
            return self._find(node.this).kind
        if isinstance(node, exp.JSONExtractScalar):
            return _FIELDS.get(node.expression.name or _last_key(node), "text")
        if isinstance(node, _FROM_FIRST):
            self._find(node.this)
            return number_kind(node.this) if isinstance(node, _NUMBER) else kind_of(node.this)
        if isinstance(node, exp.Distinct):
            return self._find(node.expressions[0]).kind if node.expressions else None
        if isinstance(node, _BITS):
            return "integer"
        return self._merged(node)

    def _merged(self, node: exp.Expr) -> Kind | None:
        if isinstance(node, _ARITHMETIC):
            for one in (node.this, node.expression):
                self._find(one)
            return _merge([number_kind(node.this), number_kind(node.expression)])
        if isinstance(node, exp.Coalesce | exp.Greatest | exp.Least):
            return _merge([self._find(one).kind for one in (node.this, *node.expressions) if not _is_null(one)])
        if isinstance(node, exp.If):
            results = [node.args.get("true"), node.args.get("false")]
        elif isinstance(node, exp.Case):
            results = [*(one.args.get("true") for one in node.args["ifs"]), node.args.get("default")]
        else:
            return None
        return _merge([self._find(one).kind for one in results if one is not None and not _is_null(one)])

    def _function(self, node: exp.Anonymous) -> Kind | None:
        name = node.name.lower()
        if name in _NAMED_LIKE_FIRST and node.expressions:
            return self._find(node.expressions[0]).kind
        return _ALWAYS_NAMED.get(name)

    def _column(self, column: exp.Column) -> Found:
        select = column.parent_select
        scope = self._scopes.get(id(select)) if select is not None else None
        while scope is not None:
            found = self._in_sources(scope, column.name.lower(), column.table.lower())
            if found is not None:
                return found
            scope = scope.parent
        named = (one for one in (select.selects if select else ()) if isinstance(one, exp.Alias))
        return next((self._find(one.this) for one in named if one.alias.lower() == column.name.lower()), _UNKNOWN)

    def _in_sources(self, scope: Scope, name: str, table: str = "") -> Found | None:
        for alias, (_, source) in scope.selected_sources.items():
            if not table or alias.lower() == table:
                found = self._in_source(source, name)
                if found is not None:
                    return found
        return None

    def _in_source(self, source: exp.Expr | Scope, name: str) -> Found | None:
        if isinstance(source, exp.Table):
            kinds = {one.name: one.kind for one in columns_of(source.name) or ()}
            return Found(kinds[name], affinity=True) if name in kinds else None
        if isinstance(source, Scope) and isinstance(source.expression, exp.Query):
            return self._in_query(source, source.expression, name)
        return None

    def _in_query(self, scope: Scope, query: exp.Query, name: str) -> Found | None:
        """A column of a subquery, by its own name or by that which the subquery's alias gives it."""
        alias = query.parent.args.get("alias") if query.parent is not None else None
        renamed = [one.name.lower() for one in alias.columns] if isinstance(alias, exp.TableAlias) else []
        if not renamed and any(isinstance(item, exp.Star) for item in query.selects):
            found = self._in_sources(scope, name)
            if found is not None:
                return found
        names = renamed or [item.alias_or_name.lower() for item in query.selects]
        items = dict(zip(names, query.selects, strict=False))
        return self._find(items[name].unalias()) if name in items else None


def _is_null(node: exp.Expr) -> bool:
    return isinstance(node.unnest(), exp.Null)


def _merge(kinds: list[Kind | None]) -> Kind | None:
    """The kind of a value that may be any of these."""
    found = set(kinds)
    if not found or None in found or ("text" in found and len(found) > 1):
        return None
    return "real" if "real" in found else found.pop()


def _cast_kind(node: exp.Cast) -> Kind:
    kind = node.to
    if kind.is_type(*exp.DataType.INTEGER_TYPES):
        return "integer"
    return "text" if kind.is_type(*exp.DataType.TEXT_TYPES) else "real"


def _last_key(node: exp.JSONExtractScalar) -> str:
    path = node.expression
    keys = (
        [one for one in path.expressions if isinstance(one, exp.JSONPathKey)] if isinstance(path, exp.JSONPath) else []
    )
    return str(keys[-1].this) if len(keys) == 1 else ""
