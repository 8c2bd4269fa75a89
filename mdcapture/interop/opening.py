"""Opening a lake for reading, wherever it is: a folder, object storage, a database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mdcapture.interop.postgres.connection import is_postgres
from mdcapture.lake import catalog

if TYPE_CHECKING:
    from pathlib import Path

    from mdcapture.lake.catalog import Catalog
    from mdcapture.lake.remote import RemotePath

__all__ = ["open_catalog"]


def open_catalog(place: str | Path | RemotePath) -> Catalog:
    """The catalog of a lake that exists.

    Args:
        place: A folder, `s3://bucket/prefix`, or `postgresql://user@host/database`.

    Raises:
        NotFoundError: There is no lake.
        UsageError: The address holds a secret.
        StorageError: Whoever keeps its objects can't be reached, or refused.
        ServerError: The database can't be reached, or refused.
    """
    if is_postgres(place):
        from mdcapture.interop.postgres.catalog import open_postgres  # noqa: PLC0415  # few lakes are there

        return open_postgres(str(place))
    return catalog.open_catalog(place)
