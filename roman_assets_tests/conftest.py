"""How tests share two processes, and installations on disk and with their archive on S3."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from roman_assets.data_root import DataRoot
from roman_assets_tests.s3_server import BUCKET, environment, running_s3_server

LONGEST_FIRST = ("pipelines", "observatory", "automation", "registry")
"""Directories whose tests take longest: begun first, so that two processes end at one time."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let `make fuzz` give every fuzz target more time."""
    parser.addoption(
        "--fuzz-seconds",
        type=float,
        default=3.0,
        help="Seconds for which each fuzz target runs.",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the directories whose tests take longest."""
    ranks = {directory: rank for rank, directory in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: ranks.get(_directory(item), len(ranks)))


def _directory(item: pytest.Item) -> str:
    return item.path.relative_to(Path(__file__).parent).parts[0]


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    with running_s3_server() as endpoint:
        yield endpoint


@pytest.fixture
def object_store(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty place in an object store, and the environment in which it is found."""
    for name, value in environment(s3_endpoint).items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture(params=["disk", "s3"])
def new_root(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], DataRoot]:
    """Give data roots of hosts of one installation, which share what the archive is in."""
    if request.param == "disk":
        return lambda host: DataRoot(tmp_path / "data")
    store = request.getfixturevalue("object_store")
    return lambda host: DataRoot(tmp_path / host, store)


@pytest.fixture
def either_root(new_root: Callable[[str], DataRoot]) -> DataRoot:
    """An installation, once on disk and once with its archive in an object store."""
    return new_root("data")
