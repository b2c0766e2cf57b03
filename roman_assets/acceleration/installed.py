"""Put accelerations in place of upstream functions, and take them away again."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import Any

from roman_assets.acceleration.guest import Acceleration
from roman_assets.errors import PlatformError

ACCELERATION_VARIABLE = "ROMAN_ASSETS_ACCELERATION"
"""Environment variable that switches all accelerations ``off``; ``on`` by default."""

_log = logging.getLogger(__name__)


def acceleration_wanted(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether accelerations are to be used.

    Raises
    ------
    PlatformError
        If ``ROMAN_ASSETS_ACCELERATION`` is neither ``on`` nor ``off``.
    """
    chosen = environment.get(ACCELERATION_VARIABLE, "on")
    if chosen not in ("on", "off"):
        raise PlatformError(f"{ACCELERATION_VARIABLE}={chosen!r} is neither on nor off")
    return chosen == "on"


class InstalledAccelerations:
    """Accelerations in place of upstream functions in this process.

    Parameters
    ----------
    accelerations
        Called for those to be used when they are installed for the first time.

    Attributes
    ----------
    active
        The upstream functions that are replaced now.
    objections
        Why others were not replaced when asked for, by upstream function.
    """

    def __init__(self, accelerations: Callable[[], Iterable[Acceleration]]) -> None:
        self.active: tuple[str, ...] = ()
        self.objections: dict[str, str] = {}
        self._accelerations = functools.cache(lambda: tuple(accelerations()))
        self._originals = ExitStack()

    def install(self) -> None:
        """Test each acceleration and put it in place, or warn why not. Idempotent."""
        for acceleration in self._accelerations():
            if acceleration.replaces not in {*self.active, *self.objections}:
                self._install(acceleration)

    def remove(self) -> None:
        """Put the upstream functions back. Idempotent."""
        self._originals.close()
        self.active = ()

    def _install(self, acceleration: Acceleration) -> None:
        objection = acceleration.objection()
        if objection is not None:
            self.objections[acceleration.replaces] = objection
            versions = acceleration.other_versions()
            _log.warning(
                "%s runs unaccelerated: %s%s",
                acceleration.replaces,
                objection,
                f"; installed is {versions}" if versions else "",
            )
            return
        for owner, name in acceleration.places():
            original = vars(owner)[name]
            self._originals.callback(setattr, owner, name, original)
            setattr(owner, name, _as_held(original, acceleration.replacement))
        self.active += (acceleration.replaces,)


def _as_held(original: Any, replacement: Any) -> Any:
    return staticmethod(replacement) if isinstance(original, staticmethod) else replacement
