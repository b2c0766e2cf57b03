from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from crds.core import utils
from PIL import Image
from roman_datamodels import datamodels

from roman_assets.calibration import exposure as exposure_pipeline
from roman_assets.calibration.detector import CalibratedDetector, DetectorQuality, DetectorTask
from roman_assets.calibration.exposure import ExposureSummary, calibrate_exposure
from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError
from roman_assets.formatting.formatting_step import format_exposure
from roman_assets.formatting.landing import LandingArea
from roman_assets.products.deadline import ClockEvent
from roman_assets.products.kind import KIND_BY_NAME, Level, Step
from roman_assets.products.name import ProductName
from roman_assets.products.observation import DETECTORS, ExposureId, Survey
from roman_assets.products.pointing import PointingSource
from roman_assets.publishing.step import Output, publish_step
from roman_assets.records.record import ProductEntry
from roman_assets.references.context import operational_context
from roman_assets.registry.registry import Registry
from roman_assets.simulation.telescope.crds_mappings import CONTEXTS
from roman_assets.simulation.telescope.observing import observe
from roman_assets.simulation.telescope.survey_plan import DEMO_REQUESTS, VisitPlan
from roman_assets.software import installed_software
from roman_assets_tests.support.observed_visit import Observed


def by_kind(entries: tuple[ProductEntry, ...]) -> dict[str, ProductEntry]:
    return {entry.product_name.kind.name: entry for entry in entries}


def test_a_detector_gives_l2_the_l1_supplement_and_l4(calibrated):
    made = by_kind(calibrated.first.made)
    assert set(made) == {
        "cal", "cal_preview", "cal_thumbnail", "supplement", "exposure_catalog",
        "exposure_segmentation",
    }  # fmt: skip
    assert not calibrated.first.failures
    assert made["supplement"].product_name.level is Level.L1
    assert "/L1/" in str(calibrated.observed.path(made["supplement"].name))
    assert "/L2/" in str(calibrated.observed.path(made["cal"].name))


def test_every_product_is_valid_and_knows_its_official_name(calibrated):
    for entry in calibrated.first.made:
        path = calibrated.observed.path(entry.name)
        if path.suffix == ".png":
            with Image.open(path) as picture:
                picture.verify()
            continue
        if path.suffix == ".parquet":
            metadata = pq.read_schema(path).metadata
            assert metadata[b"roman.meta.filename"].decode() == entry.name
            continue
        with datamodels.open(path) as model:
            assert type(model).__name__ == entry.product_name.kind.datamodel
            assert model.meta.filename == entry.name
            assert model.validate() is None


def test_no_path_of_this_machine_is_left_in_the_products(calibrated):
    place = str(calibrated.observed.root.scratch).encode()
    for entry in calibrated.first.made:
        content = calibrated.observed.path(entry.name).read_bytes()
        assert place not in content
        # tweakreg names its catalogue in the WCS
        assert b"FIT-LVL2-/" not in content


def test_every_step_of_the_pipeline_is_done(calibrated):
    with datamodels.open(
        calibrated.observed.path(by_kind(calibrated.first.made)["cal"].name)
    ) as l2:
        steps = dict(l2.meta.cal_step.items())
        assert l2.meta.cal_logs
    left_out = {"refpix", "dark_decay", "wfi18_transient", "flux", "outlier_detection", "skymatch"}
    assert {name for name, status in steps.items() if status != "COMPLETE"} <= left_out


def test_context_software_and_references_of_the_moment_are_recorded(calibrated):
    for entry in calibrated.first.made:
        assert entry.context == operational_context()
        assert entry.software == installed_software(Step.EXPOSURE)
        assert {"flat", "dark", "mask", "distortion"} <= set(entry.references)
    with datamodels.open(
        calibrated.observed.path(by_kind(calibrated.first.made)["cal"].name)
    ) as l2:
        assert l2.meta.ref_file.crds.context == operational_context()


