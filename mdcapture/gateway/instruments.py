"""The contracts that the local gateway knows: what they are called, how they tick, what they are about to expire.

Ids carry the gateway's own roots (ENQ is NQ, EP is ES, CPE is HG), names those of the exchange.
"""

from __future__ import annotations

import calendar
from datetime import date, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from mdcapture.errors import NotFoundError
from mdcapture.lake.manifest import Contract

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["INSTRUMENTS", "Instrument", "Listing", "list_contracts", "parse_id", "select"]

_MONTH_CODES: Final = "FGHJKMNQUVXZ"
_MONTH_NAMES: Final = tuple(calendar.month_name)[1:]
_ID_PREFIX: Final = "CON.F.US."


class Instrument(NamedTuple):
    """A future, whatever its expiry.

    `underlying` is what instruments share that move as one (NQ and MNQ). `daily_volatility` and `factor_loading`, the
    correlation of its returns with the market's common factor, belong to the model of `market.py`, as do `touch_lots`,
    the size that usually rests at the best price, and `start_price`. `roll_days` before the first day of its delivery
    month a contract ceases to be the active one.
    """

    root: str
    ticker: str
    description: str
    tick_size: str
    tick_value: float
    underlying: str
    start_price: float
    daily_volatility: float
    factor_loading: float
    touch_lots: int
    months: str
    roll_days: int

    @property
    def symbol_id(self) -> str:
        """The id less `CON.` and the expiry."""
        return f"F.US.{self.root}"

    def contract(self, year: int, month: int) -> Contract:
        """The contract that delivers in a month."""
        code = _MONTH_CODES[month - 1]
        return Contract(
            contract_id=f"{_ID_PREFIX}{self.root}.{code}{year % 100:02d}",
            name=f"{self.ticker}{code}{year % 10}",
            description=f"{self.description}: {_MONTH_NAMES[month - 1]} {year}",
            tick_size=float(self.tick_size),
            tick_value=self.tick_value,
            symbol_id=self.symbol_id,
            source="gateway",
        )


_INDEX: Final = ("HMUZ", -10)
_CURRENCY: Final = ("HMUZ", -12)
_RATES: Final = ("HMUZ", 3)

INSTRUMENTS: Final = (
    Instrument("MNQ", "MNQ", "Micro E-mini Nasdaq-100", "0.25", 0.5, "NQ", 29547.0, 0.0095, 0.93, 12, *_INDEX),
    Instrument("ENQ", "NQ", "E-mini Nasdaq-100", "0.25", 5.0, "NQ", 29547.0, 0.0095, 0.93, 8, *_INDEX),
    Instrument("MES", "MES", "Micro E-mini S&P 500", "0.25", 1.25, "ES", 7730.5, 0.006, 0.95, 60, *_INDEX),
    Instrument("EP", "ES", "E-mini S&P 500", "0.25", 12.5, "ES", 7730.5, 0.006, 0.95, 45, *_INDEX),
    Instrument("M2K", "M2K", "Micro E-mini Russell 2000", "0.1", 0.5, "RTY", 2745.3, 0.009, 0.8, 20, *_INDEX),
    Instrument("RTY", "RTY", "E-mini Russell 2000", "0.1", 5.0, "RTY", 2745.3, 0.009, 0.8, 12, *_INDEX),
    Instrument("YM", "YM", "E-mini Dow", "1", 5.0, "YM", 46120.0, 0.006, 0.9, 8, *_INDEX),
    Instrument("BP6", "6B", "British Pound (Globex)", "0.0001", 6.25, "GBP", 1.3482, 0.0045, 0.3, 60, *_CURRENCY),
    Instrument("EU6", "6E", "Euro FX (Globex)", "0.00005", 6.25, "EUR", 1.1694, 0.004, 0.25, 50, *_CURRENCY),
    Instrument("JY6", "6J", "Japanese Yen (Globex)", "0.0000005", 6.25, "JPY", 0.0068115, 0.0045, -0.2, 50, *_CURRENCY),
    Instrument("GCE", "GC", "Gold (Globex)", "0.1", 10.0, "GC", 3391.4, 0.008, 0.1, 10, "GJMQVZ", 4),
    Instrument("CPE", "HG", "Copper (Globex)", "0.0005", 12.5, "HG", 4.5615, 0.01, 0.35, 14, "HKNUZ", 4),
    Instrument("CLE", "CL", "Crude Light (Globex)", "0.01", 10.0, "CL", 63.42, 0.014, 0.25, 25, _MONTH_CODES, 14),
    Instrument("USA", "ZB", "US Treasury Bonds (Globex)", "0.03125", 31.25, "ZB", 114.875, 0.005, -0.3, 90, *_RATES),
)  # fmt: skip
_BY_ROOT: Final = {instrument.root: instrument for instrument in INSTRUMENTS}


class Listing(NamedTuple):
    """A contract that can be found; `active` is the one of its instrument that is traded most."""

    contract: Contract
    instrument: Instrument
    active: bool


def list_contracts(day: date) -> list[Listing]:
    """What is listed on a day: of each instrument the active contract and the one after it."""
    return [
        Listing(instrument.contract(year, month), instrument, active)
        for instrument in INSTRUMENTS
        for (year, month), active in zip(islice(_expiries(instrument, day), 2), (True, False), strict=True)
    ]


def _expiries(instrument: Instrument, day: date) -> Iterator[tuple[int, int]]:
    """The delivery months, as year and month, that are still to be rolled out of."""
    first = day.year * 12 + day.month - 1
    for index in range(first, first + 36):
        year, month = index // 12, index % 12 + 1
        rolled = date(year, month, 1) - timedelta(days=instrument.roll_days)
        if _MONTH_CODES[month - 1] in instrument.months and day < rolled:
            yield year, month


def parse_id(contract_id: str) -> Listing | None:
    """A contract of a known instrument by its id, listed or long expired; None if it is neither."""
    root, _, expiry = contract_id.removeprefix(_ID_PREFIX).partition(".")
    instrument = _BY_ROOT.get(root)
    if instrument is None or expiry[:1] not in _MONTH_CODES or not (expiry[1:].isdigit() and len(expiry) == len("Z26")):
        return None
    contract = instrument.contract(2000 + int(expiry[1:]), _MONTH_CODES.index(expiry[0]) + 1)
    return Listing(contract, instrument, active=False) if contract.contract_id == contract_id else None


def select(texts: Iterable[str], listings: list[Listing]) -> list[Listing]:
    """The contracts that texts name: an id, a name (`MNQZ6`), or for the active one its root, or the exchange's ticker.

    An id may be one that is not listed, so that a market of any time can be had; it counts as active.

    Raises:
        NotFoundError: A text names none.
    """
    names = {name: it for it in listings for name in (it.contract.contract_id, it.contract.name)}
    names |= {name: it for it in listings if it.active for name in (it.instrument.root, it.instrument.ticker)}
    selected: dict[str, Listing] = {}
    for text in texts:
        unlisted = parse_id(text)
        listing = names.get(text.upper()) or (unlisted and unlisted._replace(active=True))
        if listing is None:
            known = ", ".join(instrument.root for instrument in INSTRUMENTS)
            raise NotFoundError(f"the local gateway has no contract {text!r}; it has ids, names, and the roots {known}")
        selected[listing.contract.contract_id] = listing
    return list(selected.values())
