"""One living process holds a session; a dead one holds nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest
from small_disk import SmallDisk

from mdcapture.errors import BusyError, StorageError
from mdcapture.lake.locks import hold, is_held

if TYPE_CHECKING:
    from pathlib import Path

HOLDER = """
import sys
from pathlib import Path
from mdcapture.lake.locks import hold, is_held
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(path: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


def test_a_living_holder_is_respected_and_named(tmp_path: Path):
    path = tmp_path / "lock"
    with holder(path) as process:
        with pytest.raises(BusyError, match=f"process {process.pid}:"), hold(path):
            pass
        process.communicate()
    with hold(path):
        assert path.read_text() == f"{os.getpid()}\n"


def test_a_killed_holder_holds_nothing(tmp_path: Path):
    with holder(tmp_path / "lock") as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    with hold(tmp_path / "lock"):
        pass


def test_an_error_inside_lets_go(tmp_path: Path):
    with pytest.raises(KeyError), hold(tmp_path / "lock"):
        raise KeyError
    with hold(tmp_path / "lock"):
        pass


def test_it_is_held_once_within_a_process_too(tmp_path: Path):
    with hold(tmp_path / "lock"), pytest.raises(BusyError), hold(tmp_path / "lock"):
        pass


def test_who_waits_gets_a_lock_that_has_a_name(tmp_path: Path):
    """The holder removes the file, as the end of a session does: the one who waited makes a new one."""
    path = tmp_path / "lock"
    turns: list[str] = []

    def wait() -> None:
        with hold(path, wait=True), pytest.raises(BusyError), hold(path):
            pass
        turns.append("waited")

    with hold(path):
        thread = threading.Thread(target=wait)
        thread.start()
        turns.append("held")
        path.unlink()
    thread.join()
    assert turns == ["held", "waited"]


def test_a_lock_in_a_folder_that_is_gone_is_an_error(tmp_path: Path):
    with pytest.raises(StorageError, match="gone"), hold(tmp_path / "gone" / "lock"):
        pass


def test_a_full_disk_does_not_keep_from_locking(tmp_path: Path):
    with SmallDisk(0), hold(tmp_path / "lock"), pytest.raises(BusyError), hold(tmp_path / "lock"):
        pass


def test_a_look_tells_who_lives_and_keeps_nobody_out(tmp_path: Path):
    path = tmp_path / "lock"
    assert not is_held(path)
    with holder(path) as process:
        assert is_held(path)
        process.kill()
        process.wait()
    assert not is_held(path)
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.001):
            is_held(path)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        for _ in range(200):
            with hold(path):
                pass
    finally:
        ended.set()
        thread.join()
