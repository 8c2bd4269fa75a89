"""Where the log goes, and what never gets into it."""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from typing import TYPE_CHECKING, Final, TextIO

import msgspec

from mdcapture.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Collection
    from io import TextIOWrapper

    from mdcapture.config import Config

__all__ = ["redact", "reopen_log", "start_log"]

_HIDDEN: Final = "[hidden]"
_TOKEN: Final = re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]*|(?<=access_token=)[^&\s\"']+|(?<=Bearer )[^\s\"']+")


def redact(text: str, secrets: Collection[str]) -> str:
    """A text without secrets: those that are known, and all that looks like a token.

    It is the last line of defence: nothing that mdcapture logs should hold any.
    """
    for secret in secrets:
        text = text.replace(secret, _HIDDEN)
    return _TOKEN.sub(_HIDDEN, text)


def start_log(config: Config, secrets: Collection[str], *, debug: bool = False) -> None:
    """Log as the configuration says; what other libraries log only from warnings on.

    Raises:
        StorageError: The file can't be written.
    """
    handler: logging.Handler = _Stderr()
    if config.log_file is not None:
        try:
            handler = _File(config.log_file, maxBytes=config.log_mb * 1024 * 1024, backupCount=config.log_files)
        except OSError as error:
            raise StorageError(
                error.errno, f"log_file: {config.log_file} can't be written ({error.strerror}): choose another"
            ) from error
    handler.setFormatter(_JsonLines(secrets) if config.log_format == "json" else _Lines(secrets))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("mdcapture").setLevel("DEBUG" if debug else config.log_level.upper())


def reopen_log() -> None:
    """Open the log's file anew: somebody else has moved it."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _File):
            handler.reopen()


class _Stderr(logging.StreamHandler[TextIO]):
    """Writes to stderr as it is at the moment: live statistics put something else in its place."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)  # a StreamHandler's own would keep the stream of now

    @property
    def stream(self) -> TextIO:  # type: ignore[override]  # nobody sets it
        return sys.stderr


class _File(RotatingFileHandler):
    """A file that is rotated by size, readable by its owner and group, and can be opened anew."""

    def _open(self) -> TextIOWrapper:
        # An opener sets the mode at once: there is no moment at which others could read it.
        return open(  # the handler closes it
            self.baseFilename, "a", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, 0o640)
        )

    def reopen(self) -> None:
        self.acquire()
        try:
            if self.stream is not None:
                self.stream.close()
            self.stream = self._open()
        finally:
            self.release()


class _Lines(logging.Formatter):
    """`2026-11-22T13:45:00.123Z WARNING mdcapture.capture.scribe: disconnected, 0.3 s: …`."""

    converter = time.gmtime  # type: ignore[assignment]  # as the standard library documents it
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self, secrets: Collection[str]) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record), self._secrets)


class _JsonLines(_Lines):
    """An object a line: `at`, `level`, `logger`, `message`, and `exception` where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return redact(msgspec.json.encode(line).decode(), self._secrets)
