"""Frames as the hub's server builds them."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from mdcapture.simulator.hub_server import chop, text_frame


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 70_000])
def test_a_frame_is_what_websockets_makes_of_it(size: int):
    payload = b"x" * size
    assert text_frame(payload) == Frame(Opcode.TEXT, payload).serialize(mask=False)


@given(st.text(max_size=200), st.integers(0, 9))
def test_pieces_add_up_and_each_is_text(text: str, seed: int):
    data = text.encode() * 50
    pieces = list(chop(data, random.Random(seed)))
    assert b"".join(pieces) == data
    for piece in pieces:
        piece.decode()
