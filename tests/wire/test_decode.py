"""Every record is accounted for, whatever it is; and a batch gives what its records give one by one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mdcapture.wire.decode import Batch, Reason, decode, record_text
from mdcapture.wire.messages import DepthEntry, Quote, Trade

QUOTE = b'{"type":1,"target":"GatewayQuote","arguments":["A",{"symbol":"F.US.A","bestBid":1.25,"volume":7}]}'
TRADE = b'{"type":1,"target":"GatewayTrade","arguments":["A",[{"price":1.5,"timestamp":"t","type":1,"volume":2}]]}'
DEPTH = b'{"type":1,"target":"GatewayDepth","arguments":["B",[null,{"type":4,"price":2,"volume":3,"currentVolume":0}]]}'
NOTHING = b'{"type":1,"target":"GatewayDepth","arguments":["B",[]]}'
LOGOUT = b'{"type":1,"target":"GatewayLogout","arguments":[]}'
SOUND = [QUOTE, TRADE, DEPTH, NOTHING, LOGOUT]


def trades(entries: str) -> bytes:
    return b'{"type":1,"target":"GatewayTrade","arguments":["A",%s]}' % entries.encode()


def account(records: list[bytes]) -> Batch:
    """Decode, and see that nothing is missing and nothing is told twice."""
    batch = decode(records)
    for stream in (batch.quotes, batch.trades, batch.depth):
        assert len(stream.message) == len(stream.contract_id) == len(stream.count)
        assert stream.message == sorted(set(stream.message))
        assert sum(stream.count) == len(stream.values)
        rejected = [reject for reject in batch.rejects if reject.table == stream.table]
        assert len(rejected) == stream.values.count(None)
        of = [message for message, count in zip(stream.message, stream.count, strict=True) for _ in range(count)]
        assert [reject.message for reject in rejected] == [
            message for message, value in zip(of, stream.values, strict=True) if value is None
        ]
    whole = [reject.message for reject in batch.rejects if reject.pos is None]
    logouts = [at for at, record in enumerate(records) if is_logout(record)]
    streams = batch.quotes.message + batch.trades.message + batch.depth.message
    assert sorted(streams + whole + logouts) == list(range(len(records)))
    keys = [(reject.message, reject.pos) for reject in batch.rejects]
    assert len(set(keys)) == len(keys)
    return batch


def is_logout(record: bytes) -> bool:
    try:
        message = json.loads(record.decode())
    except (ValueError, RecursionError):
        return False
    return (
        isinstance(message, dict)
        and str(message.get("target")).lower() == "gatewaylogout"
        and message.get("type") in (None, 1)
    )


def flat(batch: Batch) -> list[Any]:
    """All that a batch says, in an order that does not depend on how it was cut."""
    rows: list[Any] = []
    for stream in (batch.quotes, batch.trades, batch.depth):
        start = 0
        for message, contract_id, count in zip(stream.message, stream.contract_id, stream.count, strict=True):
            values = stream.values[start : start + count]
            rows.append((message, stream.table, contract_id, values))
            start += count
    rows += [(r.message, r.pos, r.table, r.contract_id, r.reason, r.payload) for r in batch.rejects]
    return sorted(rows, key=repr)


def one_by_one(records: list[bytes]) -> list[Any]:
    rows = [(at, *row[1:]) for at, record in enumerate(records) for row in flat(decode([record]))]
    return sorted(rows, key=repr)


def test_the_documented_messages():
    batch = account(SOUND)
    assert batch.quotes.values == [Quote(best_bid=1.25, volume=7)]
    assert batch.trades.values == [Trade(1.5, 2, 1, "t")]
    assert batch.depth.values == [None, DepthEntry(2.0, 3, 4, 0)]
    assert batch.depth.message == [2, 3]
    assert batch.depth.count == [2, 0]
    (null,) = batch.rejects
    assert (null.message, null.pos, null.table, null.contract_id) == (2, 0, "depth", "B")
    assert (null.reason, null.payload) == (Reason.NULL_ENTRY, "null")


@pytest.mark.parametrize(
    ("record", "price"),
    [
        (trades('{"price":1,"volume":2}'), 1.0),
        (trades('[{"price":1.0,"volume":2.0}]'), 1.0),
        (trades('[{"price":"1e1","volume":"2"}]'), 10.0),
        (trades('[{"price":1,"volume":2,"type":null,"timestamp":null,"new":{"a":[1]}}]'), 1.0),
        (trades('[{"price":1,"volume":2,"timestamp":1703545200}]'), 1.0),
        (trades('[{"price":1,"volume":2}],"further",{"arguments":1}'), 1.0),
        (trades('[{"price":5,"volume":3,"price":1,"volume":2}]'), 1.0),
        (b' {"arguments":["A",{"price":1,"volume":2}],\n"target":"GATEWAYtrade"} ', 1.0),
        (trades('{"price":0.0000005,"volume":2}'), 0.0000005),
        (trades('{"price":4808.760560519902,"volume":2}'), 4808.760560519902),
        (trades('{"price":9007199254740993,"volume":2}'), 9007199254740992.0),
    ],
)
def test_forms_that_mean_the_same(record: bytes, price: float):
    batch = account([record])
    assert batch.trades.values == [Trade(price, 2)]
    assert batch.trades.contract_id == ["A"]
    assert batch.rejects == []


@pytest.mark.parametrize("volume", [-(2**63), -1, 0, 2**53 + 1, 2**63 - 1])
def test_sizes_are_whole_to_the_last_of_64_bits(volume: int):
    assert account([trades(f'{{"price":1,"volume":{volume}}}')]).trades.values == [Trade(1.0, volume)]


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("null", Reason.NULL_ENTRY),
        ("7", Reason.BAD_ENTRY),
        ('"x"', Reason.BAD_ENTRY),
        ("[]", Reason.BAD_ENTRY),
        ('{"price":1e400,"volume":1}', Reason.BAD_ENTRY),
        ("{}", Reason.MISSING_FIELD),
        ('{"price":1}', Reason.MISSING_FIELD),
        ('{"price":null,"volume":1}', Reason.MISSING_FIELD),
        ('{"price":"x","volume":1}', Reason.BAD_FIELD),
        ('{"price":"NaN","volume":1}', Reason.BAD_FIELD),
        ('{"price":"-Infinity","volume":1}', Reason.BAD_FIELD),
        ('{"price":true,"volume":1}', Reason.BAD_FIELD),
        ('{"price":[1],"volume":1}', Reason.BAD_FIELD),
        ('{"price":1,"volume":1.5}', Reason.BAD_FIELD),
        ('{"price":1,"volume":9223372036854775808}', Reason.BAD_FIELD),
        ('{"price":1,"volume":-9223372036854775809}', Reason.BAD_FIELD),
        ('{"price":1,"volume":1e300}', Reason.BAD_FIELD),
        (f'{{"price":1{"0" * 400},"volume":1}}', Reason.BAD_FIELD),
        ('{"price":1,"volume":1,"type":128}', Reason.BAD_FIELD),
    ],
)
def test_an_entry_that_can_t_be_used_is_a_reject_and_its_neighbours_are_not(entry: str, reason: Reason):
    sound = '{"price":1,"volume":2}'
    batch = account([QUOTE, trades(f"[{sound},{entry},{sound}]"), TRADE])
    assert batch.trades.values[:3] == [Trade(1.0, 2), None, Trade(1.0, 2)]
    (reject,) = batch.rejects
    assert (reject.message, reject.pos, reject.table, reject.contract_id) == (1, 1, "trades", "A")
    assert (reject.reason, reject.payload) == (reason, entry)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b"", Reason.MALFORMED_JSON),
        (b" \n ", Reason.MALFORMED_JSON),
        (b"garbage", Reason.MALFORMED_JSON),
        (TRADE[:-1], Reason.MALFORMED_JSON),
        (TRADE + TRADE, Reason.MALFORMED_JSON),
        (TRADE + b"\n" + TRADE, Reason.MALFORMED_JSON),
        (b'{"target":' + b"[" * 100_000, Reason.MALFORMED_JSON),
        (b"[" * 100_000, Reason.NOT_INVOCATION),
        (b"\xef\xbb\xbf" + TRADE, Reason.MALFORMED_JSON),
        (b'{"type":1,"target":"\\ud800","arguments":["A",{}]}', Reason.MALFORMED_JSON),
        (b"\xff" + TRADE, Reason.NOT_UTF8),
        (b'{"target":"\xed\xa0\x80"}', Reason.NOT_UTF8),
        (b"{}", Reason.NOT_INVOCATION),
        (b"[]", Reason.NOT_INVOCATION),
        (b"null", Reason.NOT_INVOCATION),
        (b'{"type":2,"target":"x","arguments":[]}', Reason.NOT_INVOCATION),
        (b'{"type":1,"target":7}', Reason.NOT_INVOCATION),
        (b'{"type":1,"target":"GatewayNews","arguments":["A",{}]}', Reason.UNKNOWN_TARGET),
        (b'{"type":1,"target":"GatewayTrade"}', Reason.BAD_ARGUMENTS),
        (b'{"type":1,"target":"GatewayTrade","arguments":null}', Reason.BAD_ARGUMENTS),
        (b'{"type":1,"target":"GatewayTrade","arguments":{}}', Reason.BAD_ARGUMENTS),
        (b'{"type":1,"target":"GatewayTrade","arguments":[]}', Reason.BAD_ARGUMENTS),
        (b'{"type":1,"target":"GatewayTrade","arguments":["A"]}', Reason.BAD_ARGUMENTS),
        (b'{"type":1,"target":"GatewayTrade","arguments":[null,{}]}', Reason.BAD_ARGUMENTS),
        (b'{"type":1,"target":"GatewayTrade","arguments":[7,{}]}', Reason.BAD_ARGUMENTS),
        (b'{"type":1,"target":"GatewayTrade","arguments":["\\ud800",{}]}', Reason.MALFORMED_JSON),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_record_that_can_t_be_used_is_a_reject_and_its_neighbours_are_not(record: bytes, reason: Reason):
    batch = account([TRADE, record, DEPTH])
    assert batch.trades.message == [0]
    assert batch.depth.message == [2]
    reject = next(reject for reject in batch.rejects if reject.message == 1)
    assert (reject.pos, reject.table, reject.contract_id) == (None, None, None)
    assert (reject.reason, reject.payload) == (reason, record_text(record))


def test_text_that_is_none_keeps_each_byte():
    everything = bytes(range(256))
    assert record_text(everything).encode("latin-1") == everything
    assert record_text("é\x00".encode()) == "é\x00"


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A real record with a few bytes changed, cut out or put in; mostly still JSON."""
    record = bytearray(draw(st.sampled_from(SOUND)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(record)))
        piece = draw(
            st.sampled_from(
                [b'"', b",", b"null", b"[", b"]", b"{", b"}", b"\n", b"0", b"-", b"e9", b"\\", b"\xff", b" "]
            )
            | st.binary(max_size=2)
        )
        record[at : at + draw(st.integers(0, 3))] = piece
    return bytes(record)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["price", "volume", "type", "timestamp", "bestBid", "lastUpdated", "x"]), inner, max_size=4
        )
    ),
    max_leaves=8,
)
MESSAGES = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from([1, 1, 1, 1.0, 2, None, "1"]),
        "target": st.sampled_from(["GatewayQuote", "gatewaytrade", "GatewayDepth", "GatewayLogout", "x"]) | JSON,
        "arguments": st.tuples(st.sampled_from(["A", "", "b/../c"]) | JSON, JSON) | JSON,
    },
).map(lambda message: json.dumps(message).encode())
ANYTHING = mutated() | MESSAGES | JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=20)


@settings(max_examples=600, deadline=None)
@given(records=st.lists(ANYTHING, max_size=6))
@example(records=[b'{"type":1,"target":"GatewayTrade","arguments":["A",', b"[]]}", TRADE + TRADE])
@example(records=[b'{"type":1,"target":"GatewayTrade",', b'"arguments":["A",{"price":1,"volume":1}]}', QUOTE + QUOTE])
@example(records=[b'{"a":{}', b',"target":"GatewayTrade","arguments":["A",[]]}', QUOTE + QUOTE])
@example(records=[b"", TRADE + b"\n" + TRADE])
@example(records=[TRADE + b"\n", TRADE, b"\n"])
def test_anything_is_accounted_for_and_a_batch_is_its_records(records: list[bytes]):
    assert flat(account(records)) == one_by_one(records)


def test_nothing_gives_nothing():
    assert flat(decode([])) == []
