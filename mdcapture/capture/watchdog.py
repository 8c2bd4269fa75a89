"""Whether a stream is silent for longer than is plausible, and whether this machine's clocks can be believed; pure.

A stream's patience is a multiple of the longest pause that it made of late, within bounds. While it speaks, pauses fade
from memory, by half each fifteen shortest patiences (a quarter of an hour by default): what was plausible at night is
soon not plausible any more by day. A silence that ended counts as a pause whatever ended it: a market that falls quiet
costs one alarm, not one a minute.

    silent for its patience               stalled: subscribe anew
    and for three times that              reconnect
    and for nine times that, and so on    reconnect

A stream that has never been heard is only subscribed anew: it may have nothing to say, and the others would suffer.
While the market is closed nothing is expected, and silence counts from its opening on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from mdcapture.gateway.hub import Subscription
from mdcapture.lake.schema import Incident, IncidentKind
from mdcapture.wire.timestamps import NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mdcapture.capture.streams import Pulse

__all__ = ["Alarm", "ClockWatch", "Clocks", "Watchdog"]

_MEMORY: Final = 15.0
_GROWTH: Final = 3


class Alarm(NamedTuple):
    """A stream that has been silent for too long.

    `silence_ns` is for how long, `pause_ns` the longest pause that it made of late, `first` whether this is the first
    alarm of this silence, and `reconnect` whether to subscribe anew is not worth another try.
    """

    subscription: Subscription
    silence_ns: int
    pause_ns: int
    first: bool
    reconnect: bool


@dataclass(slots=True)
class _Pace:
    """What a stream's silences have been like.

    `pause_ns` is the longest one at `faded_ns`, `silence_ns` the one that lasts; `acted_ns` is the last alarm.
    """

    pause_ns: float
    faded_ns: int
    heard_ns: int | None
    silence_ns: int = 0
    acted_ns: int = 0
    alarms: int = 0


class Watchdog:
    """Looks at the streams now and then.

    Args:
        min_s: No shorter silence is an alarm.
        max_s: Every longer one is, while the market is open.
        factor: How many times the longest pause of late a silence may last.
    """

    def __init__(self, *, min_s: float, max_s: float, factor: float) -> None:
        self._min_ns = min_s * NS_PER_S
        self._max_ns = max(min_s, max_s) * NS_PER_S
        self._factor = factor
        self._paces: dict[Subscription, _Pace] = {}
        self._restarted_ns = 0

    def look(self, now_ns: int, pulses: Mapping[Subscription, Pulse], open_since_ns: int | None) -> list[Alarm]:
        """Look once.

        Args:
            now_ns: The time, on the clock that stamps messages.
            pulses: The streams that are subscribed to.
            open_since_ns: Since when the market is open; None while it is closed.

        Returns:
            The streams to do something about, now.
        """
        if open_since_ns is None:
            for pace in self._paces.values():
                pace.silence_ns = 0
            return []
        alarms = []
        for subscription, pulse in pulses.items():
            pace = self._paces.setdefault(subscription, _Pace(self._min_ns, now_ns, pulse.heard_ns))
            if self._is_silent(pace, pulse, now_ns, open_since_ns):
                first = pace.alarms == 0
                reconnect = not first and pulse.heard_ns is not None
                alarms.append(Alarm(subscription, pace.silence_ns, round(pace.pause_ns), first, reconnect))
                pace.alarms += 1
                pace.acted_ns = now_ns
        return alarms

    def restart(self, now_ns: int) -> None:
        """Count all silences from now on: the clock was set, or this process did not run."""
        self._restarted_ns = now_ns
        for pace in self._paces.values():
            pace.silence_ns, pace.acted_ns = 0, 0

    def _is_silent(self, pace: _Pace, pulse: Pulse, now_ns: int, open_since_ns: int) -> bool:
        if pulse.heard_ns != pace.heard_ns:
            faded = 0.5 ** (max(0, now_ns - pace.faded_ns) / (_MEMORY * self._min_ns))
            pace.pause_ns, pace.faded_ns = max(pace.pause_ns * faded, pace.silence_ns), now_ns
            pace.heard_ns, pace.silence_ns, pace.acted_ns, pace.alarms = pulse.heard_ns, 0, 0, 0
        spoke_ns = max(pulse.subscribed_ns, pulse.heard_ns or 0, open_since_ns, self._restarted_ns)
        pace.silence_ns = max(pace.silence_ns, now_ns - spoke_ns)
        patience_ns = min(max(self._factor * pace.pause_ns, self._min_ns), self._max_ns)
        return now_ns - max(spoke_ns, pace.acted_ns) >= patience_ns * float(_GROWTH**pace.alarms)


class Clocks(NamedTuple):
    """What was found: by how much the wall clock was set, how long the machine slept, and what to tell of it."""

    step_ns: int
    slept_ns: int
    incidents: list[Incident]


class ClockWatch:
    """Compares the wall clock with one that nobody can set, and that one with the interval at which it is asked.

    Args:
        interval_s: How often it is asked at least.
        step_s: A difference from which on the wall clock was set; less is drift, or a clock that is being disciplined.
        suspended_s: A delay from which on this process did not run, or the machine slept.
    """

    def __init__(self, *, interval_s: float, step_s: float, suspended_s: float) -> None:
        self._interval_ns = int(interval_s * NS_PER_S)
        self._step_ns = step_s * NS_PER_S
        self._suspended_ns = suspended_s * NS_PER_S
        self._before: tuple[int, int, int] | None = None

    def look(self, wall_ns: int, steady_ns: int, asleep_ns: int) -> Clocks:
        """Look once.

        Args:
            wall_ns: The clock that stamps messages.
            steady_ns: A clock that only goes on, but for the time in which the machine sleeps.
            asleep_ns: How long it has slept until now.

        Returns:
            What was found: `slept` names the time in which the machine slept, `suspended` that in which this process
            did not run, `clock_step` the times that were left out, or that come twice.
        """
        interval_ns = self._interval_ns
        before = self._before or (wall_ns - interval_ns, steady_ns - interval_ns, asleep_ns)
        before_wall_ns, before_steady_ns, before_asleep_ns = before
        self._before = wall_ns, steady_ns, asleep_ns
        late_ns = steady_ns - before_steady_ns - interval_ns
        slept_ns = asleep_ns - before_asleep_ns
        expected_ns = before_wall_ns + steady_ns - before_steady_ns + slept_ns
        step_ns = wall_ns - expected_ns
        incidents = []
        if slept_ns >= self._suspended_ns:
            what = f"this machine slept for {slept_ns / NS_PER_S:.1f} s; what was sent meanwhile can be missing"
            from_ns = expected_ns - slept_ns
            incidents.append(Incident(IncidentKind.SLEPT, None, None, from_ns, expected_ns, what))
        if late_ns >= self._suspended_ns:
            what = f"this process did not run for {late_ns / NS_PER_S:.1f} s; what arrived meanwhile is stamped late"
            from_ns = expected_ns - late_ns
            incidents.append(Incident(IncidentKind.SUSPENDED, None, None, from_ns, expected_ns, what))
        if abs(step_ns) < self._step_ns:
            return Clocks(0, slept_ns, incidents)
        what = f"the clock was set {'forward' if step_ns > 0 else 'back'} by {abs(step_ns) / NS_PER_S:.3f} s"
        from_ns, to_ns = sorted((expected_ns, wall_ns))
        incidents.append(Incident(IncidentKind.CLOCK_STEP, None, None, from_ns, to_ns, what))
        return Clocks(step_ns, slept_ns, incidents)
