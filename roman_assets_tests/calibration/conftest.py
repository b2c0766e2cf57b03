from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from roman_assets_tests.observatory.conftest import (  # noqa: F401
    _small_cache,
    build_small,
    small_cache,
    use_cache,
)

DETECTORS = ("WFI01", "WFI02", "WFI03")


@pytest.fixture(scope="session")
def _cache_of_three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("three") / "crds"
    build_small(path, detectors=DETECTORS)
    return path


@pytest.fixture
def cache_of_three(
    _cache_of_three: Path,
    tmp_path: Path,
    use_cache: Callable[[Path], Path],  # noqa: F811
) -> Iterator[Path]:
    """A cache of three detectors at a small window, in use, to be changed at will."""
    path = tmp_path / "three"
    shutil.copytree(_cache_of_three, path)
    yield use_cache(path)
