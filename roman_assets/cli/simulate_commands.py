"""The commands that stand in for telescope and CRDS: ``simulate``, ``plan``, ``new-reference``."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from roman_assets.data_root import DataRoot
from roman_assets.products.observation import DETECTORS, ExposureType, OpticalElement, Survey

if TYPE_CHECKING:
    from roman_assets.simulation.telescope.downlink import DownlinkDelivery, Loss
    from roman_assets.simulation.telescope.survey_plan import VisitPlan

HOURS_BEFORE_NOW = 6
"""How long ago a simulated night began, unless said otherwise."""

SEED = 20270601
"""Decides the simulated sky, unless said otherwise; one installation has one sky."""


def downlink(
    root: DataRoot,
    plan: VisitPlan,
    *,
    seed: int,
    window: int | None,
    delivery: DownlinkDelivery | None = None,
    definitive_ephemeris: bool = False,
    lost: Collection[int] = (),
) -> None:
    """Observe a plan and land its packets and ancillary files, with progress bars."""
    from roman_assets.simulation.telescope.observing import observe

    columns = (TextColumn("{task.description:<44}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task("observing", total=None)
        observe(
            plan,
            root,
            seed=seed,
            window=window,
            delivery=delivery,
            definitive_ephemeris=definitive_ephemeris,
            lost=lost,
            progress=lambda work, done, total: progress.update(
                task, description=work, completed=done, total=total
            ),
        )


def simulate(
    plan_table: Annotated[
        Path | None,
        typer.Option(
            "--plan",
            exists=True,
            dir_okay=False,
            help="Survey plan (ECSV with the columns of APT's .sim.ecsv); without it, the options "
            "below describe the visits.",
        ),
    ] = None,
    survey: Annotated[Survey, typer.Option(case_sensitive=False)] = Survey.HLWAS,
    program: Annotated[int, typer.Option(min=1, max=99999)] = 1,
    optical_element: Annotated[
        OpticalElement, typer.Option("--filter", case_sensitive=False)
    ] = OpticalElement.F158,
    exposure_type: Annotated[
        ExposureType | None,
        typer.Option(case_sensitive=False, help="Default: what the optical element is used for."),
    ] = None,
    dither: Annotated[
        str, typer.Option(help="NONE, SUB2, SUB4, LINEGAP2 or BOXGAP4: one exposure an offset.")
    ] = "SUB2",
    position: Annotated[
        tuple[float, float, float],
        typer.Option(metavar="RA DEC PA", help="Of WFI_CEN; ICRS, degrees."),
    ] = (270.0, 66.0, 0.0),
    ma_table: Annotated[int, typer.Option(help="Number of the MA table.")] = 4,
    visits: Annotated[int, typer.Option(min=1, help="How many; of a plan, the first so many.")] = 1,
    cadence_hours: Annotated[
        float | None,
        typer.Option(min=0.0, help="From one visit's start to the next's; default: no pause."),
    ] = None,
    pass_: Annotated[int, typer.Option("--pass", min=1, max=999)] = 1,
    detectors: Annotated[
        str, typer.Option(metavar="WFInn,...", help="Detectors to read out, or all.")
    ] = "WFI01,WFI02",
    full_size: Annotated[
        bool, typer.Option("--full-size", help="4096x4096 detectors instead of 512x512 windows.")
    ] = False,
    start: Annotated[
        datetime | None, typer.Option(help="Of the first exposure, UTC; default: 6 h ago.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the sky, the detectors and all noise.")] = SEED,
    delivery: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="How data arrive: in_order, shuffled, twice; gaps, late, late_packets and "
            "late_ma_table hold some back.",
        ),
    ] = "in_order",
    lost: Annotated[
        list[int] | None,
        typer.Option("--lose", metavar="N", help="Exposure N of each visit is never received."),
    ] = None,
    lost_packets: Annotated[
        list[str] | None,
        typer.Option(
            "--lose-packets",
            metavar="WFInn|FACE|WFInn:N",
            help="Hold back all packets of a detector or of FACE, or one packet of a detector's "
            "resultant N.",
        ),
    ] = None,
    held_back: Annotated[
        bool, typer.Option("--held-back", help="Only land what earlier deliveries held back.")
    ] = False,
    definitive_ephemeris: Annotated[
        bool, typer.Option(help="Land the definitive ephemeris as well.")
    ] = False,
) -> None:
    """Observe a plan with the simulated telescope and land its packets and ancillary files.

    Nothing else is done; with [bold]roman-assets dev[/bold] running, the products follow by
    themselves.
    """
    from roman_assets.simulation.telescope.downlink import Downlink
    from roman_assets.simulation.telescope.planned_exposure import Pointing
    from roman_assets.simulation.telescope.survey_plan import VisitPlan, VisitRequest

    root = DataRoot.from_environment()
    if held_back:
        typer.echo(f"{len(Downlink(root).release())} files landed in {root.landing}")
        return
    names = DETECTORS if detectors.lower() == "all" else tuple(detectors.upper().split(","))
    began = _utc(start)
    if plan_table is not None:
        plan = VisitPlan.read(
            plan_table, program=program, survey=survey, start=began, detectors=names
        ).head(visits)
    else:
        request = VisitRequest(
            survey, program, optical_element, Pointing(*position), dither, ma_table, visits,
            exposure_type,
            cadence=None if cadence_hours is None else timedelta(hours=cadence_hours),
        )  # fmt: skip
        plan = VisitPlan.from_requests([request], start=began, detectors=names, pass_=pass_)
    never_received = _lost(plan, lost or ())
    arrival = replace(_delivery(delivery, seed), losses=_losses(lost_packets or ()))
    downlink(
        root,
        plan,
        seed=seed,
        window=None if full_size else 512,
        delivery=arrival,
        definitive_ephemeris=definitive_ephemeris,
        lost=never_received,
    )
    sent = sum(one.exposure.exposure not in never_received for one in plan.exposures)
    typer.echo(f"{sent} exposures of {len(plan.visits)} visits are in {root.landing}")


def plan(
    path: Annotated[
        Path, typer.Argument(metavar="FILE", dir_okay=False, help="Where to write it (ECSV).")
    ],
) -> None:
    """Write the plan of a whole survey: 30 days, 12,807 visits, 25,730 exposures.

    It is as large as the published plan of the Galactic Plane Survey.

    [dim]roman-assets plan survey_plan.sim.ecsv && roman-assets rehearse survey_plan.sim.ecsv[/dim]
    """
    from roman_assets.simulation.telescope.whole_survey import whole_survey

    survey = whole_survey()
    survey.write(path)
    typer.echo(f"{len(survey.exposures)} exposures of {len(survey.visits)} visits are in {path}")


def new_reference(
    detector: Annotated[str, typer.Argument(metavar="WFInn", help="Which detector.")],
    scale: Annotated[
        float, typer.Option(min=0.5, max=2.0, help="Factor on its photometric calibration.")
    ] = 1.02,
    use_after: Annotated[
        datetime | None,
        typer.Option(help="For exposures from this moment on, UTC; default: for all."),
    ] = None,
) -> None:
    """Deliver a new photometric calibration of one detector, and with it a new CRDS context.

    [dim]roman-assets new-reference WFI01 && roman-assets impact --context roman_0003.pmap[/dim]
    """
    from roman_assets.references.context import configure_crds
    from roman_assets.simulation.telescope.reference_delivery import (
        FIRST_DATE,
        deliver_reference,
        rescaled,
    )

    root = DataRoot.from_environment()
    configure_crds(root)
    context = deliver_reference(
        root.crds,
        "photom",
        detector.upper(),
        use_after=FIRST_DATE if use_after is None else _utc(use_after),
        change=rescaled(scale),
    )
    typer.echo(f"the operational context is {context}")


def _utc(start: datetime | None) -> datetime:
    if start is None:
        return datetime.now(UTC).replace(microsecond=0) - timedelta(hours=HOURS_BEFORE_NOW)
    return start if start.tzinfo else start.replace(tzinfo=UTC)


def _lost(plan: VisitPlan, numbers: Collection[int]) -> Collection[int]:
    planned = {one.exposure.exposure for one in plan.exposures}
    if unknown := sorted(set(numbers) - planned):
        raise typer.BadParameter(f"no visit has an exposure {unknown[0]} that --lose could lose")
    return numbers


def _losses(texts: Collection[str]) -> tuple[Loss, ...]:
    from roman_assets.simulation.telescope.downlink import Loss

    try:
        return tuple(map(Loss.parse, texts))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _delivery(name: str, seed: int) -> DownlinkDelivery:
    from roman_assets.simulation.telescope.downlink import DELIVERIES

    if name not in DELIVERIES:
        raise typer.BadParameter(f"delivery {name!r} is not one of {', '.join(DELIVERIES)}")
    return replace(DELIVERIES[name], seed=seed)
