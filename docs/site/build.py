"""Build the documentation's site: the pages of docs/, what the program knows of itself, and the library's docstrings.

    python docs/site/build.py [FOLDER]     writes site/, or FOLDER, which opens without a server
    python -m http.server -d site          for its search, which wants one

The pages are put together in a temporary folder. What the program knows and what reads well without the site is kept in
docs/, too, and renewed here. A dead link or anchor, a name that the docstrings can't resolve, and a page that the
contents do not list end the build.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from reference import GENERATED, KEPT, LIBRARY_ROOMS, modules

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["build", "pages", "with_kept_parts"]

ROOT = Path(__file__).resolve().parent.parent.parent
DOCS = ROOT / "docs"
SITE = DOCS / "site"
AT_THE_ROOT = ("CHANGELOG.md", "CONTRIBUTING.md")
"""Pages that stand where their readers look for them."""
LINKED = ("LICENSE", "benchmarks", "examples", "docs/images", "docs/mdcapture.service", "docs/references.bib")
"""What pages link to, beside each other."""
GENERATED_PART = re.compile(r"<!-- generated: (\w+) -->\n.*?<!-- end of \1 -->", re.DOTALL)
NOT_KEPT = "*Written when the site is built: `make docs` puts it into `site/`.*"


def main() -> int:
    """Build into the folder that is named."""
    for page in DOCS.rglob("*.md"):
        page.write_text(with_kept_parts(page.read_text()))
    return build(Path(sys.argv[1] if len(sys.argv) > 1 else "site").resolve())


def pages() -> dict[str, str]:
    """Every page of the site by its path: written ones with their generated parts filled in, and the library's."""
    written = {path.relative_to(DOCS).as_posix(): path for path in sorted(DOCS.rglob("*.md"))}
    written |= {name: ROOT / name for name in AT_THE_ROOT}
    texts = {name: _at_home(name, _filled(path.read_text())) for name, path in written.items()}
    for room in LIBRARY_ROOMS:
        texts |= {f"reference/python/{module}.md": f"# {module}\n\n::: {module}\n" for module in modules(room)}
    return texts


def build(target: Path) -> int:
    """Build the site; gives 0, or what the builder ended with."""
    texts = pages()
    config = _config()
    if unlisted := texts.keys() - set(_listed(tomllib.loads(config)["project"]["nav"])):
        sys.stderr.write(f"not in the contents (docs/site/site.toml): {', '.join(sorted(unlisted))}\n")
        return 1
    with TemporaryDirectory() as folder:
        stage = Path(folder)
        for name, text in texts.items():
            page = stage / "docs" / name
            page.parent.mkdir(parents=True, exist_ok=True)
            page.write_text(text)
        for name in LINKED:
            _copy(ROOT / name, stage / "docs" / name.removeprefix("docs/"))
        shutil.copy(SITE / "site.css", stage / "docs")
        (stage / "zensical.toml").write_text(config)
        command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
        result = subprocess.run(command, cwd=stage, check=False)  # noqa: S603  # ours
        if result.returncode == 0:
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(stage / "site", target)
    return result.returncode


def _config() -> str:
    rooms = [
        {room: [{module.rsplit(".", 1)[1]: f"reference/python/{module}.md"} for module in modules(room)]}
        for room in LIBRARY_ROOMS
    ]
    listed = ", ".join(json.dumps(room).replace('": ', '" = ') for room in rooms)
    return (SITE / "site.toml").read_text().replace('"MODULES"', listed).replace('"ROOT"', json.dumps(str(ROOT)))


def with_kept_parts(text: str) -> str:
    """A page as it is kept: with those generated parts that are, and a word in the place of the others."""

    def kept(part: re.Match[str]) -> str:
        name = part[1]
        content = "\n".join(GENERATED[name]()) if name in KEPT else NOT_KEPT
        return f"<!-- generated: {name} -->\n\n{content}\n\n<!-- end of {name} -->"

    return GENERATED_PART.sub(kept, text)


def _filled(text: str) -> str:
    return GENERATED_PART.sub(lambda part: "\n".join(GENERATED[part[1]]()), text)


def _at_home(name: str, text: str) -> str:
    """A page with its links as they are where docs/ is the root of all."""
    if name in AT_THE_ROOT:
        return text.replace("](docs/", "](")
    return text.replace("](../../", "](../") if "/" in name else text.replace("](../", "](")


def _listed(contents: Any) -> Iterator[str]:  # noqa: ANN401  # TOML: a page, pages by title, or a list of such
    if isinstance(contents, str):
        yield contents
    for value in contents.values() if isinstance(contents, dict) else contents if isinstance(contents, list) else ():
        yield from _listed(value)


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


if __name__ == "__main__":
    sys.exit(main())
