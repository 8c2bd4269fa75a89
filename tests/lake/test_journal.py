"""What was written to a journal comes back: all of it, or all that was written before the damage and after."""

from __future__ import annotations

import tempfile
from array import array
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from small_disk import SmallDisk

from mdcapture.errors import StorageError
from mdcapture.lake.journal import Damage, IncidentBlock, Journal, MessageBlock, read_blocks, segments
from mdcapture.lake.schema import Incident, IncidentKind

INT64 = st.integers(-(2**63), 2**63 - 1)
RECORDS = st.lists(
    st.one_of(st.binary(max_size=40), st.sampled_from([b"", b"\n", b"a\nb", b"MDB1", b"MDB1\x01" * 9, b'{"type":1}'])),
    max_size=4,
)
STEPS = st.lists(
    st.one_of(
        st.tuples(INT64, st.integers(1, 3), RECORDS),
        st.builds(
            Incident,
            st.sampled_from([kind.value for kind in IncidentKind]),
            st.sampled_from([None, "quotes"]),
            st.none() | st.text(st.characters(exclude_categories=["Cs"])),
            INT64,
            st.none() | INT64,
            st.just("detail\n"),
        ),
        st.just("flush"),
    ),
    max_size=12,
)
Flat = tuple[int, object, object, object]


def write(folder: Path, steps: list[object]) -> tuple[bytes, list[Flat]]:
    """A segment with these steps, and what reading it must give: messages and incidents one by one."""
    journal = Journal(folder)
    expected: list[Flat] = []
    seq = 0
    for step in steps:
        if isinstance(step, Incident):
            journal.note(step.from_ns, step)
            expected.append((seq, step.from_ns, None, step))
        elif isinstance(step, tuple):
            recv_ns, connection, records = step
            journal.append(recv_ns, connection, records)
            expected += [(seq + at, recv_ns, connection, record) for at, record in enumerate(records)]
            seq += len(records)
        else:
            journal.flush()
    assert journal.next_seq == seq
    journal.close()
    (path,) = segments(folder).values()
    assert path.stat().st_size == journal.segment_bytes
    return path.read_bytes(), expected


def flat(data: bytes) -> list[Flat | Damage]:
    """Blocks, message by message."""
    found: list[Flat | Damage] = []
    for block in read_blocks(data):
        if isinstance(block, MessageBlock):
            found += [
                (block.first_seq + at, recv_ns, block.connection, record)
                for at, (recv_ns, record) in enumerate(zip(block.recv_ns, block.records, strict=True))
            ]
        elif isinstance(block, IncidentBlock):
            found.append((block.first_seq, block.recv_ns, None, block.incident))
        else:
            found.append(block)
    return found


@given(steps=STEPS)
@example(steps=[(0, 1, [b""]), (2**63 - 1, 1, [b"\n", b"\n\n"])])
def test_what_is_written_is_read(steps: list[object]):
    with tempfile.TemporaryDirectory() as folder:
        data, expected = write(Path(folder), steps)
    assert flat(data) == expected


@given(steps=STEPS, cut=st.integers(0, 1 << 16))
def test_any_cut_of_a_segment_gives_a_prefix_and_says_what_is_torn(steps: list[object], cut: int):
    with tempfile.TemporaryDirectory() as folder:
        data, expected = write(Path(folder), steps)
    cut = cut % (len(data) + 1)
    found = flat(data[:cut])
    whole = [one for one in found if not isinstance(one, Damage)]
    damage = [one for one in found if isinstance(one, Damage)]
    assert whole == expected[: len(whole)]
    assert len(damage) <= 1
    if damage:
        assert found[-1] is damage[0]
        assert damage[0].torn
        assert damage[0].offset + damage[0].size == cut
        assert "torn" in damage[0].detail
    elif cut == len(data):
        assert whole == expected


