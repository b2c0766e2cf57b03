"""From what a product was made, and why one could not be."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from roman_assets.archive.store import sha256_of
from roman_assets.errors import BadInputError, PlatformError
from roman_assets.publishing.workers import Completion
from roman_assets.records.record import ProductEntry, ProductInput, WorkFailure


def as_input(entry: ProductEntry) -> ProductInput:
    """Return a registered product as the input of another."""
    return ProductInput(name=entry.name, sha256=entry.sha256)


def file_input(path: Path) -> ProductInput:
    """Return a file outside the archive as an input."""
    return ProductInput(name=path.name, sha256=sha256_of(path))


def as_failure(completion: Completion[Any]) -> WorkFailure:
    """Return the failure of a task whose key is a file set.

    Raises
    ------
    ValueError
        If the task did not fail.
    """
    if completion.error is None:
        raise ValueError(f"{completion.key} did not fail")
    return WorkFailure(
        file_set=completion.key,
        error=type(completion.error).__name__,
        message=str(completion.error) or repr(completion.error),
    )


def references_of(model: Any) -> dict[str, str]:
    """Return the reference files a product was made with, by kind, from ``meta.ref_file``."""
    return {
        kind: str(reference).removeprefix("crds://")
        for kind, reference in model.meta.ref_file.items()
        if isinstance(reference, str) and reference not in _NO_REFERENCE
    }


_NO_REFERENCE = frozenset({"?", "None", "N/A"})


@contextmanager
def crds_explained(source: object) -> Iterator[None]:
    """Return what to do where CRDS has nothing to calibrate with.

    Parameters
    ----------
    source
        What is being worked on.

    Raises
    ------
    BadInputError
        If the context has no reference for it.
    PlatformError
        If there is neither a configured cache nor a server: CRDS then calls for the end of the
        process, which no ``except Exception`` would catch.
    """
    from crds.core.exceptions import CrdsError

    try:
        yield
    except CrdsError as error:
        raise BadInputError(
            source,
            "references",
            f"CRDS has none in {os.environ.get('CRDS_CONTEXT', 'its context')}: {error}",
            "add them to the context, or use a context that has them, and do the work again",
        ) from error
    except SystemExit as error:
        raise PlatformError(
            f"{source}: CRDS gave up ({error}): there is no usable cache in "
            f"CRDS_PATH={os.environ.get('CRDS_PATH')!r} (config/roman/server_config) and no server "
            f"at CRDS_SERVER_URL={os.environ.get('CRDS_SERVER_URL')!r}. "
            "Remedy: set them, or fill the cache, and do the work again"
        ) from error
