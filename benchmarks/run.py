"""Every benchmark, one after the other: what each prints, with the machine and the versions that it was measured on."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
LIBRARIES = ("mdcapture", "duckdb", "msgspec", "numpy", "polars", "pyarrow", "websockets")


def machine() -> dict[str, object]:
    """What the figures depend on."""
    return {
        "machine": platform.machine(),
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {library: version(library) for library in LIBRARIES},
    }


def main() -> int:
    """Run the benchmarks that are asked for, by default all."""
    known = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != Path(__file__).stem)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("benchmark", nargs="*", default=known, help=f"some of: {', '.join(known)}")
    chosen = parser.parse_args().benchmark
    if unknown := set(chosen) - set(known):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    print(json.dumps(machine()))
    failed = 0
    for name in chosen:
        print(f"\n== {name}", flush=True)
        failed += subprocess.run([sys.executable, FOLDER / f"{name}.py"], check=False).returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main())
