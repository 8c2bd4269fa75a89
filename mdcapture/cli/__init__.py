"""The command line: thin commands over the library, data on stdout, everything else on stderr."""

from __future__ import annotations

import os
import sys

__all__ = ["main"]


def main() -> None:
    """Run the `mdcapture` command.

    An error is one message with its cause and the next step, and an exit code; `--debug` shows where it came from.
    """
    from mdcapture.cli.app import app
    from mdcapture.errors import MdcaptureError

    try:
        app()
    except MdcaptureError as error:
        if os.environ.get("MDCAPTURE_DEBUG"):
            raise
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)
