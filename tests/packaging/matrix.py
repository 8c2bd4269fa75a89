"""The wheel, installed where users may have it: oldest and newest Python and libraries, and each extra alone.

    python tests/packaging/matrix.py              all of it; some minutes, and it fetches from the package registry
    python tests/packaging/matrix.py 3.11 lowest  one cell

Each cell is a fresh environment with the wheel, outside of the source tree: of libraries with all extras, in which
tests run; or with one extra alone, whose library is imported. Both run the demo. At the end stands what passed.
`uv` resolves.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parent.parent.parent
PYTHONS = ("3.11", "3.13")
RESOLUTIONS = ("lowest-direct", "highest")
TESTS = ("tests/wire", "tests/lake", "tests/gateway", "tests/metrics", "tests/query", "tests/live", "tests/analysis")
"""Rooms whose tests need no Node, no Chromium and no root."""
TOOLS = ("pytest>=9.0", "pytest-xdist>=3.6", "hypothesis>=6.100", "moto[s3,server]>=5.1")
IMPORT = """
import sys
from importlib import import_module
from importlib.metadata import packages_distributions
import mdcapture
assert "site-packages" in mdcapture.__file__, mdcapture.__file__
for module, owners in packages_distributions().items():
    if {owner.replace("_", "-").lower() for owner in owners} & set(sys.argv[1:]):
        import_module(module)
"""
"""Shows that the package is the installed one, and that an extra brings libraries that work beside the core."""


def main() -> int:
    """Run the cells that the arguments name, or all; 0 if all passed."""
    wanted = sys.argv[1:]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    cells = [*product(PYTHONS, RESOLUTIONS), *product(PYTHONS[-1:], extras)]
    passed = {}
    with TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], cwd=ROOT, check=True)
        wheel = next(Path(folder).glob("*.whl"))
        for cell in cells:
            if all(any(part.startswith(word) for part in cell) for word in wanted):
                libraries = [re.split(r"[^\w-]", one)[0] for one in extras.get(cell[1], ())]
                passed[cell] = tried(cell, libraries, wheel, Path(folder, "-".join(cell)))
    print(
        "\n".join(f"{python}  {what:<14} {'passed' if good else 'FAILED'}" for (python, what), good in passed.items())
    )
    return 0 if passed and all(passed.values()) else 1


def tried(cell: tuple[str, str], libraries: list[str], wheel: Path, folder: Path) -> bool:
    """Make one environment, and try the wheel in it."""
    python, what = cell
    print(f"== Python {python}, {what}", flush=True)
    program = folder / "bin/python"
    extra, resolution = ("all", what) if what in RESOLUTIONS else (what, "highest")
    chosen = folder.with_name(f"{folder.name}.txt")
    uv: list[str | Path] = [sys.executable, "-m", "uv"]
    pip = [*uv, "pip", "install", "--quiet", "--python", program]
    solve = [*uv, "pip", "compile", "--quiet", ROOT / "pyproject.toml", "--python", program]
    steps: list[list[str | Path]] = [
        [*uv, "venv", "--quiet", "--python", python, folder],
        # What the wheel needs is asked of pyproject.toml: to the resolver, a wheel's own needs are not direct ones.
        [*solve, "--extra", extra, "--resolution", resolution, "--output-file", chosen],
        [*pip, "--requirements", chosen],
        [*pip, "--no-deps", wheel],
        [*uv, "pip", "check", "--quiet", "--python", program],
        [program, "-I", "-c", IMPORT, *libraries],
        [folder / "bin/mdcapture", "demo", folder / "demo", "--duration", "2"],
    ]
    if what in RESOLUTIONS:
        steps += [[*pip, *TOOLS], [folder / "bin/pytest", "-q", "--numprocesses=auto", *TESTS]]
    beside = folder.with_name(f"{folder.name}-source")  # a copy, so that nothing can find the package itself
    beside.mkdir()
    shutil.copytree(ROOT / "tests", beside / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "docs", "examples", "benchmarks"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, beside / name)
    reference = {"MDCAPTURE_REFERENCE": os.environ.get("MDCAPTURE_REFERENCE", str(ROOT.parent / "shared"))}
    runs = (subprocess.run(step, cwd=beside, env=os.environ | reference, check=False) for step in steps)
    return all(run.returncode == 0 for run in runs)


if __name__ == "__main__":
    sys.exit(main())
