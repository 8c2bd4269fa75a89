"""The program as its users have it: a process, with its own environment, files and output."""

from __future__ import annotations

import io
import json
import os
import secrets
import socket
import subprocess
import sys
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import TYPE_CHECKING, Any

import pytest

from mdcapture.cli import main

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["LIMIT_S", "called", "environment", "free_port", "mdcapture", "simulator", "start"]

LIMIT_S = 120
"""Far beyond what anything takes: machines are shared and slow."""


def environment(**more: str) -> dict[str, str]:
    """The environment without this machine's own settings; to ask a calendar costs a capture as much as its start."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MDCAPTURE_")}
    settings = {"MDCAPTURE_USERNAME": "somebody", "MDCAPTURE_API_KEY": "demo", "MDCAPTURE_CALENDAR": "weekly"}
    return clean | settings | {"NO_COLOR": "1"} | more


def start(*arguments: str, **more: str) -> subprocess.Popen[str]:
    """Start `mdcapture`; its stdout and stderr are pipes of text."""
    return subprocess.Popen(
        [sys.executable, "-m", "mdcapture", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(**more),
    )


def mdcapture(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run `mdcapture` to its end."""
    process = start(*arguments, **more)
    output, errors = process.communicate(timeout=LIMIT_S)
    return subprocess.CompletedProcess(arguments, process.returncode, output, errors)


def called(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """The same in this process, for what computes: most of a short process is the import of what it computes with."""
    answer, said = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    code: int | str | None = 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(answer), redirect_stderr(said):
        for name in set(os.environ) - (kept := environment(**more)).keys():
            patch.delenv(name)
        for name, value in kept.items():
            patch.setenv(name, value)
        patch.setattr(sys, "argv", ["mdcapture", *arguments])
        try:
            main()
        except SystemExit as end:
            code = end.code
    assert isinstance(code, int | None), code
    texts = (stream.buffer.getvalue().decode() for stream in (answer, said))  # type: ignore[attr-defined]
    return subprocess.CompletedProcess(arguments, code or 0, *texts)


@contextmanager
def simulator(*options: str) -> Iterator[dict[str, Any]]:
    """Run a local gateway; gives its addresses, `api` and `hub`."""
    process = start("simulate", *options)
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())
    finally:
        process.terminate()
        process.communicate(timeout=LIMIT_S)


def free_port() -> int:
    """A port of this machine that nobody listens at, and that stays free while nobody does.

    It is below those that systems give to outgoing connections: one of these would take it between two servers, or
    connect to itself.
    """
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def counted(lake: Path, table: str) -> int:
    """Rows of a table's sealed files, by an engine that knows nothing of mdcapture."""
    import duckdb  # noqa: PLC0415  # most tests don't need it

    if not (lake / table).is_dir():
        return 0
    query = f"select count(*) from read_parquet('{lake}/{table}/*/*/*.parquet', hive_partitioning = true)"  # noqa: S608
    with duckdb.connect() as connection:
        return int(connection.sql(query).fetchall()[0][0])
