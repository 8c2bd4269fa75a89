"""SQLite's dialect on the lake: statements as the replaced system's users wrote them, translated for DuckDB.

sqlglot reads the statement; what the two engines do differently is rewritten node by node, with the kind of each value
(integer, real or text: SQLite decides by value, DuckDB by type) inferred beforehand from the tables' columns.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.tokenizer_core import TokenType

from mdcapture.errors import UsageError
from mdcapture.query.kinds import Kinds
from mdcapture.query.replaced import REPLACED, columns_of, create_table, replaced_table, table_source
from mdcapture.query.rewriting import Rewriter, bare_columns

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlglot.tokenizer_core import Token

__all__ = ["REPLACED", "replaced_table", "translate"]

_NUMBERED: Final = "__"
_PLACES: Final = re.compile(
    r"""(?P<kept>'(?:[^']|'')*'|"[^"]*"|`[^`]*`|\[[^\]]*\]|--[^\n]*|/\*.*?\*/)|\?(?P<number>\d+)|\$(?P<name>\w+)""",
    re.DOTALL,
)
_FUNCTIONS: Final = ("json_each", "json_tree")
_READS: Final = (exp.Select, exp.SetOperation, exp.Values, exp.Subquery)
_INT64: Final = range(-(2**63), 2**63)
_DECLARED: Final = {"integer": "INTEGER", "real": "REAL", "text": "TEXT"}


def translate(query: str, parameters: Sequence[object] | Mapping[str, object] | None = None) -> str | None:
    """Translate a statement.

    Args:
        query: One statement that reads, or a PRAGMA, in SQLite's dialect.
        parameters: The values of its `?` and `?3`, or of its `:name`, `@name` and `$name`.

    Returns:
        The statement for `mdcapture.query.sqlite`, whose macros it uses, with the values in their places; None where
        SQLite has nothing to say, not even columns (most pragmas).

    Raises:
        UsageError: It can't be read, writes, or uses what has no counterpart; the message says what.
    """
    pragma = re.fullmatch(r"\s*PRAGMA\s+(.*?)\s*;?\s*", query, re.IGNORECASE | re.DOTALL)
    if pragma:
        return _pragma(pragma[1])
    try:
        tokens = sqlglot.tokenize(_numbered(query), read="sqlite")
        (tree,) = [one for one in sqlglot.parse(_numbered(query), read="sqlite") if one is not None]
    except SqlglotError as error:
        raise UsageError(f"this can't be read as SQLite's SQL: {_plain(error)}") from error
    except ValueError:
        raise UsageError("one statement at a time: this is none, or more than one") from None
    if not isinstance(tree, _READS):
        raise UsageError("the lake is only read here: ask with SELECT, WITH, VALUES or PRAGMA")
    if isinstance(tree, exp.Values):
        names = [exp.to_identifier(f"column{at}") for at, _ in enumerate(tree.expressions[0].expressions, 1)]
        tree.set("alias", exp.TableAlias(this=exp.to_identifier("given"), columns=names))
        tree = exp.select("*").from_(tree)
    _name_columns(tree, tokens, _numbered(query))
    _bind(tree, parameters)
    _mend_identifiers(tree)
    bare_columns(tree)
    Kinds(tree).note()
    Rewriter().rewrite(tree)
    _replace_tables(tree)
    return tree.sql("duckdb")


def _plain(error: SqlglotError) -> str:
    return re.sub(r"\x1b\[\d*m", "", str(error)).strip()


def _numbered(query: str) -> str:
    """`?3` and `$name` as `:name`, which the parser knows."""
    return _PLACES.sub(
        lambda one: one["kept"] or (f":{_NUMBERED}{one['number']}" if one["number"] else f":{one['name']}"), query
    )


