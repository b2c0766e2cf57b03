"""How loops are compiled, so that every operation rounds as numpy's does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(signature: Any = None) -> Callable[[Function], Function]:
    """Return a decorator that compiles a function and keeps the code on disk.

    There is no fast-math, so nothing is reordered or fused, and division by zero gives what numpy
    gives. The code is kept beside the module, or in the user's cache directory where the module's
    is not writable, and compiled again in every process where neither is.

    Parameters
    ----------
    signature
        Types of arguments and result. None for a function that only compiled functions call.
    """
    options = {"error_model": "numpy", "boundscheck": False, "nogil": True}
    signatures = () if signature is None else (signature,)

    def decorate(function: Function) -> Function:
        try:
            found: Function = numba.njit(*signatures, cache=True, **options)(function)
        except RuntimeError as error:
            if "cannot cache function" not in str(error):
                raise
            found = numba.njit(*signatures, cache=False, **options)(function)
        return found

    return decorate


def readable(item: Any, ndim: int) -> Any:
    """Return the type of an array of any strides that is only read."""
    return numba.types.Array(item, ndim, "A", readonly=True)
