"""Do a piece of the lake's work in processes that die, one at each step; a step is a call that changes the disk.

    python crashing.py WORK TEMPLATE OUT

For n = 1, 2, … the lake TEMPLATE is copied to OUT/n, a process does the work there and dies at its n-th step, a second
one recovers and dies at some step of its own, and a third one recovers. It ends with the first n that the work
outlives, and prints what became of each.

Processes are forked from this one, which has started no thread. A step that would have forced a file onto the disk
leaves half of that file behind: nothing else has made sure of it.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from lake_builder import ES, MS, START_NS

from mdcapture.lake.layout import session_id_at
from mdcapture.lake.schema import SignalRow
from mdcapture.lake.seal import compact, finish, recover, seal
from mdcapture.lake.signals import store_signals
from mdcapture.lake.writer import open_session

if TYPE_CHECKING:
    from collections.abc import Callable

DIED = 77
NEVER = 0
SESSION = session_id_at(START_NS)
_STRIDE = 17
_LONGEST_RECOVERY = 97


def seal_and_finish(root: Path) -> None:
    seal(root, SESSION, 1)
    finish(root, SESSION, "sealed")


def begin(root: Path) -> None:
    with open_session(root, START_NS):
        pass


def store(root: Path) -> None:
    rows = [SignalRow(seq, START_NS + (seq + 1) * MS, ES, "flow", -float(seq)) for seq in range(4)]
    store_signals(root, SESSION, pa.Table.from_pylist([row._asdict() for row in rows]), ["flow"])


WORKS: dict[str, Callable[[Path], object]] = {
    "seal": seal_and_finish,
    "recover": recover,
    "compact": lambda root: compact(root, SESSION),
    "begin": begin,
    "store": store,
}


def die_at(step: int) -> None:
    """Let this process die when it is about to change the disk for the n-th time."""
    steps = count(1)

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        changes = event in {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"} or (
            event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        )
        if changes and next(steps) == step:
            os._exit(DIED)

    def sync(fd: int) -> None:
        if next(steps) == step:
            tear(fd)
            os._exit(DIED)

    os.fsync = os.fdatasync = sync  # the disk stays powered: there is nothing to wait for
    sys.addaudithook(watch)


def tear(fd: int) -> None:
    path = Path(f"/proc/self/fd/{fd}").readlink()
    if path.is_file():
        os.truncate(path, path.stat().st_size // 2)


def in_a_process(work: Callable[[], object]) -> int:
    """The exit code of a process that does it: 0, DIED, or 1 with the traceback on stderr."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            if code:
                sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(name: str, template: Path, out: Path) -> None:
    def dying(work: Callable[[Path], object], root: Path, step: int) -> Callable[[], object]:
        def run() -> None:
            die_at(step)
            work(root)

        return run

    fates = []
    for step in count(1):
        root = out / str(step)
        shutil.copytree(template, root)
        code = in_a_process(dying(WORKS[name], root, step))
        again = in_a_process(dying(recover, root, 1 + step * _STRIDE % _LONGEST_RECOVERY))
        last = in_a_process(dying(recover, root, NEVER))
        fates.append([code, again, last])
        if code != DIED:
            break
    sys.stdout.write(json.dumps(fates))


if __name__ == "__main__":
    pa.array([0])  # imports pandas where that is installed, a quarter of a second: once, and not in each process
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
