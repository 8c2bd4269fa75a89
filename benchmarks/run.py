"""Every benchmark, one after the other, with the machine and the versions that it was measured on.

python benchmarks/run.py                     all of them (an hour), or those that are named
python benchmarks/run.py --write             and put the figures into results.json and docs/benchmarks.md
python benchmarks/run.py --guard             a minute; fails where a ratio has become twice as bad as in results.json

A short form has other ratios than the whole, for what is done once weighs more: `--write` measures that, too, and the
guard holds it against its like.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from figures import Result

FOLDER = Path(__file__).resolve().parent
RESULTS = FOLDER / "results.json"
LIBRARIES = ("mdcapture", "duckdb", "msgspec", "numpy", "polars", "pyarrow", "websockets")
PARTS = ("by_hand", "figures", "inputs", "page", "run")
"""What is no benchmark of its own."""
SHORT = {
    "pipeline": ("--contracts", "1", "--messages", "30000", "--repeats", "3"),
    "book": (),
}
"""What the guard runs; no starts and answers of milliseconds, whose ratios are the noise of a shared machine."""
GROSS = 2.0
MEMORY_BYTES = 1_000_000_000


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


def kept() -> dict[str, list[Result]]:
    """The figures of earlier runs, and those of their short forms."""
    content = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    return {part: content.get(part, []) for part in ("figures", "short")}


def in_memory() -> dict[str, str]:
    """Where short forms put their files: a disk's pace is no ratio of ours."""
    memory = Path("/dev/shm")  # noqa: S108  # where there is one, it is everybody's
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > MEMORY_BYTES
    return {"TMPDIR": str(memory)} if roomy else {}


def run_short(name: str) -> tuple[list[Result], bool]:
    """Run the short form of a benchmark."""
    return run(name, SHORT[name], in_memory())


def run(
    name: str, arguments: tuple[str, ...] = (), environment: Mapping[str, str] | None = None
) -> tuple[list[Result], bool]:
    """Run a benchmark, showing what it prints; its figures, and whether it ended well."""
    print(f"\n== {name}", flush=True)
    results: list[Result] = []
    command = [sys.executable, str(FOLDER / f"{name}.py"), *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, **(environment or {})}
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            if line.startswith('{"figure"'):
                results.append({"benchmark": name} | json.loads(line))
    return results, process.returncode == 0


def key(result: Result) -> tuple[str, ...]:
    """What makes two results the same figure."""
    return result["benchmark"], result["figure"], result.get("beside", ""), result.get("goal", "")


def grossly_worse(results: list[Result], before: list[Result]) -> dict[tuple[str, ...], str]:
    """What is to be told of the figures whose ratio has become more than twice as bad.

    Absolute times say nothing on another machine.
    """
    known = {key(result): result["ratio"] for result in before if "ratio" in result}
    worse = {}
    for result in results:
        then, now = known.get(key(result)), result.get("ratio")
        if then is None or now is None:
            continue
        less_is_better = result.get("goal", "").startswith("≤")
        if now > GROSS * then if less_is_better else then > GROSS * now:
            worse[key(result)] = f"{result['figure']}, beside {result.get('beside', '')}: {now:g}, it was {then:g}"
    return worse


def guard() -> int:
    """Run the short forms; a benchmark that looks worse gets a second chance, since machines are noisy."""
    before = kept()["short"]
    if not before:
        print(f"nothing to hold the figures against: --write puts it into {RESULTS}", file=sys.stderr)
    failed = 0
    for name in SHORT:
        results, ended_well = run_short(name)
        worse = grossly_worse(results, before)
        if worse:
            results, ended_well = run_short(name)
            again = grossly_worse(results, before)
            worse = {which: told for which, told in again.items() if which in worse}
        for line in worse.values():
            print(f"a gross regression: {line}")
        failed += bool(worse) or not ended_well or not results
    return failed


def in_place_of(old: list[Result], new: list[Result]) -> list[Result]:
    """Figures in the place of older ones of the same benchmarks."""
    measured = {result["benchmark"] for result in new}
    both = [result for result in old if result["benchmark"] not in measured] + new
    return sorted(both, key=lambda result: result["benchmark"])


def write(measured: dict[str, list[Result]]) -> None:
    """Keep figures, and make the page of all."""
    old = kept()
    content = machine() | {part: in_place_of(old[part], new) for part, new in measured.items()}
    RESULTS.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    subprocess.run([sys.executable, FOLDER / "page.py"], check=True)


def main() -> int:
    """Run the benchmarks that are asked for, by default all."""
    known = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in PARTS)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmark", nargs="*", default=known, help=f"some of: {', '.join(known)}")
    purpose = parser.add_mutually_exclusive_group()
    purpose.add_argument("--write", action="store_true", help="keep the figures")
    purpose.add_argument("--guard", action="store_true", help="only look for gross regressions")
    chosen = parser.parse_args()
    if unknown := set(chosen.benchmark) - set(known):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    print(json.dumps(machine()))
    if chosen.guard:
        return guard()
    measured: dict[str, list[Result]] = {"figures": [], "short": []}
    failed = 0
    for name in chosen.benchmark:
        forms = {"figures": run} | ({"short": run_short} if chosen.write and name in SHORT else {})
        for part, form in forms.items():
            results, ended_well = form(name)
            failed += not ended_well
            if ended_well:
                measured[part] += results
    if chosen.write:
        write(measured)
    return failed


if __name__ == "__main__":
    sys.exit(main())
