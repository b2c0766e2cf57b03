from __future__ import annotations

from pathlib import Path

import pytest

from roman_assets.data_root import DataRoot
from roman_assets_tests.calibration.conftest import (  # noqa: F401
    _cache_of_three,
    cache_of_three,
    use_cache,
)
from roman_assets_tests.pipelines.reprocessing.season import Season


@pytest.fixture
def season(tmp_path: Path, cache_of_three: Path) -> Season:  # noqa: F811
    """An installation whose references are those of `cache_of_three`."""
    return Season(DataRoot(tmp_path / "data"))
