"""Commands of the SOC's gate: ``impact``, ``propose``, ``proposals``, ``approve``, ``reject``."""

from __future__ import annotations

import getpass
import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from roman_assets.cli.terminal import terminal
from roman_assets.data_root import DataRoot

if TYPE_CHECKING:
    from roman_assets.records.record import Change, Verdict
    from roman_assets.reprocessing.impact import Impact
    from roman_assets.reprocessing.proposal import DecidedProposal, Progress

Context = Annotated[
    str | None, typer.Option(metavar="NAME", help="A CRDS context, roman_0003.pmap.")
]
Software = Annotated[
    str | None,
    typer.Option(
        metavar="PACKAGE[=VERSION]", help="Another version of a package, by default that installed."
    ),
]
EphemerisFile = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="A definitive ephemeris in the landing area."),
]
Exposures = Annotated[
    list[str] | None,
    typer.Option("--exposure", help="An exposure whose packets or formatting were wrong."),
]
CoaddScale = Annotated[
    str | None,
    typer.Option(
        "--pixel-scale", metavar="SCALE", help="Pixel scale of prompt coadds: native or skymap."
    ),
]
DataProblem = Annotated[
    tuple[str, str] | None,
    typer.Option(
        "--data-problem",
        metavar="START END",
        help="A problem of the data observed in this time, UTC, the end excluded.",
    ),
]
Detectors = Annotated[
    list[str] | None,
    typer.Option("--detector", metavar="WFInn", help="With --data-problem: only of these."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
ProposalId = Annotated[str, typer.Argument(metavar="PROPOSAL", help="See roman-assets proposals.")]
Author = Annotated[
    str, typer.Option("--by", help="Author of the statement; by default the logged-in user.")
]
Reason = Annotated[str, typer.Option(help="Why, for the record.")]


def impact(
    context: Context = None,
    software: Software = None,
    ephemeris: EphemerisFile = None,
    exposures: Exposures = None,
    pixel_scale: CoaddScale = None,
    data_problem: DataProblem = None,
    detectors: Detectors = None,
    names: Annotated[
        bool, typer.Option("--names", help="Only the names of the products that would change.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what something new would change, cost and endanger, before anything runs.

    [dim]roman-assets impact --context roman_0003.pmap[/dim]
    """
    found = _impact(context, software, ephemeris, exposures, pixel_scale, data_problem, detectors)
    if names:
        for name in found.products["name"]:
            typer.echo(name)
    elif as_json:
        typer.echo(json.dumps(found.summary(), indent=1))
    else:
        terminal().print(_impact_table(found.summary()))


def propose(
    reason: Reason,
    context: Context = None,
    software: Software = None,
    ephemeris: EphemerisFile = None,
    exposures: Exposures = None,
    pixel_scale: CoaddScale = None,
    data_problem: DataProblem = None,
    detectors: Detectors = None,
    by: Author = "",
) -> None:
    """Propose to reprocess what something new would change; a person must approve it.

    [dim]roman-assets propose --context roman_0003.pmap --reason "better flats of WFI07"[/dim]

    [dim]roman-assets propose --data-problem 2027-01-03 2027-01-05 --detector WFI07
    --reason "packets of these days were repaired"[/dim]
    """
    from roman_assets.reprocessing import proposal

    found = _impact(context, software, ephemeris, exposures, pixel_scale, data_problem, detectors)
    made = proposal.propose(
        DataRoot.from_environment(), found, author=by or getpass.getuser(), reason=reason
    )
    terminal().print(_impact_table(found.summary()))
    typer.echo(f"proposal {made.proposal_id} is open: roman-assets approve {made.proposal_id} ...")


def proposals(
    proposal: Annotated[
        str | None, typer.Argument(metavar="[PROPOSAL]", help="Show this one with its impact.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List proposals with what was decided, and how far those are that were approved."""
    from roman_assets.reprocessing import proposal as gate

    root = DataRoot.from_environment()
    chosen = gate.proposals(root) if proposal is None else (gate.proposal_of(root, proposal),)
    shown = [
        (one, gate.state_of(root, one), gate.progress(root, one) if one.is_approved else None)
        for one in chosen
    ]
    if as_json:
        typer.echo(json.dumps([_fields(*one) for one in shown], indent=1, default=str))
        return
    if not shown:
        typer.echo("nothing has been proposed")
        return
    terminal().print(_proposal_table(shown))
    if proposal is not None:
        (one,) = chosen
        terminal().print(_impact_table(one.proposal.impact))
        if one.decision is None:
            for change in gate.changes_since(root, one.proposal):
                typer.secho(f"changed since it was proposed: {change}", fg="yellow")


def approve(
    proposal: ProposalId,
    reason: Reason,
    by: Author = "",
    despite_changes: Annotated[
        bool,
        typer.Option(
            "--despite-changes", help="Although the situation has changed since it was proposed."
        ),
    ] = False,
) -> None:
    """Approve a proposal: Dagster reprocesses its products, after all prompt products.

    [dim]roman-assets approve 3f0a1c22b7d4 --by "A. Person" --reason "2 % of flux"[/dim]
    """
    from roman_assets.records.record import Verdict

    _decide(proposal, Verdict.APPROVED, by, reason, despite_changes)


def reject(proposal: ProposalId, reason: Reason, by: Author = "") -> None:
    """Reject a proposal; it cannot be approved any more."""
    from roman_assets.records.record import Verdict

    _decide(proposal, Verdict.REJECTED, by, reason)


def _decide(
    proposal: str, verdict: Verdict, by: str, reason: str, despite_changes: bool = False
) -> None:
    from roman_assets.reprocessing.proposal import decide

    decision = decide(
        DataRoot.from_environment(),
        proposal,
        verdict,
        author=by or getpass.getuser(),
        reason=reason,
        despite_changes=despite_changes,
    )
    typer.echo(f"proposal {proposal} is {decision.verdict} by {decision.author}")


def _impact(
    context: str | None,
    software: str | None,
    ephemeris: str | None,
    exposures: list[str] | None,
    pixel_scale: str | None,
    data_problem: tuple[str, str] | None,
    detectors: list[str] | None,
) -> Impact:
    from roman_assets.registry.engine import Engine
    from roman_assets.registry.registry import Registry
    from roman_assets.reprocessing import change
    from roman_assets.reprocessing.impact import impact_of

    root = DataRoot.from_environment()
    Engine(root).fold()
    makers: list[Callable[[], Change]] = []
    if context is not None:
        makers.append(lambda: change.context_change(root, context))
    if software is not None:
        makers.append(lambda: change.software_change(software))
    if ephemeris is not None:
        makers.append(lambda: change.ephemeris_change(root, ephemeris))
    if exposures:
        makers.append(lambda: change.level0_change(Registry(root), exposures))
    if pixel_scale is not None:
        makers.append(lambda: change.pixel_scale_change(pixel_scale))
    if data_problem is not None:
        start, stop = map(_utc, data_problem)
        makers.append(lambda: change.data_change(start, stop, detectors or ()))
    if len(makers) != 1:
        raise typer.BadParameter(
            "give one of --context, --software, --ephemeris, --exposure, --pixel-scale and "
            "--data-problem"
        )
    if detectors and data_problem is None:
        raise typer.BadParameter("--detector needs --data-problem")
    return impact_of(root, makers[0]())


def _utc(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not a time such as 2027-01-03T12:00:00") from error
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _impact_table(summary: dict[str, Any]) -> Table:
    from roman_assets.reprocessing.impact_text import impact_lines

    table = Table(show_header=False, title="What would change")
    for about, text in impact_lines(summary):
        table.add_row(about, text)
    return table


def _proposal_table(
    shown: Sequence[tuple[DecidedProposal, str, Progress | None]],
) -> Table:
    table = Table("proposal", "what", "why", "state", "decision", "exposures done", "visits done")
    for one, state, progress in shown:
        proposal, decision = one.proposal, one.decision
        table.add_row(
            f"{proposal.proposal_id}\n{one.proposed_at:%Y-%m-%d %H:%M} by {proposal.author}",
            str(proposal.change),
            proposal.reason,
            state,
            ""
            if decision is None
            else f"{decision.author}, {one.decided_at:%Y-%m-%d %H:%M}: {decision.reason}",
            *_done(one, progress),
        )
    return table


def _done(one: DecidedProposal, progress: Progress | None) -> Iterator[str]:
    if progress is None:
        yield from (f"0 of {len(one.proposal.exposures)}", f"0 of {len(one.proposal.visits)}")
        return
    yield f"{progress.of_exposures - len(progress.exposures)} of {progress.of_exposures}"
    yield f"{progress.of_visits - len(progress.visits)} of {progress.of_visits}"


def _fields(one: DecidedProposal, state: str, progress: Progress | None) -> dict[str, Any]:
    return {
        **one.proposal.model_dump(mode="json"),
        "state": state,
        "proposed_at": one.proposed_at,
        "decision": None if one.decision is None else one.decision.model_dump(mode="json"),
        "decided_at": one.decided_at,
        "remaining": None
        if progress is None
        else {"exposures": sorted(progress.exposures), "visits": sorted(progress.visits)},
    }
