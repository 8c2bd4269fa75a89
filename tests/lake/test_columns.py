"""The same rows wherever a batch is cut, and the very numbers that the text holds."""

from __future__ import annotations

import json
from array import array
from decimal import Decimal
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lake_builder import ES, depth, message, quote, record, trade

from mdcapture.lake.columns import Decoder
from mdcapture.lake.journal import Damage, IncidentBlock, MessageBlock
from mdcapture.lake.manifest import Contract, read_manifest
from mdcapture.lake.schema import QUOTE_STATE, TABLES, Bar, Incident, IncidentKind

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

OTHER = "CON.F.US.MNQ.H24"
NAMELESS = ""
FORGETTING = [IncidentKind(kind) for kind in ("subscribing", "journal_damaged", "stalled", "lost", "slept")]
FIELDS = [column.wire for column in QUOTE_STATE]
Step = tuple[int, bytes] | Incident | Damage


def blocks(steps: Iterable[Step], cuts: Iterable[int] = ()) -> list[MessageBlock | IncidentBlock | Damage]:
    """Journal blocks of these messages and incidents; a block ends where it must, and at the cuts."""
    made: list[MessageBlock | IncidentBlock | Damage] = []
    seq = 0
    whole = False
    for at, step in enumerate(steps):
        if isinstance(step, Incident):
            made.append(IncidentBlock(seq, step.from_ns, step))
        elif isinstance(step, Damage):
            made.append(step)
        else:
            recv_ns, text = step
            if whole and at not in set(cuts):
                last = made[-1]
                assert isinstance(last, MessageBlock)
                last.recv_ns.append(recv_ns)
                last.records.append(text)
            else:
                made.append(MessageBlock(seq, 1, array("q", [recv_ns]), [text]))
            seq += 1
        whole = isinstance(step, tuple) and not isinstance(step, Damage)
    return made


def rows(decoder: Decoder) -> dict[str, list[dict[str, Any]]]:
    return {name: table.to_pylist() for name, table in decoder.tables().items()}


def decoded(steps: Iterable[Step], contracts: dict[str, Contract] | None = None) -> Decoder:
    decoder = Decoder(contracts or {}, {})
    decoder.take(blocks(steps))
    decoder.end()
    return decoder


def in_pieces(steps: list[Step], ends: set[int], *, anew: bool) -> tuple[dict[str, list[dict[str, Any]]], Decoder]:
    """The rows as sealing gives them: a decoder drained at each end, or one anew that goes on where it stood."""
    found: dict[str, list[dict[str, Any]]] = {table: [] for table in TABLES}
    decoder = Decoder({}, {})
    all_blocks = blocks(steps, ends)
    start = 0
    for end in [*sorted(end % (len(all_blocks) + 1) for end in ends), len(all_blocks)]:
        if anew:
            after = Decoder({}, decoder.quote_state)
            after.next_seq, after.last_recv_ns = decoder.next_seq, decoder.last_recv_ns
            after.damage = decoder.damage
            decoder = after
        decoder.take(all_blocks[start:end])
        for table, more in decoder.drain().items():
            found[table] += more.to_pylist()
        start = end
    decoder.end()
    for table, more in decoder.drain().items():
        found[table] += more.to_pylist()
    return found, decoder


VALUES = st.sampled_from([None, 1, 2.25, 4800.0])
QUOTES = st.builds(
    lambda contract_id, fields, several: message("GatewayQuote", contract_id, [fields] * 2 if several else fields),
    st.sampled_from([ES, OTHER, NAMELESS, "x" * 300]),
    st.dictionaries(st.sampled_from([field for field in FIELDS if field != "volume"]), VALUES, max_size=4),
    st.booleans(),
)
RESETS = st.builds(
    lambda kind, stream, contract_id: Incident(kind, stream, contract_id, 5, None),
    st.sampled_from([*FORGETTING, IncidentKind.SUBSCRIBED, IncidentKind.SUSPENDED]),
    st.sampled_from([None, "quotes", "trades"]),
    st.sampled_from([None, ES, OTHER, NAMELESS, "never seen"]),
)
OTHERS = st.sampled_from([trade(), depth(OTHER, None, {"type": 1}), b"garbage", b"\xff", trade(NAMELESS)])
DAMAGE = st.builds(Damage, st.integers(1, 99), st.just(9), st.booleans())
STEPS = st.lists(st.tuples(st.integers(0, 9), QUOTES | OTHERS) | RESETS | DAMAGE, max_size=14)


