"""What people install: wheel and sdist, built and used outside of the source tree."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from pages import ROOT
from programs import LIMIT_S, environment
from tapes import records, write_tape

CONSUMER = Path(__file__).with_name("consumer.py")
LIBRARIES = Path(sysconfig.get_path("purelib"))


def run(*command: str | Path, cwd: Path, **more: str) -> str:
    result = subprocess.run(
        command, cwd=cwd, env=environment(**more), capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def built(target: str, source: Path, folder: Path) -> Path:
    run(sys.executable, "-m", "hatchling", "build", "-t", target, "-d", folder, cwd=source, SOURCE_DATE_EPOCH="1")
    return next(folder.glob("*.whl" if target == "wheel" else "*.tar.gz"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel, and this one's libraries but for the source tree."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin/python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--quiet", wheel, cwd=folder)
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    (site / "libraries.pth").write_text(f"{LIBRARIES}\n")
    return folder


def test_the_wheel_holds_the_whole_package_and_nothing_else(wheel: Path):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "mdcapture"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert names == {name for name in tracked if (ROOT / name).exists()}
    assert {"mdcapture/py.typed", "mdcapture/report/page.html", "mdcapture/report/page.css"} <= names


def test_the_same_source_gives_the_same_bytes(wheel: Path, tmp_path: Path):
    assert built("wheel", ROOT, tmp_path).read_bytes() == wheel.read_bytes()


def test_the_sdist_gives_the_same_wheel(wheel: Path, tmp_path: Path):
    with tarfile.open(built("sdist", ROOT, tmp_path / "sdist")) as archive:
        archive.extractall(tmp_path, filter="data")
    source = next(path for path in tmp_path.iterdir() if (path / "pyproject.toml").exists())
    assert {"tests", "docs", "examples", "LICENSE"} <= {path.name for path in source.iterdir()}
    again = built("wheel", source, tmp_path / "again")
    assert set(zipfile.ZipFile(again).namelist()) == set(zipfile.ZipFile(wheel).namelist())


@pytest.mark.long
def test_the_installed_program_captures_and_reports(installed: Path, tmp_path: Path):
    program, python = installed / "bin/mdcapture", installed / "bin/python"
    assert str(installed) in run(python, "-c", "import mdcapture; print(mdcapture.__file__)", cwd=tmp_path)
    assert run(program, "--version", cwd=tmp_path).startswith("mdcapture ")
    tape = write_tape(tmp_path / "market.ndjson", records(2000))
    run(program, "import", tape, cwd=tmp_path)
    assert "ok" in run(program, "verify", "--deep", cwd=tmp_path)
    run(program, "report", "latest", "-o", "report.html", cwd=tmp_path)  # needs the page's template, style and script
    assert (tmp_path / "report.html").stat().st_size > 100_000


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_can_complete(shell: str, installed: Path, tmp_path: Path):
    asked = {
        "_MDCAPTURE_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": "mdcapture ver",
        "COMP_CWORD": "1",
        "_TYPER_COMPLETE_ARGS": "mdcapture ver",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    assert "verify" in run(installed / "bin/mdcapture", cwd=tmp_path, **asked)


def test_a_type_checker_knows_the_public_names_from_outside(installed: Path, tmp_path: Path):
    """By pyright; `make types` has mypy do so, whose cache of the libraries is warm by then."""
    program = tmp_path / "consumer.py"
    program.write_text(CONSUMER.read_text())
    run(sys.executable, "-m", "pyright", "--pythonpath", installed / "bin/python", program, cwd=tmp_path)


def test_importing_is_quick(installed: Path, tmp_path: Path):
    code = "import sys, mdcapture; print(len(sys.modules))"
    bare = int(run(installed / "bin/python", "-c", code.replace(", mdcapture", ""), cwd=tmp_path))
    assert int(run(installed / "bin/python", "-c", code, cwd=tmp_path)) - bare < 50
