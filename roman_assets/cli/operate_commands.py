"""Commands that run the platform: ``dev`` (Dagster's UI and daemon) and ``demo``."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from socket import create_server
from typing import Annotated

import typer
from rich.console import Console

from roman_assets.cli.service_commands import ARCHIVE_PORT
from roman_assets.cli.simulate_commands import HOURS_BEFORE_NOW, SEED, downlink
from roman_assets.cli.terminal import terminal
from roman_assets.data_root import DATA_ROOT_VARIABLE, DataRoot
from roman_assets.errors import BadInputError, PassingFaultError
from roman_assets.settings.service_settings import SERVICE_VARIABLE

DEMO_WINDOW = 512
"""Active pixels along a side of the demo's detectors."""


def use_data_root(path: Path) -> None:
    """Make a data root that of this process and of all it starts."""
    os.environ[DATA_ROOT_VARIABLE] = str(path.absolute())


HostOption = Annotated[str, typer.Option(help="Address the UI listens on.")]
PortOption = Annotated[int, typer.Option(min=1, max=65535, help="Port of the UI.")]
SocketOption = Annotated[
    Path | None,
    typer.Option(help="Listen on this Unix socket instead; only your own user can connect to it."),
]
TokenFileOption = Annotated[
    Path | None,
    typer.Option(
        dir_okay=False,
        help="Ask for the token in this file as a password. A missing file is written.",
    ),
]
AllowHostOption = Annotated[
    list[str] | None,
    typer.Option(help="Answer requests for this host name too, as a proxy sends them."),
]


def dev(
    host: HostOption = "127.0.0.1",
    port: PortOption = 3000,
    socket: SocketOption = None,
    token_file: TokenFileOption = None,
    allow_host: AllowHostOption = None,
    archive_port: Annotated[
        int,
        typer.Option(min=0, max=65535, help="Port of the archive's public pages; 0 for none."),
    ] = ARCHIVE_PORT,
) -> None:
    """Run Dagster's UI and daemon, and the archive service, until interrupted."""
    from roman_assets.cli.daemon import run_until_stopped, services, sole_daemon
    from roman_assets.defs.webserver.ui_server import Listening

    root = DataRoot.from_environment()
    listening = Listening(host, port, socket, token_file, tuple(allow_host or ()))
    with sole_daemon(root) as claim:
        if claim is None:
            raise PassingFaultError(
                f"Dagster's daemon already runs on {root.path}: use the UI of that one, or stop it"
            )
        terminal().print(listening.told, soft_wrap=True)
        archive = None
        if archive_port:
            os.environ.setdefault(SERVICE_VARIABLE, _free_address(archive_port))
            archive = ["--port", str(archive_port)]
        with services(listening.arguments, archive) as (commands, ready):
            raise typer.Exit(run_until_stopped(commands, root, claim, ready))


def _free_address(port: int) -> str:
    """Return the address of the archive's pages on this machine.

    Raises
    ------
    BadInputError
        If something else listens on the port.
    """
    try:
        create_server(("127.0.0.1", port)).close()
    except OSError as error:
        raise BadInputError(
            "roman-assets dev", "--archive-port", f"port {port} cannot be used: {error.strerror}",
            "name a free port, or 0 to serve no pages of the archive",
        ) from error  # fmt: skip
    return f"http://127.0.0.1:{port}"


def webserver(
    host: HostOption = "127.0.0.1",
    port: PortOption = 3000,
    socket: SocketOption = None,
    token_file: TokenFileOption = None,
    allow_host: AllowHostOption = None,
    workspace: Annotated[
        Path | None,
        typer.Option("--workspace", "-w", dir_okay=False, help="Dagster's workspace file."),
    ] = None,
) -> None:
    """Run Dagster's UI alone; daemon and code server run as processes of their own."""
    from roman_assets.defs.lib.dagster_home import (
        dagster_environment,
        prepare_dagster_home,
        workspace_file,
    )
    from roman_assets.defs.webserver.ui_server import Listening, serve

    root = DataRoot.from_environment()
    prepare_dagster_home(root)
    os.environ.update(dagster_environment(root))
    listening = Listening(host, port, socket, token_file, tuple(allow_host or ()))
    serve(listening, [workspace or workspace_file()])


def demo(
    seed: Annotated[int, typer.Option(help="Of the simulated sky and noise.")] = SEED,
    timeout: Annotated[float, typer.Option(min=0, help="Minutes to wait for products.")] = 30.0,
) -> None:
    """Simulate a small night, let Dagster make its products, print what was made and when.

    Two dithered imaging visits, one of the Galactic Bulge survey and one grism visit, on two
    detectors of 512x512 active pixels. A stand-in of the Science Support Center makes its L3 and
    L4, unless ssc.toml names another command. The night began six hours ago; every further demo
    observes the next pass of the same plan.
    """
    from roman_assets.archive.store import Archive
    from roman_assets.cli.daemon import running_daemon
    from roman_assets.cli.goal import Goal
    from roman_assets.cli.status_tables import made_table
    from roman_assets.defs.lib.runs import Runs
    from roman_assets.registry.registry import Registry
    from roman_assets.simulation.ssc.command_settings import take_the_place_of_the_ssc
    from roman_assets.simulation.telescope.survey_plan import demo_plan

    root = DataRoot.from_environment()
    console = terminal()
    began = time.monotonic()
    start = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=HOURS_BEFORE_NOW)
    plan = demo_plan(start=start, pass_=_next_pass(root))
    take_the_place_of_the_ssc(root)
    with running_daemon(root) as instance, Registry(root) as registry:
        downlink(root, plan, seed=seed, window=DEMO_WINDOW)
        goal = Goal.of(plan, root)
        goal.wait(registry, Runs(instance), timedelta(minutes=timeout), Console(stderr=True))
    console.print(made_table(root, plan.visits))
    console.print(
        f"Made in {time.monotonic() - began:.0f} s, simulation included. "
        f"The products are below {Archive.of(root).public}\n"
        "See them in Dagster's UI: roman-assets dev, then http://127.0.0.1:3000"
    )


def _next_pass(root: DataRoot) -> int:
    """Return the pass after the last that was received, so that a demo's visits are new ones."""
    from roman_assets.formatting.landing import LandingArea

    landing = LandingArea(root)
    landing.scan()
    return 1 + max((exposure.visit.pass_ for exposure in landing.exposures()), default=0)
