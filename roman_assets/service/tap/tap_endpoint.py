"""TAP's endpoints: synchronous queries, descriptions, and asynchronous jobs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import UTC, datetime
from typing import BinaryIO

import anyio
import duckdb
from starlette.requests import Request
from starlette.responses import (
    FileResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
)
from starlette.routing import Route

from roman_assets.service.archive_service import Service, service_of
from roman_assets.service.request_error import NotFoundError, UsageError
from roman_assets.service.tap.job import Answer, Job, Jobs, Phase
from roman_assets.service.tap.tap_query import tap_request, write_answer
from roman_assets.service.tap.tap_schema import SCHEMAS, foreign_keys, tap_tables
from roman_assets.service.template import iso, render
from roman_assets.service.vo.answer import XML, answering, availability, spooled, streamed
from roman_assets.service.vo.parameters import Parameters, parameters_of
from roman_assets.service.vo.votable import MEDIA_TYPE, error_votable

_LONGEST_WAIT = 60.0
_LOOK_SECONDS = 0.1


@answering
async def sync(request: Request) -> Response:
    """Answer a query at once."""
    service = service_of(request)
    parameters = await parameters_of(request)
    url = service.url(request, "")
    media_type, stream = await service.run(functools.partial(_answered, service, parameters, url))
    return streamed(stream, media_type)


def _answered(service: Service, parameters: Parameters, url: str) -> tuple[str, BinaryIO]:
    asked = tap_request(parameters, service, url, service.settings.seconds)
    stream = spooled(functools.partial(write_answer, service, asked))
    return asked.format.media_type, stream


async def capabilities(request: Request) -> Response:
    """Answer with what the service can do."""
    service = service_of(request)
    settings = service.settings
    values = {
        "url": service.url(request, "tap"),
        "geometry": ("POINT", "CIRCLE", "BOX", "POLYGON", "REGION", "CONTAINS", "INTERSECTS",
                     "DISTANCE", "COORD1", "COORD2", "AREA"),
        "retention": int(settings.job_hours * 3600),
        "duration": int(settings.job_seconds),
        "rows": settings.rows,
        "upload": settings.body_kib << 10,
    }  # fmt: skip
    return Response(render("tap_capabilities.xml", values), media_type=XML)


@answering
async def tables(request: Request) -> Response:
    """Answer with the tables, or with one of them."""
    name = request.path_params.get("name")
    found = [table for table in tap_tables() if table.full_name.lower() == (name or "").lower()]
    if name is not None and not found:
        raise NotFoundError("there is no such table")
    values = {
        "only": found[0] if found else None,
        "schemas": SCHEMAS,
        "tables": tap_tables(),
        "keys": foreign_keys(),
        "columns": request.query_params.get("detail", "max") != "min",
    }
    return Response(render("tables.xml", values), media_type=XML)


async def examples(request: Request) -> Response:
    """Answer with queries to begin with."""
    return Response(
        render("examples.html", {"examples": EXAMPLES}), media_type="application/xhtml+xml"
    )


EXAMPLES = (
    (
        "around",
        "Calibrated images that cover a place",
        "SELECT obs_publisher_did, access_url, t_min FROM ivoa.ObsCore\n"
        "WHERE calib_level = 2 AND dataproduct_type = 'image'\n"
        "AND 1 = INTERSECTS(s_region, CIRCLE('ICRS', 270.0, 65.8, 0.05)) ORDER BY t_min",
    ),
    (
        "newest",
        "What became available last",
        "SELECT TOP 20 name, committed_at FROM roman.products ORDER BY committed_at DESC",
    ),
    (
        "quality",
        "Images with few good pixels",
        "SELECT p.name, w.good_pixel_fraction FROM roman.products AS p\n"
        "JOIN roman.WFIExposure AS w ON p.name = w.name\n"
        "WHERE w.good_pixel_fraction < 0.9 ORDER BY good_pixel_fraction",
    ),
)
"""Name, title and text."""


# Asynchronous jobs.


def jobs_of(request: Request) -> Jobs:
    """Return the jobs of the service that a request is for."""
    jobs: Jobs = request.app.state.jobs
    return jobs


def _job(request: Request) -> Job:
    return jobs_of(request).get(request.path_params["job"])


def _job_url(request: Request, job: Job | None) -> str:
    path = "tap/async" if job is None else f"tap/async/{job.id}"
    return service_of(request).url(request, path)


def _answer(request: Request) -> Answer:
    service, url = service_of(request), service_of(request).url(request, "")

    def answer(
        job: Job, stream: BinaryIO, started: Callable[[duckdb.DuckDBPyConnection], None]
    ) -> str:
        asked = tap_request(job.parameters, service, url, job.seconds)
        write_answer(service, asked, stream, started)
        return asked.format.media_type

    return answer


@answering
async def job_list(request: Request) -> Response:
    """Create a job; the list is empty, since anyone who knows a job's address may read it."""
    if request.method == "GET":
        return Response(render("jobs.xml", {}), media_type=XML)
    parameters = await parameters_of(request)
    job = jobs_of(request).create(parameters)
    if (parameters.one("PHASE") or "").upper() == "RUN":
        jobs_of(request).start(job, _answer(request))
    return RedirectResponse(_job_url(request, job), 303)


