"""A recorder's live figures, and what a look at them from outside says.

The recorder writes them each second to `status.json` in its journal's folder: whoever wants to know how it fares
(`mdcapture health`, `top`, a program of one's own) reads that file, and needs neither a port nor the recorder's leave.
"""

from __future__ import annotations

import gc
import logging
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import psutil

from mdcapture.capture.published import Published, read_published
from mdcapture.errors import NotFoundError
from mdcapture.lake.files import post_file
from mdcapture.lake.journal import ENDED, segments
from mdcapture.lake.layout import is_session_id, journal_folder, session_order
from mdcapture.lake.locks import OWNER_LOCK, is_held
from mdcapture.lake.schema import STREAMS, Incident

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from mdcapture.capture.events import Event
    from mdcapture.capture.feed import Feed
    from mdcapture.capture.scribe import Scribe
    from mdcapture.lake.writer import OpenSession

__all__ = [
    "STATUS_FILE",
    "ContractFigures",
    "Figures",
    "Health",
    "has_ended",
    "is_recorded",
    "problems",
    "read_status",
    "unfinished",
    "write_status",
]

_log = logging.getLogger(__name__)

STATUS_FILE: Final = "status.json"
SILENT_S: Final = 30.0
"""A publisher that says nothing for longer than this is not getting on."""

STALE_S: Final = 10.0
"""Figures of a living process that are older than this say that it hangs."""

_MB: Final = 1024 * 1024


class ContractFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What a recorder knows of one contract; prices are None until one was received in this session.

    Attributes:
        contract_id: The contract.
        name: Its short name, as MNQZ6; empty where the gateway gave none.
        rows_per_s: By stream, since the figures before.
        last_price: The last trade's price.
        best_bid: Of the last quote.
        best_ask: Of the last quote.
        heard_ns: When its last event was received.
        gaps: The streams that are missing messages just now.
    """

    contract_id: str
    name: str
    rows_per_s: dict[str, float]
    last_price: float | None
    best_bid: float | None
    best_ask: float | None
    heard_ns: int | None
    gaps: list[str]


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """A recorder at one moment.

    Attributes:
        session_id: The session that is written.
        pid: The process that writes it.
        started_ns: When it began to record; it may have written other sessions before this one.
        at_ns: The moment.
        connected: Whether the hub's connection stands.
        messages: Messages journaled.
        rows: Rows decoded live, by stream.
        messages_per_s: Since the figures before.
        rows_per_s: By stream, since the figures before.
        lag_p50_ms: From the gateway's time of an event to its receive time: the median of the last thousand batches.
        lag_p99_ms: Likewise, the 99th percentile.
        flush_delay_ms: How long the oldest message of the last flush had waited.
        incidents: Incidents.
        gaps: Those of them that are gaps.
        last_incidents: The last few that are neither routine nor gaps, which follow from others; the newest last.
        queued: Batches that wait for handlers.
        dropped: Messages that passed by slow handlers.
        lost: Messages that neither the disk nor memory had room for.
        contracts: What is known of each contract.
        memory_mb: Resident memory of this process.
        cpu_percent: Of one processor, since the figures before.
        collections: How often Python's collector of garbage has looked at the youngest objects.
        open_files: Open files and sockets of this process.
        journal_mb: The journal that is not yet sealed.
        pending_kb: What is not yet in the journal.
        disk_failing: Whether the disk refuses to be written.
        disk_free_mb: Free space on the lake's disk.
        limits: The limits that are reached.
        published: How far publishing has come; None where nothing is published.
    """

    session_id: str
    pid: int
    started_ns: int
    at_ns: int
    connected: bool
    messages: int
    rows: dict[str, int]
    messages_per_s: float
    rows_per_s: dict[str, float]
    lag_p50_ms: float | None
    lag_p99_ms: float | None
    flush_delay_ms: float
    incidents: int
    gaps: int
    last_incidents: list[Incident]
    queued: int
    dropped: int
    lost: int
    contracts: list[ContractFigures]
    memory_mb: float
    cpu_percent: float
    collections: int
    open_files: int
    journal_mb: float
    pending_kb: float
    disk_failing: bool
    disk_free_mb: float
    limits: list[str]
    published: Published | None = None


class _Counts(NamedTuple):
    """What was counted at a moment; `rows` by stream and contract."""

    at_ns: int
    messages: int
    rows: dict[tuple[str, str], int]


class _Means(NamedTuple):
    """What a recorder uses of its machine, by the names of `Figures`."""

    memory_mb: float = 0.0
    cpu_percent: float = 0.0
    open_files: int = 0
    journal_mb: float = 0.0
    disk_free_mb: float = 0.0


class Health:
    """Takes the figures of a recorder; rates are since the last time.

    What the machine does not tell at the moment, as without a free file handle, stays as it was.

    Args:
        scribe: Who writes.
        feed: Who listens.
        limits: The limits that are reached at the moment of asking.
    """

    def __init__(self, scribe: Scribe, feed: Feed, limits: Collection[str] = ()) -> None:
        self._scribe = scribe
        self._feed = feed
        self._limits = limits
        self._process = psutil.Process()
        self._started_ns = scribe.session.manifest.created_ns
        self._address: str | None = scribe.session.manifest.config.get("publish")
        self._before = _Counts(self._started_ns, 0, {})
        self._means = _Means()
        self._blind = False

    def figures(self, at_ns: int, *, connected: bool) -> Figures:
        """Look at everything once."""
        scribe, session, feed = self._scribe, self._scribe.session, self._feed
        now = _Counts(at_ns, scribe.messages, dict(feed.rows))
        rates = _rates(self._before, now)
        lags_ms = sorted(lag_ns / 1e6 for lag_ns in list(feed.lags_ns))
        figures = Figures(
            session_id=session.session_id,
            pid=self._process.pid,
            started_ns=self._started_ns,
            at_ns=at_ns,
            connected=connected,
            messages=now.messages,
            rows=_by_stream(now.rows),
            messages_per_s=(now.messages - self._before.messages) / _seconds(self._before, now),
            rows_per_s=_by_stream(rates),
            lag_p50_ms=_quantile(lags_ms, 0.5),
            lag_p99_ms=_quantile(lags_ms, 0.99),
            flush_delay_ms=scribe.flush_delay_ns / 1e6,
            incidents=scribe.incidents,
            gaps=scribe.gaps,
            last_incidents=list(scribe.last_incidents),
            queued=feed.queued,
            dropped=feed.dropped,
            lost=scribe.lost,
            contracts=_contracts(scribe, dict(feed.latest), rates),
            collections=gc.get_stats()[0]["collections"],
            pending_kb=session.journal.pending_bytes / 1024,
            disk_failing=scribe.disk_failing,
            limits=sorted(self._limits),
            published=None if self._address is None else read_published(session.root, self._address),
            **self._look(session)._asdict(),
        )
        self._before = now
        return figures

    def _look(self, session: OpenSession) -> _Means:
        try:
            self._means = _Means(
                memory_mb=self._process.memory_info().rss / _MB,
                cpu_percent=self._process.cpu_percent(),
                open_files=self._process.num_fds(),
                journal_mb=_unsealed_bytes(session) / _MB,
                disk_free_mb=shutil.disk_usage(session.root).free / _MB,
            )
            self._blind = False
        except (OSError, psutil.Error) as error:
            if not self._blind:
                _log.warning("memory, files and disk stay as they were in the figures, they can't be asked: %s", error)
            self._blind = True
        return self._means


def _seconds(before: _Counts, now: _Counts) -> float:
    return max(1e-9, (now.at_ns - before.at_ns) / 1e9)


def _rates(before: _Counts, now: _Counts) -> dict[tuple[str, str], float]:
    seconds = _seconds(before, now)
    return {key: (count - before.rows.get(key, 0)) / seconds for key, count in now.rows.items()}


def _by_stream(values: Mapping[tuple[str, str], float]) -> dict[str, Any]:
    """Sums over the contracts."""
    sums: dict[str, Any] = {}
    for (stream, _), value in values.items():
        sums[stream] = sums.get(stream, 0) + value
    return sums


def _quantile(ordered: Sequence[float], share: float) -> float | None:
    return ordered[int(share * (len(ordered) - 1))] if ordered else None


def _contracts(
    scribe: Scribe, latest: Mapping[tuple[str, str], Event], rates: Mapping[tuple[str, str], float]
) -> list[ContractFigures]:
    """The session's contracts, and those that are received without having been asked for."""
    names = {contract.contract_id: contract.name for contract in scribe.session.manifest.contracts}
    names |= {contract_id: "" for _, contract_id in latest if contract_id not in names}
    broken = scribe.streams.broken()
    found = []
    for contract_id, name in names.items():
        events = {stream: latest.get((stream, contract_id)) for stream in STREAMS}
        quote, trade = events["quotes"], events["trades"]
        found.append(
            ContractFigures(
                contract_id=contract_id,
                name=name,
                rows_per_s={stream: rates.get((stream, contract_id), 0.0) for stream in STREAMS},
                last_price=getattr(trade, "price", None),
                best_bid=getattr(quote, "best_bid", None),
                best_ask=getattr(quote, "best_ask", None),
                heard_ns=max((event.recv_ns for event in events.values() if event), default=None),
                gaps=[stream for stream, broken_id in broken if broken_id == contract_id],
            )
        )
    return found


