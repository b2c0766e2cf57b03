"""The command about superseded products: what is to go, and when: ``retention`` (R13, R14)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from roman_assets.cli.duration import duration
from roman_assets.cli.terminal import terminal
from roman_assets.cli.upkeep_commands import AsJson
from roman_assets.data_root import DataRoot
from roman_assets.products.observation import Survey

if TYPE_CHECKING:
    import pandas as pd

    from roman_assets.upkeep.sweep import Superseded, SweepReport

_MOST_NAMES = 20


class SizesSource(StrEnum):
    """Where the sizes of a plan's products come from."""

    AUTO = "auto"
    MEASURED = "measured"
    STATED = "stated"


_WHAT_IF = "What if"


def retention(
    apply: Annotated[
        bool, typer.Option("--apply", help="Remove what is due; without it nothing is changed.")
    ] = False,
    periods: Annotated[
        list[timedelta] | None,
        typer.Option(
            "--if",
            parser=duration,
            metavar="DURATION",
            help="Tell the volume over time if what is superseded stayed so long; may be repeated.",
            rich_help_panel=_WHAT_IF,
        ),
    ] = None,
    plan: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="Of a survey plan (ECSV, as for rehearse); by default of what is in the archive.",
            rich_help_panel=_WHAT_IF,
        ),
    ] = None,
    releases: Annotated[
        list[timedelta] | None,
        typer.Option(
            "--release",
            parser=duration,
            metavar="DURATION",
            help="A data release so long after the first exposure of the plan, or from now; may be "
            "repeated. Default for a plan: 180d and 365d.",
            rich_help_panel=_WHAT_IF,
        ),
    ] = None,
    survey: Annotated[
        Survey, typer.Option(case_sensitive=False, help="Of the plan.", rich_help_panel=_WHAT_IF)
    ] = Survey.GAS,
    sizes: Annotated[
        SizesSource,
        typer.Option(
            help="Sizes as this installation has them, or as stated for whole detectors; auto "
            "takes the former where there are any.",
            rich_help_panel=_WHAT_IF,
        ),
    ] = SizesSource.AUTO,
    picture: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="Draw the volume to this PNG.", rich_help_panel=_WHAT_IF),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the superseded prompt L3 and L4 whose time is over, and with --apply remove them.

    They go by one commit record with all that follows them, and can still be cited. The bytes are
    freed by the daily sweep of the daemon, or by fsck --mend, after the grace period.

    [dim]roman-assets retention --apply[/dim]

    [dim]roman-assets retention --if 90d --plan survey_plan.sim.ecsv --picture volume.png[/dim]
    """
    from roman_assets.products.deadline import utc_now
    from roman_assets.upkeep.sweep import Superseded, sweep

    root = DataRoot.from_environment()
    if periods:
        if apply:
            raise typer.BadParameter("--if only tells: leave --apply out")
        _what_if(root, periods, plan, releases, survey, sizes, picture, as_json)
        return
    if plan or releases or picture:
        raise typer.BadParameter("--plan, --release and --picture need --if")
    found = Superseded.of(root, utc_now())
    swept = sweep(root) if apply else None
    if as_json:
        typer.echo(json.dumps(_numbers(found, swept), indent=1))
        return
    _print(found)
    if swept is not None:
        records = ", ".join(swept.record_ids) or "none"
        typer.echo(f"{swept.products} products removed, {_volume(swept.size)}; record: {records}")
    elif not found.due.empty:
        typer.echo("Nothing is changed; --apply removes what is due.")


def _what_if(
    root: DataRoot,
    periods: list[timedelta],
    plan: Path | None,
    releases: list[timedelta] | None,
    survey: Survey,
    source: SizesSource,
    picture: Path | None,
    as_json: bool,
) -> None:
    from roman_assets.products.retention_policy import RetentionPeriods
    from roman_assets.rehearsal.volume import (
        draw_volumes,
        moments_of,
        volume_over_time,
        with_releases,
    )

    status = Console(stderr=True).status
    with status("adding up"):
        premises, start, stocks = _stocks(root, plan, survey, source)
        moments = [start + after for after in (releases or (_RELEASES if plan else ()))]
        stocks = with_releases(stocks, moments)
        times = moments_of(stocks, max(periods))
        choices: dict[str, RetentionPeriods | None] = {
            f"kept {period / timedelta(days=1):g} d": RetentionPeriods(period)
            for period in sorted(set(periods))
        }
        choices["kept for ever"] = None
        volumes = {
            title: volume_over_time(stocks, chosen, times) for title, chosen in choices.items()
        }
        if picture is not None:
            draw_volumes(volumes, picture)
    premises["releases"] = ", ".join(f"{moment:%Y-%m-%d}" for moment in moments) or "none"
    if as_json:
        typer.echo(json.dumps(premises | {"volumes": _over_time(volumes)}, indent=1))
        return
    for what, value in premises.items():
        typer.echo(f"{what}: {value}")
    terminal().print(_volume_table(volumes))
    if picture is not None:
        typer.echo(f"drawn to {picture}", err=True)


_RELEASES = (timedelta(days=180), timedelta(days=365))


def _stocks(
    root: DataRoot, path: Path | None, survey: Survey, source: SizesSource
) -> tuple[dict[str, str], datetime, pd.DataFrame]:
    """Return what the what-if is about, for people; its time zero; and what there will be."""
    from roman_assets.products.deadline import utc_now
    from roman_assets.rehearsal.planned_work import Observations
    from roman_assets.rehearsal.volume import (
        STATED_SIZES,
        measured_sizes,
        stocks_of_plan,
        stocks_of_registry,
    )
    from roman_assets.settings.coadd_settings import prompt_pixel_scale
    from roman_assets.simulation.telescope.coverage import skycells_of_exposures
    from roman_assets.simulation.telescope.survey_plan import VisitPlan

    if path is None:
        return {"of": f"the products of {root.path}"}, utc_now(), stocks_of_registry(root)
    exposures = VisitPlan.read(path, program=1, survey=survey).exposures
    observations = Observations.of(exposures, skycells_of_exposures(exposures))
    sizes = STATED_SIZES if source is SizesSource.STATED else measured_sizes(root)
    if source is SizesSource.AUTO and not sizes.megabytes:
        sizes = STATED_SIZES
    premises = {
        "of": f"{len(observations.exposures):,} exposures in {len(observations.visits):,} visits "
        f"of {survey} ({path.name})",
        "sizes": sizes.source,
    }
    stocks = stocks_of_plan(observations, sizes, prompt_pixel_scale(root))
    return premises, observations.epoch, stocks


def _volume_table(volumes: Mapping[str, pd.DataFrame]) -> Table:
    table = Table(
        "superseded products", "most at once", "on", "at the end",
        "of it prompt L3, L4", "of it releases", "less at the end than for ever",
    )  # fmt: skip
    last = {title: held.iloc[-1] for title, held in volumes.items()}
    for title, held in volumes.items():
        total, end = held.sum(axis=1), last[title]
        table.add_row(
            title,
            _volume(total.max()),
            f"{total.idxmax():%Y-%m-%d}",
            _volume(end.sum()),
            _volume(end["prompt L3 and their L4"]),
            _volume(end["L3 and L4 of releases"]),
            _volume(last["kept for ever"].sum() - end.sum()),
        )
    return table


def _over_time(volumes: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    return {
        title: {
            "time": [moment.isoformat() for moment in held.index],
            **{str(holding): held[holding].round().tolist() for holding in held.columns},
        }
        for title, held in volumes.items()
    }


def _print(found: Superseded) -> None:
    console = terminal()
    parts = {"due": found.due, "held back": found.held, "waiting": found.waiting}
    table = Table("", "survey", "superseded by", "to be removed (UTC)", "products", "size")
    for title, products in parts.items():
        days = products.assign(removed=products["remove_at"].dt.strftime("%Y-%m-%d"))
        for group, rows in days.groupby(["survey", "removed_for", "removed"], dropna=False):
            survey, release, day = map(str, group)
            table.add_row(title, survey, release, day, str(len(rows)), _volume(rows["size"].sum()))
    if table.row_count:
        console.print(table)
    for name in found.due["name"].head(_MOST_NAMES):
        typer.echo(name)
    if len(found.due) > _MOST_NAMES:
        typer.echo(f"... and {len(found.due) - _MOST_NAMES} more (--json names all)")
    if not found.held.empty:
        typer.echo("held back: no release has a coadd of the skycell in their place")
    typer.echo(
        f"{len(found.due)} products are due ({_volume(found.due['size'].sum())}), "
        f"{len(found.held)} held back, {len(found.waiting)} wait for their time"
    )


def _numbers(found: Superseded, swept: SweepReport | None) -> dict[str, Any]:
    return {
        "now": found.now.isoformat(),
        "due": _rows(found.due),
        "held": _rows(found.held),
        "waiting": _rows(found.waiting),
        "removed": None
        if swept is None
        else {"products": swept.products, "size": swept.size, "records": swept.record_ids},
    }


def _rows(products: pd.DataFrame) -> list[dict[str, Any]]:
    columns = ["name", "survey", "size", "removed_for", "superseded_at", "remove_at"]
    rows: list[dict[str, Any]] = json.loads(
        products[columns].to_json(orient="records", date_format="iso")
    )
    return rows


def _volume(size: float) -> str:
    from rich.filesize import decimal

    return decimal(int(size))
