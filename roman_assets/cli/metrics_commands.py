"""The command that tells Prometheus how the installation is: ``metrics``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from roman_assets.cli.terminal import terminal
from roman_assets.data_root import DataRoot

_PORT = 9464


def metrics(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = _PORT,
    show: Annotated[
        bool, typer.Option("--print", help="Print the metrics once instead of serving them.")
    ] = False,
    textfile: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False,
            help="Write the metrics to this file once, for the node exporter's textfile collector.",
        ),
    ] = None,
) -> None:
    """Serve backlog, deadlines, latencies and failures to Prometheus, until interrupted."""
    from prometheus_client import generate_latest, write_to_textfile

    from roman_assets.defs.lib.runs import opened_instance
    from roman_assets.defs.metrics.exporter import (
        InstallationCollector,
        collector_registry,
        serve,
    )

    root = DataRoot.from_environment()
    with opened_instance(root) as instance:
        collector = InstallationCollector(root, instance)
        try:
            if show:
                typer.echo(generate_latest(collector_registry(collector)).decode(), nl=False)
            elif textfile is not None:
                write_to_textfile(str(textfile), collector_registry(collector))
            else:
                terminal().print(f"Metrics: http://{host}:{port}/metrics", soft_wrap=True)
                serve(collector, host, port)
        finally:
            collector.close()
