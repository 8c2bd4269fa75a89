"""The book and the last trades of one contract that is being captured, followed through the lake as it grows."""

from __future__ import annotations

from collections import deque
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Final

import msgspec
import polars as pl

from mdcapture.lake.schema import NO_END_NS, DomType
from mdcapture.live.book import Book

if TYPE_CHECKING:
    from mdcapture.lake.manifest import Contract
    from mdcapture.session import Session

__all__ = ["Ladder", "Print", "Standing"]

_LEVELS: Final = 10
_PRINTS: Final = 15
_BACK_NS: Final = 3_600 * 1_000_000_000
"""No older word about a price is looked for: who begins to watch should not wait for a day's rows to be read."""


class Print(msgspec.Struct, frozen=True, kw_only=True):
    """A trade; `side` is the aggressor's: 0 buy, 1 sell."""

    recv_ns: int
    price: float
    volume: int
    side: int | None


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """A contract at one moment.

    Attributes:
        session_id: The session.
        contract_id: The contract.
        kind: `ladder`, `top`, or `unknown` where it can't be told (see `mdcapture.live.book`).
        bids: Price and size, the best first.
        asks: Likewise.
        trades: The last ones, the newest first.
    """

    session_id: str
    contract_id: str
    kind: str
    bids: list[tuple[float, int]]
    asks: list[tuple[float, int]]
    trades: list[Print]


class Ladder:
    """Follows one contract of a running session; each look reads what came since the one before.

    Args:
        session: The session.
        contract: The contract.
        now_ns: The time.
    """

    def __init__(self, session: Session, contract: Contract, now_ns: int) -> None:
        self.session_id = session.session_id
        self.contract_id = contract.contract_id
        self._session = session
        self._book = Book(tick_size=contract.tick_size)
        self._trades: deque[Print] = deque(maxlen=_PRINTS)
        self._depth_seq = self._trade_seq = -1
        self._known_ns = max([now_ns - _BACK_NS, *self._gap_ends(0)])
        self._begin()

    def look(self) -> Standing:
        """The contract as it stands now."""
        self._follow()
        self._read_trades()
        levels = self._book.levels(_LEVELS)
        return Standing(
            session_id=self.session_id,
            contract_id=self.contract_id,
            kind=levels.kind,
            bids=[(level.price, level.size) for level in levels.bids],
            asks=[(level.price, level.size) for level in levels.asks],
            trades=list(self._trades)[::-1],
        )

    def _begin(self) -> None:
        """Let the book hear the last word about each price: after all words it would stand the same."""
        rows = self._depth(pl.col("recv_ns") >= self._known_ns)
        resets = rows.select(pl.arg_where(pl.col("dom_type") == DomType.RESET)).to_series()
        since = rows if resets.is_empty() else rows[resets[-1] :]
        for _, _, *entry in since.unique(["dom_type", "price"], keep="last", maintain_order=True).iter_rows():
            self._book.apply(*entry)
        self._remember(rows)

    def _follow(self) -> None:
        rows = self._depth(pl.col("seq") > self._depth_seq)
        gap_ends = deque(self._gap_ends(self._known_ns))
        for (_, recv_ns), entries in groupby(rows.iter_rows(), key=itemgetter(0, 1)):
            while gap_ends and gap_ends[0] <= recv_ns:
                gap_ends.popleft()
                self._book.forget()
            self._book.apply_message(entry[2:] for entry in entries)
        self._remember(rows)

    def _depth(self, which: pl.Expr) -> pl.DataFrame:
        rows = self._session.depth(self.contract_id).filter(which)
        return rows.select("seq", "recv_ns", "dom_type", "price", "volume").collect()

    def _remember(self, rows: pl.DataFrame) -> None:
        if rows.height:
            self._depth_seq, self._known_ns = rows.row(-1)[:2]

    def _gap_ends(self, after_ns: int) -> list[int]:
        """When gaps of the depth ended, later than a time."""
        ended = pl.col("to_ns").is_between(after_ns, NO_END_NS, closed="none")
        gaps = self._session.gaps(self.contract_id, ["depth"]).filter(ended)
        return gaps.select("to_ns").sort("to_ns").collect().to_series().to_list()

    def _read_trades(self) -> None:
        rows = self._session.trades(self.contract_id).filter(pl.col("seq") > self._trade_seq)
        last = rows.select("seq", "recv_ns", "price", "volume", "side").tail(_PRINTS).collect()
        for seq, recv_ns, price, volume, side in last.iter_rows():
            self._trade_seq = seq
            self._trades.append(Print(recv_ns=recv_ns, price=price, volume=volume, side=side))
