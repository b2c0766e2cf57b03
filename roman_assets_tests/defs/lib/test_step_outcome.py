from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from roman_assets.archive.file_archive import FileArchive
from roman_assets.data_root import DataRoot
from roman_assets.defs.lib.partition_work import PartitionOutcome
from roman_assets.defs.lib.step_outcome import outcome_of
from roman_assets.products.deadline import ClockEvent
from roman_assets.products.kind import Step
from roman_assets.publishing.step import StepResult
from roman_assets.records.journal import Journal
from roman_assets.records.record import Attempt, Outcome, WorkFailure
from roman_assets.registry.store.fold import fold
from roman_assets_tests.support.facts import Facts, at
from roman_assets_tests.support.small_products import VISIT, association, exposure, record_of

UNCAL, CATALOG = dg.AssetKey("uncal"), dg.AssetKey("exposure_catalog")


@pytest.fixture
def root(tmp_path: Path) -> DataRoot:
    return DataRoot(tmp_path / "data")


def name(detector: int, suffix: str = "uncal.asdf") -> str:
    return f"{exposure()}_wfi{detector:02d}_f158_{suffix}"


def publish(
    root: DataRoot, step: Step, *names: str, fingerprint: str = "0" * 64, **fields: Any
) -> StepResult:
    record = record_of(root, {file: file.encode() for file in names}, step=step, **fields)
    products = [entry.model_copy(update={"fingerprint": fingerprint}) for entry in record.products]
    record = record.model_copy(update={"products": tuple(products)})
    Journal(root).write(record)
    fold(root)
    return StepResult(made=record.products, failures=record.failures)


def failure(detector: int, error: str = "BadInputError") -> WorkFailure:
    file_set = name(detector).rpartition("_")[0]
    return WorkFailure(file_set=file_set, error=error, message="no stars")


def outcome(root: DataRoot, step: Step, result: StepResult) -> PartitionOutcome:
    return outcome_of(root, step, exposure(), result)


@pytest.mark.parametrize(("hours", "blame"), [(2, None), (40, "computation")])
def test_people_see_counts_sizes_generation_margin_and_blame(
    root: DataRoot, hours: float, blame: str | None
) -> None:
    made_at = at(1) + timedelta(hours=hours)
    result = publish(
        root,
        Step.FORMATTING,
        name(1),
        name(2),
        events={ClockEvent.STARTED: at(2)},
        attempt=Attempt(attempt_id="1", outcome=Outcome.FINISHED),
        committed_at=made_at,
    )
    Facts(root).receipt()
    fold(root)
    shown = outcome(root, Step.FORMATTING, result).assets[UNCAL].metadata
    assert shown["files"] == 2
    assert shown["size_bytes"] == len(name(1)) + len(name(2))
    assert shown["generation"] == 1
    assert shown["reused"] is False
    assert shown["due"].value == (at(1) + timedelta(hours=24)).timestamp()
    assert shown["margin_hours"] == pytest.approx(24 - hours)
    assert shown.get("blame") == blame
    assert [entry["name"] for entry in shown["products"].value] == [name(1), name(2)]


def test_reused_products_are_shown_as_such_with_the_same_version(root: DataRoot) -> None:
    result = publish(root, Step.FORMATTING, name(1))
    first = outcome(root, Step.FORMATTING, result).assets[UNCAL]
    again = outcome(root, Step.FORMATTING, StepResult(reused=result.made)).assets[UNCAL]
    assert again.metadata["reused"] is True
    assert again.data_version == first.data_version


def test_other_content_has_another_version(root: DataRoot) -> None:
    first = publish(root, Step.FORMATTING, name(1), fingerprint="0" * 64)
    before = outcome(root, Step.FORMATTING, first).assets[UNCAL].data_version
    second = publish(root, Step.FORMATTING, name(1), fingerprint="1" * 64)
    after = outcome(root, Step.FORMATTING, second).assets[UNCAL]
    assert after.data_version != before


def test_one_failed_detector_fails_alone(root: DataRoot) -> None:
    result = publish(root, Step.FORMATTING, name(1), failures=(failure(2),))
    found = outcome(root, Step.FORMATTING, result)
    assert found.error is None
    assert found.assets[UNCAL].metadata["failed_file_sets"] == 1
    assert [check.passed for check in found.checks if check.check_name == "all_detectors_made"] == [
        False
    ]


@pytest.mark.parametrize(
    ("error", "again"), [("BadInputError", False), ("PassingFaultError", True)]
)
def test_if_all_failed_the_step_fails(root: DataRoot, error: str, again: bool) -> None:
    result = StepResult(failures=(failure(1, error), failure(2)))
    found = outcome(root, Step.FORMATTING, result)
    assert not found.assets
    assert isinstance(found.error, dg.Failure)
    assert found.error.allow_retries is again
    assert set(found.error.metadata) == {failure(1).file_set, failure(2).file_set}
    assert [check.passed for check in found.checks if check.check_name == "all_detectors_made"] == [
        False
    ]


def test_a_visit_of_the_ssc_has_nothing_and_is_no_failure(root: DataRoot) -> None:
    found = outcome(root, Step.VISIT, StepResult())
    assert (found.assets, list(found.checks), found.error) == ({}, [], None)


def test_a_catalogue_without_its_file_is_found(root: DataRoot) -> None:
    result = publish(root, Step.EXPOSURE, name(1, "cat.parquet"))
    checks = {check.check_name: check for check in outcome(root, Step.EXPOSURE, result).checks}
    assert checks["files_only"].passed
    FileArchive(root).public_path(result.made[0].product_name).unlink()
    checks = {check.check_name: check for check in outcome(root, Step.EXPOSURE, result).checks}
    assert not checks["files_only"].passed
    assert name(1, "cat.parquet") in checks["files_only"].metadata["missing_files"].value


def test_a_visit_made_in_part_is_shown_with_what_lacked(root: DataRoot) -> None:
    lacking = [exposure(2)]
    result = publish(
        root,
        Step.VISIT,
        association(),
        partition=VISIT,
        metadata={"missing": lacking, "pixel_scale": 0.11},
    )
    found = outcome_of(root, Step.VISIT, VISIT, result)
    shown = found.assets[dg.AssetKey("association")].metadata
    assert shown["partial"] is True
    assert shown["missing"].value == [exposure(2)]
    assert shown["pixel_scale_arcsec"] == "0.11"
