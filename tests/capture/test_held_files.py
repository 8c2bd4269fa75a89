"""A reader that lets go of no file of the lake."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

from programs import LIMIT_S, mdcapture, simulator, start
from tapes import CONTRACT, records, write_tape

import mdcapture as md

if TYPE_CHECKING:
    from pathlib import Path

COUNT = 6000
HOLDER = """
import mmap, sys, time
from pathlib import Path
held, maps = {}, []
while Path(sys.argv[2]).exists():
    for path in Path(sys.argv[1]).rglob("*"):
        try:
            if path not in held and path.is_file():
                held[path] = file = path.open("rb")
                maps.append(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
        except (FileNotFoundError, ValueError):
            pass
    time.sleep(0.005)
print(sum(not path.exists() for path in held))
"""


def test_costs_no_message_and_keeps_nobody_from_sealing(tmp_path: Path):
    tape = write_tape(tmp_path / "market.ndjson", records(COUNT))
    running = tmp_path / "running"
    running.touch()
    lake = tmp_path / "lake"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(lake), str(running)], stdout=subprocess.PIPE, text=True
    )
    with simulator("--tape", str(tape), "--speed", "2") as gateway:
        options = ("--gateway", gateway["api"], "--lake", str(lake), "--contract", CONTRACT, "--json")
        capture = start("capture", *options, "--count", str(COUNT), "--duration", "60s", "--set", "segment_s=0.5")
        output, errors = capture.communicate(timeout=LIMIT_S)
    running.unlink()
    gone, _ = holder.communicate(timeout=LIMIT_S)
    assert capture.returncode == 0, errors
    assert json.loads(output)["messages"] == COUNT
    assert int(gone) > 10  # segments, and parts that were merged
    session = md.open_lake(lake).session()
    assert [text.encode() for text in session.messages().select("payload").collect()["payload"]] == records(COUNT)
    assert mdcapture("verify", "--deep", "--lake", str(lake)).returncode == 0
    assert not list(lake.glob("journal/*"))
