"""Serving Dagster's UI and GraphQL interface behind the guard, on a port or a Unix socket."""

from __future__ import annotations

import ipaddress
import os
import secrets
import socket
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from roman_assets.archive.durability import write_new
from roman_assets.defs.webserver.guard import LOOPBACK_NAMES, Guard
from roman_assets.errors import BadInputError

LEAST_TOKEN_LENGTH = 20

_OTHERS = 0o077
_OWNER_ONLY_UMASK = 0o177
_GOODBYE_SECONDS = 3
"""For requests under way when the server is told to stop; the UI's subscriptions never end."""


@dataclass(frozen=True)
class Listening:
    """The address of the web server, and the clients it answers.

    Parameters
    ----------
    host, port
        Address, unless there is a socket.
    socket
        Path of a Unix socket, which only this user can connect to.
    token_file
        File with the token; written with a new one if missing. None asks for no token.
    names
        Host names it answers for beside those of the loopback and `host`.
    """

    host: str = "127.0.0.1"
    port: int = 3000
    socket: Path | None = None
    token_file: Path | None = None
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.socket is None and self.token_file is None and not _is_loopback(self.host):
            raise BadInputError(
                "command line", "--host", f"{self.host} can be reached from other machines, and "
                "Dagster's UI starts runs for everyone who reaches it",
                "add --token-file PATH",
            )  # fmt: skip

    @property
    def known_names(self) -> frozenset[str]:
        """Host names that a request may be for."""
        return LOOPBACK_NAMES | {name.lower() for name in (self.host, *self.names)}

    @property
    def arguments(self) -> list[str]:
        """The same as options of ``roman-assets webserver``."""
        place = (
            ["--host", self.host, "--port", str(self.port)]
            if self.socket is None
            else ["--socket", str(self.socket.absolute())]
        )
        token = [] if self.token_file is None else ["--token-file", str(self.token_file.absolute())]
        return [*place, *token, *(part for name in self.names for part in ("--allow-host", name))]

    @property
    def told(self) -> str:
        """Where the UI is, for people."""
        place = (
            f"http://{self.host}:{self.port}" if self.socket is None else f"socket {self.socket}"
        )
        if self.token_file is None:
            return f"Dagster's UI: {place}"
        return f"Dagster's UI: {place} (any user name; the password is in {self.token_file})"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_token(path: Path) -> str:
    """Return the token in a file that its owner alone may read; write a new one if missing.

    Raises
    ------
    BadInputError
        If others may read it, or if it is too short.
    """
    with suppress(FileExistsError):
        write_new(path, f"{secrets.token_urlsafe(32)}\n".encode(), mode=0o600)
    mode = path.stat().st_mode
    if mode & _OTHERS:
        raise BadInputError(
            path, "mode", f"{mode & 0o777:04o} lets others read the token", f"chmod 600 {path}"
        )
    token = path.read_text().strip()
    if len(token) < LEAST_TOKEN_LENGTH:
        raise BadInputError(
            path, "token", f"it has fewer than {LEAST_TOKEN_LENGTH} characters",
            "delete the file: the next start writes a new one",
        )  # fmt: skip
    return token


def open_socket(path: Path) -> socket.socket:
    """Return a Unix socket, bound to a path, that only this user can connect to.

    A socket that a killed server left there is replaced.

    Raises
    ------
    BadInputError
        If another server listens there, or if the path cannot be used.
    """
    _remove_dead_socket(path)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(_OWNER_ONLY_UMASK)
    try:
        bound.bind(str(path))
    except OSError as error:
        bound.close()
        raise BadInputError(
            path, "--socket", f"cannot listen there ({error})",
            "name a short path, in a directory of yours, that nothing else uses",
        ) from error  # fmt: skip
    finally:
        os.umask(before)
    return bound


def _remove_dead_socket(path: Path) -> None:
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise BadInputError(
        path, "--socket", "another server listens there", "stop it, or name another path"
    )


def serve(listening: Listening, workspace: Iterable[Path]) -> None:
    """Serve Dagster's UI for the instance of ``DAGSTER_HOME`` until interrupted.

    Parameters
    ----------
    listening
        The address, and the clients to answer.
    workspace
        Dagster's workspace files.
    """
    import uvicorn
    from dagster import DagsterInstance
    from dagster_webserver.app import create_app_from_workspace_process_context
    from dagster_webserver.version import __version__

    from roman_assets.defs.lib.dagster_internals import serving_context

    token = None if listening.token_file is None else read_token(listening.token_file)
    with (
        DagsterInstance.get() as instance,
        serving_context(instance, [str(path) for path in workspace], __version__) as context,
    ):
        app = create_app_from_workspace_process_context(context, live_data_poll_rate=2000)
        config = uvicorn.Config(
            Guard(app, listening.known_names, token),
            host=listening.host,
            port=listening.port,
            log_level="warning",
            timeout_graceful_shutdown=_GOODBYE_SECONDS,
        )
        place = listening.socket
        sockets = None if place is None else [open_socket(place)]
        uvicorn.Server(config).run(sockets)
        if place is not None:
            place.unlink(missing_ok=True)
