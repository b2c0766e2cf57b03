"""CRDS as an installation sets it up itself, whatever the operator's environment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def own_crds_cache() -> Iterator[pytest.MonkeyPatch]:
    """Let an installation use its own CRDS cache; at the end what it has set is taken back."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("CRDS_PATH", "CRDS_SERVER_URL", "CRDS_OBSERVATORY", "CRDS_READONLY_CACHE"):
            patch.setenv(name, "")
            patch.delenv(name)
        patch.delenv("CRDS_CONTEXT", raising=False)
        yield patch
