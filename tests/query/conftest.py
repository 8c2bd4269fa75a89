"""The real tape as a lake."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from lake_builder import ES

from mdcapture.gateway.tape import read_tape
from mdcapture.lake.manifest import Contract
from mdcapture.lake.seal import finish
from mdcapture.lake.writer import open_session

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def tape_lake(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake of one sealed session: an hour of the E-mini future."""
    root = tmp_path_factory.mktemp("tape") / "lake"
    messages = list(read_tape(shared / "tapes" / "es_20231225.ndjson.zst"))
    with open_session(root, messages[0][0], contracts=[Contract(contract_id=ES, tick_size=0.25)]) as session:
        for recv_ns, record in messages:
            session.journal.append(recv_ns, 1, [record])
        session.journal.close()
        finish(root, session.session_id, "sealed")
    return root
