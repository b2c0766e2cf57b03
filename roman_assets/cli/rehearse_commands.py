"""The command that tries a survey plan out beforehand: ``rehearse``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
import yaml
from rich.console import Console

from roman_assets.data_root import DataRoot
from roman_assets.products.observation import DETECTORS, Survey

if TYPE_CHECKING:
    from roman_assets.rehearsal.fault import FaultRates
    from roman_assets.rehearsal.planned_work import Observations
    from roman_assets.rehearsal.processing import ProcessingTimes
    from roman_assets.rehearsal.run_queue import Platform

_MEGABYTE = 1e6


class TimesSource(StrEnum):
    """Where processing times come from."""

    AUTO = "auto"
    MEASURED = "measured"
    TABLE = "table"


def rehearse(
    plan_table: Annotated[
        Path,
        typer.Argument(
            metavar="PLAN",
            exists=True,
            dir_okay=False,
            help="Survey plan (ECSV with the columns of APT's .sim.ecsv).",
        ),
    ],
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="romancal processes in all; default: the fewest that suffice."),
    ] = None,
    workers_per_machine: Annotated[
        int, typer.Option(min=1, help="Of them on one machine, which does one step at a time.")
    ] = 2,
    concurrent_runs: Annotated[
        int | None, typer.Option(min=1, help="Runs at once; default: one more than machines.")
    ] = None,
    search: Annotated[
        bool, typer.Option(help="Search for the fewest workers with which no deadline is missed.")
    ] = True,
    survey: Annotated[Survey, typer.Option(case_sensitive=False)] = Survey.GAS,
    program: Annotated[int, typer.Option(min=1, max=99999)] = 1,
    visits: Annotated[int | None, typer.Option(min=1, help="Only the first so many.")] = None,
    repeat: Annotated[
        int, typer.Option(min=1, help="The plan so many times, one after the other.")
    ] = 1,
    detectors: Annotated[
        str, typer.Option(metavar="WFInn,...", help="Detectors to read out, or all.")
    ] = "all",
    start: Annotated[
        datetime | None, typer.Option(help="Of the first exposure, UTC; default: 2027-06-01.")
    ] = None,
    faults: Annotated[
        float, typer.Option(min=0, max=1, help="The fraction of everything that goes wrong.")
    ] = 0.0,
    fault: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=RATE",
            help="Another fraction for one fault, say lost_contacts=0.1; may be repeated.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Decides what goes wrong.")] = 0,
    contacts: Annotated[
        tuple[float, float],
        typer.Option(metavar="EVERY LENGTH", help="Contacts with the ground, hours."),
    ] = (12.0, 6.0),
    downlink_rate: Annotated[float, typer.Option(help="MB/s during a contact.")] = 62.5,
    ancillary: Annotated[
        tuple[float, float],
        typer.Option(
            metavar="USUAL LATE",
            help="When ancillary data follow a visit, and how much later late ones do; hours.",
        ),
    ] = (2.0, 24.0),
    times: Annotated[
        TimesSource,
        typer.Option(
            help="Processing times as this installation measured them or as documented; auto "
            "takes the former where there are any.",
        ),
    ] = TimesSource.AUTO,
    report: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Write a picture and the JSON to this directory."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Replay a survey plan on a simulated clock and print which deadlines it would keep.

    Ledger, visit policy and run priorities are those of the platform. With faults some deadlines
    are missed whatever the number of workers; enough are those with which none is missed for want
    of workers.

    [dim]roman-assets rehearse survey_plan.sim.ecsv --faults 0.05 --report rehearsal/[/dim]
    """
    from roman_assets.cli.rehearsal_report import RehearsalReport
    from roman_assets.rehearsal.ground import Downlink
    from roman_assets.rehearsal.rehearsal import Scenario
    from roman_assets.settings.automation_settings import visit_reserve
    from roman_assets.settings.deadline_settings import deadlines_of

    if workers is None and not search:
        raise typer.BadParameter("--no-search needs --workers")
    began = time.monotonic()
    status = Console(stderr=True).status
    root = DataRoot.from_environment()
    rates = _rates(faults, fault or [])
    downlink = Downlink(
        contact_interval=_hours(contacts[0]),
        contact_length=_hours(contacts[1]),
        rate=downlink_rate * _MEGABYTE,
        ancillary_delay=_hours(ancillary[0]),
        late_ancillary_delay=_hours(ancillary[1]),
    )
    platform = _platform(workers or workers_per_machine, workers_per_machine, concurrent_runs)
    with status("reading the plan"):
        observations = _observations(plan_table, program, survey, start, detectors, visits)
        scenario = Scenario(
            observations if repeat == 1 else observations.repeated(repeat),
            rates,
            seed,
            downlink,
            _times(root, times),
            deadlines_of(root),
            visit_reserve(),
        )
    sizing = None
    if search:
        with status("searching for the fewest workers"):
            sizing = scenario.fewest_workers(platform)
        if workers is None:
            platform = replace(platform, workers=sizing.machines * workers_per_machine)
    with status(f"rehearsing with {platform.workers} workers"):
        found = RehearsalReport.of(scenario.rehearse(platform), sizing, report)
    found.print(as_json, time.monotonic() - began)


