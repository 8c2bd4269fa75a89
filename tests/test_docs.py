"""The documentation says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from mdcapture.config import Config

ROOT = Path(__file__).resolve().parent.parent
REPLACED = [
    "username",
    "contract",
    "duration",
    "enable_quotes",
    "enable_trades",
    "enable_depth",
    "memory_check_interval",
    "max_memory_usage_mb",
    "gc_threshold",
    "reconnect_attempts",
    "validate_data",
    "stats_interval",
    "batch_size",
    "batch_timeout",
    "enable_wal",
    "db_type",
    "db_path",
]


def test_every_setting_is_documented_with_its_default():
    text = (ROOT / "docs/configuration.md").read_text().split("## What became")[0]
    documented = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", text, re.MULTILINE))
    defaults = msgspec.structs.asdict(Config())
    said = {name: "none" if value is None else f"`{value!r}`".replace("'", '"') for name, value in defaults.items()}
    assert documented == said


@pytest.mark.parametrize("setting", REPLACED)
def test_every_setting_of_the_replaced_system_has_its_successor(setting: str):
    text = (ROOT / "docs/configuration.md").read_text()
    assert f"`{setting}`" in text.split("## What became")[1]


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda path: path.name
)
def test_links_within_the_project_lead_somewhere(page: Path):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target
