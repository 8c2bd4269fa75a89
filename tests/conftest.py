"""What several test files share."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

# An example may take long where a machine is shared: how long is no property of the code.
# They are the same each time, so that a change is judged and not luck; `--hypothesis-profile=thorough` looks for new ones.
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=1000)
hypothesis.settings.register_profile("shared machine", deadline=None, max_examples=25, derandomize=True)
hypothesis.settings.load_profile("shared machine")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data and tapes; it is not part of the project (its licences differ)."""
    folder = Path(os.environ.get("MDCAPTURE_REFERENCE", ROOT.parent / "shared")).resolve()
    if not folder.is_dir():
        pytest.skip(
            f"no reference data at {folder}: set MDCAPTURE_REFERENCE to the folder that holds reference/ and tapes/"
        )
    return folder
