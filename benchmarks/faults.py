"""A recorder at a gateway that fails at random, for as long as one likes: what it missed, and what it says of it.

Patience is compressed a hundred and fifty times: half a minute without a word is a fifth of a second here, so that ten
minutes of this are a day of faults. Every message is numbered, so each one that is missing is known by its number.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from fault_account import random_faults, record_through

from mdcapture.lake.schema import STREAMS


def main() -> int:
    """Run once, print the account, and fail if it does not add up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long the market goes on")
    parser.add_argument("--seed", type=int, default=1, help="another sequence of faults")
    options = parser.parse_args()
    logging.getLogger("mdcapture").setLevel(logging.ERROR)
    faults = random_faults(options.seed, options.seconds)
    struck = Counter(fault.split("@")[0] for fault in faults)
    print(f"{len(faults)} faults in {options.seconds:.0f} s: " + ", ".join(f"{n} {kind}" for kind, n in struck.items()))
    begun_s = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        account = record_through(faults, options.seconds, Path(folder))
    print(
        f"recorded in {time.monotonic() - begun_s:.0f} s: {account.captured.messages:,} messages of {account.played:,}"
    )
    print(f"{'stream':8}{'missing':>9}{'gaps':>7}{'longest':>10}{'not in a gap':>14}{'untrue gaps':>13}{'doubled':>9}")
    wrong = 0
    for stream in STREAMS:
        gaps = account.gaps[stream]
        longest_s = max((gap.to_ns - gap.from_ns for gap in gaps), default=0) / 1e9
        bad = [len(account.uncovered(stream)), len(account.untrue(stream)), len(account.doubled(stream))]
        wrong += sum(bad)
        print(f"{stream:8}{account.missing(stream):9,}{len(gaps):7}{longest_s:8.2f} s{bad[0]:14}{bad[1]:13}{bad[2]:9}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