def test_the_clock_events_of_the_step_are_recorded(calibrated):
    registry, exposure = Registry(calibrated.observed.root), str(calibrated.observed.exposures[0])
    received = registry.receipts.events(exposure, Step.FORMATTING)[ClockEvent.ALL_RECEIVED]
    step = registry.receipts.events(exposure, Step.EXPOSURE)
    assert received < step[ClockEvent.STARTED] < step[ClockEvent.FINISHED]


def test_the_quality_of_an_image_is_known_to_the_registry(calibrated):
    made = by_kind(calibrated.first.made)
    quality = made["cal"].metadata
    assert quality["alignment"] == "COMPLETE"
    assert quality["alignment_matches"] >= 10
    assert 0 < quality["alignment_rms"] < 5
    assert 0 < quality["bad_pixel_fraction"] < 0.1
    assert quality["background"] > 0
    rows = pq.read_metadata(calibrated.observed.path(made["exposure_catalog"].name)).num_rows
    assert quality["source_count"] == made["exposure_catalog"].metadata["source_count"] == rows


def test_the_summary_tells_the_worst_of_an_exposure(calibrated):
    entries = calibrated.first.made
    image = by_kind(entries)["cal"]
    worse = image.model_copy(
        update={"metadata": image.metadata | {"alignment_rms": 9.5, "alignment": "FAILED"}}
    )
    summary = ExposureSummary.of([*entries, worse])
    assert (summary.detectors, summary.aligned, summary.alignment_rms) == (2, 1, 9.5)
    assert summary.source_count == 2 * image.metadata["source_count"]


def test_the_supplement_has_the_ephemeris_of_l1_until_a_definitive_one_is_received(calibrated):
    before = by_kind(calibrated.first.made)["supplement"]
    after = by_kind(calibrated.after_definitive_ephemeris.made)["supplement"]
    assert [entry.name for entry in before.inputs] == [
        before.name.replace("_wcs.", "_uncal."),
    ]
    assert len(after.inputs) == 2
    with datamodels.open(calibrated.observed.path(after.name)) as model:
        assert model.meta.ephemeris.type == "DEFINITIVE"
        definitive = dict(model.meta.ephemeris.items())
        model.validate()
        assert model.wcs_l2 is not None
    uncal = calibrated.observed.path(after.inputs[0].name)
    with datamodels.open(uncal) as level1:
        planned = dict(level1.meta.ephemeris.items())
    assert planned["type"] == "PREDICTED"
    assert definitive["time"] == pytest.approx(planned["time"], abs=1e-9)
    assert definitive["spatial_x"] == pytest.approx(planned["spatial_x"], rel=1e-3)
    assert definitive["spatial_x"] != planned["spatial_x"]


def test_a_definitive_ephemeris_does_not_make_l2_again(calibrated):
    again = calibrated.after_definitive_ephemeris
    assert set(by_kind(again.made)) == {"supplement"}
    assert set(by_kind(again.reused)) == {"cal", "exposure_catalog", "exposure_segmentation"}


def test_doing_it_again_makes_nothing_and_records_nothing(calibrated):
    exposure = calibrated.observed.exposures[0]
    result = calibrate_exposure(calibrated.observed.root, exposure)
    assert not result.made
    assert result.record_id is None
    assert len(result.reused) == 4


def test_a_failing_detector_fails_alone(calibrated):
    assert set(by_kind(calibrated.second.made)) == set(by_kind(calibrated.first.made))
    assert {failure.file_set for failure in calibrated.second.failures} == {
        calibrated.wrong_shape,
        calibrated.without_references,
    }


def _failure(calibrated, file_set: str):
    (failure,) = (one for one in calibrated.second.failures if one.file_set == file_set)
    return failure


def test_an_l1_of_the_wrong_shape_says_which_and_what_to_do(calibrated):
    failure = _failure(calibrated, calibrated.wrong_shape)
    assert failure.error == "BadInputError"
    assert failure.message.startswith(f"{calibrated.wrong_shape}_uncal.asdf: data: ")
    assert "260" in failure.message
    assert "520" in failure.message
    assert "Remedy: format the exposure again" in failure.message


