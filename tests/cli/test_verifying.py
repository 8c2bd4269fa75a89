"""What `verify` says of sessions that are still open, and how sessions can be named."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from lake_builder import START_NS, record, recording, trade
from programs import called

import mdcapture as md

if TYPE_CHECKING:
    from pathlib import Path

DAY_NS = 86_400 * 10**9


def verified(root: Path, *sessions: str) -> list[dict[str, Any]]:
    result = called("verify", *sessions, "--lake", str(root), "--json")
    assert result.returncode == 0, result.stderr
    proof = json.loads(result.stdout)
    assert proof["ok"] is True
    rows: list[dict[str, Any]] = proof["sessions"]
    return rows


def test_an_open_session_is_proven_as_far_as_it_is_sealed_and_that_is_said(tmp_path: Path):
    with recording(tmp_path) as session:
        session.receive(trade(), trade())
        session.seal()
        session.receive(trade())
        (proof,) = verified(tmp_path)
        assert (proof["status"], proof["proven"], proof["waiting"], proof["problems"]) == ("open", 2, 1, [])
        text = called("verify", "--lake", str(tmp_path)).stdout
        assert "still open: 2 messages are proven, and 1 in the journal not yet" in text
        session.finish()
    (proof,) = verified(tmp_path)
    assert (proof["status"], proof["proven"], proof["waiting"]) == ("sealed", 3, 0)
    assert called("verify", "--lake", str(tmp_path)).stdout == f"{session.session_id}: ok\n"


@pytest.mark.parametrize(
    ("ref", "places"),
    [
        ("all", [0, 1, 2]),
        ("latest", [2]),
        ("20231226", [2]),
        ("session_20231226", [2]),
        ("20231225_230000", [0]),  # the whole name, though another begins with it
    ],
)
def test_sessions_by_name(tmp_path: Path, ref: str, places: list[int]):
    starts_ns = (START_NS, START_NS, START_NS + DAY_NS)
    ids = [record(tmp_path, trade(), start_ns=start_ns) for start_ns in starts_ns]
    assert [row["session_id"] for row in verified(tmp_path, ref)] == [ids[place] for place in places]


def test_a_beginning_that_two_have_is_refused_with_their_names(tmp_path: Path):
    ids = [record(tmp_path, trade(), start_ns=START_NS + day * DAY_NS) for day in range(2)]
    with pytest.raises(md.NotFoundError, match=f"{ids[0]}, {ids[1]}"):
        md.open_lake(tmp_path).session("202312")
