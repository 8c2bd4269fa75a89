"""One function for many sessions: here, in threads, in processes, and on a cluster whose workers die."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest
from lake_builder import ES, START_NS, record, trade
from programs import LIMIT_S, environment, mdcapture
from tasks import DYING, dying, lots

import mdcapture as md
from mdcapture.errors import NotFoundError, UsageError
from mdcapture.interop.cluster import dask_workers, run_tasks, worker_processes

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).resolve().parent
DAY_NS = 86_400 * 10**9
MNQ = "CON.F.US.MNQ.Z26"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sessions of two contracts each."""
    lake = tmp_path_factory.mktemp("map") / "lake"
    for day in range(2):
        trades = [trade(one, volume=volume) for volume in range(day + 2) for one in (ES, MNQ)]
        record(lake, *trades, start_ns=START_NS + day * DAY_NS)
    return lake


@pytest.fixture
def lake(root: Path) -> md.Lake:
    return md.open_lake(root)


@pytest.fixture(scope="module")
def note(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the process that is to be killed says which it is."""
    return tmp_path_factory.mktemp("dying") / "note"


@pytest.fixture(scope="module")
def cluster(note: Path) -> Iterator[str]:
    """The address of a cluster of two worker processes."""
    path = os.pathsep.join((str(HERE), str(HERE.parent)))
    variables = environment(PYTHONPATH=path, POLARS_MAX_THREADS="1", **{DYING: str(note)})
    process = subprocess.Popen(
        [sys.executable, str(HERE / "local_cluster.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=variables,
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.communicate(timeout=LIMIT_S)  # closes its standard input


def expected(lake: md.Lake) -> list[tuple[str, str, int]]:
    rows = lake.sql("select session_id, contract_id, sum(volume) from trades group by all order by all").fetchall()
    return [(session_id, contract_id, int(volume)) for session_id, contract_id, volume in rows]


def results(lake: md.Lake, executor: Executor | None = None) -> list[tuple[str, str, int]]:
    return sorted(done.result() for done in lake.map(lots, executor=executor))


def test_each_session_and_contract_is_a_task_in_their_order(lake: md.Lake):
    tasks = [(done.session_id, done.contract_id) for done in lake.map(lots)]
    assert tasks == [(one.session_id, each.contract_id) for one in lake.sessions() for each in one.contracts]
    assert [done.value for done in lake.map(lots)] == [lots(lake.session(one), each) for one, each in tasks]
    assert results(lake) == expected(lake)


def test_threads_and_processes_give_the_same(lake: md.Lake):
    with ThreadPoolExecutor(3) as threads:
        assert results(lake, threads) == expected(lake)
    with worker_processes(2) as processes:
        assert results(lake, processes) == expected(lake)


def test_some_sessions_and_contracts_may_be_asked_for(lake: md.Lake):
    done = list(lake.map(lots, sessions=["latest", lake.sessions()[0].session_id], contracts=[MNQ]))
    assert [(one.session_id, one.contract_id) for one in done] == [
        (lake.sessions()[-1].session_id, MNQ),
        (lake.sessions()[0].session_id, MNQ),
    ]
    with pytest.raises(NotFoundError, match="no contract NQ here"):
        lake.map(lots, contracts=["NQ"])
    with pytest.raises(NotFoundError, match="no session 1999"):
        lake.map(lots, sessions=["1999"])


@pytest.mark.parametrize("count", [0, 2])
def test_a_task_that_fails_is_named_and_holds_up_no_other(lake: md.Lake, count: int):
    session = lake.session()
    tasks = [(session, ES), (session, "BAD"), (session, MNQ)]
    if count:
        with ThreadPoolExecutor(count) as threads:
            done = list(run_tasks(lots, tasks, threads))
    else:
        done = list(run_tasks(lots, tasks))
    assert [one.error is None for one in done] == [True, False, True]
    with pytest.raises(ValueError, match="no such luck") as failed:
        done[1].result()
    assert failed.value.__notes__ == [f"in {session.session_id}, BAD"]


def test_sessions_travel_by_their_place(lake: md.Lake):
    session = lake.session()
    session.sql("from trades").fetchall()  # a connection stays behind
    there = pickle.loads(pickle.dumps(session))  # noqa: S301  # our own
    assert there.trades().collect().equals(session.trades().collect())


def test_what_a_worker_that_is_killed_had_to_do_another_one_does(lake: md.Lake, cluster: str, note: Path):
    with dask_workers(cluster) as executor:
        tasks = lake.map(dying, executor=executor)
        with ThreadPoolExecutor(1) as reader:
            reading = reader.submit(lambda: sorted(done.result() for done in tasks))
            while not (note.exists() and note.read_text().endswith("\n")):
                time.sleep(0.01)
            os.kill(int(note.read_text()), signal.SIGKILL)
            assert reading.result(LIMIT_S) == expected(lake)


def test_a_cluster_and_this_machine_analyse_alike(root: Path, cluster: str):
    here = mdcapture("analyze", "--all", "--lake", str(root), "--json", POLARS_MAX_THREADS="1")
    there = mdcapture("analyze", "--all", "--cluster", cluster, "--lake", str(root), "--json")
    assert (here.returncode, there.returncode) == (0, 0), here.stderr + there.stderr
    assert here.stdout == there.stdout
    found = json.loads(here.stdout)
    assert [(one["session_id"], [each["contract_id"] for each in one["contracts"]]) for one in found] == [
        (one.session_id, [each.contract_id]) for one in md.open_lake(root).sessions() for each in one.contracts
    ]
    session = md.open_lake(root).sessions()[0]
    together = session.analyze().figures.filter(pl.col("metric") == "trades")
    assert together.to_dicts() == [row for one in found[:2] for row in one["figures"] if row["metric"] == "trades"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--cluster", "tcp://127.0.0.1:8786"), "--all"),
        (("session_1", "--all"), "exclude each other"),
        (("--all", "--contract", "NQ"), "no contract NQ"),
    ],
)
def test_what_makes_no_sense_is_said(root: Path, arguments: tuple[str, ...], said: str):
    result = mdcapture("analyze", *arguments, "--lake", str(root))
    assert (result.returncode in (2, 3), said in result.stderr) == (True, True), result.stderr


def test_a_cluster_that_is_not_there_is_said():
    with (
        pytest.raises(UsageError, match=r"no Dask scheduler answers at tcp://127.0.0.1:9"),
        dask_workers("tcp://127.0.0.1:9", connect_s=0.1),
    ):
        pass
