"""How tests share two processes, and installations on disk and with their archive on S3."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from roman_assets.data_root import DataRoot
from roman_assets_tests.support.s3_server import BUCKET, environment, running_s3_server
from roman_assets_tests.support.shards import SHARDS, keep_shard, longest_first

pytest_plugins = [
    "roman_assets_tests.support.observed_visit",
    "roman_assets_tests.support.reprocessed_season",
    "roman_assets_tests.support.small_crds_cache",
    "roman_assets_tests.support.whole_survey_plan",
]
"""Fixtures that several parts of the tests use."""

LONGEST_FIRST = (
    "calibration",
    "defs",
    "simulation",
    "releases",
    "mosaic",
    "formatting",
    "acceleration",
    "registry",
)
"""Directories whose tests take longest: begun first, so that two processes end at one time."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of `make fuzz`, `make soak` and `make test-shard`."""
    parser.addoption(
        "--fuzz-seconds",
        type=float,
        default=3.0,
        help="Seconds for which each fuzz target runs.",
    )
    parser.addoption(
        "--slow-shard",
        type=int,
        help=f"Run one of {SHARDS} shards of the slow tests: this number modulo {SHARDS}.",
    )
    parser.addoption(
        "--soak-minutes",
        type=float,
        default=8.0,
        help="Minutes of deliveries and faults in the soak.",
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Report at the end, so that nobody misses it, which tests did not run here and why."""
    skipped = terminalreporter.stats.get("skipped", [])
    if not skipped:
        return
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in skipped)
    terminalreporter.section(f"{len(skipped)} tests did NOT run here", red=True, bold=True)
    for reason, number in reasons.most_common():
        terminalreporter.line(f"{number}: {reason}", red=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Order tests by directory, the slowest first; keep only one shard if requested."""
    ranks = {directory: rank for rank, directory in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: ranks.get(_directory(item), len(ranks)))
    shard = config.getoption("--slow-shard")
    if shard is not None:
        config.hook.pytest_deselected(items=keep_shard(items, shard % SHARDS))
        items[:] = longest_first(items)


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
