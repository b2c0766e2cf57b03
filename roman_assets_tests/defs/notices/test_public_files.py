from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import duckdb
import pytest

from roman_assets.data_root import DataRoot
from roman_assets.defs.deadlines.assets import deadline_report
from roman_assets.defs.lib.partition_work import DATA_VERSION_TAG
from roman_assets.defs.lib.partitions import exposure_partitions
from roman_assets.defs.lib.resources import Installation
from roman_assets.defs.notices.sensors import NoticeFile, availability_sensor
from roman_assets.products.deadline import ClockEvent
from roman_assets.records.journal import Journal
from roman_assets.records.record import Attempt, Outcome, Statement, WorkFailure
from roman_assets.registry.store.fold import fold
from roman_assets.registry.store.snapshot import TIERS
from roman_assets_tests.support.other_user import another_user, as_root, open_directory
from roman_assets_tests.support.small_products import cal, exposure, moment, record_of

RUN, FAILURE, ATTEMPT = "run-of-operations", "no room on host ops17", "5ec3e7" * 5 + "aa"


@pytest.fixture
def root() -> Iterator[DataRoot]:
    with open_directory() as directory:
        yield DataRoot(directory / "data")


@dg.asset(name="cal", partitions_def=exposure_partitions)
def image() -> dg.MaterializeResult:
    """Report L2 as the real asset does."""
    return dg.MaterializeResult(
        metadata={"reused": False, "products": [{"name": cal()}]}, tags={DATA_VERSION_TAG: "1"}
    )


def operate(root: DataRoot, instance: dg.DagsterInstance) -> set[str]:
    """Publish, fail and report in an installation; return the words the public must not see."""
    journal = Journal(root)
    attempt = Attempt(
        attempt_id=ATTEMPT, outcome=Outcome.PASSING_FAULT, error="OSError", message=FAILURE
    )
    journal.write(
        record_of(
            root, {cal(): b"image"}, committed_at=moment(0), run_id=RUN,
            failures=(WorkFailure(file_set="x", error="OSError", message=FAILURE),),
            metadata={"survey": "HLWAS"},
        )
    )  # fmt: skip
    journal.write(
        record_of(
            root, {}, committed_at=moment(1), run_id=RUN, statement=Statement.ATTEMPT,
            attempt=attempt, events={ClockEvent.STARTED: moment(1), ClockEvent.FINISHED: moment(2)},
        )
    )  # fmt: skip
    fold(root)
    resources = {"installation": Installation(data_root=str(root.path))}
    instance.add_dynamic_partitions(str(exposure_partitions.name), [exposure()])
    runs = [
        dg.materialize([image], partition_key=exposure(), instance=instance),
        dg.materialize([deadline_report], instance=instance, resources=resources),
    ]
    assert all(run.success for run in runs)
    availability_sensor(dg.build_sensor_context(instance=instance, resources=resources))
    return {RUN, FAILURE, ATTEMPT, *(run.run_id for run in runs)}


def public_files(root: DataRoot) -> list[Path]:
    """Return the files that another user of the machine can reach and read."""
    with another_user():
        return [path for path in sorted(root.path.rglob("*")) if _can_read(path)]


def _can_read(path: Path) -> bool:
    try:
        with path.open("rb"):
            return True
    except OSError:
        return False


def content(path: Path) -> str:
    """Return the whole content of a file, also the compressed part of a database."""
    told = path.read_bytes().decode("latin-1")
    if path.parent.name == TIERS:
        with duckdb.connect(str(path), read_only=True) as connection:
            for (table,) in connection.execute("select table_name from duckdb_tables()").fetchall():
                told += str(connection.execute(f'from "{table}"').fetchall())
    return told


@as_root
def test_no_file_that_the_public_can_read_tells_of_runs_or_failures(
    root: DataRoot, instance: dg.DagsterInstance
) -> None:
    secrets = operate(root, instance)
    found = public_files(root)
    assert NoticeFile.of(root).path in found
    assert any(path.parent.name == TIERS for path in found)
    assert any(path.name == cal() for path in found)
    telling = {path.relative_to(root.path): secret for path in found for secret in secrets
               if secret in content(path)}  # fmt: skip
    assert telling == {}
    assert not [path for path in found if (root.path / "reports") in path.parents]
