"""The hub protocol: what comes is told, however the bytes are cut, and nothing of it is lost."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdcapture.errors import ProtocolError
from mdcapture.wire.signalr import Close, Completion, Handshake, HubProtocol, Logout, Ping, classify

if TYPE_CHECKING:
    from mdcapture.wire.signalr import Item

TRADE = b'{"type":1,"target":"GatewayTrade","arguments":["X",[]]}'
TABLE: list[tuple[bytes, Item | None]] = [
    (TRADE, TRADE),
    (b'{"type":6}', Ping()),
    (b' { "type" : 6 } ', Ping()),
    (b'{"type":3,"invocationId":"7"}', Completion("7")),
    (b'{"type":3,"invocationId":"7","error":"no"}', Completion("7", "no")),
    (b'{"type":3,"invocationId":"7","result":{"a":[1]}}', Completion("7")),
    (b'{"type":3}', Completion("")),
    (b'{"type":7}', Close()),
    (b'{"type":7,"error":"bye","allowReconnect":true}', Close("bye", allow_reconnect=True)),
    (b'{"type":8,"sequenceId":1}', None),
    (b'{"type":9,"sequenceId":1}', None),
    *(
        (record, Logout(record))
        for record in (
            b'{"type":1,"target":"GatewayLogout","arguments":[]}',
            b'{"target":"GATEWAYLOGOUT","arguments":["x"],"type":1}',
        )
    ),
    *(
        (record, record)
        for record in (
            b"",
            b" ",
            b"{}",
            b"null",
            b"[]",
            b"6",
            b'"type"',
            b"\xff\xfe",
            b"{" * 100_000,
            b'{"type":6',
            b'{"type":"6"}',
            b'{"type":null}',
            b'{"type":2,"item":1}',
            b'{"type":4}',
            b'{"type":5}',
            b'{"type":77}',
            b'{"type":1e400}',
            b'{"type":1,"target":null}',
            b'{"type":1,"target":["GatewayLogout"]}',
            b'{"type":1,"target":"GatewayOther","arguments":[1]}',
            b'{"type":1,"target":"gatewaydepth","arguments":["X",{}]}',
            b'{"arguments":["X",[]],"target":"GatewayQuote","type":1}',
            b'{"type":3,"invocationId":7}',
        )
    ),
]
RECORDS = st.lists(
    st.sampled_from([record for record, _ in TABLE if len(record) < 200])
    | st.binary(max_size=30).map(lambda data: data.replace(b"\x1e", b"")),
    max_size=8,
)


def shaken() -> HubProtocol:
    protocol = HubProtocol()
    assert protocol.receive(b"{}\x1e") == [Handshake()]
    return protocol


@pytest.mark.parametrize(("record", "item"), TABLE, ids=lambda value: repr(value)[:50])
def test_a_record_is_data_or_control(record: bytes, item: Item | None):
    assert classify(record) == item
    assert shaken().receive(record + b"\x1e") == ([] if item is None else [item])


@settings(max_examples=300)
@given(records=RECORDS, cuts=st.lists(st.integers(0, 400)), tail=st.booleans())
def test_the_same_items_come_out_however_the_bytes_are_cut(records: list[bytes], cuts: list[int], tail: bool):  # noqa: FBT001
    stream = b"{}\x1e" + b"".join(record + b"\x1e" for record in records) + b'{"type":6' * tail
    expected = [Handshake(), *(item for item in map(classify, records) if item is not None)]
    protocol = HubProtocol()
    items: list[Item] = []
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    for begin, end in pairwise(edges):
        items += protocol.receive(stream[begin:end])
    assert items == expected
    assert protocol.receive(b"") == []
    if tail:
        assert protocol.receive(b"}\x1e") == [Ping()]


@given(lengths=st.lists(st.integers(0, 14), max_size=8), chunk=st.integers(1, 40))
def test_what_came_before_a_record_that_is_too_long_is_not_lost(lengths: list[int], chunk: int):
    protocol = HubProtocol(max_record_bytes=10)
    assert protocol.receive(b"{}\x1e") == [Handshake()]
    records = [b"x" * length for length in lengths]
    bad = next((at for at, record in enumerate(records) if len(record) > 10), None)
    stream = b"\x1e".join([*records, b""]) if records else b""
    items: list[Item] = []
    failed = False
    for begin in range(0, len(stream), chunk):
        try:
            items += protocol.receive(stream[begin : begin + chunk])
        except ProtocolError:
            failed = True
            break
    if bad is None:
        assert (items, failed) == (records, False)
    else:
        assert items == records[:bad]
        with pytest.raises(ProtocolError, match="10 bytes"):
            protocol.receive(b"y\x1e")


def test_a_record_that_does_not_end_is_not_kept_for_ever():
    protocol = HubProtocol(max_record_bytes=1000)
    for _ in range(1000):
        assert protocol.receive(b"{") == []
    with pytest.raises(ProtocolError, match="1,000 bytes"):
        protocol.receive(b"{")


@pytest.mark.parametrize("record", [b"", b"<html>", b"[]", b'{"error":1}', b"\xff", b"[" * 100_000])
def test_what_is_no_handshake_is_an_error(record: bytes):
    with pytest.raises(ProtocolError, match="is this a hub's address"):
        HubProtocol().receive(record + b"\x1e")


def test_a_refused_handshake_is_told():
    assert HubProtocol().receive(b'{"error":"no json"}\x1e') == [Handshake("no json")]


def test_invocations_are_numbered_and_written_as_the_protocol_wants():
    protocol = HubProtocol()
    ids = []
    for target, argument in (("SubscribeContractQuotes", "CON.F.US.EP.H24"), ("Ünsubscribe", 'a"b')):
        invocation_id, data = protocol.invoke(target, argument)
        assert data.endswith(b"\x1e")
        assert json.loads(data[:-1]) == {
            "type": 1,
            "invocationId": invocation_id,
            "target": target,
            "arguments": [argument],
        }
        ids.append(invocation_id)
    assert len(set(ids)) == 2
