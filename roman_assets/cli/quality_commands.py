"""Commands by which an operator says what may be used: ``grade`` and ``withdraw``."""

from __future__ import annotations

import getpass
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.filesize import decimal

from roman_assets.data_root import DataRoot
from roman_assets.products.lifecycle import Quality

if TYPE_CHECKING:
    from roman_assets.upkeep.retention import RetentionReport

Names = Annotated[
    list[str],
    typer.Argument(
        metavar="NAME...",
        help="Official names of products or file sets; - reads them from standard input.",
    ),
]
Reason = Annotated[str, typer.Option(help="Why, for the record.")]
Author = Annotated[
    str, typer.Option("--by", help="Author of the statement; by default the logged-in user.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Change nothing, only say what would be.")]
_TIMES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S"]


def grade(
    quality: Annotated[Quality, typer.Argument(case_sensitive=False, help="How good they are.")],
    names: Names,
    reason: Reason,
    valid_from: Annotated[
        datetime | None,
        typer.Option("--from", formats=_TIMES, help="First observation it is about, UTC."),
    ] = None,
    valid_until: Annotated[
        datetime | None,
        typer.Option("--until", formats=_TIMES, help="End of the observations it is about, UTC."),
    ] = None,
    by: Author = "",
    dry_run: DryRun = False,
) -> None:
    """Grade products: BAD ones are left out of coadds and releases, and can still be cited.

    The grade of an L1 or L2 holds however often it is reprocessed, until another one is given;
    that of a coadd or of its L4 holds for the generation.

    [dim]roman-assets grade BAD r0000101001001001001_0001_wfi07_f158 --reason "stray light"[/dim]

    [dim]roman-assets query --kind cal --detector WFI07 --after 2027-01-03 --before 2027-01-05
    --format names | roman-assets grade SUSPECT - --reason "noisy bias" --from 2027-01-03
    --until 2027-01-05[/dim]
    """
    from roman_assets.upkeep.quality import Grade
    from roman_assets.upkeep.quality import grade as give

    given = Grade(
        quality,
        reason,
        by or getpass.getuser(),
        valid_from and valid_from.replace(tzinfo=UTC),
        valid_until and valid_until.replace(tzinfo=UTC),
    )
    done = give(DataRoot.from_environment(), _given(names), given, dry_run=dry_run)
    graded = sum(one.quality is not None for one in done.transitions)
    _report(done, f"{_counted(graded)} graded {quality}", dry_run=dry_run)


def withdraw(names: Names, reason: Reason, by: Author = "", dry_run: DryRun = False) -> None:
    """Withdraw products: the archive shows them no more, and they can still be cited.

    What follows a product goes with it, and all of a detector with its L1. No routine run
    remakes them.

    [dim]roman-assets withdraw r0000101001001001001_0001_wfi07_f158 --reason "wrong target"[/dim]
    """
    from roman_assets.upkeep.quality import withdraw as take_out

    done = take_out(
        DataRoot.from_environment(),
        _given(names),
        reason=reason,
        author=by or getpass.getuser(),
        dry_run=dry_run,
    )
    withdrawn = sum(one.quality is None for one in done.transitions)
    _report(done, f"{_counted(withdrawn)} withdrawn ({decimal(done.size)})", dry_run=dry_run)


def _given(names: list[str]) -> list[str]:
    return sys.stdin.read().split() if names == ["-"] else names


def _report(done: RetentionReport, text: str, *, dry_run: bool) -> None:
    if dry_run:
        for name in sorted({one.name for one in done.transitions}):
            typer.echo(name)
        typer.echo("nothing is done: leave --dry-run out", err=True)
        return
    typer.echo(text + (f"; record {done.record_id}" if done.record_id else ""))
    if done.untouched:
        typer.echo(f"{_counted(len(done.untouched))} unchanged")


def _counted(number: int) -> str:
    return f"{number} product" if number == 1 else f"{number} products"