def slow_states(steps: Iterable[Step]) -> list[tuple[int, int, dict[str, float | None], int]]:
    """Quotes by a dictionary: message, position, state after it, and what it changed."""
    states: dict[str, dict[str, float]] = {}
    found = []
    seq = 0
    for step in steps:
        if isinstance(step, Damage):
            states = {}
            continue
        if isinstance(step, Incident):
            if step.kind in FORGETTING and step.stream in (None, "quotes"):
                for contract_id in [one for one in states if step.contract_id in (None, one)]:
                    del states[contract_id]
            continue
        try:
            text = json.loads(step[1])
        except ValueError:
            text = {}
        if text.get("target") == "GatewayQuote":
            contract_id, entries = text["arguments"]
            for pos, entry in enumerate(entries if isinstance(entries, list) else [entries]):
                known = {} if contract_id in {NAMELESS, "x" * 300} else states.setdefault(contract_id, {})
                new = {field: entry[field] for field in FIELDS if entry.get(field) is not None}
                known.update(new)
                state = {column.name: known.get(str(column.wire)) for column in QUOTE_STATE}
                found.append((seq, pos, state, sum(1 << FIELDS.index(field) for field in new)))
        seq += 1
    return found


@settings(max_examples=150)
@given(steps=STEPS)
@example(steps=[Incident("subscribing", None, None, 1, None)])
@example(steps=[(1, b"garbage"), Incident("subscribing", None, ES, 1, None), (2, b"garbage")])
@example(steps=[(1, quote(bestAsk=2.0)), Incident("stalled", "quotes", ES, 1, None), (9, quote(bestBid=1.0))])
@example(steps=[(1, quote(bestAsk=2.0)), Incident("slept", None, None, 1, 9), (9, quote(bestBid=1.0))])
@example(steps=[(1, quote(bestAsk=2.0)), Incident("lost", None, None, 1, 9), (9, quote(bestBid=1.0))])
def test_the_state_of_quotes_is_what_a_dictionary_gives(steps: list[Step]):
    stored = sorted(rows(decoded(steps))["quotes"], key=lambda row: (row["seq"], row["pos"]))
    states = [
        (row["seq"], row["pos"], {column.name: row[column.name] for column in QUOTE_STATE}, row["changed"])
        for row in stored
    ]
    assert states == slow_states(steps)


@settings(max_examples=150)
@given(steps=STEPS, ends=st.sets(st.integers(0, 20), max_size=4), anew=st.booleans())
@example(steps=[(1, trade()), Damage(9, 9, torn=True), Damage(1, 9, torn=False), (7, trade())], ends={2, 3}, anew=True)
def test_any_cut_gives_the_same_rows(steps: list[Step], ends: set[int], *, anew: bool):
    whole = decoded(steps)
    pieces, last = in_pieces(steps, ends, anew=anew)
    for table, expected in rows(whole).items():

        def order(row: dict[str, Any]) -> tuple[Any, ...]:
            return row["seq"], -1 if row.get("pos") is None else row["pos"], repr(row)

        assert sorted(pieces[table], key=order) == sorted(expected, key=order)
    assert last.next_seq == whole.next_seq
    assert last.quote_state == whole.quote_state


@given(steps=STEPS)
def test_rows_are_in_order_however_the_clock_went(steps: list[Step]):
    for table, found in rows(decoded(steps)).items():
        keys = [(row["recv_ns"], row["seq"], row.get("pos") or 0) for row in found]
        assert keys == sorted(keys), table


@pytest.mark.parametrize("tick", ["0.25", "0.1", "0.01", "0.0001", "0.03125", "0.0000005", "0.00005", "1"])
def test_prices_are_the_decimal_text(tmp_path: Path, tick: str):
    prices = [str(Decimal(tick) * count) for count in (1, 3, 7, 9_999, 123_457, 19_174_188)]
    texts = [message("GatewayTrade", ES, "?").replace(b'"?"', f'{{"price":{p},"volume":1}}'.encode()) for p in prices]
    session_id = record(tmp_path, *texts)
    found = rows(decoded(enumerate(texts)))["trades"]
    assert [row["price"] for row in found] == [float(price) for price in prices]
    assert [Decimal(repr(row["price"])) for row in found] == [Decimal(price) for price in prices]
    assert "trades.off_tick" not in read_manifest(tmp_path, session_id).implausible
    contracts = {ES: Contract(contract_id=ES, tick_size=float(tick))}
    assert "trades.off_tick" not in decoded(enumerate(texts), contracts).implausible
    half = trade(price=float(Decimal(tick) * Decimal("12345.5")))
    assert decoded([(0, half)], contracts).implausible["trades.off_tick"] == 1


def test_what_is_hard_to_believe_is_stored_and_counted():
    day_ns = 86_400 * 10**9
    then = 1_703_545_200 * 10**9
    steps: list[Step] = [
        (then, quote(bestBid=2.0, bestAsk=1.0)),
        (then, quote(bestAsk=2.0)),
        (then, trade(volume=0)),
        (then, trade(volume=-3, side=7)),
        (then, trade(price=4800.1)),
        (then, trade(price=1e308)),
        (then + 2 * day_ns, trade()),
        (then, trade(timestamp="0001-01-01T00:00:00Z")),
        (then, trade(timestamp=None)),
        (then, depth(ES, {"type": 99}, {"type": 1, "volume": 0}, {"type": 1, "volume": -1})),
        (then, trade("unknown tick", price=4800.1)),
    ]
    decoder = decoded(steps, {ES: Contract(contract_id=ES, tick_size=0.25)})
    assert decoder.implausible == {
        "quotes.crossed": 1,
        "trades.size": 2,
        "trades.unknown_type": 1,
        "trades.off_tick": 2,
        "trades.far_time": 1,
        "trades.no_time": 2,
        "depth.unknown_type": 1,
        "depth.size": 1,
    }
    assert decoder.counts == {"quotes": 2, "trades": 8, "depth": 3, "messages": 11}


