"""Tapes: any compression, in chunks, and a clear word about what is none."""

from __future__ import annotations

import gzip
import io
import sys
import tempfile
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdcapture.errors import NotFoundError, UsageError
from mdcapture.gateway.tape import read_tape

LINES = [(1_703_545_200_106_846_211, b'{"type":1}'), (1_703_545_200_107_250_074, '{"x":"é "}'.encode())]


def text(lines: list[tuple[int, bytes]]) -> bytes:
    return b"".join(b"%d %s\n" % line for line in lines)


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("plain.ndjson", text(LINES)),
        ("unfinished.ndjson", text(LINES).rstrip(b"\n")),
        ("one.zst", zstd(text(LINES))),
        ("frames.zst", zstd(text(LINES[:1])) + zstd(text(LINES[1:]))),
        ("one.gz", gzip.compress(text(LINES), mtime=0)),
        ("members.gz", gzip.compress(text(LINES)[:30], mtime=0) + gzip.compress(text(LINES)[30:], mtime=0)),
    ],
    ids=["plain", "unfinished", "zstd", "zstd frames", "gzip", "gzip members"],
)
def test_reads_every_form_of_a_tape(tmp_path: Path, name: str, data: bytes):
    (tmp_path / name).write_bytes(data)
    assert list(read_tape(tmp_path / name)) == LINES


def test_reads_standard_input(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(text(LINES)))))
    assert list(read_tape("-")) == LINES


RECORDS = st.binary(min_size=1, max_size=50).filter(lambda record: b"\n" not in record)


@given(st.lists(st.tuples(st.integers(0, 2**63 - 1), RECORDS)), st.sampled_from(["plain", "gz", "zst"]))
def test_returns_what_was_written(lines: list[tuple[int, bytes]], form: str):
    data = {"plain": bytes, "gz": gzip.compress, "zst": zstd}[form](text(lines))
    with tempfile.TemporaryDirectory() as folder:
        tape = Path(folder, f"tape.{form}")
        tape.write_bytes(data)
        assert list(read_tape(tape)) == lines


@pytest.mark.parametrize("line", [b"", b"12", b"12 ", b"1.5 {}", b"-5 {}", b"{}", b"99999999999999999999 {}", b" 1 {}"])
def test_names_the_line_that_is_none_and_gives_what_came_before(tmp_path: Path, line: bytes):
    tape = tmp_path / "tape.ndjson"
    tape.write_bytes(text(LINES) + line + b"\n")
    lines = read_tape(tape)
    assert [next(lines), next(lines)] == LINES
    with pytest.raises(UsageError, match=r"tape\.ndjson, line 3: no line of a tape"):
        next(lines)


@pytest.mark.parametrize(
    ("name", "damage"), [("t.zst", zstd(text(LINES * 99))[:-20]), ("t.zst", b"no"), ("t.gz", b"no")]
)
def test_says_that_the_compression_is_damaged(tmp_path: Path, name: str, damage: bytes):
    (tmp_path / name).write_bytes(damage)
    with pytest.raises(UsageError, match="can't be read as a tape"):
        list(read_tape(tmp_path / name))


def test_a_missing_tape_is_not_found():
    with pytest.raises(NotFoundError, match="no file /nowhere"):
        list(read_tape("/nowhere"))


def test_memory_does_not_grow_with_the_tape(tmp_path: Path):
    tape = tmp_path / "long.zst"
    tape.write_bytes(zstd(text([(1, b"x" * 1_000)]) * 30_000))
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_tape(tape)) == 30_000
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 10_000_000


def test_reads_the_real_tape(shared: Path):
    times, records = zip(*read_tape(shared / "tapes" / "es_20231225.ndjson.zst"), strict=True)
    assert len(records) == 47_262
    assert list(times) == sorted(times)
    assert sum(record.startswith(b'{"type":1,"target":"GatewayQuote"') for record in records) == 4_579
