"""Sessions that live tests replay: an hour of ES, and a synthetic market."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from synthetic import imported, market_tape

if TYPE_CHECKING:
    from pathlib import Path

    from mdcapture.session import Session


@pytest.fixture(scope="session")
def market(tmp_path_factory: pytest.TempPathFactory) -> Session:
    folder = tmp_path_factory.mktemp("market")
    return imported(market_tape(folder / "market.ndjson"), folder / "lake")


@pytest.fixture(scope="session")
def es(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Session:
    return imported(shared / "tapes" / "es_20231225.ndjson.zst", tmp_path_factory.mktemp("es"))
