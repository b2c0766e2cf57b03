"""One replacement of an upstream function, and the conditions on which it is used."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np

Function = Callable[..., Any]


@dataclass(frozen=True)
class Acceleration:
    """A replacement of one upstream function.

    Parameters
    ----------
    replaces
        The upstream function, as ``module:name``.
    replacement
        Called in its place, with the same arguments.
    reason
        Why the upstream function is slow.
    obsolete
        The upstream change that makes the replacement unnecessary.
    checked_with
        Versions of the packages it was checked with, by distribution name.
    source
        SHA-256 of the source of the upstream function and of the `mirrors`, as checked.
    outputs
        Call a function, upstream's or the replacement, on small representative data and return
        all its outputs.
    mirrors
        Other upstream functions, classes or modules whose source the replacement relies on.
    imported_by
        Other modules that hold the function under the same name.
    """

    replaces: str
    replacement: Function
    reason: str
    obsolete: str
    checked_with: Mapping[str, str]
    source: str
    outputs: Callable[[Function], Any]
    mirrors: tuple[str, ...] = ()
    imported_by: tuple[str, ...] = ()

    @property
    def upstream(self) -> Function:
        """The function that is in place now."""
        found: Function = resolve(self.replaces)
        return found

    def objection(self) -> str | None:
        """Return why the replacement cannot be used, None if it can.

        It can be used if the upstream source is the checked one and all outputs of both functions
        are identical. The versions may differ: they only help to explain a difference.
        """
        try:
            upstream = self.upstream
            if (found := source_hash((self.replaces, *self.mirrors))) != self.source:
                return f"the upstream source changed (SHA-256 {found[:12]})"
            with warnings.catch_warnings(action="ignore"), np.errstate(all="ignore"):
                theirs, ours = self.outputs(upstream), self.outputs(self.replacement)
            difference = first_difference(theirs, ours)
        except Exception as error:
            return f"its self-test failed: {type(error).__name__}: {error}"
        return None if difference is None else f"its results differ: {difference}"

    def other_versions(self) -> str:
        """Return the installed versions that differ from those checked, empty if all agree."""
        return ", ".join(
            f"{name} {installed} (checked with {checked})"
            for name, checked in self.checked_with.items()
            if (installed := version(name)) != checked
        )

    def places(self) -> list[tuple[Any, str]]:
        """Return the modules and classes that hold the function, each with its name there."""
        module, _, path = self.replaces.partition(":")
        owner, _, name = path.rpartition(".")
        home = resolve(f"{module}:{owner}" if owner else module)
        return [(home, name), *((resolve(other), name) for other in self.imported_by)]


def resolve(path: str) -> Any:
    """Return a module, or what ``module:name.name`` names in one."""
    module, _, names = path.partition(":")
    found = importlib.import_module(module)
    for name in filter(None, names.split(".")):
        found = getattr(found, name)
    return found


def source_hash(paths: Sequence[str]) -> str:
    """Return the SHA-256 of the source of functions, classes and modules, one after another."""
    text = "".join(inspect.getsource(_defined(resolve(path))) for path in paths)
    return hashlib.sha256(text.encode()).hexdigest()


def _defined(found: Any) -> Any:
    return found.fget if isinstance(found, property) else inspect.unwrap(found)


def first_difference(upstream: Any, ours: Any, place: str = "") -> str | None:
    """Return where two nested outputs differ in type, shape or any bit, None if nowhere.

    NaN equals NaN, whatever its payload; zeros of different sign differ.
    """
    place = place or "output"
    if type(upstream) is not type(ours):
        return f"{place} is a {type(ours).__name__}, upstream a {type(upstream).__name__}"
    if isinstance(upstream, Mapping):
        if list(upstream) != list(ours):
            return f"{place} has the keys {list(ours)}, upstream {list(upstream)}"
        pairs = [(f"{place}[{key!r}]", upstream[key], ours[key]) for key in upstream]
    elif isinstance(upstream, list | tuple):
        if len(upstream) != len(ours):
            return f"{place} has {len(ours)} items, upstream {len(upstream)}"
        pairs = [
            (f"{place}[{n}]", a, b) for n, (a, b) in enumerate(zip(upstream, ours, strict=True))
        ]
    elif isinstance(upstream, np.ndarray | np.generic):
        return _array_difference(np.asarray(upstream), np.asarray(ours), place)
    elif isinstance(upstream, float):
        return _array_difference(np.float64(upstream), np.float64(ours), place)
    else:
        return None if upstream == ours else f"{place} is {ours!r:.80}, upstream {upstream!r:.80}"
    found = (first_difference(a, b, name) for name, a, b in pairs)
    return next((difference for difference in found if difference is not None), None)


def _array_difference(upstream: Any, ours: Any, place: str) -> str | None:
    if (upstream.dtype, upstream.shape) != (ours.dtype, ours.shape):
        return f"{place} is {ours.dtype}{ours.shape}, upstream {upstream.dtype}{upstream.shape}"
    same = upstream == ours
    if upstream.dtype.kind == "f":
        same = (same & (np.signbit(upstream) == np.signbit(ours))) | (
            np.isnan(upstream) & np.isnan(ours)
        )
    if np.all(same):
        return None
    where = tuple(int(index) for index in np.argwhere(~np.atleast_1d(same))[0])
    values = np.atleast_1d(ours)[where], np.atleast_1d(upstream)[where]
    return f"{place} at {where} is {values[0]!r}, upstream {values[1]!r}"
