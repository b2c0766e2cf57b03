"""Serving the archive service on a port until interrupted."""

from __future__ import annotations

from urllib.parse import urlsplit

import uvicorn

from roman_assets.data_root import DataRoot
from roman_assets.service.application import create_application
from roman_assets.service.settings import service_settings_of

_GOODBYE_SECONDS = 5
_MOST_CONNECTIONS = 512


def serve(root: DataRoot, host: str, port: int, url: str | None = None) -> None:
    """Serve the public products of an installation until interrupted.

    Parameters
    ----------
    root
        The installation.
    host, port
        Where to listen.
    url
        Address under which users reach the service, through a proxy say; by default that of the
        settings, else that of each request.

    Raises
    ------
    BadInputError
        If the settings are invalid.
    """
    settings = service_settings_of(root)
    if url is not None:
        settings = settings.model_validate(settings.model_dump() | {"url": url})
    config = uvicorn.Config(
        create_application(root, settings),
        host=host,
        port=port,
        root_path=urlsplit(settings.url or "").path.rstrip("/"),
        log_level="warning",
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_graceful_shutdown=_GOODBYE_SECONDS,
        server_header=False,
    )
    uvicorn.Server(config).run()
