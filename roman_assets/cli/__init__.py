"""The command line of operators and scientists: ``roman-assets``."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

import typer

from roman_assets.access import ROLE_VARIABLE, Role
from roman_assets.build import build
from roman_assets.cli import deadlines_commands as deadlines
from roman_assets.cli import diff_commands as diff
from roman_assets.cli import formatting_commands as formatting
from roman_assets.cli import metrics_commands as metrics
from roman_assets.cli import operate_commands as operate
from roman_assets.cli import products_commands as products
from roman_assets.cli import quality_commands as quality
from roman_assets.cli import rehearse_commands as rehearse
from roman_assets.cli import release_commands as release
from roman_assets.cli import reprocess_commands as reprocess
from roman_assets.cli import reproduce_commands as reproduce
from roman_assets.cli import retention_commands as retention
from roman_assets.cli import service_commands as service
from roman_assets.cli import simulate_commands as simulate
from roman_assets.cli import upkeep_commands as upkeep
from roman_assets.cli.role import require_operator, use_role
from roman_assets.data_root import DATA_ROOT_VARIABLE
from roman_assets.errors import PlatformError

app = typer.Typer(
    name="roman-assets",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with [bold]roman-assets demo[/bold]; then [bold]roman-assets dev[/bold] opens "
    "Dagster's UI on what it made.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(build())
        raise typer.Exit


READING_COMMANDS = frozenset({"ls", "query", "get", "history", "provenance", "serve"})
"""What general users may do; everything else needs the role of operations (R1)."""


@app.callback()
def installation(
    context: typer.Context,
    data: Annotated[
        Path,
        typer.Option(
            envvar=DATA_ROOT_VARIABLE, file_okay=False, help="Root of everything this program owns."
        ),
    ] = Path("data"),
    role: Annotated[
        Role | None,
        typer.Option(
            envvar=ROLE_VARIABLE,
            case_sensitive=False,
            help="For whom this is done: products are shown to the public unless it is operations.",
        ),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Prompt products of the Roman Wide Field Instrument, from packets to the archive."""
    operate.use_data_root(data)
    use_role(role)
    if context.invoked_subcommand not in READING_COMMANDS:
        require_operator(f"roman-assets {context.invoked_subcommand}")


app.command(rich_help_panel="Run the platform")(operate.demo)
app.command(rich_help_panel="Run the platform")(operate.dev)
app.command(rich_help_panel="Run the platform")(operate.webserver)
app.command(rich_help_panel="Run the platform")(metrics.metrics)
app.command(rich_help_panel="Run the platform")(simulate.simulate)
app.command(rich_help_panel="Run the platform")(simulate.new_reference)
app.command(rich_help_panel="Run the platform")(simulate.plan)
app.command(rich_help_panel="Run the platform")(rehearse.rehearse)
app.command(rich_help_panel="See and fetch products")(products.status)
app.command(rich_help_panel="See and fetch products")(deadlines.deadlines)
app.command(name="ls", rich_help_panel="See and fetch products")(products.list_names)
app.command(rich_help_panel="See and fetch products")(products.query)
app.command(rich_help_panel="See and fetch products")(products.get)
app.command(rich_help_panel="See and fetch products")(products.history)
app.command(rich_help_panel="See and fetch products")(products.provenance)
app.command(rich_help_panel="See and fetch products")(service.serve)
app.command(rich_help_panel="Reprocess")(diff.diff)
app.command(rich_help_panel="Run the platform")(formatting.format_incomplete)
app.command(rich_help_panel="Reprocess")(formatting.formatting)
app.command(rich_help_panel="Reprocess")(reproduce.reproduce)
app.command(rich_help_panel="Reprocess")(reprocess.impact)
app.command(rich_help_panel="Reprocess")(reprocess.propose)
app.command(rich_help_panel="Reprocess")(reprocess.proposals)
app.command(rich_help_panel="Reprocess")(reprocess.approve)
app.command(rich_help_panel="Reprocess")(reprocess.reject)
app.add_typer(release.release, rich_help_panel="Reprocess")
app.command(rich_help_panel="Reprocess")(retention.retention)
app.command(rich_help_panel="Reprocess")(quality.grade)
app.command(rich_help_panel="Reprocess")(quality.withdraw)
app.command(rich_help_panel="Look after archive and registry")(upkeep.fsck)
app.command(rich_help_panel="Look after archive and registry")(upkeep.rebuild)
app.command(rich_help_panel="Look after archive and registry")(upkeep.merge)


EXTRAS: Mapping[str, str] = MappingProxyType(
    {
        "galsim": "simulation",
        "openpyxl": "simulation",
        "pysiaf": "simulation",
        "roman_technical_information": "simulation",
        "romanisim": "simulation",
        "specreduce": "simulation",
    }
)
"""The extra that brings a library which not every installation has."""


def main() -> None:
    """Run the command line; an error of ours is one clear line and exit status 1."""
    # Dagster's storage configures the logging of its migrations itself, to the terminal.
    logging.disable(logging.INFO)
    try:
        app()
    except PlatformError as error:
        _end_with(str(error))
    except ModuleNotFoundError as error:
        library = str(error.name).partition(".")[0]
        if library not in EXTRAS:
            raise
        _end_with(
            f"this needs {library}, which is not installed. "
            f"Remedy: pip install 'roman-assets[{EXTRAS[library]}]'"
        )


def _end_with(message: str) -> None:
    typer.secho(f"roman-assets: {message}", fg="red", err=True)
    sys.exit(1)
