"""Records that no gateway should send, a million of them: nothing raises, and each is accounted for.

    mutated records ──▶ bytes, cut anywhere ──▶ hub protocol ──▶ streams, journal ──▶ seal ──▶ verify --deep
           └────────────────────── what is stored is what was sent, to the byte ──────────────────────┘

A record is left out only if it is a control message of the protocol (a ping, a completion, …), as the standard library
reads it. How many entries became rows, and why others did not, is printed.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from inputs import market_records

import mdcapture as md
from mdcapture.capture.streams import Streams
from mdcapture.gateway.hub import Subscription
from mdcapture.lake.schema import STREAMS
from mdcapture.lake.seal import finish, seal
from mdcapture.lake.verify import verify
from mdcapture.lake.writer import OpenSession, open_session
from mdcapture.wire.signalr import SEPARATOR, HubProtocol, Logout

if TYPE_CHECKING:
    from collections.abc import Iterator

START_NS = 1_795_000_000_000_000_000
CONTRACTS = 3
BLOCK = 20_000
CUT = 4096
REPLACE, SPLICE, REPEAT, NEST = 0.25, 0.33, 0.36, 0.365
DEEPEST = 3000
DESCEND, RENAME = 0.85, 0.3
CONTROL = range(2, 10)
OTHERS = (
    b'{"type":1,"target":"GatewayLogout","arguments":[]}',
    *(
        b'{"type":6}',
        b'{"type":3,"invocationId":"1","error":"no"}',
        b'{"type":7,"error":"bye"}',
        b'{"type":9,"sequenceId":1}',
    ),
)
ODD: tuple[object, ...] = (
    None,
    True,
    "",
    "x",
    "1",
    -1,
    6,
    0.5,
    1e308,
    2**63,
    -(2**63),
    10**400,
    [],
    {},
    [[]],
    [None],
    {"price": 1},
    "\ud800",
)
PIECES = (
    *(b'"', b",", b":", b"[", b"]", b"{", b"}", b"\n", b"\\", b"\xff", b"\x00", b" ", b"\\ud800", b"\xed\xa0\x80"),
    *(b"0", b"-", b"1e999", b"NaN", b"9223372036854775808", b"-1", b"0.1", b"1" * 400),
    *(b"null", b"true", b"[]", b"{}", b"[null]", b'"type":6', b'"type":3', b"GatewayLogout", b"../..", b'"price":'),
)


def mutated(sound: list[bytes], dice: random.Random) -> bytes:
    """A sound record, or one with something wrong: bytes, pieces, another record's end, itself again, depth."""
    record = bytearray(dice.choice(sound))
    kind = dice.random()
    if kind < REPLACE:
        return restructured(record, dice)
    if kind < SPLICE:
        other = dice.choice(sound)
        record[dice.randrange(len(record)) :] = other[dice.randrange(len(other)) :]
    elif kind < REPEAT:
        record *= 2
    elif kind < NEST:
        record[dice.randrange(len(record)) :] = dice.choice((b"[", b'{"a":')) * dice.randrange(DEEPEST)
    for _ in range(dice.choice((0, 1, 1, 2, 3, 8))):
        at = dice.randrange(len(record) + 1)
        piece = dice.choice(PIECES) if dice.random() < 0.7 else dice.randbytes(dice.randrange(3))
        record[at : at + dice.choice((0, 0, 1, 2, 9))] = piece
    return bytes(record).replace(SEPARATOR, b"")


def restructured(record: bytearray, dice: random.Random) -> bytes:
    """Still JSON, but with another value, or another key, somewhere in it."""
    whole = {"": json.loads(record)}
    place: dict[str, Any] | list[Any] = whole
    key: Any = ""
    while isinstance(place[key], dict | list) and place[key] and dice.random() < DESCEND:
        place = place[key]
        key = dice.choice(list(place) if isinstance(place, dict) else range(len(place)))
    if isinstance(place, dict) and place is not whole and dice.random() < RENAME:
        place[dice.choice(("price", "volume", "target", "x", key.upper()))] = place.pop(key)
    else:
        place[key] = dice.choice(ODD)
    return json.dumps(whole[""], ensure_ascii=dice.random() < RENAME).encode(errors="surrogatepass")