def test_a_detector_without_references_says_which_context_lacks_them(calibrated):
    failure = _failure(calibrated, calibrated.without_references)
    assert failure.error == "BadInputError"
    assert failure.message.startswith(f"{calibrated.without_references}_uncal.asdf: references: ")
    assert operational_context() in failure.message


def test_scratch_is_empty_afterwards(calibrated):
    assert list(calibrated.observed.root.scratch.iterdir()) == []


def test_an_exposure_without_l1_is_refused(observed):
    with pytest.raises(BadInputError, match="no L1"):
        calibrate_exposure(observed.root, ExposureId(observed.visit, 77))


def test_a_missing_calibration_cache_is_a_clear_error(observed, monkeypatch, tmp_path):
    monkeypatch.setenv("CRDS_PATH", str(tmp_path / "nowhere"))
    with pytest.raises(BadInputError, match="server_config"):
        calibrate_exposure(observed.root, observed.exposures[0], force=True)


def _lose_worker(task: DetectorTask) -> CalibratedDetector:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def test_a_lost_worker_is_a_passing_fault_of_its_detector(copy_of_observed, monkeypatch):
    monkeypatch.setattr(exposure_pipeline, "calibrate_detector", _lose_worker)
    result = calibrate_exposure(copy_of_observed.root, copy_of_observed.exposures[0], force=True)
    (failure,) = result.failures
    assert failure.error == "PassingFaultError"
    assert failure.file_set.endswith("wfi02_f158")
    failures = Registry(copy_of_observed.root).work.failures(str(copy_of_observed.exposures[0]))
    assert list(failures["error"]) == ["PassingFaultError"]


def _fake_romancal(task: DetectorTask) -> CalibratedDetector:
    """Write all four products, as romancal does whatever the survey."""
    models = {
        "cal": datamodels.ImageModel,
        "supplement": datamodels.WfiWcsModel,
        "exposure_catalog": datamodels.ImageSourceCatalogModel,
        "exposure_segmentation": datamodels.SegmentationMapModel,
    }
    file_set = ProductName.parse(task.uncal.name).file_set
    files: dict[str, Path] = {}
    for kind, model in models.items():
        files[kind] = task.uncal.with_name(str(ProductName(file_set, KIND_BY_NAME[kind])))
        model.create_fake_data().save(files[kind])
    quality = DetectorQuality("COMPLETE", 20, 0.5, 3, 0.01, 0.2, PointingSource.OWN)
    return CalibratedDetector(files, os.environ["CRDS_CONTEXT"], {"flat": "flat.asdf"}, quality)


def test_a_context_that_was_fixed_is_used_whatever_is_operational(
    calibrated, copy_of_observed, monkeypatch
):
    monkeypatch.setattr(exposure_pipeline, "calibrate_detector", _fake_romancal)
    root, exposure = copy_of_observed.root, copy_of_observed.exposures[0]
    assert operational_context() != CONTEXTS[0]
    for made in calibrate_exposure(root, exposure, context=CONTEXTS[0]).made:
        assert made.context == CONTEXTS[0]
    assert not calibrate_exposure(root, exposure, context=CONTEXTS[0]).made
    for made in calibrate_exposure(root, exposure).made:
        assert made.context == operational_context()
    with pytest.raises(BadInputError, match=r"roman_0009\.pmap"):
        calibrate_exposure(root, exposure, context="roman_0009.pmap")


def _fake_romancal_without_wfi01(task: DetectorTask) -> CalibratedDetector:
    if "wfi01" in task.uncal.name:
        raise BadInputError(task.uncal.name, "data", "all pixels are bad", "give it up")
    return _fake_romancal(task)


