"""A captured session as a feed of the local gateway: its messages, byte for byte."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mdcapture.errors import UsageError
from mdcapture.lake.catalog import open_catalog
from mdcapture.lake.parquet import read_in_order, read_parts
from mdcapture.simulator.feed import RecordedFeed
from mdcapture.wire.decode import Reason

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mdcapture.lake.manifest import Manifest
    from mdcapture.lake.remote import Location

__all__ = ["SessionFeed"]


class SessionFeed(RecordedFeed):
    """A captured session, in the order of the lake (`recv_ns`, `seq`), one piece of each of its files in memory.

    Args:
        lake: The lake's folder.
        session: The session's id, a prefix that no other has, or `latest`.

    Raises:
        NotFoundError: There is no such lake or session.
        UsageError: The session is still being captured.
        DamageError: A file is missing or damaged (at construction, or while it is played).
    """

    def __init__(self, lake: str | Path, session: str) -> None:
        catalog = open_catalog(lake)
        now = catalog.snapshot(catalog.find(session))
        if now.manifest.state == "open":
            raise UsageError(f"{now.manifest.session_id} is still being captured: it can be played when it has ended")
        super().__init__(_records(catalog.root, now.manifest))
        self.contracts = now.contracts
        self.active = frozenset(contract.contract_id for contract in now.contracts)


def _records(root: Location, manifest: Manifest) -> Iterator[tuple[int, bytes]]:
    bytewise = set(_bytewise(root, manifest))
    for part in read_in_order(root, manifest.files_of("messages")):
        columns = (part[name].to_pylist() for name in ("seq", "recv_ns", "payload"))
        for seq, recv_ns, payload in zip(*columns, strict=True):
            yield recv_ns, payload.encode("latin-1" if seq in bytewise else "utf-8")


def _bytewise(root: Location, manifest: Manifest) -> Iterator[int]:
    """The messages that are no UTF-8: they are kept with each byte as the character of that number."""
    for part in read_parts(root, manifest.files_of("rejects")):
        for seq, reason in zip(part["seq"].to_pylist(), part["reason"].to_pylist(), strict=True):
            if reason == Reason.NOT_UTF8:
                yield seq
