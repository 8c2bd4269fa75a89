"""What a shell offers for a name that is begun: sessions and contracts of the lake, metrics."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import typer  # noqa: TC002  # typer reads the annotations when it runs

from mdcapture.errors import MdcaptureError

if TYPE_CHECKING:
    from mdcapture.lake.catalog import Catalog

__all__ = ["contracts", "metrics", "sessions"]


def sessions(ctx: typer.Context, incomplete: str) -> list[str]:
    """The ids of the lake's sessions, and `latest`."""
    found = ["latest"]
    with suppress(MdcaptureError):  # no lake there: nobody asked for more than its names
        found += _catalog(ctx).session_ids()
    return _begun(found, incomplete)


def contracts(ctx: typer.Context, incomplete: str) -> list[str]:
    """The names of the contracts of the session that was named before, or of the latest."""
    found: list[str] = []
    with suppress(MdcaptureError):
        catalog = _catalog(ctx)
        named = ctx.params.get("session")
        session = catalog.snapshot(catalog.find(named if isinstance(named, str) else "latest"))
        found = [one.name or one.contract_id for one in session.contracts]
    return _begun(found, incomplete)


def metrics(incomplete: str) -> list[str]:
    """The metrics that `analyze` knows."""
    from mdcapture.analysis.catalogue import METRICS

    return _begun(list(METRICS), incomplete)


def _catalog(ctx: typer.Context) -> Catalog:
    from mdcapture.config import load_config
    from mdcapture.interop.opening import open_catalog

    return open_catalog(load_config({"lake": ctx.params.get("lake")}).config.lake)


def _begun(names: list[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
