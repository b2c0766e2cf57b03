"""From what a product was made, and why one could not be."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from roman_assets.archive.store import sha256_of
from roman_assets.errors import PlatformError
from roman_assets.pipelines.workers import Completion
from roman_assets.registry.record import ProductEntry, ProductInput, WorkFailure


def as_input(entry: ProductEntry) -> ProductInput:
    """Give a registered product as the input of another."""
    return ProductInput(name=entry.name, sha256=entry.sha256)


def file_input(path: Path) -> ProductInput:
    """Give a file outside the archive as an input."""
    return ProductInput(name=path.name, sha256=sha256_of(path))


def as_failure(completion: Completion[Any]) -> WorkFailure:
    """Give the failure of a task whose key is a file set.

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
    """Give the reference files a product was made with, by kind, from ``meta.ref_file``."""
    return {
        kind: str(reference).removeprefix("crds://")
        for kind, reference in model.meta.ref_file.items()
        if isinstance(reference, str) and reference not in _NO_REFERENCE
    }


_NO_REFERENCE = frozenset({"?", "None", "N/A"})


@contextmanager
def exits_explained(source: object) -> Iterator[None]:
    """Turn the end of the process that CRDS calls for into an error of the work at hand.

    Parameters
    ----------
    source
        What is being worked on.

    Raises
    ------
    PlatformError
        Where CRDS has neither a configured cache nor a server.
    """
    try:
        yield
    except SystemExit as error:
        raise PlatformError(
            f"{source}: CRDS gave up ({error}): there is no usable cache in "
            f"CRDS_PATH={os.environ.get('CRDS_PATH')!r} (config/roman/server_config) and no server "
            f"at CRDS_SERVER_URL={os.environ.get('CRDS_SERVER_URL')!r}. "
            "Remedy: set them, or fill the cache, and do the work again"
        ) from error
