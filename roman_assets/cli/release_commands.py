"""Commands of data releases: ``release plan``, ``run``, ``status``, ``publish`` and ``show``."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.filesize import decimal
from rich.table import Table

from roman_assets.cli.terminal import terminal
from roman_assets.data_root import DataRoot

if TYPE_CHECKING:
    from roman_assets.publishing.step import StepResult
    from roman_assets.registry.releases.state import Release, ReleaseState
    from roman_assets.releases.release_plan import ReleasePlan

release = typer.Typer(
    name="release",
    help="Data releases: a whole survey again with one context and one romancal (R7, R13).",
    no_args_is_help=True,
)

Declaration = Annotated[
    Path, typer.Argument(metavar="FILE", help="The file that declares it (TOML).")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]

_MOST_SHOWN = 10


@release.command()
def plan(
    declaration: Declaration,
    names: Annotated[
        bool, typer.Option("--names", help="Print only the names of the L2 to be reprocessed.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what a release would reprocess, co-add and supersede, before anything runs.

    [dim]roman-assets release plan hlwas_r0.toml[/dim]
    """
    from roman_assets.registry.releases.declaration import read_declaration
    from roman_assets.releases.release_plan import plan_release

    found = plan_release(DataRoot.from_environment(), read_declaration(declaration)[0])
    if names:
        for image in found.to_make:
            typer.echo(image.name or f"{image.file_set}_cal.asdf")
    elif as_json:
        typer.echo(json.dumps(_plan_fields(found), indent=1, default=str))
    else:
        _print_facts(str(found.declaration), _plan_lines(found))


