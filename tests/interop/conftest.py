"""What the tests of exports and databases share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import postgres_server
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from postgres_server import Server


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A PostgreSQL server."""
    with postgres_server.running() as running:
        yield running


@pytest.fixture
def postgres(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The server, and its password where libpq looks for it."""
    monkeypatch.setenv("PGPASSWORD", postgres_server.PASSWORD)
    return server
