from __future__ import annotations

from collections.abc import Iterator

import pytest

from roman_assets.data_root import DataRoot
from roman_assets_tests.support.service_server import running_service
from roman_assets_tests.support.small_archive import small_archive


@pytest.fixture(scope="package")
def shared_root(tmp_path_factory: pytest.TempPathFactory) -> DataRoot:
    """An installation that is only read."""
    return small_archive(tmp_path_factory.mktemp("served") / "data")


@pytest.fixture(scope="package")
def served(shared_root: DataRoot) -> Iterator[str]:
    """The URL of a service of that installation."""
    with running_service(shared_root) as url:
        yield url
