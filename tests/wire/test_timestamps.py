"""Times to nanoseconds: by three ways that must agree, and back."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mdcapture.lake.columns import parse_times
from mdcapture.wire.timestamps import format_ns, parse_ns

INT64 = st.integers(-(2**63), 2**63 - 1)
PARTS = st.tuples(
    st.sampled_from(["1677-09-21", "1969-12-31", "1970-01-01", "2000-02-29", "2023-12-25", "2100-02-29", "2262-04-11"])
    | st.dates().map(date.isoformat),
    st.sampled_from(["T", "t", " ", "", "  "]),
    st.sampled_from(["00:00:00", "23:59:59", "23:59:60", "24:00:00", "1:02:03", "12:34", "12", "00:12:43", "23:47:16"]),
    st.sampled_from(["", ".", ".5", ".000000001", ".854775807", ".854775808", ".145224192", ",5", ".1234567"])
    | st.integers(0, 10**12).map(lambda digits: f".{digits}"),
    st.sampled_from(["Z", "z", "", "+00:00", "-00:00", "+05:30", "-0930", "+14", "+24:00", " Z", "+1:00", "Zx"]),
).map("".join)


def slowly(text: str) -> int | None:
    """An oracle of other parts: the standard library's parser, and the fraction by hand."""
    if len(text) < 19 or text[10] not in "Tt " or text[13] != ":" or text[16] != ":":
        return None
    head, rest = text[:19].upper(), text[19:]
    fraction = ""
    if rest.startswith("."):
        fraction = rest[1:]
        while fraction and not fraction.isdigit():
            fraction = fraction[:-1]
        rest = rest[1 + len(fraction) :]
    zone = {"Z": "+00:00", "z": "+00:00", "": "+00:00"}.get(rest, rest)
    if zone != rest or (len(zone) in (3, 5, 6) and zone[0] in "+-" and zone[1:].replace(":", "", 1).isdigit()):
        try:
            since = datetime.fromisoformat(head + zone) - datetime(1970, 1, 1, tzinfo=UTC)
        except (ValueError, OverflowError):
            return None
        ns = (since.days * 86_400 + since.seconds) * 10**9 + int(f"{fraction:0<9}"[:9])
        return ns if -(2**63) <= ns < 2**63 else None
    return None


def parsed(text: str) -> int | None:
    try:
        return parse_ns(text)
    except ValueError:
        return None


@settings(max_examples=400)
@given(text=PARTS)
@example("2023-12-25T23:00:00.1068462+00:00")
@example("1677-09-21T00:12:43.145224192Z")
def test_it_agrees_with_the_standard_library(text: str):
    if len(text) > 16 and text[13:14] == ":" and text[16:17] == ":":
        assert parsed(text) == slowly(text)


@settings(max_examples=400)
@given(texts=st.lists(st.none() | PARTS, min_size=1, max_size=4))
def test_a_column_gives_what_each_text_gives(texts: list[str | None]):
    assert parse_times(texts).to_pylist() == [None if text is None else parsed(text) for text in texts]


@settings(max_examples=400)
@given(text=PARTS)
def test_what_arrow_reads_is_read_alike(text: str):
    try:
        ns = pa.array([text]).cast(pa.timestamp("ns", "UTC")).cast(pa.int64())[0].as_py()
    except pa.ArrowInvalid:
        return
    assert parsed(text) == ns


@given(ns=INT64)
@example(-(2**63))
@example(2**63 - 1)
@example(-1)
def test_a_time_that_is_written_is_read(ns: int):
    assert parse_ns(format_ns(ns, 9)) == ns
    if ns >= -(2**63) + 100:
        assert 0 <= ns - parse_ns(format_ns(ns)) < 100
    assert parse_times([format_ns(ns, 9)]).to_pylist() == [ns]


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "1970-01-01T00:00:00+00:00"),
        (1_703_545_200_106_846_211, "2023-12-25T23:00:00.1068462+00:00"),
        (100, "1970-01-01T00:00:00.0000001+00:00"),
        (99, "1970-01-01T00:00:00+00:00"),
        (-1, "1969-12-31T23:59:59.9999999+00:00"),
        (500_000_000, "1970-01-01T00:00:00.5+00:00"),
    ],
)
def test_times_are_written_as_the_gateway_does(ns: int, text: str):
    assert format_ns(ns) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "1703545200",
        "2023-12-25",
        "0001-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
        "2262-04-11T23:47:16.854775808Z",
        "2023-12-25T23:00:00+00:60",
        "2023-12-25T23:00:00Z\n",
        "\uff12023-12-25T23:00:00Z",
        "x" * 10_000,
    ],
)
def test_what_is_no_time_of_ours_is_refused(text: str):
    with pytest.raises(ValueError, match="time"):
        parse_ns(text)
