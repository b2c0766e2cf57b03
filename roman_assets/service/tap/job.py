"""Asynchronous queries (UWS 1.1): kept by this process, answers in a temporary directory."""

from __future__ import annotations

import secrets
import shutil
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

import duckdb

from roman_assets.errors import PlatformError
from roman_assets.service.request_error import BusyError, NotFoundError, RequestError, UsageError
from roman_assets.service.vo.parameters import Parameters

_AT_ONCE = 2
"""Jobs that run side by side; others are queued, and synchronous queries go on meanwhile."""


class Phase(StrEnum):
    """Phases of a job, in UWS's words."""

    PENDING = "PENDING"
    QUEUED = "QUEUED"
    EXECUTING = "EXECUTING"
    COMPLETED = "COMPLETED"
    ERROR = "ERROR"
    ABORTED = "ABORTED"

    @property
    def is_active(self) -> bool:
        """Whether the phase will change by itself."""
        return self in (Phase.QUEUED, Phase.EXECUTING)


@dataclass
class Job:
    """One query with what became of it; `Jobs` changes it under a lock."""

    id: str
    parameters: Parameters
    created: datetime
    seconds: float
    destruction: datetime
    path: Path
    run_id: str | None = None
    phase: Phase = Phase.PENDING
    started: datetime | None = None
    ended: datetime | None = None
    error: str | None = None
    media_type: str = ""
    cursor: duckdb.DuckDBPyConnection | None = field(default=None, repr=False)


Answer = Callable[[Job, BinaryIO, Callable[[duckdb.DuckDBPyConnection], None]], str]
"""Writes the answer of a job to a stream, tells the cursor that it uses; returns a media type."""


class Jobs:
    """The jobs of one service.

    Parameters
    ----------
    most
        Jobs that are kept.
    most_bytes
        Of all answers that are kept.
    seconds
        Longest execution.
    lifetime
        How long a job is kept at most.
    """

    def __init__(self, most: int, most_bytes: int, seconds: float, lifetime: timedelta) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self.seconds = seconds
        self.lifetime = lifetime
        self._lock = threading.Lock()
        self._jobs: dict[str, Job] = {}
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="job")
        self._directory: Path | None = None

    def create(self, parameters: Parameters) -> Job:
        """Create a job that waits to be started.

        Raises
        ------
        BusyError
            If there are too many that are not finished.
        """
        now = datetime.now(UTC)
        identifier = secrets.token_hex(12)
        with self._lock:
            self._make_room(now)
            if self._directory is None:
                self._directory = Path(tempfile.mkdtemp(prefix="roman-assets-jobs-"))
            job = Job(
                identifier,
                parameters,
                now,
                self.seconds,
                now + self.lifetime,
                self._directory / identifier,
                parameters.one("RUNID"),
            )
            self._jobs[identifier] = job
            return job

    def get(self, identifier: str) -> Job:
        """Return a job.

        Raises
        ------
        NotFoundError
            If there is none, or it is over.
        """
        with self._lock:
            job = self._jobs.get(identifier)
            if job is not None and job.destruction <= datetime.now(UTC):
                self._remove(job)
                job = None
        if job is None:
            raise NotFoundError("there is no such job")
        return job

    def start(self, job: Job, answer: Answer) -> None:
        """Queue a job for execution.

        Raises
        ------
        UsageError
            If it was started before.
        """
        with self._lock:
            if job.phase is not Phase.PENDING:
                raise UsageError(f"the job is {job.phase}, and cannot be started")
            job.phase = Phase.QUEUED
        self._threads.submit(self._run, job, answer)

    def abort(self, job: Job) -> None:
        """End a job without an answer."""
        with self._lock:
            if job.phase.is_active or job.phase is Phase.PENDING:
                job.phase, job.ended = Phase.ABORTED, datetime.now(UTC)
            if job.cursor is not None:
                job.cursor.interrupt()

    def delete(self, job: Job) -> None:
        """Abort and forget a job."""
        self.abort(job)
        with self._lock:
            self._remove(job)

    def close(self) -> None:
        """Abort all jobs and remove all answers."""
        for job in list(self._jobs.values()):
            self.abort(job)
        self._threads.shutdown(cancel_futures=True)
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)

    def _run(self, job: Job, answer: Answer) -> None:
        with self._lock:
            if job.phase is not Phase.QUEUED:
                return
            job.phase, job.started = Phase.EXECUTING, datetime.now(UTC)

        def runs_on(cursor: duckdb.DuckDBPyConnection) -> None:
            with self._lock:
                job.cursor = cursor
                if job.phase is Phase.ABORTED:
                    raise UsageError("the job was aborted")

        error: str | None = "the service failed; its operators can see why"
        try:
            with job.path.open("wb") as stream:
                job.media_type = answer(job, stream, runs_on)
            error = None
        except RequestError as refused:
            error = str(refused)
        except PlatformError:
            error = "the archive cannot be read at this moment; try again later"
        finally:
            with self._lock:
                job.cursor, job.ended = None, datetime.now(UTC)
                if job.phase is Phase.EXECUTING:
                    job.phase = Phase.COMPLETED if error is None else Phase.ERROR
                    job.error = error
                if job.phase is not Phase.COMPLETED or job.id not in self._jobs:
                    job.path.unlink(missing_ok=True)

    def _make_room(self, now: datetime) -> None:
        for job in [job for job in self._jobs.values() if job.destruction <= now]:
            self._remove(job)
        finished = [job for job in self._jobs.values() if not job.phase.is_active]
        size = sum(job.path.stat().st_size for job in finished if job.path.exists())
        for job in finished:
            if len(self._jobs) < self._most and size <= self._most_bytes:
                return
            size -= job.path.stat().st_size if job.path.exists() else 0
            self._remove(job)
        if len(self._jobs) >= self._most:
            raise BusyError("too many queries are waiting; try again later")

    def _remove(self, job: Job) -> None:
        self._jobs.pop(job.id, None)
        if job.cursor is not None:
            job.cursor.interrupt()
        job.path.unlink(missing_ok=True)
