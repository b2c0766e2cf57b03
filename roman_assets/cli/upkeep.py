"""Commands that look after archive and registry: ``fsck`` and ``rebuild``."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from roman_assets.cli.terminal import terminal
from roman_assets.data_root import DataRoot


def fsck(
    mend: Annotated[bool, typer.Option("--mend", help="Mend what can be mended.")] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Do not read the files' contents.")
    ] = False,
) -> None:
    """Check that the archive shows what the commit records say; exit status 1 if it does not."""
    from roman_assets.registry import fsck as check

    findings = check.fsck(DataRoot.from_environment(), mend=mend, read_blobs=not quick)
    if findings:
        table = Table("what", "subject", "detail", "mended")
        for finding in findings:
            table.add_row(
                finding.kind, finding.subject, finding.detail, "yes" if finding.mended else "no"
            )
        terminal().print(table)
    left = sum(not finding.mended for finding in findings)
    typer.echo(f"{len(findings)} findings, {left} not mended")
    if left:
        raise typer.Exit(1)


def rebuild() -> None:
    """Make the registry anew from the commit records alone."""
    from roman_assets.registry import fold

    report = fold.rebuild(DataRoot.from_environment())
    for record in report.damaged:
        typer.secho(f"damaged: {record}", fg="red", err=True)
    typer.echo("the registry is rebuilt")
