"""One function for many sessions and contracts, on the processors of this machine or of many.

    (session, contract), … ──▶ one task each ──▶ an executor: processes here, a Dask cluster there ──▶ results in order

The function is the same wherever it runs; what travels is its name, the lake's place, and what it returns. So each
worker must have mdcapture and the function, and reach the lake: a folder that all of them see, or object storage.
"""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Generic, TypeVar, cast

from mdcapture.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from concurrent.futures import Future

    from mdcapture.session import Session

__all__ = ["Done", "dask_workers", "run_tasks", "worker_processes"]

T = TypeVar("T")

_RETRIES: Final = 3
"""So often Dask gives a task that raised to a worker again; one whose worker died it gives to another in any case."""

_THREADS: Final = {"POLARS_MAX_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"}
"""How libraries are told how many threads they may use: processes that share a machine share it fairly, and sums of
floating-point numbers come out the same to the last digit where these are the same."""


@dataclass(frozen=True)
class Done(Generic[T]):
    """A task that has ended.

    Attributes:
        session_id: Its session.
        contract_id: Its contract.
        value: What the function returned; None where it raised.
        error: What it raised, with a note that names the task.
    """

    session_id: str
    contract_id: str
    value: T | None
    error: Exception | None

    def result(self) -> T:
        """What the function returned, or raise what it raised."""
        if self.error is not None:
            raise self.error
        return cast("T", self.value)


def run_tasks(
    function: Callable[[Session, str], T], tasks: Iterable[tuple[Session, str]], executor: Executor | None = None
) -> Iterator[Done[T]]:
    """Call a function for sessions and contracts.

    Args:
        function: Gets a session and the id of a contract; a function of a module, where it is to travel.
        tasks: What to call it with.
        executor: Who calls it, all at once; without one, it is called here, one after the other.

    Returns:
        What has ended, in the order of the tasks; one that raised does not hold up the others.
    """
    if executor is None:
        return (_done(task, partial(function, *task)) for task in tasks)
    return _results({task: executor.submit(function, *task) for task in tasks})


def _results(futures: Mapping[tuple[Session, str], Future[T]]) -> Iterator[Done[T]]:
    try:
        for task, future in futures.items():
            yield _done(task, future.result)
    finally:
        for future in futures.values():
            future.cancel()


def _done(task: tuple[Session, str], call: Callable[[], T]) -> Done[T]:
    session_id, contract_id = task[0].session_id, task[1]
    try:
        return Done(session_id, contract_id, call(), None)
    except Exception as error:  # noqa: BLE001  # it is one of the results, and says whose
        error.add_note(f"in {session_id}, {contract_id}")
        return Done(session_id, contract_id, None, error)


@contextmanager
def worker_processes(count: int | None = None) -> Iterator[Executor]:
    """Processes of this machine that share its processors, by default one for each."""
    cores = os.cpu_count() or 1
    count = count or cores
    given = {name: os.environ[name] for name in _THREADS if name in os.environ}
    os.environ.update(dict.fromkeys(_THREADS, str(max(1, cores // count))) | given)
    try:
        with ProcessPoolExecutor(count, multiprocessing.get_context("spawn")) as executor:
            yield executor
    finally:
        for name in _THREADS - given.keys():
            del os.environ[name]


@contextmanager
def dask_workers(address: str, *, connect_s: float = 5) -> Iterator[Executor]:
    """The workers of a Dask cluster; what one that dies had to do, another one does.

    Args:
        address: The scheduler's, as `tcp://host:8786`.
        connect_s: How long to wait for it to answer.

    Raises:
        UsageError: Dask is not installed, or no scheduler answers there.
    """
    try:
        from distributed import Client  # noqa: PLC0415  # an extra, and only this needs it
    except ImportError as error:
        raise UsageError("a cluster needs Dask: pip install 'mdcapture[cluster]'") from error
    try:
        client = Client(address, timeout=connect_s, set_as_default=False)
    except (OSError, ValueError) as error:
        raise UsageError(f"no Dask scheduler answers at {address}: {error}") from error
    with client:
        yield client.get_executor(pure=False, retries=_RETRIES)