def _bind(tree: exp.Expr, parameters: Sequence[object] | Mapping[str, object] | None) -> None:
    """Values in place of placeholders: a literal has a type, by which operators can be chosen."""
    places = list(tree.find_all(exp.Placeholder, exp.Parameter, bfs=False))
    if isinstance(parameters, Mapping):
        for place in places:
            if place.name not in parameters:
                raise UsageError(f"no value for :{place.name} was given")
            place.replace(_literal(parameters[place.name]))
        return
    values = list(parameters or ())
    numbers = [int(one.name.removeprefix(_NUMBERED)) for one in places if one.name.startswith(_NUMBERED)]
    if not numbers:
        numbers = list(range(1, len(places) + 1))
    if len(numbers) != len(places) or max(numbers, default=0) != len(values):
        raise UsageError(f"the statement has {len(places)} parameters, and {len(values)} values were given")
    for place, number in zip(places, numbers, strict=True):
        place.replace(_literal(values[number - 1]))


def _literal(value: object) -> exp.Expr:
    """A value of Python as sqlite3 stores it."""
    if value is None:
        return exp.Null()
    if isinstance(value, int):
        if int(value) not in _INT64:
            raise UsageError(f"{value} does not fit the 64 bits of an integer")
        return exp.convert(int(value))
    if isinstance(value, float):
        return exp.Null() if value != value else _real(value)  # noqa: PLR0124  # NaN is NULL to SQLite
    if isinstance(value, str):
        return exp.Literal.string(value)
    text = getattr(value, "isoformat", None)
    if text is None:
        raise UsageError(f"a parameter is None, a number, a text or a time, not {type(value).__name__}")
    return exp.Literal.string(text(" ") if hasattr(value, "hour") else text())


def _real(value: float) -> exp.Expr:
    if value in (float("inf"), float("-inf")):
        return exp.cast(exp.Literal.string(str(value)), "DOUBLE")
    number: exp.Expr = exp.Literal.number(f"{abs(value)!r}e0" if "e" not in repr(value) else repr(abs(value)))
    return exp.Neg(this=number) if value < 0 else number


def _mend_identifiers(tree: exp.Expr) -> None:
    """A text in double quotes is a text where no column has that name."""
    names = {column.name for table in tree.find_all(exp.Table) for column in columns_of(table.name) or ()}
    names |= {one.alias_or_name.lower() for one in tree.find_all(exp.Alias, exp.TableAlias)}
    names |= {one.name.lower() for alias in tree.find_all(exp.TableAlias) for one in alias.columns}
    names |= {"name", "type", "tbl_name", "rootpage", "sql", "cid", "notnull", "dflt_value", "pk", "key", "value"}
    for column in list(tree.find_all(exp.Column)):
        column.set("db", None)
        identifier = column.this
        written = isinstance(identifier, exp.Identifier) and identifier.quoted and not column.table
        if written and identifier.name.lower() not in names:
            column.replace(exp.Literal.string(identifier.name))


def _name_columns(tree: exp.Expr, tokens: Sequence[Token], text: str) -> None:
    """SQLite calls a result's column what was written for it; so it must be called here."""
    first = tree
    while isinstance(first, exp.SetOperation):
        first = first.this
    if not isinstance(first, exp.Select):
        return
    written = _written(tokens, text)
    if len(written) == len(first.expressions):
        for item, words in zip(first.expressions, written, strict=True):
            named = isinstance(item, exp.Alias | exp.Column | exp.Star) and not words.startswith("+")
            if not named:
                item.replace(exp.alias_(item.copy(), words.replace(f":{_NUMBERED}", "?"), quoted=True))


def _written(tokens: Sequence[Token], text: str) -> list[str]:
    """What was written between the commas of the first list of the outermost SELECT."""
    outermost = _outermost(tokens)
    start = next((one.end + 1 for one in outermost if one.token_type is TokenType.SELECT), None)
    if start is None:
        return []
    spans: list[tuple[int, int]] = []
    end = len(text)
    for token in outermost:
        if token.token_type in _AFTER_LIST:
            end = token.start
            break
        if token.token_type is TokenType.COMMA:
            spans.append((start, token.start))
            start = token.end + 1
        elif token.token_type in (TokenType.DISTINCT, TokenType.ALL) and not text[start : token.start].strip():
            start = token.end + 1
    return [text[begin:stop].strip().rstrip(";").strip() for begin, stop in [*spans, (start, end)]]


