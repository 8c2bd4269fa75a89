"""Ordinary frames pass the WebSocket core by; nobody can tell, wherever the bytes are cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

from mdcapture.wire.frames import Frames

LENGTHS = st.sampled_from((0, 1, 2, 125, 126, 127, 300, 65535, 65536))
DATA = (Opcode.TEXT, Opcode.BINARY)
CONTROL = st.builds(
    lambda opcode, length: [Frame(opcode, b"c" * length)],
    st.sampled_from((Opcode.PING, Opcode.PONG)),
    st.sampled_from((0, 1, 125)),
)


def core() -> ClientProtocol:
    """The full implementation, with an open connection."""
    return ClientProtocol(parse_uri("ws://localhost/"), state=State.OPEN, max_size=None)


def payload_of(protocol: ClientProtocol, data: bytes) -> list[bytes]:
    """What the core says is payload."""
    protocol.receive_data(data)
    events = protocol.events_received()
    return [
        bytes(event.data)
        for event in events
        if isinstance(event, Frame) and event.opcode in {Opcode.CONT, Opcode.TEXT, Opcode.BINARY}
    ]


@st.composite
def messages(draw: st.DrawFn) -> list[Frame]:
    """The frames of one message: one, or several with control frames between them."""
    lengths = draw(st.lists(LENGTHS, min_size=1, max_size=3))
    texts = [bytes([65 + index]) * length for index, length in enumerate(lengths)]
    frames: list[Frame] = []
    for index, text in enumerate(texts):
        opcode = draw(st.sampled_from(DATA)) if index == 0 else Opcode.CONT
        frames.append(Frame(opcode, text, fin=index == len(texts) - 1))
        frames += draw(st.just([]) | CONTROL)
    return frames


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """The bytes in pieces."""
    ends = sorted({place % (len(data) + 1) for place in places})
    return [data[begin:end] for begin, end in zip([0, *ends], [*ends, len(data)], strict=True)]


@given(st.lists(messages(), max_size=6), st.lists(st.integers(0, 2**20), max_size=8), st.booleans())
def test_the_payload_is_that_of_the_core_wherever_the_bytes_are_cut(
    frames: list[list[Frame]],
    places: list[int],
    bytewise: bool,  # noqa: FBT001  # hypothesis gives it by name
):
    data = b"".join(frame.serialize(mask=False) for message in frames for frame in message)
    expected = b"".join(payload_of(core(), data))
    pieces = [data[at : at + 1] for at in range(len(data))] if bytewise and len(data) < 2000 else cut(data, places)
    special = core()
    taken = Frames(lambda part: payload_of(special, part))
    assert b"".join(map(taken.receive, pieces)) == expected
    assert special.parser_exc is None


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=8))
def test_what_is_no_frame_is_the_cores_to_refuse(pieces: list[bytes]):
    """Garbage may look like ordinary frames; whatever is refused, the core refused it, and nothing is raised."""
    special = core()
    taken = Frames(lambda part: payload_of(special, part))
    whole = core()
    for piece in pieces:
        taken.receive(piece)
        payload_of(whole, piece)
    if special.parser_exc is None:
        return
    assert type(special.parser_exc) is type(whole.parser_exc)


def test_a_masked_frame_is_refused():
    special = core()
    taken = Frames(lambda part: payload_of(special, part))
    assert taken.receive(Frame(Opcode.TEXT, b"x" * 300).serialize(mask=True)) == b""
    assert special.parser_exc is not None


def test_ordinary_frames_never_meet_the_core():
    def never(part: bytes) -> list[bytes]:
        raise AssertionError(part)

    frame = Frame(Opcode.TEXT, b"a" * 200).serialize(mask=False)
    assert Frames(never).receive(frame * 1000) == b"a" * 200_000
