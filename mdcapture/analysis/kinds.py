"""The names of the charts, which cost nothing to import: `mdcapture.analysis.pictures` draws them."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Kind"]


class Kind(StrEnum):
    """A chart of a session, or of several contracts of it."""

    PRICE = "price"
    FLOW = "flow"
    BOOK = "book"
    RECOVERY = "recovery"
    IMBALANCE = "imbalance"
    PROFILE = "profile"
    FOOTPRINT = "footprint"
    SPREAD = "spread"
    SIZES = "sizes"
    SIGNATURE = "signature"
    DAY = "day"
    RESPONSE = "response"
    EPPS = "epps"
    LEADS = "leads"
    RATES = "rates"
    LATENCY = "latency"
