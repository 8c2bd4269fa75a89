"""Faults that the local gateway commits on purpose, and the small language they are written in.

    KIND[:WHAT][@AT_S][+DURATION_S]

    close@30              at 30 s the hub says goodbye, and that the client may come again
    freeze:quotes@60+45   from 60 s to 105 s quotes stop, while pings and the other streams flow
    http:503+5            for the first five seconds of the server every REST answer is a 503

`AT_S` counts the market's own seconds since it opened: at tenfold speed they pass ten times as fast, and on a tape they
are a place on it, so that a fault strikes between the same two records each time. A fault without it strikes when the
market opens, or, where it is about a door, when the server starts. `DURATION_S` counts the same seconds for `freeze`,
and real ones for everything else.
"""

from __future__ import annotations

import random
import re
import time
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from mdcapture.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "DEFAULT_DURATION_S",
    "GARBAGE",
    "KINDS",
    "STREAMS",
    "Doors",
    "Fault",
    "FaultKind",
    "Trait",
    "parse_fault",
    "random_faults",
]

DEFAULT_DURATION_S: Final = 5.0
STREAMS: Final = ("quotes", "trades", "depth")
_UNAVAILABLE: Final = 503
_FORM: Final = re.compile(
    r"(?P<kind>[a-z-]+)(:(?P<what>\w+))?(@(?P<at_s>\d+(\.\d+)?))?(\+(?P<duration_s>\d+(\.\d+)?))?"
)


class FaultKind(StrEnum):
    """What can go wrong."""

    CLOSE = "close"
    CLOSE_FOREVER = "close-forever"
    RESET = "reset"
    LOGOUT = "logout"
    FREEZE = "freeze"
    SILENCE = "silence"
    GARBAGE = "garbage"
    EXPIRE = "expire"
    REVOKE = "revoke"
    REFUSE = "refuse"
    HTTP = "http"
    DENY = "deny"
    IGNORE = "ignore"


class Trait(NamedTuple):
    """What a kind does, what its WHAT may be, and whether it lasts."""

    does: str
    what: tuple[str, ...] = ()
    lasts: bool = False


KINDS: Final = {
    FaultKind.CLOSE: Trait("the hub closes every connection, with allowReconnect"),
    FaultKind.CLOSE_FOREVER: Trait("the hub closes every connection, without allowReconnect"),
    FaultKind.RESET: Trait("every connection breaks with a TCP reset"),
    FaultKind.LOGOUT: Trait("GatewayLogout to everyone, then the connections are closed"),
    FaultKind.FREEZE: Trait(
        "data stops (of one stream, or all) while pings flow; without a duration until it is subscribed again",
        STREAMS,
        lasts=True,
    ),
    FaultKind.SILENCE: Trait(
        "nothing at all is sent on the connections that stand; without a duration for good", lasts=True
    ),
    FaultKind.GARBAGE: Trait("broken and unknown records among the data, see GARBAGE"),
    FaultKind.EXPIRE: Trait("all tokens expire: 401 until they are validated, or a new login"),
    FaultKind.REVOKE: Trait("all tokens end: 401, and validation fails, until a new login"),
    FaultKind.REFUSE: Trait("connections break, and new ones are refused; 5 s unless it says", lasts=True),
    FaultKind.HTTP: Trait(
        "REST answers with a status (503 unless it says); 5 s unless it says", ("429", "500", "503"), lasts=True
    ),
    FaultKind.DENY: Trait("subscribing fails (to one stream, or all); 5 s unless it says", STREAMS, lasts=True),
    FaultKind.IGNORE: Trait(
        "subscribing is never answered (of one stream, or all); 5 s unless it says", STREAMS, lasts=True
    ),
}


class Fault(NamedTuple):
    """One fault; `at_s` is None where it is said to be there from the start."""

    kind: FaultKind
    what: str | None = None
    at_s: float | None = None
    duration_s: float | None = None

    @property
    def precedes_market(self) -> bool:
        """Whether it is there before the market opens: it is about a door, and no time was given."""
        return self.at_s is None and self.kind in {FaultKind.REFUSE, FaultKind.HTTP, FaultKind.DENY, FaultKind.IGNORE}


