"""What several test files share."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

# An example may take long where a machine is shared: how long is no property of the code.
# They are the same each time, so that a change is judged and not luck; `--hypothesis-profile=thorough` tries far more.
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=1000)
hypothesis.settings.register_profile("shared machine", deadline=None, max_examples=25, derandomize=True)
hypothesis.settings.load_profile("shared machine")

ROOT = Path(__file__).resolve().parent.parent
LONGEST = ("test_tutorial.py", "test_seal.py", "test_site.py", "test_examples.py", "test_kill.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest: begun last, it would keep one worker busy while the others have nothing to do."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data and tapes; it is not part of the project (its licences differ)."""
    folder = Path(os.environ.get("MDCAPTURE_REFERENCE", ROOT.parent / "shared")).resolve()
    if not folder.is_dir():
        pytest.skip(
            f"no reference data at {folder}: set MDCAPTURE_REFERENCE to the folder that holds reference/ and tapes/"
        )
    return folder
