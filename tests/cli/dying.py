"""Run a piece of work on copies of a lake in processes that die, one at each step; a step is a change of the disk.

    python dying.py backup|prune LAKE OUT

For n = 1, 2, … LAKE is copied to OUT/n/lake, and a process works there and dies before its n-th step. It ends with the
first n that the work outlives, and prints it. Processes are forked from this one, which has started no thread.
"""

from __future__ import annotations

import os
import shutil
import sys
from itertools import count
from pathlib import Path
from typing import Any

from mdcapture.lake.backup import back_up
from mdcapture.lake.manifest import session_ids
from mdcapture.lake.prune import prune

DIED = 77
WORKS = {
    "backup": lambda folder: back_up(folder / "lake", folder / "copy"),
    "prune": lambda folder: prune(folder / "lake", session_ids(folder / "lake")[0]),
}


def die_at(step: int) -> None:
    steps = count(1)

    def watch(event: str, _: tuple[Any, ...]) -> None:
        if event in {"os.rename", "os.remove", "os.mkdir", "os.rmdir"} and next(steps) == step:
            os._exit(DIED)

    sys.addaudithook(watch)


def main(name: str, lake: Path, out: Path) -> None:
    for step in count(1):
        folder = out / str(step)
        shutil.copytree(lake, folder / "lake")
        if (child := os.fork()) == 0:
            code = 1
            try:
                die_at(step)
                WORKS[name](folder)
                code = 0
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code != DIED:
            break
    sys.stdout.write(f"{step if code == 0 else 'failed'}\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
