"""How commands read durations."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

import typer


def duration(text: str) -> timedelta:
    """Read ``36h``, ``30min`` or ``90d``.

    Raises
    ------
    typer.BadParameter
        If the text is not a duration.
    """
    import pandas as pd

    with suppress(ValueError):
        found = pd.Timedelta(text)
        # A bare number would be nanoseconds.
        if not text.isdecimal() and found >= pd.Timedelta(0):
            return found.to_pytimedelta()
    raise typer.BadParameter(f"{text!r} is not a duration such as 36h or 1day")
