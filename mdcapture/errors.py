"""Everything that mdcapture raises on purpose.

MdcaptureError
├── UsageError            yours: an argument, an option or a setting is wrong; nothing was done
│   ├── ConfigError       a setting is unknown or out of range
│   └── NotFoundError     no such session, contract, file or table
├── GatewayError          theirs: the gateway, or the way to it
│   ├── RefusedError      it answered no: a wrong key, no subscription, an unknown contract; another try won't help
│   ├── UnreachableError  no answer, or the connection broke: another try may help
│   └── ProtocolError     it sent what the hub protocol does not allow
├── ServerError           a database that sessions go to or come from: no answer, or it refused
└── LakeError             the files
    ├── BusyError         another process holds the session
    ├── DamageError       a file is not what the manifest or its checksum says
    └── StorageError      the disk refused: full, read-only, no permission

A message says what happened, what it means for the data, and what to do next. Faults in the data that arrives are never
raised: they become rows in `rejects` or `incidents`.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "BusyError",
    "ConfigError",
    "DamageError",
    "GatewayError",
    "LakeError",
    "MdcaptureError",
    "NotFoundError",
    "ProtocolError",
    "RefusedError",
    "ServerError",
    "StorageError",
    "UnreachableError",
    "UsageError",
]


class MdcaptureError(Exception):
    """The root of the tree; `exit_code` is what the command line ends with."""

    exit_code: ClassVar[int] = 1


class UsageError(MdcaptureError, ValueError):
    """An argument, an option or a setting is wrong; nothing was done."""

    exit_code = 2


class ConfigError(UsageError):
    """A setting is unknown or out of its range."""


class NotFoundError(UsageError, LookupError):
    """No such session, contract, file or table."""

    exit_code = 3


class GatewayError(MdcaptureError):
    """The gateway, or the way to it."""

    exit_code = 4


class RefusedError(GatewayError):
    """The gateway answered no, and will do so again: a wrong key, no data subscription, an unknown contract."""

    exit_code = 5


class UnreachableError(GatewayError, ConnectionError):
    """No answer, or a connection that broke: another try may help."""


class ProtocolError(GatewayError):
    """The gateway sent what the hub protocol does not allow."""


class ServerError(MdcaptureError):
    """A database that sessions go to or come from did not answer, or refused; another try may help."""

    exit_code = 7


class LakeError(MdcaptureError):
    """The files of the lake."""

    exit_code = 6


class BusyError(LakeError):
    """Another living process holds the session."""


class DamageError(LakeError):
    """A file is not what its checksum or the manifest says."""


class StorageError(LakeError, OSError):
    """The disk refused: full, read-only, or no permission."""

    def __str__(self) -> str:
        """The message alone, without the number that an OSError puts before it."""
        return self.strerror or super().__str__()
