"""The command that explains why L1 would differ if reprocessed: ``formatting`` (R3, R8)."""

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


def formatting(
    exposures: Annotated[
        list[ExposureId],
        typer.Argument(
            parser=_exposure, metavar="EXPOSURE", help="Such as r0000101001001001001_0001."
        ),
    ],
) -> None:
    """Explain why L1 would differ if reprocessed from its packets.

    The definitive ephemeris, repaired packets, another version of the formatting software: none
    reprocesses L1 by itself. Propose it, so that a person approves it.

    [dim]roman-assets formatting r0000101001001001001_0001[/dim]
    """
    from roman_assets.pipelines.formatting.landing import LandingArea
    from roman_assets.pipelines.formatting.step import why_again

    root = DataRoot.from_environment()
    LandingArea(root).scan()
    table = Table("exposure", "why L1 would differ")
    different = []
    for exposure in exposures:
        reasons = why_again(root, exposure)
        table.add_row(str(exposure), "\n".join(reasons) or "nothing would be different")
        if reasons:
            different.append(f"--exposure {exposure}")
    terminal().print(table)
    if different:
        typer.echo(f"To propose it: roman-assets propose {' '.join(different)} --reason TEXT")