def cut(stream: bytes, dice: random.Random) -> Iterator[bytes]:
    """The bytes as a socket may give them."""
    at = 0
    while at < len(stream):
        size = dice.randrange(1, CUT)
        yield stream[at : at + size]
        at += size


def capture(session: OpenSession, records: list[bytes], dice: random.Random, streams: Streams, now_ns: int) -> None:
    """Take records as the recorder does."""
    protocol = HubProtocol()
    protocol.receive(b"{}" + SEPARATOR)
    for chunk in cut(b"".join(record + SEPARATOR for record in records), dice):
        now_ns += 1000
        items = protocol.receive(chunk)
        data = [item.record if isinstance(item, Logout) else item for item in items if isinstance(item, bytes | Logout)]
        if data:
            streams.hear([now_ns] * len(data), data)
            session.journal.append(now_ns, 1, data)
    session.journal.flush()


def text_of(record: bytes) -> str:
    """A record as the lake keeps it."""
    try:
        return record.decode()
    except UnicodeDecodeError:
        return record.decode("latin-1")


def unexplained(sent: list[bytes], stored: list[str]) -> int:
    """Records that are not stored although they are no control messages, and stored ones that were not sent."""
    waiting = iter(stored)
    expected = next(waiting, None)
    wrong = 0
    for record in sent:
        if text_of(record) == expected:
            expected = next(waiting, None)
        elif not is_control(record):
            wrong += 1
    return wrong + (expected is not None) + sum(1 for _ in waiting)


def is_control(record: bytes) -> bool:
    """Whether the protocol means it for the client itself."""
    try:
        return json.loads(record.decode(errors="replace"))["type"] in CONTROL
    except (ValueError, TypeError, KeyError, RecursionError):
        return False


def fuzz(root: Path, count: int, seed: int) -> dict[str, object]:
    """Send so many records; the account."""
    dice = random.Random(seed)
    sound = [*dict.fromkeys(record for _, record in market_records(BLOCK, CONTRACTS)), *OTHERS * (BLOCK // 100)]
    subscriptions = [
        Subscription(stream, record.split(b'"', 10)[9].decode()) for record in sound[:9] for stream in STREAMS
    ]
    streams = Streams()
    streams.want(subscriptions, START_NS)
    wrong, stored = 0, 0
    with open_session(root, START_NS, source="a fuzzer") as session:
        for first in range(0, count, BLOCK):
            records = [mutated(sound, dice) for _ in range(min(BLOCK, count - first))]
            capture(session, records, dice, streams, START_NS + first * 1_000_000)
            session.journal.retire(session.journal.roll())
            seal(root, session.session_id, session.journal.segment - 1)
            rows = md.open_lake(root).session().messages().filter(pl.col("seq") >= stored).collect()
            wrong += unexplained(records, rows.sort("seq")["payload"].to_list())
            stored += len(rows)
        session.journal.end()
        manifest = finish(root, session.session_id, "sealed")
    rejects = md.open_lake(root).session().rejects().collect()["reason"].to_list()
    return {
        "records": count,
        "stored": stored,
        "control_messages": count - stored,
        "unexplained": wrong,
        "rows": {stream: manifest.counts.get(stream, 0) for stream in STREAMS},
        "rejects": dict(Counter(rejects).most_common()),
        "problems": [str(problem) for problem in verify(root, manifest.session_id, deep=True)],
    }


def main() -> int:
    """Print the figures as JSON; exit code 1 if a record is unaccounted for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=100_000, help="1000000 for the promise")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    begin_s = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        account = fuzz(Path(folder), chosen.records, chosen.seed)
    account["records_per_s"] = round(chosen.records / (time.monotonic() - begin_s))
    print(json.dumps(account, indent=1))
    return 1 if account["unexplained"] or account["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
