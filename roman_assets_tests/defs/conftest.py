from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from dagster import DagsterInstance

from roman_assets.data_root import DataRoot
from roman_assets_tests.support.sky import Sky


@pytest.fixture
def root(tmp_path: Path) -> DataRoot:
    return DataRoot(tmp_path / "data")


@pytest.fixture
def instance() -> Iterator[DagsterInstance]:
    with DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def sky(root: DataRoot, instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> Sky:
    return Sky(root, instance, monkeypatch)