def parse_fault(text: str) -> Fault:
    """Read a fault's text, as in the head of this module.

    Raises:
        UsageError: It is none.
    """
    match = _FORM.fullmatch(text)
    if match is None or match["kind"] not in KINDS:
        raise UsageError(
            f"no fault: {text!r}. A fault is KIND[:WHAT][@AT_S][+DURATION_S], KIND one of {', '.join(KINDS)}"
        )
    kind = FaultKind(match["kind"])
    trait = KINDS[kind]
    if match["what"] is not None and match["what"] not in trait.what:
        known = f"one of {', '.join(trait.what)}" if trait.what else "nothing"
        raise UsageError(f"no fault: {text!r}. After `{kind}:` there may be {known}")
    if match["duration_s"] is not None and not trait.lasts:
        raise UsageError(f"no fault: {text!r}. `{kind}` happens at once and has no duration")
    at_s, duration_s = (None if value is None else float(value) for value in match.group("at_s", "duration_s"))
    return Fault(kind, match["what"], at_s, duration_s)


class Doors:
    """Which doors are shut, and until when: what `http`, `deny` and `ignore` leave behind.

    Args:
        clock: Real seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._shut: dict[tuple[FaultKind, str | None], float] = {}

    def shut(self, fault: Fault) -> None:
        """Let a fault stand for its duration."""
        self._shut[fault.kind, fault.what] = self._clock() + (fault.duration_s or DEFAULT_DURATION_S)

    def http_status(self) -> int | None:
        """The status that every REST answer has to be, if any."""
        standing = [what for kind, what in self._standing() if kind is FaultKind.HTTP]
        return int(standing[-1] or _UNAVAILABLE) if standing else None

    def subscribing(self, stream: str) -> FaultKind | None:
        """What becomes of a subscription to a stream: `deny`, `ignore`, or nothing."""
        kinds = [kind for kind, what in self._standing() if kind is not FaultKind.HTTP and what in {None, stream}]
        return kinds[-1] if kinds else None

    def _standing(self) -> list[tuple[FaultKind, str | None]]:
        now_s = self._clock()
        return [door for door, ends_s in self._shut.items() if now_s < ends_s]


def random_faults(rate_per_min: float, seed: int) -> Iterator[Fault]:
    """Faults of all kinds at random times (a Poisson process), without end.

    What lasts does so for a quarter of the mean time between faults, on average. `close-forever` and `revoke`, after
    which a client may rightly give up, are left to those who ask for them.
    """
    rng = random.Random(f"faults {seed}")  # noqa: S311 - seeded noise, no secret
    kinds = [kind for kind in KINDS if kind not in {FaultKind.CLOSE_FOREVER, FaultKind.REVOKE}]
    rate_per_s = rate_per_min / 60
    at_s = 0.0
    while True:
        at_s += rng.expovariate(rate_per_s)
        kind = rng.choice(kinds)
        trait = KINDS[kind]
        what = rng.choice((None, *trait.what)) if trait.what else None
        yield Fault(kind, what, at_s, rng.expovariate(4 * rate_per_s) if trait.lasts else None)


GARBAGE: Final = (
    b'{"type":1,"target":"GatewayQuote","arguments":["CON.F.US.MNQ.Z26",{"bestBid":',
    b'{"type":1,"target":"GatewayTrade","arguments":["CON.F.US.MNQ.Z26",[{"price":1,"volume":1,"x":"\xff\xfe"}]]}',
    b'{"type":1,"target":"GatewayNews","arguments":["CON.F.US.MNQ.Z26",{"text":"unknown"}]}',
    b'{"type":1,"target":"GatewayDepth","arguments":["CON.F.US.MNQ.Z26",[null,null]]}',
    b'{"type":1,"target":"GatewayTrade","arguments":[]}',
    b'{"type":1,"target":"GatewayTrade","arguments":["CON.F.US.MNQ.Z26",[{"price":"high","volume":null}]]}',
    b'{"type":1,"target":"GatewayDepth","arguments":["CON.F.US.MNQ.Z26",' + b"[" * 2000 + b"]" * 2000 + b"]}",
    b'{"type":1,"target":"GatewayQuote","arguments":["CON.F.US.MNQ.Z26",{"symbolName":"' + b"x" * 2_000_000 + b'"}]}',
    b"[1,2,3]",
    b"",
)
"""Records that are cut off, no UTF-8, unknown, empty, deep, huge, or of the wrong shape."""
