"""The command about superseded products: what is to go, and when: ``retention`` (R13, R14)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from roman_assets.cli.terminal import terminal
from roman_assets.cli.upkeep import AsJson
from roman_assets.data_root import DataRoot

if TYPE_CHECKING:
    import pandas as pd

    from roman_assets.registry.sweep import Superseded, SweepReport

_MOST_NAMES = 20


def retention(
    apply: Annotated[
        bool, typer.Option("--apply", help="Remove what is due; without it nothing is changed.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the superseded prompt L3 and L4 whose time is over, and with --apply remove them.

    They go by one commit record with all that follows them, and can still be cited. The bytes are
    freed by the daily sweep of the daemon, or by fsck --mend, after the grace period.

    [dim]roman-assets retention --apply[/dim]
    """
    from roman_assets.products.deadline import utc_now
    from roman_assets.registry.sweep import Superseded, sweep

    root = DataRoot.from_environment()
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
