"""Commands about L1: ``formatting`` (R3, R8) and ``format-incomplete`` (R2)."""

from __future__ import annotations

import getpass
from typing import Annotated

import typer
from rich.table import Table

from roman_assets.cli.terminal import terminal
from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError
from roman_assets.products.observation import ExposureId


def _exposure(text: str) -> ExposureId:
    try:
        return ExposureId.parse(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


Exposures = Annotated[
    list[ExposureId],
    typer.Argument(parser=_exposure, metavar="EXPOSURE", help="Such as r0000101001001001001_0001."),
]


def format_incomplete(
    exposures: Exposures,
    reason: Annotated[str, typer.Option(help="Why the rest is not awaited; recorded.")],
    by: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name of the person who decides; default: the user."),
    ] = None,
) -> None:
    """Format what has come down of exposures now, without waiting for lost packets.

    The decision is recorded. Detectors with lost packets are formatted with flagged pixels if one
    of their resultants is whole; others are recorded as lost. Packets that arrive later are
    formatted as well.

    [dim]roman-assets format-incomplete r0000101001001001001_0001 --reason "overwritten"[/dim]
    """
    from roman_assets.formatting.landing import LandingArea
    from roman_assets.formatting.receipt_record import WaitEnded, record_receipts
    from roman_assets.products.deadline import ClockEvent

    root = DataRoot.from_environment()
    landing = LandingArea(root)
    landing.scan()
    receipts = landing.receipts(exposures)
    for receipt in receipts:
        if ClockEvent.FIRST_PACKET not in receipt.events:
            raise BadInputError(
                receipt.exposure, "packets", "not one has come down", "have them sent again"
            )
        if not receipt.lacks_packets:
            raise BadInputError(
                receipt.exposure, "packets", "all have come down",
                "see `roman-assets deadlines` for what it waits for",
            )  # fmt: skip
    decision = WaitEnded(by or getpass.getuser(), reason)
    record_receipts(root, receipts, decision=decision)
    for receipt in receipts:
        typer.echo(f"{receipt.exposure} is formatted without: {'; '.join(receipt.missing)}")


def formatting(exposures: Exposures) -> None:
    """Explain why L1 would differ if reprocessed from its packets.

    The definitive ephemeris, repaired packets, another version of the formatting software: none
    reprocesses L1 by itself. Propose it, so that a person approves it.

    [dim]roman-assets formatting r0000101001001001001_0001[/dim]
    """
    from roman_assets.formatting.formatting_step import why_again
    from roman_assets.formatting.landing import LandingArea

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
