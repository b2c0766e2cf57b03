"""The accelerations there are, each in a module of its own."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator, Sequence

from roman_assets.acceleration.guest import Acceleration

MODULES = tuple(
    f"roman_assets.acceleration.{name}"
    for name in (
        "schema_cache",
        "refpix",
        "dark_decay",
        "linearity",
        "ramp_fit",
        "psf_grid",
        "hull",
        "statistics",
        "median",
    )
)

_log = logging.getLogger(__name__)


def available(modules: Sequence[str] = MODULES) -> Iterator[Acceleration]:
    """Yield the accelerations whose upstream packages are as they expect.

    A module that cannot be imported is left out with a warning: upstream may have moved what it
    relies on.
    """
    for module in modules:
        try:
            found: tuple[Acceleration, ...] = importlib.import_module(module).ACCELERATIONS
        except Exception as error:
            _log.warning(
                "romancal runs without %s, which cannot be imported: %s: %s",
                module,
                type(error).__name__,
                error,
            )
        else:
            yield from found
