"""Processes that have romancal loaded, as many as the machine can feed.

Workers are forked from a fork server that imported romancal once (see
`roman_assets.preload`). A plain fork of the calling process would be unsafe, since
Dagster's run process has threads, and a fresh interpreter would import romancal for every worker.
"""

from __future__ import annotations

import gc
import importlib
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Generic, Self, TypeVar

from roman_assets.acceleration.installed import (
    ACCELERATION_VARIABLE,
    InstalledAccelerations,
    acceleration_wanted,
)
from roman_assets.errors import PassingFaultError, PlatformError

WORKERS_VARIABLE = "ROMAN_ASSETS_WORKERS"
"""Number of romancal processes. By default it follows from cores and memory."""
PRELOAD = "roman_assets.preload"

_CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
_USABLE_MEMORY = 0.9

Task = TypeVar("Task")
Value = TypeVar("Value")


@dataclass(frozen=True)
class Completion(Generic[Value]):
    """How one task ended: with a value or with an error, never both.

    Parameters
    ----------
    key
        Names the task.
    value
        What the function returned.
    error
        What it raised; `PassingFaultError` if its worker was lost.
    """

    key: str
    value: Value | None = None
    error: Exception | None = None


def machine_memory() -> int:
    """Return the bytes of memory this process and its children may use together."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in _CGROUP_LIMITS:
        try:
            limits.append(int(path.read_text()))
        except (OSError, ValueError):
            # absent, or "max": this control group sets no limit
            continue
    return min(limits)


def worker_count(memory_per_worker: int) -> int:
    """Return the number of workers that fit the machine's processors and memory.

    Parameters
    ----------
    memory_per_worker
        Peak memory of one worker, bytes.

    Returns
    -------
    int
        At least 1. The environment variable ``ROMAN_ASSETS_WORKERS`` replaces it.

    Raises
    ------
    PlatformError
        If that variable is not a positive integer.
    """
    chosen = os.environ.get(WORKERS_VARIABLE)
    if chosen is not None:
        if not chosen.isdecimal() or int(chosen) < 1:
            raise PlatformError(f"{WORKERS_VARIABLE}={chosen!r} is not a positive integer")
        return int(chosen)
    by_memory = int(machine_memory() * _USABLE_MEMORY) // memory_per_worker
    return max(1, min(len(os.sched_getaffinity(0)), by_memory))


def calibration_environment(context: str) -> dict[str, str]:
    """Return what a worker's environment needs so that romancal calibrates as decided here.

    Parameters
    ----------
    context
        CRDS pipeline context; a change of the operational one while workers run is not for them.

    Raises
    ------
    PlatformError
        If ``ROMAN_ASSETS_ACCELERATION`` is neither ``on`` nor ``off``.
    """
    settings = {name: value for name, value in os.environ.items() if name.startswith("CRDS_")}
    acceleration = "on" if acceleration_wanted() else "off"
    return settings | {"CRDS_CONTEXT": context, ACCELERATION_VARIABLE: acceleration}


class WorkerPool:
    """A fixed number of warm workers, each doing one task at a time.

    Every worker is an executor of its own, so that the loss of a worker (killed, out of memory)
    concerns the task it had in hand and no other; a new worker takes its place.

    Parameters
    ----------
    size
        Number of workers.
    environment
        Environment variables set in every worker, besides those the fork server started with.

    Examples
    --------
    >>> with WorkerPool(2) as pool:
    ...     for completion in pool.run(abs, {"a": -1, "b": 2}):
    ...         print(completion.key, completion.value)
    """

    def __init__(self, size: int, environment: Mapping[str, str] | None = None) -> None:
        if size < 1:
            raise ValueError(f"a pool needs at least one worker, not {size}")
        self.size = size
        self._environment = dict(environment or {})
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([PRELOAD])
        self._workers = [self._hire() for _ in range(size)]
        self._busy: set[int] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the workers; those still at work are killed."""
        for number in range(self.size):
            self._dismiss(number)

    def run(
        self, function: Callable[[Task], Value], tasks: Mapping[str, Task]
    ) -> Iterator[Completion[Value]]:
        """Do all tasks and give each completion as it happens.

        Parameters
        ----------
        function
            Importable by name; called with one task in a worker.
        tasks
            Picklable, by a key that names them.

        Yields
        ------
        Completion
            One for each task. An error of a task never stops the others.
        """
        waiting = deque(tasks.items())
        in_hand: dict[Future[Value], tuple[int, str]] = {}
        try:
            while waiting or in_hand:
                for number in set(range(self.size)) - self._busy:
                    if waiting:
                        key, task = waiting.popleft()
                        in_hand[self._submit(number, function, task)] = (number, key)
                if not in_hand:
                    raise RuntimeError("all workers of this pool are busy with another run")
                for future in wait(in_hand, return_when=FIRST_COMPLETED).done:
                    number, key = in_hand.pop(future)
                    error = future.exception()
                    if isinstance(error, BrokenProcessPool):
                        self._replace(number)
                    self._busy.discard(number)
                    if error is None:
                        yield Completion(key, value=future.result())
                    else:
                        yield Completion(key, error=_as_exception(key, error))
        finally:
            for number, _ in in_hand.values():
                self._replace(number)

    def _hire(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            max_workers=1,
            mp_context=self._context,
            initializer=_begin,
            initargs=(self._environment,),
        )

    def _dismiss(self, number: int) -> None:
        if number in self._busy:
            _kill(self._workers[number])
        self._workers[number].shutdown(wait=True, cancel_futures=True)
        self._busy.discard(number)

    def _replace(self, number: int) -> None:
        self._dismiss(number)
        self._workers[number] = self._hire()

    def _submit(self, number: int, function: Callable[[Task], Value], task: Task) -> Future[Value]:
        with _without_main_module():
            try:
                future = self._workers[number].submit(function, task)
            except BrokenProcessPool:
                # it was lost while idle: no task suffers
                self._replace(number)
                future = self._workers[number].submit(function, task)
        self._busy.add(number)
        return future


@contextmanager
def _without_main_module() -> Iterator[None]:
    """Keep new workers from running the caller's script, as multiprocessing has them do.

    Tasks are importable, so workers need nothing of it: it would cost each of them its imports,
    and a script that calls a pipeline without asking for its own name would start itself again.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _begin(environment: Mapping[str, str]) -> None:
    """Prepare a worker: environment, no orphan, warm even where the fork server was not."""
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    accelerations: InstalledAccelerations = importlib.import_module(PRELOAD).ACCELERATIONS
    if acceleration_wanted():
        accelerations.install()
    else:
        accelerations.remove()
    if gc.get_freeze_count() == 0:
        gc.freeze()


def _end_with_parent() -> None:
    # an executor's worker would wait for ever for the next task of a parent that was killed
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _kill(worker: ProcessPoolExecutor) -> None:
    for process in list((worker._processes or {}).values()):
        process.kill()


def _as_exception(key: str, error: BaseException) -> Exception:
    """Turn what ended a task into an error that ``except Exception`` can catch."""
    if isinstance(error, BrokenProcessPool):
        return PassingFaultError(
            f"lost worker: the process that worked on {key} was killed, perhaps for lack of memory"
        )
    if isinstance(error, Exception):
        return error
    return PlatformError(f"{key}: the worker was told to exit: {error!r}")