def _unsealed_bytes(session: OpenSession) -> int:
    """The size of the journal; its segments may be sealed, and gone, while we look."""
    size = 0
    for path in segments(journal_folder(session.root, session.session_id)).values():
        with suppress(FileNotFoundError):
            size += path.stat().st_size
    return size


def write_status(root: Path, figures: Figures) -> None:
    """Publish figures at once; a disk that refuses leaves the old ones, whose age tells."""
    post_file(journal_folder(root, figures.session_id) / STATUS_FILE, msgspec.json.encode(figures))


def read_status(root: Path, session_id: str) -> Figures | None:
    """The figures that a session's recorder published last; None where there are none."""
    try:
        return msgspec.json.decode((journal_folder(root, session_id) / STATUS_FILE).read_bytes(), type=Figures)
    except (OSError, msgspec.DecodeError):
        return None


def unfinished(root: Path) -> list[str]:
    """The sessions that are recorded, or were when their recorder died; the oldest first.

    Raises:
        NotFoundError: There is no lake.
    """
    if not root.is_dir():
        raise NotFoundError(f"there is no lake at {root}: name another one with --lake")
    return sorted((path.name for path in root.glob("journal/*") if is_session_id(path.name)), key=session_order)


def is_recorded(root: Path, session_id: str) -> bool:
    """Whether a session's recorder lives: its lock goes with it."""
    return is_held(journal_folder(root, session_id) / OWNER_LOCK)


def has_ended(root: Path, session_id: str) -> bool:
    """Whether a session's journal has come to its end, and only sealing is left."""
    return (journal_folder(root, session_id) / ENDED).exists()


def problems(figures: Figures | None, now_ns: int, *, lives: bool, ended: bool = False) -> list[str]:
    """What is wrong with a recorder; nothing if all is well.

    Args:
        figures: What it published last.
        now_ns: The time.
        lives: Whether its process does.
        ended: Whether all that is left to do is sealing.
    """
    if not lives:
        who = "its recorder" if figures is None else f"its recorder (process {figures.pid})"
        return [f"{who} is dead: start it again, or `mdcapture recover` what it left"]
    if ended:
        return []
    if figures is None:
        return ["it has published no figures: it has just been started"]
    age_s = (now_ns - figures.at_ns) / 1e9
    found = []
    if age_s > STALE_S:
        found.append(f"its figures are {age_s:.0f} s old, and process {figures.pid} lives: it hangs")
    if not figures.connected:
        found.append("it is not connected to the gateway")
    if figures.disk_failing:
        found.append(f"the disk refuses to be written, {figures.pending_kb:.0f} kB wait in memory")
    if figures.lost:
        found.append(f"{figures.lost} messages are lost, because the disk refused for too long")
    if figures.limits:
        found.append(f"limits are reached: {', '.join(figures.limits)}")
    found += _published(figures)
    return found


def _published(figures: Figures) -> list[str]:
    if figures.published is None:
        return []
    silent_s = (figures.at_ns - figures.published.at_ns) / 1e9
    trouble = figures.published.trouble or (f"the server is silent for {silent_s:.0f} s" if silent_s > SILENT_S else "")
    return [f"not all is published, the lake has it: {trouble}"] if trouble else []
