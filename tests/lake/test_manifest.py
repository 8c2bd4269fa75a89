"""A manifest is there as a whole, or is said not to be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_disk import SmallDisk

from mdcapture.errors import DamageError, NotFoundError, StorageError
from mdcapture.lake.files import make_folder
from mdcapture.lake.journal import Damage
from mdcapture.lake.layout import manifest_path
from mdcapture.lake.manifest import Contract, Manifest, SealedFile, read_manifest, session_ids, write_manifest
from mdcapture.lake.schema import SCHEMA_VERSION
from mdcapture.wire.messages import Quote

if TYPE_CHECKING:
    from pathlib import Path

SESSION = "session_20231225_230000"
FULL = Manifest(
    session_id=SESSION,
    created_ns=2**63 - 1,
    start_ns=0,
    config={"lake": "data", "contracts": ["MNQ"], "duration_s": None},
    contracts=[Contract(contract_id="a/\u00e9", tick_size=0.0000005, tick_value=6.25)],
    counts={"trades": 2**53 + 1},
    files=[
        SealedFile(
            path="trades/x",
            table="trades",
            contract_id=None,
            rows=1,
            bytes=2,
            sha256="00",
            first_recv_ns=2**62,
            last_recv_ns=2**63 - 1,
            first_seq=0,
            last_seq=1,
        )
    ],
    quote_state={"": Quote(best_bid=0.1, volume=-(2**63)), "x": Quote()},
    damage=[Damage(7, 2**40, torn=True)],
)


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    make_folder(tmp_path / "sessions")
    return tmp_path


def test_it_is_read_as_it_was_written(lake: Path):
    write_manifest(lake, FULL)
    assert read_manifest(lake, SESSION) == FULL
    assert [path.name for path in (lake / "sessions").iterdir()] == [f"{SESSION}.json"]


@given(price=st.floats(allow_nan=False, allow_infinity=False), volume=st.integers(-(2**63), 2**63 - 1))
def test_the_state_of_quotes_is_kept_to_the_last_bit(price: float, volume: int):
    state = {"id": Quote(best_bid=price, volume=volume)}
    kept = msgspec.json.decode(msgspec.json.encode(state), type=dict[str, Quote])
    assert kept == state


def test_a_full_disk_leaves_the_one_before(lake: Path):
    write_manifest(lake, FULL)
    with SmallDisk(100), pytest.raises(StorageError):
        write_manifest(lake, msgspec.structs.replace(FULL, next_seq=7))
    assert read_manifest(lake, SESSION) == FULL


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[" * 100_000, b'{"session_id": "\xff"}', b"\x00" * 100, b'{"session_id":"x","created_ns":"y"}'],
)
def test_what_is_none_is_damage(lake: Path, content: bytes):
    manifest_path(lake, SESSION).write_bytes(content)
    with pytest.raises(DamageError, match="is no manifest"):
        read_manifest(lake, SESSION)


def test_any_flipped_byte_is_read_or_told(lake: Path):
    write_manifest(lake, FULL)
    path = manifest_path(lake, SESSION)
    content = path.read_bytes()
    told = 0
    for at in range(len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ 0x80]) + content[at + 1 :])
        try:
            read_manifest(lake, SESSION)
        except DamageError:
            told += 1
    assert told > len(content) / 2


def test_another_session_s_is_damage(lake: Path):
    other = "session_20231225_230001"
    write_manifest(lake, FULL)
    manifest_path(lake, SESSION).rename(manifest_path(lake, other))
    with pytest.raises(DamageError, match=SESSION):
        read_manifest(lake, other)


def test_a_newer_one_is_not_guessed_at(lake: Path):
    write_manifest(lake, msgspec.structs.replace(FULL, schema_version=SCHEMA_VERSION + 1, software="mdcapture 9"))
    with pytest.raises(DamageError, match="mdcapture 9"):
        read_manifest(lake, SESSION)


def test_sessions_come_in_the_order_of_their_beginning(lake: Path):
    ids = [SESSION, *(f"{SESSION}_{number}" for number in range(2, 12)), "session_20231225_230001"]
    for name in [*reversed(ids), "notes", "session_x", f"{SESSION}.json"]:
        (lake / "sessions" / f"{name}.json").touch()
    (lake / "sessions" / f"{SESSION}.json.tmp").touch()
    assert session_ids(lake) == ids


def test_no_session_is_not_found(tmp_path: Path):
    assert session_ids(tmp_path) == []
    with pytest.raises(NotFoundError, match="mdcapture sessions"):
        read_manifest(tmp_path, SESSION)
