"""Commands that look after archive and registry: ``fsck``, ``rebuild`` and ``merge``."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from roman_assets.cli.duration import duration
from roman_assets.cli.terminal import terminal
from roman_assets.data_root import DataRoot

if TYPE_CHECKING:
    from roman_assets.registry.search.finding import Finding

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def fsck(
    mend: Annotated[bool, typer.Option("--mend", help="Mend what can be mended.")] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Do not read the files' contents.")
    ] = False,
    grace: Annotated[
        timedelta,
        typer.Option(
            parser=duration,
            metavar="DURATION",
            help="How long files that no product needs (any more) may stay: 36h, 30min, 1day.",
        ),
    ] = "1day",  # type: ignore[assignment]  # the parser reads it
    as_json: AsJson = False,
) -> None:
    """Check that the archive shows what the commit records say; exit status 1 if it does not."""
    from roman_assets.upkeep import fsck as check

    findings = check.fsck(DataRoot.from_environment(), mend=mend, grace=grace, read_blobs=not quick)
    left = sum(not finding.mended for finding in findings)
    if as_json:
        typer.echo(json.dumps([_fields(finding) for finding in findings], indent=1))
    else:
        _print(findings)
        typer.echo(f"{len(findings)} findings, {left} not mended")
    if left:
        raise typer.Exit(1)


def _fields(finding: Finding) -> dict[str, object]:
    return {
        "kind": finding.kind,
        "subject": finding.subject,
        "detail": finding.detail,
        "mended": finding.mended,
        "remedy": finding.remedy,
    }


def _print(findings: Iterable[Finding]) -> None:
    if findings:
        table = Table("what", "subject", "detail", "mended", "what to do")
        for finding in findings:
            mended = "yes" if finding.mended else "no"
            table.add_row(finding.kind, finding.subject, finding.detail, mended, finding.remedy)
        terminal().print(table)


def rebuild(as_json: AsJson = False) -> None:
    """Make the registry anew from the commit records alone; exit status 1 if some are damaged."""
    from roman_assets.registry.engine import Engine

    report = Engine(DataRoot.from_environment()).rebuild()
    if as_json:
        cases = [str(case) for case in report.damaged]
        typer.echo(json.dumps({"set_aside": cases, "not_shown": dict(report.unshown)}, indent=1))
    else:
        for case in report.damaged:
            typer.secho(f"damaged record set aside: {case}", fg="red", err=True)
        typer.echo("the registry is rebuilt")
    if report.damaged:
        raise typer.Exit(1)


def merge() -> None:
    """Merge due tiers of the registry, as the daemon does; publishing continues meanwhile."""
    from roman_assets.registry.engine import Engine

    report = Engine(DataRoot.from_environment()).compact()
    typer.echo(f"{report.merged} tiers became {report.made}")