@release.command()
def run(
    declaration: Declaration,
    here: Annotated[
        bool, typer.Option("--here", help="In this process, without Dagster: for small ones.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="With --here: romancal processes side by side.")
    ] = None,
) -> None:
    """Begin a release, or go on with one; what failed is tried again.

    Dagster does the work by backfills, after all prompt products, while its daemon runs
    (`roman-assets dev`).
    """
    from roman_assets.releases.run import begin_release, state_of, work_on_release

    root = DataRoot.from_environment()
    begun = begin_release(root, declaration)
    if here:
        work_on_release(root, begun, workers=workers, report=_report)
    else:
        _launch(root, state_of(root, begun))
    _print_state(state_of(root, begun))


@release.command()
def status(
    declaration: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="Only the one that it declares.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show how far releases are, by what the registry has of them."""
    from roman_assets.registry.engine import Engine
    from roman_assets.registry.registry import Registry
    from roman_assets.registry.releases.state import begun_releases, release_state

    root = DataRoot.from_environment()
    Engine(root).fold()
    with Registry(root) as registry:
        releases = (
            begun_releases(registry).values()
            if declaration is None
            else [_begun(root, declaration)]
        )
        states = [release_state(registry, one) for one in releases]
    if as_json:
        typer.echo(json.dumps([_state_fields(state) for state in states], indent=1, default=str))
        return
    if not states:
        typer.echo("no release was begun")
    for state in states:
        _print_state(state)


@release.command()
def publish(
    declaration: Declaration,
    apply: Annotated[
        bool, typer.Option("--apply", help="Do it; without, only say what would happen.")
    ] = False,
    without_failed: Annotated[
        bool, typer.Option("--without-failed", help="Although some detectors or skycells failed.")
    ] = False,
    without_ssc: Annotated[
        bool,
        typer.Option("--without-ssc", help="Although products of the SSC are still missing."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show a release to everyone, all of it at once, and mark prompt L3 and L4 superseded."""
    from roman_assets.releases.publication import publish_release

    root = DataRoot.from_environment()
    begun = _begun(root, declaration)
    done = publish_release(
        root, begun, without_failed=without_failed, without_ssc=without_ssc, dry_run=not apply
    )
    if as_json:
        typer.echo(json.dumps(asdict(done), indent=1))
        return
    if begun.published_at is not None:
        typer.echo(f"{begun.declaration} was published on {begun.published_at:%Y-%m-%d %H:%M} UTC")
        return
    _print_facts(
        str(begun.declaration),
        [
            ("published", f"{len(done.published)} products, {decimal(done.size)}"),
            ("superseded", f"{len(done.superseded)} prompt L3 and L4"),
            ("without", _listed(done.lacking) or "nothing is missing"),
        ],
    )
    if not apply:
        typer.echo("nothing is done: give --apply to publish it")


@release.command()
def show(
    survey: Annotated[str, typer.Argument(metavar="SURVEY")],
    identity: Annotated[str, typer.Argument(metavar="RELEASE", help="r0, r1, ...")],
) -> None:
    """Print the declaration with which a release was begun."""
    from roman_assets.errors import BadInputError
    from roman_assets.registry.registry import Registry

    with Registry(DataRoot.from_environment()) as registry:
        found = registry.decisions.releases(survey=survey.upper(), release=identity)
    if not found:
        raise BadInputError(
            f"{identity} of {survey}", "release", "it was not begun",
            "`roman-assets release status` lists those that were",
        )  # fmt: skip
    typer.echo(found[0][0].content, nl=False)


def _begun(root: DataRoot, path: Path) -> Release:
    from roman_assets.errors import BadInputError
    from roman_assets.registry.engine import Engine
    from roman_assets.registry.registry import Registry
    from roman_assets.registry.releases.declaration import read_declaration
    from roman_assets.registry.releases.state import begun_release

    Engine(root).fold()
    with Registry(root) as registry:
        found = begun_release(registry, *read_declaration(path))
    if found is None:
        raise BadInputError(
            path, "release", "it was not begun", "begin it with `roman-assets release run`"
        )
    return found


def _launch(root: DataRoot, state: ReleaseState) -> None:
    from roman_assets.definitions import defs
    from roman_assets.defs.lib.runs import opened_instance
    from roman_assets.defs.releases.sensors import backfills_of, launch

    with opened_instance(root) as instance:
        graph = defs.get_repository_def().asset_graph
        launched = launch(instance, graph, state, by_person=True)
        known = [one.backfill_id for one in backfills_of(instance, state.release)]
    if launched is not None:
        typer.echo(f"backfill {launched} is launched; Dagster's daemon does it")
    elif state.exposures_left or state.units_left:
        typer.echo(f"backfill {known[-1]} is under way")
    else:
        typer.echo("all is made")


def _report(name: str, result: StepResult) -> None:
    made, failed = len(result.made), len(result.failures)
    typer.echo(f"{name}: {made} products made, {len(result.reused)} were there, {failed} failed")


def _plan_lines(found: ReleasePlan) -> list[tuple[str, str]]:
    declaration = found.declaration
    contexts = ", ".join(f"{number} {context}" for context, number in found.contexts.items())
    return [
        ("fixed", f"{declaration.context}, romancal {declaration.romancal}"),
        ("range", f"{declaration.after} to {declaration.before}"),
        ("made from", f"{len(found.visits)} visits, {len(found.exposures)} exposures"),
        ("L2 now", contexts or "none"),
        (
            "L2 reprocessed",
            f"{len(found.to_make)} of {len(found.images)}; with their supplement and L4 they "
            f"overwrite {decimal(found.rewritten_size)}",
        ),
        ("units", f"{len(found.units)} ({', '.join(declaration.groupings)})"),
        *(
            [("units of the SSC", f"{len(units)} ({', '.join(declaration.ssc_groupings)})")]
            if (units := {one.unit for one in found.ssc_units})
            else []
        ),
        (
            "superseded",
            f"{len(found.superseded)} prompt L3 and L4, {decimal(found.superseded_size)}",
        ),
        (
            "computation",
            "not known before L2 and L3 were made here"
            if found.seconds is None
            else f"about {timedelta(seconds=round(found.seconds))}",
        ),
    ]


def _plan_fields(found: ReleasePlan) -> dict[str, Any]:
    return {
        "declaration": found.declaration.model_dump(mode="json"),
        "visits": list(map(str, found.visits)),
        "exposures": list(found.exposures),
        "contexts": found.contexts,
        "images_made_again": [image.file_set for image in found.to_make],
        "rewritten_bytes": found.rewritten_size,
        "units": list(map(str, found.units)),
        "ssc_units": sorted({str(one.unit) for one in found.ssc_units}),
        "superseded": list(found.superseded),
        "superseded_bytes": found.superseded_size,
        "seconds": found.seconds,
    }


def _state_fields(state: ReleaseState) -> dict[str, Any]:
    release = state.release
    return {
        "release": release.declaration.release,
        "survey": release.declaration.survey,
        "begun": release.begun_at,
        "published": release.published_at,
        "exposures": len(release.exposures),
        "exposures_left": list(map(str, state.exposures_left)),
        "units": len(state.units),
        "units_left": list(map(str, state.units_left)),
        "ssc_units": sorted({str(one.unit) for one in state.ssc_units}),
        "ssc_units_left": sorted({str(one.unit) for one in state.ssc_units_left}),
        "undelivered": sorted(state.undelivered),
        "failed": sorted(state.failed_images | state.failed_skycells),
    }


def _print_state(state: ReleaseState) -> None:
    release = state.release
    exposures, units = len(release.exposures), len(state.units)
    failed = sorted(state.failed_images | state.failed_skycells)
    if release.published_at is not None:
        stands = f"published on {release.published_at:%Y-%m-%d %H:%M} UTC"
    else:
        stands = "made; publish it" if state.complete else "being made; nobody sees it yet"
    _print_facts(
        str(release.declaration),
        [
            ("state", f"{stands}; begun on {release.begun_at:%Y-%m-%d %H:%M} UTC"),
            ("L2", f"{exposures - len(state.exposures_left)} of {exposures} exposures"),
            ("L3 and L4", f"{units - len(state.units_left)} of {units} units"),
            *_of_ssc(state),
            ("failed", _listed(failed) or "nothing"),
        ],
    )


def _of_ssc(state: ReleaseState) -> list[tuple[str, str]]:
    expected = sum(len(one.products) for one in state.ssc_units)
    if not expected:
        return []
    units = f"{len(state.ssc_units) - len(state.ssc_units_left)} of {len(state.ssc_units)} units"
    waits = f"; {len(state.undelivered)} of {expected} products are missing"
    return [("from the SSC", units + (waits if state.undelivered else ""))]


def _listed(names: Iterable[str]) -> str:
    every = list(names)
    more = f" and {len(every) - _MOST_SHOWN} more" if len(every) > _MOST_SHOWN else ""
    return ", ".join(every[:_MOST_SHOWN]) + more


def _print_facts(title: str, lines: Iterable[tuple[str, str]]) -> None:
    table = Table(title=title, show_header=False, title_justify="left")
    for about, text in lines:
        table.add_row(about, text)
    terminal().print(table)
