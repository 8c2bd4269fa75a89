"""A session's manifest: what it holds, as its owner knows it; replaced as a whole, never changed in place."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from mdcapture.errors import DamageError, NotFoundError, UsageError
from mdcapture.lake.files import replace_file
from mdcapture.lake.journal import Damage
from mdcapture.lake.layout import is_session_id, manifest_path, session_order
from mdcapture.lake.schema import SCHEMA_VERSION
from mdcapture.wire.messages import Quote

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from mdcapture.lake.remote import Location, RemotePath

__all__ = [
    "Contract",
    "Manifest",
    "SealedFile",
    "State",
    "contract_named",
    "contracts_named",
    "read_manifest",
    "read_manifests",
    "session_ids",
    "tick_sizes",
    "write_manifest",
]

_EXPIRY_LETTERS = len("Z6")

State = Literal["open", "sealed", "recovered"]


class Contract(msgspec.Struct, frozen=True, kw_only=True):
    """A contract as the gateway describes it.

    `tick_value` is the worth of one tick of one lot in the contract's currency; `source` says where the figures are
    from: `gateway`, `known` (by its id), `user`, or `unknown`.
    """

    contract_id: str
    name: str = ""
    description: str = ""
    tick_size: float | None = None
    tick_value: float | None = None
    symbol_id: str = ""
    source: str = "unknown"


def tick_sizes(contracts: Iterable[Contract]) -> dict[str, float | None]:
    """Their ticks (price units) by id, None where one is not known."""
    return {one.contract_id: one.tick_size or None for one in contracts}


def contracts_named(contracts: Iterable[Contract], text: str) -> list[Contract]:
    """Those that a text means: an id, or else a name (`MNQZ6`), or else a root (`MNQ`).

    Raises:
        NotFoundError: None of them is called that.
    """
    known = list(contracts)
    wanted = text.upper()
    for spelt in (
        lambda one: (one.contract_id.upper(),),
        lambda one: (one.name,),
        lambda one: (one.name[:-_EXPIRY_LETTERS], one.symbol_id.rpartition(".")[2]),
    ):
        found = [one for one in known if wanted in spelt(one)]
        if found:
            return found
    names = ", ".join(one.name or one.contract_id for one in known) or "none"
    raise NotFoundError(f"there is no contract {text} here; there are: {names}")


def contract_named(contracts: Iterable[Contract], text: str) -> Contract:
    """The one that a text means, as `contracts_named` has it.

    Raises:
        NotFoundError: None of them is called that.
        UsageError: Several are.
    """
    found = {one.contract_id: one for one in contracts_named(contracts, text)}
    if len(found) > 1:
        names = ", ".join(one.name or one.contract_id for one in found.values())
        raise UsageError(f"{text} means several contracts here: name one of {names}")
    return next(iter(found.values()))


class SealedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A finished Parquet file; `path` is relative to the lake."""

    path: str
    table: str
    contract_id: str | None
    rows: int
    bytes: int
    sha256: str
    first_recv_ns: int
    last_recv_ns: int
    first_seq: int
    last_seq: int


class Manifest(msgspec.Struct, kw_only=True):
    """Everything about a session but its rows.

    `next_part`, `sealed_segment`, `quote_state` and `damage` are where sealing goes on: the number of the next file,
    the last segment of the journal whose rows are in the files, what the quotes stood at after it, and what at its end
    can't be read, which becomes an incident when it is known what follows.
    """

    session_id: str
    schema_version: int = SCHEMA_VERSION
    software: str = ""
    state: State = "open"
    source: str = "gateway"
    created_ns: int
    start_ns: int | None = None
    end_ns: int | None = None
    config: dict[str, Any] = {}
    contracts: list[Contract] = []
    counts: dict[str, int] = {}
    implausible: dict[str, int] = {}
    incidents: dict[str, int] = {}
    files: list[SealedFile] = []
    next_part: int = 1
    next_seq: int = 0
    sealed_segment: int = 0
    quote_state: dict[str, Quote] = {}
    damage: list[Damage] = []

    def files_of(self, table: str, contracts: Iterable[str] | None = None) -> list[SealedFile]:
        """The files of a table, for some contracts or all."""
        wanted = None if contracts is None else set(contracts)
        return [file for file in self.files if file.table == table and (wanted is None or file.contract_id in wanted)]


_encode = msgspec.json.Encoder(order="deterministic").encode
_decode = msgspec.json.Decoder(Manifest).decode


def write_manifest(root: Path | RemotePath, manifest: Manifest) -> None:
    """Put the manifest in the place of the one before, at once and for good."""
    replace_file(manifest_path(root, manifest.session_id), [msgspec.json.format(_encode(manifest), indent=1)])


def read_manifest(root: Location, session_id: str) -> Manifest:
    """Read a session's manifest.

    Raises:
        NotFoundError: There is no such session.
        DamageError: It can't be read as a manifest of this version.
    """
    path = manifest_path(root, session_id)
    try:
        manifest = _decode(path.read_bytes())
    except FileNotFoundError:
        raise NotFoundError(f"no session {session_id} in {root}: `mdcapture sessions` lists them") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DamageError(
            f"{path} is no manifest ({error}); the session's files are untouched: restore the manifest from a backup"
        ) from error
    if manifest.session_id != session_id:
        raise DamageError(f"{path} is no manifest of its own session but of {manifest.session_id!r}: restore it")
    if manifest.schema_version > SCHEMA_VERSION:
        raise DamageError(f"{path} was written by a newer mdcapture ({manifest.software}): upgrade to read it")
    return manifest


def read_manifests(root: Location, ids: Iterable[str] | None = None) -> Iterator[Manifest]:
    """The manifests of sessions that were listed, or of all, the oldest first; without those pruned since.

    Raises:
        DamageError: One can't be read.
    """
    for session_id in session_ids(root) if ids is None else ids:
        with suppress(NotFoundError):
            yield read_manifest(root, session_id)


def session_ids(root: Location) -> list[str]:
    """The sessions of a lake, the oldest first."""
    found = [path.stem for path in (root / "sessions").glob("*.json") if is_session_id(path.stem)]
    return sorted(found, key=session_order)
