"""A market of two contracts, made once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import markets
import pytest

if TYPE_CHECKING:
    from mdcapture.analysis.result import Analysis
    from mdcapture.session import Session


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    return markets.market(tmp_path_factory.mktemp("lake"))


@pytest.fixture(scope="module")
def analysis(session: Session) -> Analysis:
    return session.analyze()
