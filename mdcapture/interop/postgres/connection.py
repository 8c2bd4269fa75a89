"""A server's address, which holds no secret, and its connection, whose errors say what to do.

libpq finds the password where it always does: `PGPASSWORD`, `~/.pgpass` or the file that `PGPASSFILE` names, a service.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlencode

from mdcapture.config import check_address
from mdcapture.errors import DamageError, ServerError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from adbc_driver_manager.dbapi import Connection, Cursor

__all__ = ["connected", "is_postgres", "rows_of", "rows_refused", "transaction"]

_SCHEMES: Final = ("postgresql://", "postgres://")
_PATIENCE: Final = {
    "connect_timeout": "10",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
    "application_name": "mdcapture",
}
"""What libpq is told where the address says nothing: a server that is gone is noticed."""
_NEXT_STEP: Final = (
    ("password authentication failed", "check PGPASSWORD or ~/.pgpass, and the user's name in the address"),
    ("no password supplied", "put the password into PGPASSWORD or ~/.pgpass, never into the address"),
    ("does not exist", "create it (createdb), or name another one"),
    ("permission denied", "give this user the right to it (GRANT), or name another user"),
    ("must be owner", "let the user who published first do this, or make this one a member of that role"),
    ("depend", "drop what was built on the views, and build it again afterwards"),
    ("could not extend file", "free some space there: what was not finished is undone"),
)
_DATA: Final = "22"
"""An SQLSTATE that begins so is about what was sent, and not about the server."""
_ELSE: Final = "see that the server runs and can be reached, and do it again"


def is_postgres(place: object) -> bool:
    """Whether this names a PostgreSQL server."""
    return str(place).startswith(_SCHEMES)


@contextmanager
def connected(address: str) -> Iterator[Connection]:
    """A connection for the length of the block.

    Args:
        address: `postgresql://user@host:port/database`.

    Raises:
        UsageError: The address holds a password, or the driver is not installed.
        ServerError: The server did not answer, or refused, now or in the block.
    """
    address = check_address(address)
    try:
        from adbc_driver_postgresql import dbapi  # noqa: PLC0415  # an extra
    except ImportError as error:
        raise UsageError("PostgreSQL needs the extra: pip install 'mdcapture[postgresql]'") from error
    try:
        connection = dbapi.connect(_patient(address))
        try:
            yield connection
        finally:
            _close(connection, dbapi.Error)
    except dbapi.Error as error:
        raise ServerError(f"{address}: {_said(error)}") from None


@contextmanager
def transaction(connection: Connection) -> Iterator[Cursor]:
    """All that the block does, or nothing of it."""
    with connection.cursor() as cursor:
        try:
            yield cursor
        except BaseException:
            _undo(connection)
            raise
        connection.commit()


@contextmanager
def rows_refused(session_id: str) -> Iterator[None]:
    """Tell of a server that does not take the rows of a session, which keeps no other session out.

    Raises:
        DamageError: It does not take them.
    """
    from adbc_driver_postgresql import dbapi  # noqa: PLC0415  # an extra

    try:
        yield
    except dbapi.Error as error:
        if not (error.sqlstate or "").startswith(_DATA):
            raise
        raise DamageError(
            f"{session_id}: the database does not take its rows ({_reason(error)}): nothing more of it was published "
            "(`mdcapture verify` says what is damaged)"
        ) from None


def rows_of(cursor: Cursor, query: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
    """The rows of a query."""
    cursor.execute(query, list(parameters) or None)
    return cursor.fetchall()


def _undo(connection: Connection) -> None:
    """Roll back; a server that is gone has done so by itself, and the error that tells of it is on its way."""
    from adbc_driver_postgresql import dbapi  # noqa: PLC0415  # an extra

    try:
        connection.rollback()
    except dbapi.Error:
        return


def _close(connection: Connection, error: type[Exception]) -> None:
    """Close; a server that is gone has done so by itself."""
    try:
        connection.close()
    except error:
        return


def _patient(address: str) -> str:
    """The address, with what it does not say itself about waiting."""
    base, _, query = address.partition("?")
    said = dict(parse_qsl(query, keep_blank_values=True))
    return f"{base}?{urlencode(_PATIENCE | said)}"


def _said(error: Exception) -> str:
    """The server's reason, and what to do."""
    reason = _reason(error)
    step = next((step for sign, step in _NEXT_STEP if sign in reason), _ELSE)
    return f"{reason}; {step}"


def _reason(error: Exception) -> str:
    """The server's reason on one line."""
    text = re.sub(r"^[A-Z_]+: (\[libpq\] )?(Failed to connect: )?", "", str(error))
    text = re.split(r"\n+Query was:|\. SQLSTATE|\nCONTEXT:|\n\s+Is the server running", text)[0]
    return " ".join(text.split())