@settings(max_examples=150)
@given(data=st.data())
def test_a_flipped_bit_costs_its_block_alone_and_is_told(data: st.DataObject):
    blocks = [(number, 1 + number % 2, [b"record %d" % number, b"MDB1 in a record"]) for number in range(6)]
    with tempfile.TemporaryDirectory() as folder:
        content, expected = write(Path(folder), list(blocks))
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    flipped = bytearray(content)
    flipped[bit // 8] ^= 1 << bit % 8
    found = flat(bytes(flipped))
    damage = [one for one in found if isinstance(one, Damage)]
    hit = bit // 8 // (len(content) // 6)  # blocks of one length
    assert [one for one in found if not isinstance(one, Damage)] == expected[: 2 * hit] + expected[2 * hit + 2 :]
    assert [(one.offset, one.size, one.torn) for one in damage] == [
        (hit * len(content) // 6, len(content) // 6, hit == 5)
    ]


@given(data=st.binary(max_size=200), repeats=st.integers(0, 20))
def test_any_bytes_can_be_read(data: bytes, repeats: int):
    found = list(read_blocks(data + b"MDB1\x01" * repeats))
    assert all(isinstance(block, Damage) for block in found)
    assert sum(block.size for block in found if isinstance(block, Damage)) == len(data) + 5 * repeats


def test_a_segment_goes_on_in_the_next(tmp_path: Path):
    journal = Journal(tmp_path)
    journal.append(1, 1, [b"a", b"b"])
    journal.retire(journal.roll())
    journal.append(2, 1, [b"c"])
    journal.close()
    journal.close()
    assert {number: flat(path.read_bytes()) for number, path in segments(tmp_path).items()} == {
        1: [(0, 1, 1, b"a"), (1, 1, 1, b"b")],
        2: [(2, 2, 1, b"c")],
    }


def test_segments_are_told_from_other_files_and_come_in_order(tmp_path: Path):
    for name in ("000010.journal", "000009.journal", "1000000.journal", "1.journal", "000002.journal.bak", "lock"):
        (tmp_path / name).touch()
    assert list(segments(tmp_path)) == [9, 10, 1_000_000]


def test_a_time_that_is_none_is_refused_before_anything_is_taken(tmp_path: Path):
    journal = Journal(tmp_path)
    with pytest.raises(OverflowError):
        journal.append(2**63, 1, [b"lost"])
    journal.append(5, 1, [b"kept"])
    journal.close()
    assert flat(segments(tmp_path)[1].read_bytes()) == [(0, 5, 1, b"kept")]


@given(size=st.integers(0, 400))
@example(size=60)  # room for the message alone
def test_a_message_is_not_on_disk_without_the_gap_that_it_ends(size: int):
    gap = Incident(IncidentKind.GAP, "trades", None, 1, 5, "disconnected")
    with tempfile.TemporaryDirectory() as folder, SmallDisk(size):
        journal = Journal(Path(folder))
        journal.append(5, 1, [b"first"])
        journal.note(6, gap)
        journal.note(6, gap)
        with suppress(StorageError):
            journal.flush()
        found = list(read_blocks(segments(Path(folder))[1].read_bytes()))
        with suppress(StorageError):
            journal.close()
    assert [type(block) for block in found] in ([], [MessageBlock, IncidentBlock, IncidentBlock])


@pytest.mark.parametrize("size", [0, 1, 40, 150, 151, 1000])
def test_what_a_full_disk_refuses_is_written_when_there_is_room(tmp_path: Path, size: int):
    journal = Journal(tmp_path)
    with SmallDisk(size):
        for number in range(40):
            journal.append(number, 1, [b"%d" % number * 9])
            with suppress(StorageError):
                journal.flush()
        written = segments(tmp_path)[1].read_bytes()
        before = flat(written)
        assert len(written) == journal.segment_bytes <= size
        assert journal.pending_bytes > 0
        with pytest.raises(StorageError, match="wait in memory"):
            journal.flush()
    assert before == [(number, number, 1, b"%d" % number * 9) for number in range(len(before))]
    journal.close()
    assert flat(segments(tmp_path)[1].read_bytes()) == [(n, n, 1, b"%d" % n * 9) for n in range(40)]


def test_a_journal_that_is_closed_on_a_full_disk_says_what_is_lost(tmp_path: Path):
    journal = Journal(tmp_path)
    journal.append(1, 1, [b"written"])
    journal.flush()
    with SmallDisk(journal.segment_bytes + 5):
        journal.append(2, 1, [b"lost", b"lost, too"])
        journal.append(3, 2, [b"lost as well"])
        with pytest.raises(StorageError, match=r"the journal can't be written \("):
            journal.close()
    journal.close()
    assert journal.waiting() == (3, 2)
    assert flat(segments(tmp_path)[1].read_bytes()) == [(0, 1, 1, b"written")]


def test_a_segment_that_can_t_be_left_goes_on(tmp_path: Path):
    """A disk that refuses the next segment, and then a write, costs nothing that was written."""
    journal = Journal(tmp_path)
    journal.append(1, 1, [b"a"])
    journal.flush()
    (tmp_path / "000002.journal").mkdir()
    with pytest.raises(StorageError):
        journal.roll()
    assert journal.segment == 1
    with SmallDisk(journal.segment_bytes + 10):
        journal.append(2, 1, [b"b"])
        with pytest.raises(StorageError):
            journal.flush()
    journal.append(3, 1, [b"c"])
    (tmp_path / "000002.journal").rmdir()
    journal.retire(journal.roll())
    journal.close()
    assert flat(segments(tmp_path)[1].read_bytes()) == [(0, 1, 1, b"a"), (1, 2, 1, b"b"), (2, 3, 1, b"c")]


def test_a_journal_never_writes_into_a_segment_that_is_there(tmp_path: Path):
    Journal(tmp_path).close()
    with pytest.raises(StorageError, match="the journal can't be opened at"):
        Journal(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["000001.journal"]


@given(st.lists(st.tuples(INT64, st.binary(max_size=9)), min_size=1))
def test_messages_that_are_taken_at_once_are_those_that_are_taken_one_by_one(messages: list[tuple[int, bytes]]):
    found = []
    for at_once in (True, False):
        with tempfile.TemporaryDirectory() as folder:
            journal = Journal(Path(folder))
            journal.append(1, 2, [b"of another connection"])
            if at_once:
                recv_ns, records = zip(*messages, strict=True)
                journal.extend(recv_ns, 1, records)
            else:
                for recv_ns, record in messages:
                    journal.append(recv_ns, 1, [record])
            assert (journal.next_seq, journal.pending_bytes) == (
                1 + len(messages),
                21 + sum(len(r) for _, r in messages),
            )
            journal.close()
            found.append(segments(Path(folder))[1].read_bytes())
    assert found[0] == found[1]


def test_times_are_kept_as_integers(tmp_path: Path):
    journal = Journal(tmp_path)
    journal.append(2**63 - 1, 7, [b"x" * 1_000_000, b""])
    journal.close()
    (block,) = read_blocks(segments(tmp_path)[1].read_bytes())
    assert isinstance(block, MessageBlock)
    assert block.recv_ns == array("q", [2**63 - 1] * 2)
