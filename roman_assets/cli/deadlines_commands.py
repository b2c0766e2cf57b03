"""The command that says which deadlines are kept and why the others are not: ``deadlines``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from roman_assets.cli.terminal import terminal
from roman_assets.data_root import DataRoot
from roman_assets.products.deadline import Blame, ProductState
from roman_assets.products.kind import Level
from roman_assets.products.observation import DETECTORS, ExposureId, Survey, VisitId

if TYPE_CHECKING:
    from roman_assets.registry.deadline_query import DeadlineOverview

_ROWS_A_LINE = 4
"""Rows of the ledger, one a kind, that may go into one line."""

_MOST_NAMES = 5
_LEAST_HOURS = 1 / 60
_AT_RISK = "at risk"

_STYLES: Mapping[str, str] = {
    ProductState.OVERDUE: "bold red",
    ProductState.FAILED: "bold magenta",
    ProductState.MADE_LATE: "yellow",
    ProductState.MADE_IN_TIME: "green",
    _AT_RISK: "bold yellow",
}


def deadlines(
    level: Annotated[list[Level] | None, typer.Option(case_sensitive=False)] = None,
    survey: Annotated[list[Survey] | None, typer.Option(case_sensitive=False)] = None,
    state: Annotated[
        list[ProductState] | None,
        typer.Option(metavar="STATE", help=f"One of: {', '.join(ProductState)}."),
    ] = None,
    visit: Annotated[
        str | None, typer.Option(help="A visit with its exposures, r0000101001001001001.")
    ] = None,
    exposure: Annotated[
        str | None, typer.Option(help="One exposure, r0000101001001001001_0001.")
    ] = None,
    at_risk: Annotated[bool, typer.Option("--at-risk", help="Only what is at risk.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="Lines at most, the most urgent.")] = 30,
    products: Annotated[
        bool, typer.Option("--products", help="One line for each single product.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: every column.")] = False,
    at: Annotated[
        datetime | None, typer.Option(help="As it stands at this time (UTC) instead of now.")
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Write a page (HTML) and its pictures (PNG) there."),
    ] = None,
) -> None:
    """Print how products stand against their deadlines: overdue, failed and at risk first.

    [dim]roman-assets deadlines --level L3 --state overdue[/dim]
    """
    from roman_assets.registry.registry import Registry

    root, now = DataRoot.from_environment(), _utc(at)
    conditions: dict[str, Any] = {
        "visit": _parsed(VisitId, visit),
        "partition": _parsed(ExposureId, exposure),
        "level": level,
        "survey": survey,
        "state": state,
        "at_risk": True if at_risk else None,
    }
    with Registry(root) as registry:
        if report is not None:
            _write_report(registry, conditions, now, report)
        elif products:
            _print_products(registry, conditions, now, limit, as_json)
        else:
            rows = limit if as_json else limit * _ROWS_A_LINE
            overview = registry.deadlines.overview(**conditions, now=now, limit=rows)
            _print_json(overview) if as_json else _print_overview(overview, limit)


def _utc(at: datetime | None) -> datetime:
    if at is None:
        return datetime.now(UTC)
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _parsed(identity: type[VisitId | ExposureId], text: str | None) -> str | None:
    try:
        return None if text is None else str(identity.parse(text))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _print_json(overview: DeadlineOverview) -> None:
    typer.echo(
        json.dumps(
            {"now": overview.now, "counts": overview.counts, "most_urgent": overview.rows},
            default=lambda value: value.astimezone(UTC).isoformat(),
            indent=1,
        )
    )


def _print_overview(overview: DeadlineOverview, limit: int) -> None:
    console = terminal()
    lines = [_merged(group) for group in _lines(overview.rows)][:limit]
    interesting = [line for line in lines if line["state"] != ProductState.NOT_EXPECTED]
    if interesting:
        console.print(_urgent_table(interesting, overview.now))
    console.print(_count_table(overview.counts))
    if not overview.counts:
        console.print("Nothing is expected yet: no packets and no executed visit have arrived.")


def _lines(rows: Sequence[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    """Put rows together that differ in their kind only, where the first of them stands."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(_fate(row), []).append(row)
    yield from groups.values()


def _fate(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("partition", "level", "step", "state", "due", "made"))


