"""A tape becomes a session: every message, every entry, and the very numbers of the market that it holds."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pytest

from mdcapture.errors import MdcaptureError, NotFoundError, UsageError
from mdcapture.interop.importing import import_records, import_tape
from mdcapture.lake.manifest import read_manifest, session_ids
from mdcapture.lake.seal import recover
from mdcapture.lake.verify import verify

if TYPE_CHECKING:
    from pathlib import Path

ES = "CON.F.US.EP.H24"
START_NS = 1_703_545_200_106_846_211


def record(target: str, entries: object, contract_id: str = ES) -> bytes:
    return json.dumps({"type": 1, "target": target, "arguments": [contract_id, entries]}).encode()


RECORDS = [
    record("GatewayQuote", {"bestBid": 4800.25, "timestamp": "2023-12-25T23:00:00.1Z"}),
    record("GatewayTrade", [{"price": 4800.5, "volume": 2, "type": 0}, {"price": 4800.25, "volume": 3, "type": 1}]),
    b'{"type":6}',
    record("GatewayDepth", [None, {"price": 4800.5, "volume": 2, "type": 3}]),
    b'{"type":3,"invocationId":"1"}',
    record("GatewayLogout", []),
    b"{}",
]


def tape(*records: bytes) -> bytes:
    return b"".join(b"%d %s\n" % (START_NS + at, text) for at, text in enumerate(records))


def select(root: Path, query: str) -> list[tuple[Any, ...]]:
    """What plain DuckDB reads; tables stand in braces."""
    tables = ("quotes", "trades", "depth", "messages", "rejects")
    texts = {table: f"read_parquet('{root}/{table}/*/*/*.parquet', hive_partitioning=true)" for table in tables}
    with duckdb.connect() as connection:
        return connection.execute(query.format(**texts)).fetchall()


def test_the_numbers_of_the_es_tape(shared: Path, tmp_path: Path):
    manifest = import_tape(str(shared / "tapes/es_20231225.ndjson.zst"), tmp_path)
    counts = {"messages": 47_262, "quotes": 4_579, "trades": 2_972, "depth": 73_239, "rejects": 1}
    assert manifest.counts == counts
    for table, count in counts.items():
        assert select(tmp_path, f"select count(*) from {{{table}}}") == [(count,)]  # noqa: S608
    lots, vwap, delta = select(
        tmp_path,
        """select sum(volume), sum(price * volume) / sum(volume), sum(case side when 0 then volume else -volume end)
        from {trades}""",
    )[0]
    assert (lots, delta) == (9_848, 796)
    assert vwap == pytest.approx(4808.760560519902, rel=1e-14)
    assert select(tmp_path, "select reason, payload from {rejects}") == [("null_entry", "null")]
    assert manifest.implausible == {}
    assert manifest.contracts[0].tick_size == 0.25
    assert verify(tmp_path, manifest.session_id, deep=True) == []


def test_a_small_tape(tmp_path: Path):
    (tmp_path / "small.ndjson").write_bytes(tape(*RECORDS))
    told: list[int] = []
    manifest = import_tape(str(tmp_path / "small.ndjson"), tmp_path / "lake", progress=told.append)
    assert manifest.session_id == "session_20231225_230000"
    assert (manifest.state, manifest.source) == ("sealed", "tape small.ndjson")
    assert manifest.counts == {"messages": 5, "quotes": 1, "trades": 2, "depth": 1, "rejects": 2}
    assert (manifest.start_ns, manifest.end_ns) == (START_NS, START_NS + 6)
    assert told[-1] == 5
    root = tmp_path / "lake"
    assert select(root, "select recv_ns, payload from {messages} order by seq") == [
        (START_NS + at, RECORDS[at].decode()) for at in (0, 1, 3, 5, 6)
    ]
    assert select(root, "select seq, reason from {rejects} order by seq") == [(2, "null_entry"), (4, "not_invocation")]
    assert verify(root, manifest.session_id, deep=True) == []


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_a_compressed_tape_gives_the_same(tmp_path: Path, suffix: str):
    path = tmp_path / f"tape.ndjson.{suffix}"
    plain = tape(*RECORDS)
    path.write_bytes(gzip.compress(plain) if suffix == "gz" else pa.compress(plain, "zstd", asbytes=True))
    assert import_tape(path, str(tmp_path / "lake")).counts["trades"] == 2


def test_a_tape_is_imported_twice_only_if_somebody_says_so(tmp_path: Path):
    (tmp_path / "tape").write_bytes(tape(*RECORDS))
    first = import_tape(str(tmp_path / "tape"), tmp_path / "lake").session_id
    (tmp_path / "tape").rename(tmp_path / "renamed")
    with pytest.raises(UsageError, match=f"as {first}.*--again"):
        import_tape(str(tmp_path / "renamed"), tmp_path / "lake")
    assert session_ids(tmp_path / "lake") == [first]
    assert import_tape(str(tmp_path / "renamed"), tmp_path / "lake", again=True).session_id == f"{first}_2"


def test_a_tape_whose_import_was_cut_short_is_imported_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "tape").write_bytes(tape(*[RECORDS[1]] * 3000))

    def stop(_count: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        import_tape(str(tmp_path / "tape"), tmp_path / "lake", progress=stop)
    manifest = import_tape(str(tmp_path / "tape"), tmp_path / "lake")
    part, _ = session_ids(tmp_path / "lake")
    assert (read_manifest(tmp_path / "lake", part).state, manifest.state) == ("recovered", "sealed")
    assert manifest.counts["messages"] == 3000
    assert part in caplog.text


def test_a_clock_that_steps_back_on_the_tape_is_kept(tmp_path: Path):
    lines = [b"%d %s\n" % (START_NS + step, RECORDS[1]) for step in (0, 5, -(10**12), 7)]
    (tmp_path / "tape").write_bytes(b"".join(lines))
    manifest = import_tape(str(tmp_path / "tape"), tmp_path / "lake")
    assert select(tmp_path / "lake", "select seq from {messages} order by recv_ns") == [(2,), (0,), (1,), (3,)]
    assert verify(tmp_path / "lake", manifest.session_id, deep=True) == []


@pytest.mark.parametrize(("sealed_bytes", "journal_bytes"), [(32_000_000, 40_000_000), (1_000_000_000, 90_000_000)])
def test_a_long_tape_is_sealed_on_the_way_when_so_much_of_it_waits(
    tmp_path: Path, sealed_bytes: int, journal_bytes: int
):
    """Records of 4 MB: as many segments as nothing else makes of a tape of a bearable length."""
    large = record("GatewayTrade", [{"price": 1, "volume": 1, "x": "y" * 4_000_000}])
    waiting: list[int] = []

    def look(_: int) -> None:
        waiting.append(sum(path.stat().st_size for path in tmp_path.glob("journal/*/*.journal")))

    records = ((START_NS + at, large) for at in range(20))
    manifest = import_records(records, tmp_path, source="a test", sealed_bytes=sealed_bytes, progress=look)
    assert manifest is not None
    assert manifest.counts == {"messages": 20, "trades": 20}
    assert len(manifest.files) == 2
    assert 0.8 * journal_bytes < max(waiting) < journal_bytes
    assert verify(tmp_path, manifest.session_id, deep=True) == []


def test_what_came_before_the_damage_of_a_tape_is_recovered(tmp_path: Path):
    (tmp_path / "tape").write_bytes(tape(*[RECORDS[1]] * 3000) + b"no time {}\n" + tape(RECORDS[1]))
    with pytest.raises(UsageError, match="line 3001"):
        import_tape(str(tmp_path / "tape"), tmp_path / "lake")
    (manifest,) = recover(tmp_path / "lake")
    assert (manifest.state, manifest.counts["trades"]) == ("recovered", 6000)
    assert verify(tmp_path / "lake", manifest.session_id, deep=True) == []


class Interrupting(bytes):
    """A record at which Ctrl-C is pressed when it is measured for the second time: as the journal takes it."""

    measured = 0

    def __len__(self) -> int:
        self.measured += 1
        if self.measured == 2:
            raise KeyboardInterrupt
        return super().__len__()


def test_an_interrupted_import_has_each_message_once(tmp_path: Path):
    records = [record("GatewayTrade", [{"price": 1.0, "volume": at, "type": 0}]) for at in range(5_000)]
    pressed = [*records[:2_000], Interrupting(records[2_000]), *records[2_001:]]
    with pytest.raises(KeyboardInterrupt):
        import_records(enumerate(pressed, START_NS), tmp_path, source="a tape")
    recover(tmp_path)
    stored = select(tmp_path, "select payload from {messages} order by seq")
    assert [text.encode() for (text,) in stored] == records[: len(stored)] != []


def test_a_tape_whose_compression_is_damaged_says_so(tmp_path: Path):
    packed = pa.compress(tape(*RECORDS * 9), "zstd", asbytes=True)
    (tmp_path / "tape.zst").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(UsageError, match=r"tape\.zst"):
        import_tape(str(tmp_path / "tape.zst"), tmp_path / "lake")


@pytest.mark.parametrize("content", [b"", b'5 {"type":6}\n', b"\n", b"x\n", b"-5 {}\n"])
def test_a_tape_with_nothing_on_it_is_an_error_and_leaves_no_session(tmp_path: Path, content: bytes):
    (tmp_path / "tape").write_bytes(content)
    with pytest.raises(MdcaptureError):
        import_tape(str(tmp_path / "tape"), tmp_path / "lake")
    assert session_ids(tmp_path / "lake") == []


def test_a_tape_that_is_not_there_is_not_found(tmp_path: Path):
    with pytest.raises(NotFoundError, match="there is no file"):
        import_tape(str(tmp_path / "tape"), tmp_path / "lake")


def test_an_odd_contract_is_imported_with_the_rest(tmp_path: Path):
    odd = record("GatewayTrade", {"price": 1, "volume": 1}, "../../x\n")
    (tmp_path / "tape").write_bytes(tape(odd, RECORDS[1]))
    manifest = import_tape(str(tmp_path / "tape"), tmp_path / "lake")
    found = select(tmp_path / "lake", "select contract_id, count(*) from {trades} group by all order by all")
    assert found == [("../../x\n", 1), (ES, 2)]
    assert {path.name for path in tmp_path.iterdir()} == {"tape", "lake"}
    assert read_manifest(tmp_path / "lake", manifest.session_id) == manifest
