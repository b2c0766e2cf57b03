"""The archive service in the process of a test, and what a client sees of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from roman_assets.data_root import DataRoot
from roman_assets.service.serve import server_of
from roman_assets.settings.service_settings import ServiceSettings

_READY_SECONDS = 20.0


@contextmanager
def running_service(root: DataRoot, **settings: object) -> Iterator[str]:
    """Serve an installation on the loopback address, and yield the URL without a slash."""
    server = server_of(root, ServiceSettings.model_validate(settings), "127.0.0.1", 0)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + _READY_SECONDS
    while not server.started:
        assert thread.is_alive() and time.monotonic() < deadline, "the service does not start"
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(_READY_SECONDS)
