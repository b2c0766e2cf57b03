"""The command that makes L1 again from the retained L0: ``format`` (R3, R8)."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from roman_assets.cli.terminal import terminal
from roman_assets.data_root import DataRoot
from roman_assets.products.observation import ExposureId


def _exposure(text: str) -> ExposureId:
    try:
        return ExposureId.parse(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def format_again(
    exposures: Annotated[
        list[ExposureId],
        typer.Argument(
            parser=_exposure, metavar="EXPOSURE", help="Such as r0000101001001001001_0001."
        ),
    ],
    apply: Annotated[
        bool, typer.Option("--apply", help="Make L1 again; without it nothing is changed.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="With --apply: also where nothing would be different.")
    ] = False,
) -> None:
    """Tell why L1 would be made again from its packets, and with --apply do it.

    The definitive ephemeris, repaired packets, another version of the formatting software: nothing
    makes L1 again by itself. L2, L4 and the visit follow, as they do whatever L1 is published.
    """
    from roman_assets.pipelines.formatting.landing import LandingArea
    from roman_assets.pipelines.formatting.step import format_exposure, why_again

    root = DataRoot.from_environment()
    LandingArea(root).scan()
    table = Table("exposure", "why L1 would be made again", "made")
    failed = 0
    for exposure in exposures:
        reasons, made = why_again(root, exposure), ""
        if apply and (reasons or force):
            result = format_exposure(root, exposure, force=force)
            made = f"{len(result.made)} products, {len(result.failures)} failures"
            failed += len(result.failures)
        table.add_row(str(exposure), "\n".join(reasons) or "nothing would be different", made)
    terminal().print(table)
    if not apply:
        typer.echo("Nothing is changed; --apply makes it.")
    if failed:
        raise typer.Exit(1)