def test_only_the_file_sets_that_are_affected_are_made_again(
    calibrated, copy_of_observed, monkeypatch
):
    monkeypatch.setattr(exposure_pipeline, "calibrate_detector", _fake_romancal_without_wfi01)
    root, exposure = copy_of_observed.root, copy_of_observed.exposures[1]
    calibrate_exposure(root, exposure)
    affected, other, failed = (f"{exposure}_wfi0{number}_f158" for number in (2, 3, 1))
    result = calibrate_exposure(root, exposure, context=CONTEXTS[0], only={affected})
    assert {str(one.product_name.file_set) for one in result.made} == {affected}
    assert {one.context for one in result.made} == {CONTEXTS[0]}
    assert {str(one.product_name.file_set) for one in result.reused} == {other}
    assert {one.context for one in result.reused} == {CONTEXTS[1]}
    # what had failed before is on record still: nothing waits for it, and no sensor asks for a run
    with Registry(root) as registry:
        assert list(registry.work.failures(str(exposure))["file_set"]) == [failed]
        assert registry.work.exposure_progress([str(exposure)])["calibrated"].all()
    assert not calibrate_exposure(root, exposure, context=CONTEXTS[0], only={affected}).made


@pytest.mark.parametrize("survey", [Survey.GBTDS, Survey.GAS])
def test_the_bulge_survey_gets_no_l4_from_here(survey, copy_of_observed, monkeypatch):
    root, exposure = copy_of_observed.root, copy_of_observed.exposures[0]
    (ramp,) = copy_of_observed.current(exposure=str(exposure), kind="uncal").values()
    copy = root.path / ramp.name
    copy.write_bytes(copy_of_observed.path(ramp.name).read_bytes())
    publish_step(
        root,
        step=Step.FORMATTING,
        partition=str(exposure),
        outputs=[Output(ramp.product_name, copy, "1" * 64, metadata={"survey": survey})],
    )
    monkeypatch.setattr(exposure_pipeline, "calibrate_detector", _fake_romancal)
    result = calibrate_exposure(root, exposure, force=True)
    assert not result.failures
    l4 = {"exposure_catalog", "exposure_segmentation"}
    expected = {"cal", "supplement"} | (set() if survey is Survey.GBTDS else l4)
    assert set(by_kind(result.made)) == expected


def _one_exposure(place: Path, detectors: tuple[str, ...], window: int | None) -> Observed:
    root = DataRoot(place)
    request = replace(DEMO_REQUESTS[0], dither="NONE")
    plan = VisitPlan.from_requests([request], detectors=detectors)
    exposures = observe(plan, root, window=window, processes=1)
    LandingArea(root).scan()
    assert not format_exposure(root, exposures[0]).failures
    return Observed(root, plan, exposures)


@pytest.fixture
def own_cache(_crds_environment, monkeypatch):
    """Let an installation use its own CRDS cache, whatever this process used before."""
    monkeypatch.setenv("CRDS_PATH", "")
    monkeypatch.delenv("CRDS_PATH")
    yield
    utils.clear_function_caches()


@pytest.mark.slow
def test_all_18_detectors_go_through(tmp_path, own_cache):
    observed = _one_exposure(tmp_path / "data", DETECTORS, 512)
    result = calibrate_exposure(observed.root, observed.exposures[0])
    assert not result.failures
    assert len(result.made) == 18 * 6
    summary = ExposureSummary.of(result.made)
    assert summary.detectors == 18
    assert summary.aligned >= 15


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_whole_detector_goes_through_every_step(tmp_path, own_cache):
    observed = _one_exposure(tmp_path / "data", ("WFI02",), None)
    result = calibrate_exposure(observed.root, observed.exposures[0])
    assert not result.failures
    steps = by_kind(result.made)["cal"].metadata["cal_step"]
    # the others are made with L3, or are for WFI18 only
    not_here = {"flux", "outlier_detection", "skymatch", "wfi18_transient"}
    assert {name for name, status in steps.items() if status != "COMPLETE"} <= not_here
    assert {"refpix", "dark_decay"} <= steps.keys()