@pytest.mark.parametrize("tick", [0.0, float("inf"), float("nan"), 5e-324, -0.25])
def test_a_tick_size_that_is_none_does_no_harm(tick: float):
    decoder = decoded([(0, trade()), (1, quote(bestBid=1e308))], {ES: Contract(contract_id=ES, tick_size=tick)})
    assert decoder.counts["trades"] == 1


def test_damage_is_an_incident_between_the_messages_around_it():
    steps: list[Step] = [(7, quote(bestBid=1.0)), Damage(100, 50, torn=False), (9, quote(bestAsk=2.0))]
    decoder = decoded([*steps, Damage(300, 7, torn=True)])
    found = rows(decoder)
    assert [(one["seq"], one["from_ns"], one["to_ns"], one["detail"]) for one in found["incidents"]] == [
        (1, 7, 9, "the journal is damaged: 50 bytes at 100 can't be read"),
        (2, 9, None, "the journal's end is torn: 7 bytes at 300 can't be read"),
    ]
    assert [(one["best_bid"], one["best_ask"]) for one in found["quotes"]] == [(1.0, None), (None, 2.0)]
    assert decoder.incidents == {"journal_damaged": 2}
    assert decoder.quote_state == {}


def test_messages_that_only_the_numbers_miss_are_an_incident_too():
    """A file that lost its last blocks whole, as one that was not forced onto the disk does."""
    first, _, last = blocks([(7, quote(bestBid=1.0)), (8, trade()), (9, quote(bestAsk=2.0))], cuts=range(3))
    decoder = Decoder({}, {})
    decoder.take([first, last])
    found = rows(decoder)
    assert [(one["seq"], one["from_ns"], one["to_ns"], one["detail"]) for one in found["incidents"]] == [
        (1, 7, 9, "a part of the journal is missing")
    ]
    assert [(one["best_bid"], one["best_ask"]) for one in found["quotes"]] == [(1.0, None), (None, 2.0)]


def text_of(record: bytes) -> str:
    try:
        return str(record, "utf-8")
    except ValueError:
        return "".join(map(chr, record))


@settings(max_examples=300)
@given(
    text=st.lists(st.binary(max_size=6) | st.text(max_size=6).map(str.encode), max_size=4).map(b"".join),
    cuts=st.lists(st.integers(0, 24), max_size=4),
)
@example(text='{"name":"é"}'.encode(), cuts=[10])
@example(text="\N{EURO SIGN}".encode(), cuts=[1, 1, 2])
def test_any_bytes_cut_anywhere_are_rows_of_text(text: bytes, cuts: list[int]):
    records = [text[begin:end] for begin, end in pairwise([0, *sorted(cuts), None])]
    tables = decoded(enumerate(records)).tables()
    for table in tables.values():
        table.validate(full=True)
    assert tables["messages"]["payload"].to_pylist() == [text_of(record) for record in records]
    whole = {row["seq"]: row["payload"] for row in tables["rejects"].to_pylist() if row["pos"] is None}
    assert whole == dict(enumerate(map(text_of, records)))


def test_the_original_text_of_every_message_is_kept():
    texts = [trade(), b"", b"\xff\x00", "é".encode(), b"a\nb", quote(NAMELESS)]
    found = rows(decoded(enumerate(texts)))["messages"]
    assert [row["payload"] for row in found] == [trade().decode(), "", "ÿ\x00", "é", "a\nb", quote(NAMELESS).decode()]
    assert [row["contract_id"] for row in found] == [ES, None, None, None, None, None]
    assert [row["seq"] for row in found] == list(range(6))


def test_large_records_are_decoded_in_batches_of_bounded_size():
    large = b"x" * 9_000_000
    decoder = Decoder({}, {})
    decoder.take(blocks([(at, large) for at in range(9)], cuts=range(9)))
    assert [len(batch) for batch in decoder.tables()["messages"].to_batches()] == [4, 4, 1]
    assert decoder.counts == {"messages": 9, "rejects": 9}


def test_bars_that_were_fetched_are_rows_of_their_own():
    bars = (Bar(5, 1.0, 2.0, 0.5, 1.5, 10), Bar(6, 1.5, 1.5, 1.5, 1.5, 1))
    steps: list[Step] = [(1, trade()), Incident(IncidentKind.BACKFILLED, "trades", ES, 1, 2, "", bars)]
    found = rows(decoded(steps))["backfill"]
    assert [(row["contract_id"], row["seq"], row["pos"], row["start_ns"], row["volume"]) for row in found] == [
        (ES, 1, 0, 5, 10),
        (ES, 1, 1, 6, 1),
    ]
