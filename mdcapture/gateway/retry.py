"""Whether to try again, when, and how often: pure rules, for REST and hub alike.

    error ──▶ verdict ──▶ give up                 a wrong key does not become right
                     ├──▶ refresh the token       at once, and once
                     └──▶ retry ──▶ Backoff       after a growing, jittered pause

Pauses double from half a second to a minute by default, each cut at random by up to a half: clients that one outage
threw off don't come back as one. A connection that held makes the next pause short again. After a logout the pauses
are longer, and only a long quiet shortens them: two clients of one user would throw each other out in turns.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from random import random as random_fraction
from typing import TYPE_CHECKING, Final

from mdcapture.errors import ConfigError, GatewayError, ProtocolError, RefusedError, UnreachableError
from mdcapture.gateway.refusals import LoggedOutError, MisunderstoodError, ThrottledError, UnauthorizedError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Backoff", "RateLimit", "RetryPolicy", "Verdict", "verdict"]

_MOST_DOUBLINGS: Final = 64


class Verdict(StrEnum):
    """What an error is worth."""

    RETRY = "retry"
    REFRESH = "refresh"
    GIVE_UP = "give_up"


def verdict(error: GatewayError, *, stood: bool = False, refreshed: bool = False) -> Verdict:
    """Judge an error.

    What looks like a wrong address or a missing permission is final at the start, where somebody watches, and may pass
    later: once a connection stood, the address is right, and a gateway under maintenance answers with anything.

    Args:
        error: What went wrong.
        stood: A connection to this address has stood before.
        refreshed: The token has been renewed since the last success.
    """
    match error:
        case UnauthorizedError() if not refreshed:
            return Verdict.REFRESH
        case UnauthorizedError() | MisunderstoodError() | ProtocolError():
            return Verdict.RETRY if stood else Verdict.GIVE_UP
        case RefusedError():
            return Verdict.GIVE_UP
        case UnreachableError():
            return Verdict.RETRY
        case _:
            return Verdict.GIVE_UP


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How patient to be.

    Attributes:
        first_s: The first pause.
        factor: What each further pause is multiplied by.
        max_s: The longest pause.
        attempts: How many tries may fail in a row after the first; None for no limit.
        held_s: A connection that lasted this long makes the pauses short again.
        logout_first_s: The first pause after a logout.
        logout_max_s: The longest pause after logouts; a connection that lasted this long makes them short again.

    Raises:
        ConfigError: A value is out of its range.
    """

    first_s: float = 0.5
    factor: float = 2.0
    max_s: float = 60.0
    attempts: int | None = None
    held_s: float = 60.0
    logout_first_s: float = 30.0
    logout_max_s: float = 900.0

    def __post_init__(self) -> None:
        if not (0 < self.first_s <= self.max_s and 0 < self.logout_first_s <= self.logout_max_s):
            raise ConfigError("a retry policy's first pause is more than 0 s, and at most as long as its longest")
        if not 1 <= self.factor <= 100 or self.held_s < 0:  # noqa: PLR2004  # stated in the message
            raise ConfigError("a retry policy's factor lies between 1 and 100, and held_s is not negative")
        if self.attempts is not None and self.attempts < 0:
            raise ConfigError("a retry policy's attempts are 0 or more, or None for no limit")


class Backoff:
    """The pauses of one who tries again.

    Args:
        policy: How patient to be.
        random: Fractions from 0 to 1 for the jitter.
    """

    def __init__(self, policy: RetryPolicy, random: Callable[[], float] = random_fraction) -> None:
        self._policy = policy
        self._random = random
        self._failures = 0
        self._logouts = 0

    @property
    def failures(self) -> int:
        """How many tries have failed in a row."""
        return self._failures

    @property
    def exhausted(self) -> bool:
        """Whether as many tries have failed in a row as the policy allows."""
        return self._policy.attempts is not None and self._failures > self._policy.attempts

    def held(self, duration_s: float) -> None:
        """Note that a connection stood for a time."""
        if duration_s >= self._policy.held_s:
            self._failures = 0
        if duration_s >= self._policy.logout_max_s:
            self._logouts = 0

    def pause_s(self, error: GatewayError) -> float:
        """Count a failure, and say how long to wait before the next try, in seconds."""
        policy = self._policy
        if isinstance(error, LoggedOutError):
            pause_s = min(
                policy.logout_max_s, policy.logout_first_s * policy.factor ** min(self._logouts, _MOST_DOUBLINGS)
            )
            self._logouts += 1
        else:
            pause_s = min(policy.max_s, policy.first_s * policy.factor ** min(self._failures, _MOST_DOUBLINGS))
            self._failures += 1
        pause_s *= 1 - self._random() / 2
        if isinstance(error, ThrottledError) and error.retry_after_s is not None:
            pause_s = max(pause_s, error.retry_after_s)
        return pause_s


class RateLimit:
    """At most `calls` in any window of `period_s`.

    A sliding window, not a token bucket: a full bucket lets twice its size pass within one window.
    """

    def __init__(self, calls: int, period_s: float) -> None:
        self._calls = calls
        self._period_s = period_s
        self._starts_s: deque[float] = deque(maxlen=calls)

    def reserve(self, now_s: float) -> float:
        """Book the next call.

        Args:
            now_s: The time now, on any clock that does not go back.

        Returns:
            How long to wait before that call, in seconds.
        """
        full = len(self._starts_s) == self._calls
        start_s = max(now_s, self._starts_s[0] + self._period_s) if full else now_s
        self._starts_s.append(start_s)
        return start_s - now_s