def _outermost(tokens: Sequence[Token]) -> Iterator[Token]:
    """The tokens that are in no parentheses."""
    depth = 0
    for token in tokens:
        if token.token_type is TokenType.R_PAREN:
            depth -= 1
        elif token.token_type is TokenType.L_PAREN:
            depth += 1
        elif depth == 0:
            yield token


_AFTER_LIST: Final = {
    *(TokenType.FROM, TokenType.WHERE, TokenType.GROUP_BY, TokenType.HAVING, TokenType.ORDER_BY, TokenType.LIMIT),
    *(TokenType.UNION, TokenType.EXCEPT, TokenType.INTERSECT, TokenType.SEMICOLON, TokenType.WINDOW),
}


def _replace_tables(tree: exp.Expr) -> None:
    """Each table becomes the statement that gives those of its columns that the query names."""
    named = {one.name.lower() for one in tree.find_all(exp.Identifier)}
    star = any(not isinstance(one.parent, exp.Count) for one in tree.find_all(exp.Star))
    own = {one.alias.lower() for one in tree.find_all(exp.CTE)}
    for table in list(tree.find_all(exp.Table)):
        name = (table.name or table.this.name).lower()
        if name in own and not table.db:
            continue
        source = _source(table, name, named, star=star)
        if source is not None:
            made = sqlglot.parse_one(source, read="duckdb")
            alias = table.args.get("alias") or exp.TableAlias(this=exp.to_identifier(name))
            subquery = exp.Subquery(this=made, alias=alias, joins=table.args.get("joins"))
            table.replace(subquery)


def _source(table: exp.Table, name: str, named: set[str], *, star: bool) -> str | None:
    function = table.this
    if isinstance(function, exp.Func):
        if name == "pragma_table_info" and function.expressions:
            return _table_info(function.expressions[0].name)
        if name in _FUNCTIONS:
            return None
        raise UsageError(f"no such table-valued function: {function.sql()}")
    if name in ("sqlite_master", "sqlite_schema"):
        rows = ", ".join(
            f"('table', '{one}', '{one}', {at}, '{create_table(one)}')" for at, one in enumerate(REPLACED, 2)
        )
        return f"SELECT * FROM (VALUES {rows}) AS t(type, name, tbl_name, rootpage, sql)"  # noqa: S608  # names of ours
    if columns_of(name) is None:
        raise UsageError(f"no such table: {table.name}; there are {', '.join(REPLACED)}")
    return table_source(name, named, star=star)


def _pragma(text: str) -> str | None:
    """The pragmas that tell of tables; the others have nothing to say, or to set, here."""
    asked = re.fullmatch(r"(?:main\.)?(\w+)\s*(?:\(\s*(.*?)\s*\)|=\s*(.*))?", text, re.DOTALL)
    name = asked[1].lower() if asked else ""
    argument = (asked[2] or asked[3] or "").strip("'\"`[] ") if asked else ""
    if name in ("table_info", "table_xinfo"):
        return _table_info(argument)
    if name == "table_list":
        rows = ", ".join(f"('main', '{table}', 'table', {len(columns_of(table) or ())}, 0, 0)" for table in REPLACED)
        return f'SELECT * FROM (VALUES {rows}) AS t(schema, name, type, ncol, wr, "strict")'  # noqa: S608
    return None


def _table_info(table: str) -> str:
    columns = [one for one in columns_of(table) or () if one.visible]
    rows = ", ".join(f"({at}, '{one.name}', '{_DECLARED[one.kind]}', 0, NULL, 0)" for at, one in enumerate(columns))
    names = 'cid, "name", "type", "notnull", dflt_value, pk'
    if not rows:
        return f"SELECT * FROM (VALUES (0, '', '', 0, NULL, 0)) AS t({names}) WHERE FALSE"  # noqa: S608
    return f"SELECT * FROM (VALUES {rows}) AS t({names})"  # noqa: S608  # names of ours
