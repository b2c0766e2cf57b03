"""Serving the archive service on a port until interrupted."""

from __future__ import annotations

from urllib.parse import urlsplit

import uvicorn

from roman_assets.data_root import DataRoot
from roman_assets.service.application import create_application
from roman_assets.service.patience import PatientProtocol
from roman_assets.settings.service_settings import ServiceSettings, service_settings_of

_GOODBYE_SECONDS = 5
_MOST_CONNECTIONS = 512
_IDLE_SECONDS = 15


def server_of(root: DataRoot, settings: ServiceSettings, host: str, port: int) -> uvicorn.Server:
    """Return the server of an installation, ready to run.

    Parameters
    ----------
    root
        The installation.
    settings
        Limits.
    host, port
        Where to listen; port 0 for any that is free.
    """
    return uvicorn.Server(
        uvicorn.Config(
            create_application(root, settings),
            host=host,
            port=port,
            http=PatientProtocol,
            ws="none",
            root_path=urlsplit(settings.url or "").path.rstrip("/"),
            log_level="warning",
            limit_concurrency=_MOST_CONNECTIONS,
            timeout_keep_alive=_IDLE_SECONDS,
            timeout_graceful_shutdown=_GOODBYE_SECONDS,
            server_header=False,
        )
    )


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
    server_of(root, settings, host, port).run()
