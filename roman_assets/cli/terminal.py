"""Where commands print."""

from __future__ import annotations

from rich.console import Console

_PIPE_WIDTH = 200


def terminal() -> Console:
    """Return a console as wide as the terminal; a pipe gets whole lines."""
    console = Console()
    return console if console.is_terminal else Console(width=_PIPE_WIDTH)