def _hours(number: float) -> timedelta:
    return timedelta(hours=number)


def _rates(common: float, single: Sequence[str]) -> FaultRates:
    from roman_assets.rehearsal.fault import FaultRates

    rates: dict[str, float] = {}
    for text in single:
        name, _, value = text.partition("=")
        if name not in FaultRates.names():
            raise typer.BadParameter(
                f"--fault {text}: {name!r} is not one of {', '.join(FaultRates.names())}"
            )
        try:
            rates[name] = float(value)
        except ValueError:
            raise typer.BadParameter(f"--fault {text}: {value!r} is not a number") from None
    return replace(FaultRates.all_at(common), **rates)


def _observations(
    path: Path,
    program: int,
    survey: Survey,
    start: datetime | None,
    detectors: str,
    visits: int | None,
) -> Observations:
    from roman_assets.rehearsal.planned_work import Observations
    from roman_assets.simulation.telescope.coverage import skycells_of_exposures
    from roman_assets.simulation.telescope.survey_plan import DEFAULT_START, VisitPlan

    plan = VisitPlan.read(
        path,
        program=program,
        survey=survey,
        start=DEFAULT_START if start is None else start.replace(tzinfo=UTC),
        detectors=DETECTORS if detectors == "all" else tuple(detectors.upper().split(",")),
    )
    if visits is not None:
        plan = plan.head(visits)
    return Observations.of(plan.exposures, skycells_of_exposures(plan.exposures))


def _platform(workers: int, workers_per_machine: int, concurrent_runs: int | None) -> Platform:
    """Describe the platform with the retries that are configured for the real one."""
    from roman_assets.defs.lib.dagster_home import INSTANCE_FILE, project_directory
    from roman_assets.defs.lib.partition_work import RETRY_POLICY
    from roman_assets.rehearsal.run_queue import Platform

    instance = yaml.safe_load((project_directory() / INSTANCE_FILE).read_text())
    policy = RETRY_POLICY._replace(jitter=None)
    waits = (policy.calculate_delay(retry + 1) for retry in range(policy.max_retries))
    return Platform(
        workers,
        workers_per_machine,
        concurrent_runs,
        tuple(timedelta(seconds=wait) for wait in waits),
        instance["run_retries"]["max_retries"],
        timedelta(seconds=instance["run_monitoring"]["poll_interval_seconds"]),
    )


def _times(root: DataRoot, source: TimesSource) -> ProcessingTimes:
    from roman_assets.errors import BadInputError
    from roman_assets.publishing.workers import worker_count
    from roman_assets.rehearsal.processing import WHOLE_DETECTORS, measured_times

    if source is TimesSource.TABLE:
        return WHOLE_DETECTORS
    measured = measured_times(root, worker_count(1))
    if measured is None and source is TimesSource.MEASURED:
        raise BadInputError(
            root.path, "registry", "not every step has been measured here",
            "let the platform make an exposure and a visit, or give --times table",
        )  # fmt: skip
    return WHOLE_DETECTORS if measured is None else measured