@answering
async def one_job(request: Request) -> Response:
    """Answer with a job, change its parameters, or delete it."""
    job = _job(request)
    if request.method == "POST":
        parameters = await parameters_of(request)
        if (parameters.one("ACTION") or "").upper() == "DELETE":
            jobs_of(request).delete(job)
            return RedirectResponse(_job_url(request, None), 303)
        _change(job, parameters)
        return RedirectResponse(_job_url(request, job), 303)
    if request.method == "DELETE":
        jobs_of(request).delete(job)
        return RedirectResponse(_job_url(request, None), 303)
    await _wait(request, job)
    values = {"job": job, "url": _job_url(request, job), "parameters": _listed(job)}
    return Response(render("job.xml", values), media_type=XML)


async def _wait(request: Request, job: Job) -> None:
    given = {name.upper(): value for name, value in request.query_params.items()}
    if "WAIT" not in given:
        return
    try:
        seconds = float(given["WAIT"])
    except ValueError as error:
        raise UsageError("WAIT: give a number of seconds") from error
    seconds = _LONGEST_WAIT if seconds < 0 else min(seconds, _LONGEST_WAIT)
    phase = Phase.__members__.get(given.get("PHASE", "").upper(), job.phase)
    with anyio.move_on_after(seconds):
        while job.phase is phase and job.phase.is_active:
            await anyio.sleep(_LOOK_SECONDS)


def _change(job: Job, parameters: Parameters) -> None:
    if job.phase is not Phase.PENDING:
        raise UsageError(f"the job is {job.phase}: its parameters cannot be changed")
    job.parameters = Parameters(
        {**job.parameters.values, **parameters.values},
        {**job.parameters.files, **parameters.files},
    )


def _listed(job: Job) -> list[tuple[str, str]]:
    return [(name, value) for name, values in job.parameters.values.items() for value in values]


@answering
async def phase(request: Request) -> Response:
    """Answer with the phase of a job, or start or abort it."""
    job = _job(request)
    if request.method == "GET":
        return PlainTextResponse(job.phase)
    wanted = ((await parameters_of(request)).one("PHASE") or "").upper()
    if wanted == "RUN":
        jobs_of(request).start(job, _answer(request))
    elif wanted == "ABORT":
        jobs_of(request).abort(job)
    else:
        raise UsageError("PHASE: give RUN or ABORT")
    return RedirectResponse(_job_url(request, job), 303)


@answering
async def execution_duration(request: Request) -> Response:
    """Answer with, or set, the seconds that a job may run."""
    job = _job(request)
    if request.method == "POST":
        given = (await parameters_of(request)).one("EXECUTIONDURATION") or ""
        try:
            wanted = float(given)
        except ValueError as error:
            raise UsageError("EXECUTIONDURATION: give a number of seconds") from error
        longest = jobs_of(request).seconds
        job.seconds = min(wanted, longest) if wanted > 0 else longest
        return RedirectResponse(_job_url(request, job), 303)
    return PlainTextResponse(f"{job.seconds:.0f}")


@answering
async def destruction(request: Request) -> Response:
    """Answer with, or set, the time when a job is forgotten."""
    job = _job(request)
    if request.method == "POST":
        given = (await parameters_of(request)).one("DESTRUCTION") or ""
        try:
            wanted = datetime.fromisoformat(given)
        except ValueError as error:
            raise UsageError("DESTRUCTION: give a time in ISO 8601") from error
        wanted = wanted.replace(tzinfo=UTC) if wanted.tzinfo is None else wanted
        job.destruction = min(wanted, datetime.now(UTC) + jobs_of(request).lifetime)
        return RedirectResponse(_job_url(request, job), 303)
    return PlainTextResponse(iso(job.destruction))


@answering
async def job_detail(request: Request) -> Response:
    """Answer with one of the other facts of a job."""
    job, name = _job(request), request.path_params["fact"]
    if name in ("owner", "quote"):
        return PlainTextResponse("")
    if name == "parameters":
        if request.method == "POST":
            _change(job, await parameters_of(request))
            return RedirectResponse(_job_url(request, job), 303)
        return Response(render("job_parameters.xml", {"parameters": _listed(job)}), media_type=XML)
    if name == "results":
        values = {"job": job, "url": _job_url(request, job)}
        return Response(render("job_results.xml", values), media_type=XML)
    if name == "error" and job.phase is Phase.ERROR:
        return Response(error_votable(job.error or ""), media_type=MEDIA_TYPE)
    raise NotFoundError("the job has no such thing")


@answering
async def result(request: Request) -> Response:
    """Answer with the answer to a job's query."""
    job = _job(request)
    if job.phase is not Phase.COMPLETED:
        raise NotFoundError(f"the job is {job.phase}: there is no result")
    return FileResponse(job.path, media_type=job.media_type)


_READ, _POST = ["GET"], ["GET", "POST"]
TAP_ROUTES = (
    Route("/tap/sync", sync, methods=_POST),
    Route("/tap/capabilities", capabilities),
    Route("/tap/availability", availability),
    Route("/tap/tables", tables),
    Route("/tap/tables/{name}", tables),
    Route("/tap/examples", examples),
    Route("/tap/async", job_list, methods=_POST),
    Route("/tap/async/{job}", one_job, methods=["GET", "POST", "DELETE"]),
    Route("/tap/async/{job}/phase", phase, methods=_POST),
    Route("/tap/async/{job}/executionduration", execution_duration, methods=_POST),
    Route("/tap/async/{job}/destruction", destruction, methods=_POST),
    Route("/tap/async/{job}/results/result", result),
    Route("/tap/async/{job}/{fact}", job_detail, methods=_POST),
)
