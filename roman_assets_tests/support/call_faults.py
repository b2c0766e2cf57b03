"""Faults at any call of a function of the package."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import roman_assets

_PACKAGE = f"{Path(roman_assets.__file__).parent}/"


class InjectedFault(Exception):  # noqa: N818
    """What the surroundings may raise anywhere."""


class Calls:
    """Counts the calls of functions of the package, and raises a fault at one of them."""

    def __init__(self, fatal: int | None) -> None:
        self.number = 0
        self.fatal = fatal
        self.in_clean_up = False
        """Whether the fault met the clean-up of an object, where Python ignores exceptions."""

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(_PACKAGE):
            self.number += 1
            if self.number == self.fatal:
                raise InjectedFault(f"{frame.f_code.co_qualname}, call {self.number}")


@contextmanager
def calls_counted(fatal: int | None = None) -> Iterator[Calls]:
    """Count the calls of this thread until the block ends; the one numbered `fatal` raises."""
    calls = Calls(fatal)
    tracing, unraisable = sys.gettrace(), sys.unraisablehook

    def ignored(found: sys.UnraisableHookArgs) -> None:
        if isinstance(found.exc_value, InjectedFault):
            calls.in_clean_up = True
        else:
            unraisable(found)

    sys.unraisablehook = ignored
    sys.settrace(calls)
    try:
        yield calls
    finally:
        sys.settrace(tracing)
        sys.unraisablehook = unraisable
