"""Capture ProjectX market data without losing anything, and turn it into numbers that can be trusted."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mdcapture.capture.events import DepthEvent, QuoteEvent, TradeEvent
    from mdcapture.capture.health import Figures
    from mdcapture.capture.recorder import Captured, Recorder
    from mdcapture.config import Config, load_config
    from mdcapture.errors import (
        BusyError,
        ConfigError,
        DamageError,
        GatewayError,
        LakeError,
        MdcaptureError,
        NotFoundError,
        ProtocolError,
        RefusedError,
        ServerError,
        StorageError,
        UnreachableError,
        UsageError,
    )
    from mdcapture.interop.importing import import_tape
    from mdcapture.lake.schema import DomType, Incident, IncidentKind, Side, SignalRow
    from mdcapture.live.online import LiveMetrics
    from mdcapture.live.replay import Replay
    from mdcapture.live.signals import Signals
    from mdcapture.session import Lake, Session, open_lake
    from mdcapture.wire.timestamps import format_ns, parse_ns

__all__ = [
    "BusyError",
    "Captured",
    "Config",
    "ConfigError",
    "DamageError",
    "DepthEvent",
    "DomType",
    "Figures",
    "GatewayError",
    "Incident",
    "IncidentKind",
    "Lake",
    "LakeError",
    "LiveMetrics",
    "MdcaptureError",
    "NotFoundError",
    "ProtocolError",
    "QuoteEvent",
    "Recorder",
    "RefusedError",
    "Replay",
    "ServerError",
    "Session",
    "Side",
    "SignalRow",
    "Signals",
    "StorageError",
    "TradeEvent",
    "UnreachableError",
    "UsageError",
    "format_ns",
    "import_tape",
    "load_config",
    "open_lake",
    "parse_ns",
]

_ROOMS: Final = {
    "BusyError": "mdcapture.errors",
    "Captured": "mdcapture.capture.recorder",
    "Config": "mdcapture.config",
    "ConfigError": "mdcapture.errors",
    "DamageError": "mdcapture.errors",
    "DepthEvent": "mdcapture.capture.events",
    "DomType": "mdcapture.lake.schema",
    "Figures": "mdcapture.capture.health",
    "GatewayError": "mdcapture.errors",
    "Incident": "mdcapture.lake.schema",
    "IncidentKind": "mdcapture.lake.schema",
    "Lake": "mdcapture.session",
    "LakeError": "mdcapture.errors",
    "LiveMetrics": "mdcapture.live.online",
    "MdcaptureError": "mdcapture.errors",
    "NotFoundError": "mdcapture.errors",
    "ProtocolError": "mdcapture.errors",
    "QuoteEvent": "mdcapture.capture.events",
    "Recorder": "mdcapture.capture.recorder",
    "RefusedError": "mdcapture.errors",
    "Replay": "mdcapture.live.replay",
    "ServerError": "mdcapture.errors",
    "Session": "mdcapture.session",
    "Side": "mdcapture.lake.schema",
    "SignalRow": "mdcapture.lake.schema",
    "Signals": "mdcapture.live.signals",
    "StorageError": "mdcapture.errors",
    "TradeEvent": "mdcapture.capture.events",
    "UnreachableError": "mdcapture.errors",
    "UsageError": "mdcapture.errors",
    "format_ns": "mdcapture.wire.timestamps",
    "import_tape": "mdcapture.interop.importing",
    "load_config": "mdcapture.config",
    "open_lake": "mdcapture.session",
    "parse_ns": "mdcapture.wire.timestamps",
}
"""Where each public name comes from; nothing of it is imported before its name is used."""


def __getattr__(name: str) -> object:
    room = _ROOMS.get(name)
    if room is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(room), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
