"""Every benchmark, one after the other, with the machine and the versions that it was measured on.

python benchmarks/run.py                     all of them (an hour), or those that are named
python benchmarks/run.py --write             and put the figures into results.json and docs/benchmarks.md
python benchmarks/run.py --guard             a minute; fails where a ratio has become twice as bad as in results.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
RESULTS = FOLDER / "results.json"
LIBRARIES = ("mdcapture", "duckdb", "msgspec", "numpy", "polars", "pyarrow", "websockets")
PARTS = ("by_hand", "figures", "inputs", "page", "run")
"""What is no benchmark of its own."""
SHORT = {
    "pipeline": ("--contracts", "1", "--messages", "30000", "--repeats", "2"),
    "running": ("--sealed", "200000", "--repeats", "5"),
    "book": (),
}
"""What the guard runs."""
GROSS = 2.0

Result = dict[str, Any]


def machine() -> dict[str, object]:
    """What the figures depend on."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": platform.machine(),
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {library: version(library) for library in LIBRARIES},
    }


def run(name: str, arguments: tuple[str, ...] = ()) -> tuple[list[Result], bool]:
    """Run a benchmark, showing what it prints; its figures, and whether it ended well."""
    print(f"\n== {name}", flush=True)
    results = []
    command = [sys.executable, FOLDER / f"{name}.py", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            if line.startswith('{"figure"'):
                results.append({"benchmark": name} | json.loads(line))
    return results, process.returncode == 0


def key(result: Result) -> tuple[str, ...]:
    """What makes two results the same figure."""
    return result["benchmark"], result["figure"], result.get("beside", ""), result.get("goal", "")


def grossly_worse(results: list[Result], before: list[Result]) -> list[str]:
    """The figures whose ratio has become more than twice as bad; absolute times say nothing on another machine."""
    known = {key(result): result["ratio"] for result in before if "ratio" in result}
    worse = []
    for result in results:
        then, now = known.get(key(result)), result.get("ratio")
        if then is not None and now is not None:
            factor = then / now if result["goal"].startswith("≥") else now / then
            if factor > GROSS:
                worse.append(f"{result['figure']}, beside {result['beside']}: {now:g}, it was {then:g}")
    return worse


def guard() -> int:
    """Run the short forms; a benchmark that looks worse gets a second chance, since machines are noisy."""
    before = json.loads(RESULTS.read_text())["figures"]
    failed = 0
    for name, arguments in SHORT.items():
        results, ended_well = run(name, arguments)
        worse = grossly_worse(results, before)
        if worse:
            results, ended_well = run(name, arguments)
            worse = grossly_worse(results, before)
        for line in worse:
            print(f"a gross regression: {line}")
        failed += bool(worse) or not ended_well or not results
    return failed


def write(results: list[Result]) -> None:
    """Put figures in the place of older ones of the same benchmarks, and make the page of all."""
    old = json.loads(RESULTS.read_text())["figures"] if RESULTS.exists() else []
    measured = {result["benchmark"] for result in results}
    figures = [result for result in old if result["benchmark"] not in measured] + results
    content = machine() | {"figures": sorted(figures, key=lambda result: result["benchmark"])}
    RESULTS.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    subprocess.run([sys.executable, FOLDER / "page.py"], check=True)


def main() -> int:
    """Run the benchmarks that are asked for, by default all."""
    known = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in PARTS)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmark", nargs="*", default=known, help=f"some of: {', '.join(known)}")
    parser.add_argument("--write", action="store_true", help="keep the figures")
    parser.add_argument("--guard", action="store_true", help="only look for gross regressions")
    chosen = parser.parse_args()
    if unknown := set(chosen.benchmark) - set(known):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    print(json.dumps(machine()))
    if chosen.guard:
        return guard()
    results: list[Result] = []
    failed = 0
    for name in chosen.benchmark:
        figures, ended_well = run(name)
        results += figures
        failed += not ended_well
    if chosen.write:
        write(results)
    return failed


if __name__ == "__main__":
    sys.exit(main())
