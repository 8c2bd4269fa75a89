"""What people are shown of sessions: times that can be read, and of the incidents those that matter."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from lake_builder import MS, START_NS, quote, recording, trade
from programs import mdcapture, simulator

from mdcapture.lake.schema import IncidentKind
from mdcapture.lake.seal import recover

if TYPE_CHECKING:
    from pathlib import Path

HOUR_NS = 3600 * 1000 * MS


def test_sessions_have_a_start_and_a_duration_for_people_and_nanoseconds_for_programs(tmp_path: Path):
    with recording(tmp_path) as session:
        for kind in (IncidentKind.CONNECTED, IncidentKind.SUBSCRIBING, IncidentKind.SUBSCRIBED, IncidentKind.LIMIT):
            session.note(kind)
        session.receive(quote(bestBid=1.0), trade())
        session.receive(trade(), step_ns=2 * HOUR_NS)
    recover(tmp_path)
    header, line = mdcapture("sessions", "--lake", str(tmp_path)).stdout.splitlines()
    assert "start (UTC)" in header
    assert "2023-12-25 23:00:00" in line
    assert "2:00:00" in line
    troubles = header.split().index("gaps")
    assert line.split()[troubles : troubles + 2] == ["2", "1"]  # a gap of each stream, since the recorder died; a limit
    (row,) = json.loads(mdcapture("sessions", "--lake", str(tmp_path), "--json").stdout)
    assert (row["start_ns"], row["end_ns"]) == (START_NS + MS, START_NS + MS + 2 * HOUR_NS)
    assert row["incidents"] == 6


def test_a_flawless_capture_tells_of_no_trouble_and_ends_connected(tmp_path: Path):
    with simulator("--contract", "MNQ", "--rate", "200") as gateway:
        options = ("--gateway", gateway["api"], "--lake", str(tmp_path), "--contract", "MNQ", "--duration", "1s")
        result = mdcapture("capture", *options, "--stats", "json", "--set", "stats_s=0.05")
    assert result.stdout.endswith(", 0 gaps, 0 other troubles\n")
    figures = [json.loads(line) for line in result.stderr.splitlines()]
    connected = [one["connected"] for one in figures]
    assert connected == sorted(connected)  # and not lost again while what has arrived is sealed
    assert connected[-1]
