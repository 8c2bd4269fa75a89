"""The command line: thin commands over the library, data on stdout, everything else on stderr."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mdcapture.errors import MdcaptureError

__all__ = ["main"]


def main() -> None:
    """Run the `mdcapture` command.

    An error is one message with its cause and the next step, and an exit code; `--debug` shows where it came from.
    """
    from mdcapture.cli.app import app
    from mdcapture.errors import MdcaptureError

    try:
        app()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)
    except Exception as error:
        known = error if isinstance(error, MdcaptureError) else _damage(error)
        if known is None or os.environ.get("MDCAPTURE_DEBUG"):
            raise
        sys.stderr.write(f"error: {known}\n")
        sys.exit(known.exit_code)


def _damage(error: Exception) -> MdcaptureError | None:
    """What a library says of a file of the lake that it can't read, in words that help."""
    from mdcapture.errors import DamageError

    said = str(error).partition(" (set POLARS_VERBOSE")[0]
    of_a_file = isinstance(error, OSError) or type(error).__module__ == "polars.exceptions"
    if not of_a_file or "parquet" not in said:
        return None
    return DamageError(f"a file of the lake is damaged or gone ({said}): `mdcapture verify` names it, so restore it")
