"""The command that serves the archive to scientists: ``serve``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from roman_assets.cli.terminal import terminal
from roman_assets.data_root import DATA_ROOT_VARIABLE, DataRoot
from roman_assets.errors import BadInputError

ARCHIVE_PORT = 8765
"""Port of the archive service."""


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = ARCHIVE_PORT,
    url: Annotated[
        str | None,
        typer.Option(help="Address under which users reach the service, through a proxy say."),
    ] = None,
    astroquery_config: Annotated[
        Path | None,
        typer.Option(
            file_okay=False,
            help="Write astroquery.cfg into this directory; programs that run with "
            "ASTROPY_CONFIG_DIR set to it search this archive instead of MAST.",
        ),
    ] = None,
) -> None:
    """Serve the public products as web pages and to programs, until interrupted."""
    from roman_assets.service.mast.client_configuration import write_client_configuration
    from roman_assets.service.serve import serve as serve_archive

    root = DataRoot.from_environment()
    if root.object_store is None and not root.path.is_dir():
        raise BadInputError(
            root.path, "data root", "there is no such directory",
            f"name an installation's with --data or {DATA_ROOT_VARIABLE}",
        )  # fmt: skip
    address = url or f"http://{host}:{port}"
    terminal().print(f"The archive: {address}", soft_wrap=True)
    if astroquery_config is not None:
        written = write_client_configuration(astroquery_config, address)
        terminal().print(f"export ASTROPY_CONFIG_DIR={written.parent.absolute()}", soft_wrap=True)
    serve_archive(root, host, port, url)