def _merged(group: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    detectors = {name for row in group for name in row["detectors"]}
    return {
        **group[0],
        "kinds": ", ".join(sorted({row["kind"] for row in group})),
        "products": sum(row["products"] for row in group),
        "detectors": detectors,
    }


def _urgent_table(lines: Sequence[Mapping[str, Any]], now: datetime) -> Table:
    table = Table(
        "state", "made for", "survey", "level", "kinds", "products", "due (UTC)", "margin",
        "where the time went", title=f"Deadlines at {now:%Y-%m-%d %H:%M} UTC, most urgent first",
    )  # fmt: skip
    for line in lines:
        table.add_row(
            _state_text(line),
            line["partition"],
            line["survey"] or "?",
            line["level"],
            line["kinds"],
            _products_text(line),
            "" if line["due"] is None else f"{line['due']:%m-%d %H:%M}",
            margin_text(line["margin_hours"]),
            _reason_text(line),
        )
    return table


def _state_text(line: Mapping[str, Any]) -> str:
    state = line["state"]
    text = f"{state}, {line['stage']}" if state == ProductState.OVERDUE else str(state)
    if line["at_risk"]:
        text = f"{_AT_RISK}, {state}"
    style = _STYLES.get(_AT_RISK if line["at_risk"] else state)
    return f"[{style}]{text}[/{style}]" if style else text


def _products_text(line: Mapping[str, Any]) -> str:
    detectors = line["detectors"]
    if not detectors or len(detectors) == len(DETECTORS):
        return str(line["products"])
    names = sorted(name.removeprefix("WFI") for name in detectors)
    few = len(names) <= _MOST_NAMES
    return f"{line['products']} (WFI {' '.join(names)})" if few else str(line["products"])


def margin_text(hours: float | None) -> str:
    """Return a margin for people: hours left, or hours late in red."""
    if hours is None:
        return ""
    text = _duration(abs(hours))
    return f"[green]{text}[/green]" if hours >= 0 else f"[red]{text} late[/red]"


def _duration(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.0f} min"


def _reason_text(line: Mapping[str, Any]) -> str:
    if line["reason"]:
        return str(line["reason"])
    hours = {blame: line[f"{blame}_hours"] for blame in Blame}
    spent = sorted(
        ((value, blame) for blame, value in hours.items() if value and value >= _LEAST_HOURS),
        reverse=True,
    )
    return ", ".join(f"{blame} {_duration(value)}" for value, blame in spent)


def _count_table(counts: Sequence[Mapping[str, Any]]) -> Table:
    levels = [level for level in Level if any(count["level"] == level for count in counts)]
    table = Table("state", *levels, "least margin", title="Products by state")
    for name, chosen in _states(counts):
        number = "at_risk" if name == _AT_RISK else "products"
        cells = [sum(n[number] or 0 for n in chosen if n["level"] == level) for level in levels]
        margins = [n["least_margin_hours"] for n in chosen if n["least_margin_hours"] is not None]
        least = margin_text(min(margins)) if margins and name != _AT_RISK else ""
        style = _STYLES.get(name, "")
        table.add_row(name, *(str(cell) if cell else "" for cell in cells), least, style=style)
    return table


def _states(
    counts: Sequence[Mapping[str, Any]],
) -> Iterator[tuple[str, list[Mapping[str, Any]]]]:
    for state in ProductState:
        if chosen := [count for count in counts if count["state"] == state]:
            yield state.value, chosen
    if at_risk := [count for count in counts if count["at_risk"]]:
        yield _AT_RISK, at_risk


def _print_products(
    registry: Any, conditions: Mapping[str, Any], now: datetime, limit: int, as_json: bool
) -> None:
    found = registry.deadlines.ledger(**conditions, now=now, limit=limit)
    if as_json:
        typer.echo(found.to_json(orient="records", date_format="iso", indent=1))
        return
    table = Table("product", "generation", "state", "due (UTC)", "made (UTC)", "margin", "blame")
    for row in found.astype(object).where(found.notna(), None).to_dict("records"):
        table.add_row(
            row["name"] or f"{row['partition']} {row['kind']}",
            "" if row["generation"] is None else str(int(row["generation"])),
            _state_text(row),
            *("" if row[name] is None else f"{row[name]:%m-%d %H:%M}" for name in ("due", "made")),
            margin_text(row["margin_hours"]),
            row["blame"] or "",
        )
    terminal().print(table)


def _write_report(
    registry: Any, conditions: Mapping[str, Any], now: datetime, directory: Path
) -> None:
    from roman_assets.deadlines.deadline_page import write_report
    from roman_assets.deadlines.deadline_statistics import DeadlineStatistics

    statistics = DeadlineStatistics.of(registry.deadlines.groups(**conditions, now=now), now)
    for path in write_report(statistics, directory):
        typer.echo(path)
