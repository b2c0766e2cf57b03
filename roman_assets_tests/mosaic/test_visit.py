from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from roman_datamodels import datamodels

from roman_assets.data_root import DataRoot
from roman_assets.errors import PassingFaultError
from roman_assets.formatting.executed_visit import ExecutedVisit, VisitStatus
from roman_assets.formatting.landing import LandingArea
from roman_assets.mosaic import coadd as mosaic_pipeline
from roman_assets.mosaic.manifest import visit_manifest
from roman_assets.mosaic.skycell import (
    MosaickedSkycell,
    SkycellTask,
    overlapped_skycells,
    skycell_wcs,
    write_association,
)
from roman_assets.mosaic.visit import mosaic_visit
from roman_assets.products.deadline import DEADLINES, ClockEvent
from roman_assets.products.kind import Level, Step
from roman_assets.products.name import ProductName, SkycellFileSet
from roman_assets.products.observation import ExposureType, OpticalElement, Survey, VisitId
from roman_assets.products.pixel_scale import PixelScale
from roman_assets.records.journal import Journal
from roman_assets.records.record import CommitRecord, WorkFailure
from roman_assets.references.context import operational_context
from roman_assets.registry.registry import Registry
from roman_assets.registry.store.fold import fold
from roman_assets.software import installed_software
from roman_assets_tests.support.small_products import record_of

VISIT = VisitId.parse("r0000301001001001001")
PICTURES = {"coadd_preview", "coadd_thumbnail"}
KINDS = {"association", "coadd", "visit_catalog", "visit_segmentation"} | PICTURES


class Register:
    """Registers small files as L1 and L2 of a visit of two exposures."""

    def __init__(self, root: DataRoot) -> None:
        self.root = root

    def __call__(
        self,
        kind: str,
        exposure: int,
        detector: int = 1,
        *,
        survey: Survey = Survey.HLWAS,
        exposure_type: ExposureType = ExposureType.WFI_IMAGE,
        content: str = "",
    ) -> str:
        name = f"{VISIT}_{exposure:04d}_wfi{detector:02d}_f158_{kind}.asdf"
        step = {"uncal": Step.FORMATTING, "cal": Step.EXPOSURE}[kind]
        facts = {"survey": survey, "exposure_type": exposure_type, "nexposures": 2}
        record = record_of(
            self.root,
            {name: f"{name} {content}".encode()},
            step=step,
            partition=f"{VISIT}_{exposure:04d}",
            metadata=facts,
        )
        Journal(self.root).write(record)
        fold(self.root)
        return name

    def failed(self, exposure: int, detector: int) -> None:
        """Record that L1 of a detector could not be made."""
        record = CommitRecord(
            step=Step.FORMATTING,
            partition=f"{VISIT}_{exposure:04d}",
            products=(),
            failures=(
                WorkFailure(
                    file_set=f"{VISIT}_{exposure:04d}_wfi{detector:02d}_f158",
                    error="BadInputError",
                    message="all pixels are bad",
                ),
            ),
        )
        Journal(self.root).write(record)
        fold(self.root)


@pytest.fixture
def register(tmp_path: Path) -> Register:
    return Register(DataRoot(tmp_path / "data"))


def test_the_manifest_of_an_unknown_visit_is_empty_and_not_complete(tmp_path):
    manifest = visit_manifest(DataRoot(tmp_path), VISIT)
    assert (manifest.members, manifest.exposures, manifest.nexposures) == ((), (), None)
    assert not manifest.complete


def test_a_visit_is_complete_when_every_planned_exposure_and_detector_has_l2(register):
    for exposure, detector in ((1, 1), (1, 2), (2, 1), (2, 2)):
        register("uncal", exposure, detector)
    register("cal", 1, 1)
    manifest = visit_manifest(register.root, VISIT)
    assert manifest.missing == (f"{VISIT}_0001_wfi02_f158", f"{VISIT}_0002")
    register("cal", 1, 2)
    register("cal", 2, 2)
    manifest = visit_manifest(register.root, VISIT)
    assert manifest.missing == (f"{VISIT}_0002_wfi01_f158",)
    assert not manifest.complete
    register("cal", 2, 1)
    manifest = visit_manifest(register.root, VISIT)
    assert manifest.missing == ()
    assert manifest.complete
    assert [str(exposure) for exposure in manifest.exposures] == [
        f"{VISIT}_0001",
        f"{VISIT}_0002",
    ]


def test_an_exposure_of_which_nothing_was_received_is_missing(register):
    register("uncal", 2)
    register("cal", 2)
    assert visit_manifest(register.root, VISIT).missing == (f"{VISIT}_0001",)


def test_a_detector_that_failed_lacks_and_is_not_awaited(register):
    register("cal", 1)
    register("cal", 2)
    register.failed(2, 2)
    manifest = visit_manifest(register.root, VISIT)
    assert manifest.missing == (f"{VISIT}_0002_wfi02_f158",)
    assert manifest.awaited == ()


def test_an_exposure_of_which_every_detector_failed_is_not_awaited(register):
    register("cal", 1)
    register("uncal", 2)
    register.failed(2, 1)
    manifest = visit_manifest(register.root, VISIT)
    assert manifest.missing == (f"{VISIT}_0002_wfi01_f158",)
    assert manifest.awaited == ()


def test_the_digest_changes_with_members_their_content_and_what_lacks_only(register):
    register("cal", 1)
    one = visit_manifest(register.root, VISIT).digest
    register("uncal", 1)
    assert visit_manifest(register.root, VISIT).digest == one
    register("cal", 2)
    two = visit_manifest(register.root, VISIT).digest
    register("cal", 2, content="made again")
    again = visit_manifest(register.root, VISIT).digest
    register("uncal", 2, 2)
    lacking = visit_manifest(register.root, VISIT).digest
    assert len({one, two, again, lacking}) == 4


@pytest.mark.parametrize(
    "facts",
    [
        {"survey": Survey.GBTDS},
        {"exposure_type": ExposureType.WFI_SPECTRAL},
        {"exposure_type": ExposureType.WFI_IM_DARK},
    ],
)
def test_what_the_science_support_center_makes_is_not_made_here(register, facts):
    register("cal", 1, **facts)
    result = mosaic_visit(register.root, VISIT)
    assert not (result.made or result.reused or result.failures)
    assert result.record_id is None
    assert str(next(iter(facts.values()))) in result.reason


def test_a_visit_without_l2_gives_nothing_and_says_so(tmp_path):
    assert "no L2" in mosaic_visit(DataRoot(tmp_path), VISIT).reason


def test_a_visit_gives_l3_with_its_association_and_l4(mosaicked, calibrated):
    assert not mosaicked.failures
    assert not mosaicked.reason
    skycells = {entry.product_name.file_set for entry in mosaicked.made}
    assert len(mosaicked.made) == len(KINDS) * len(skycells)
    for skycell in skycells:
        assert skycell.visit == calibrated.observed.visit
        assert skycell.release == "p"
        made = [entry for entry in mosaicked.made if entry.product_name.file_set == skycell]
        assert {entry.product_name.kind.name for entry in made} == KINDS


def test_every_product_of_a_visit_is_valid_and_knows_its_official_name(mosaicked, calibrated):
    for entry in mosaicked.made:
        path = calibrated.observed.path(entry.name)
        match path.suffix:
            case ".parquet":
                metadata = pq.read_schema(path).metadata
                assert metadata[b"roman.meta.filename"].decode() == entry.name
            case ".png":
                with Image.open(path) as picture:
                    picture.verify()
            case ".json":
                assert json.loads(path.read_text())["products"][0]["name"] == str(
                    entry.product_name.file_set
                )
            case _:
                with datamodels.open(path) as model:
                    assert type(model).__name__ == entry.product_name.kind.datamodel
                    assert model.meta.filename == entry.name
                    assert model.validate() is None


def test_the_association_lists_official_names_as_romancal_would(
    mosaicked, calibrated, tmp_path, monkeypatch
):
    from romancal.associations.skycell_asn import skycell_asn

    observed = calibrated.observed
    monkeypatch.setenv("CRDS_PATH", str(observed.root.crds))
    monkeypatch.chdir(tmp_path)
    members = sorted(observed.current(visit=str(observed.visit), kind="cal"))
    for name in members:
        (tmp_path / name).symlink_to(observed.path(name))
    skycell_asn(members, f"r{observed.visit.program:05d}", "visit", "p")
    theirs = {path.name: path.read_text() for path in tmp_path.glob("*_asn.json")}
    ours = {
        entry.name: observed.path(entry.name).read_text()
        for entry in mosaicked.made
        if entry.product_name.kind.name == "association"
    }
    assert theirs == ours


@pytest.mark.slow
def test_the_overlaps_of_a_whole_detector_are_those_of_romancal(calibrated, monkeypatch):
    from romancal.skycell.match import find_skycell_matches
    from romancal.skycell.skymap import SKYMAP, _wcsinfo_to_wcs

    monkeypatch.setenv("CRDS_PATH", str(calibrated.observed.root.crds))
    centre = SKYMAP.model.skycells[len(SKYMAP.model.skycells) // 2]
    shape = (4088, 4088)
    wcs = _wcsinfo_to_wcs(
        {
            "pixel_scale": 0.11 / 3600,
            "ra_projection_center": float(centre["ra_center"]) + 0.05,
            "dec_projection_center": float(centre["dec_center"]) - 0.02,
            "x0_projection": 2044,
            "y0_projection": 2044,
            "orientat": 27.0,
        },
        bounding_box=((-0.5, 4087.5), (-0.5, 4087.5)),
    )
    wcs.array_shape = shape
    ours = overlapped_skycells(wcs)
    assert len(ours) >= 4
    assert ours == sorted(int(index) for index in find_skycell_matches(wcs))


def test_the_coadd_adds_up_both_exposures_and_ends_where_they_end(mosaicked, calibrated):
    (coadd,) = (entry for entry in mosaicked.made if entry.product_name.kind.name == "coadd")
    with datamodels.open(calibrated.observed.path(coadd.name)) as model:
        covered = np.isfinite(model.data)
        assert model.meta.resample.pointings == 2
        assert model.meta.resample.members == [entry.name for entry in coadd.inputs]
    assert coadd.metadata["covered_fraction"] == pytest.approx(covered.mean(), rel=1e-6)
    # 512 of 2500 pixels of 0.11 arcsec, two dithers
    assert 0.03 < covered.mean() < 0.06
    assert coadd.metadata["source_count"] > 5


def test_a_prompt_coadd_has_native_pixels_each_of_exactly_four_of_the_sky_map(
    mosaicked, calibrated, monkeypatch
):
    from romancal.skycell.skymap import SkyCells

    monkeypatch.setenv("CRDS_PATH", str(calibrated.observed.root.crds))
    made = {entry.product_name.kind.name: entry for entry in mosaicked.made}
    assert {entry.metadata["pixel_scale"] for entry in mosaicked.made} == {0.11}
    skycell = SkyCells.from_names([made["coadd"].product_name.file_set.skycell])
    edges = np.array([0, 1, 777, 1250, 2499, 2500]) * 2 - 0.5
    x, y = (axis.ravel() for axis in np.meshgrid(edges, edges))
    corners = skycell.wcs[0](x, y, with_bounding_box=False)
    for kind in ("coadd", "visit_segmentation"):
        with datamodels.open(calibrated.observed.path(made[kind].name)) as model:
            assert model.data.shape == (2500, 2500)
            assert model.meta.wcsinfo.pixel_scale_ref == pytest.approx(0.11 / 3600, rel=1e-12)
            assert tuple(model.meta.wcsinfo.image_shape) == (2500, 2500)
    with datamodels.open(calibrated.observed.path(made["coadd"].name)) as model:
        found = model.meta.wcs.invert(*corners, with_bounding_box=False)
    np.testing.assert_allclose(found, [(x + 0.5) / 2 - 0.5, (y + 0.5) / 2 - 0.5], atol=1e-6)


def test_on_the_pixels_of_the_sky_map_the_skycell_is_romancals_own(calibrated, monkeypatch):
    from romancal.skycell.skymap import SKYMAP, SkyCells

    monkeypatch.setenv("CRDS_PATH", str(calibrated.observed.root.crds))
    name = str(SKYMAP.model.skycells[3]["name"])
    ours, theirs = skycell_wcs(name, PixelScale.SKYMAP), SkyCells.from_names([name]).wcs[0]
    assert ours.pixel_shape == SKYMAP.pixel_shape
    assert ours.bounding_box == theirs.bounding_box
    places = np.array([[0.0, 2499.5, 4999.0], [12.0, 2499.5, 4999.0]])
    np.testing.assert_allclose(ours(*places), theirs(*places), rtol=0, atol=1e-12)


def test_how_a_visit_was_made_is_recorded(mosaicked, calibrated):
    for entry in mosaicked.made:
        assert entry.context == operational_context()
        assert entry.software == installed_software(Step.VISIT)
        assert set(entry.references) == {"apcorr", "epsf", "skycells"}
        assert entry.metadata["survey"] == Survey.HLWAS
        assert entry.metadata["nexposures"] == 2
        assert {ProductName.parse(one.name).kind.name for one in entry.inputs} == {"cal"}


def test_the_clock_of_a_visit_starts_when_its_last_exposure_ended(mosaicked, calibrated):
    registry = Registry(calibrated.observed.root)
    visit = str(calibrated.observed.visit)
    last = registry.receipts.events(str(calibrated.observed.exposures[-1]))[
        ClockEvent.EXECUTION_END
    ]
    coadds = registry.deadlines.ledger(partition=visit, kind="coadd")
    assert set(coadds["due"]) == {last + DEADLINES[Level.L3].latency}
    events = registry.receipts.events(visit)
    assert timedelta() < events[ClockEvent.FINISHED] - events[ClockEvent.STARTED]


def test_doing_a_visit_again_makes_nothing_and_records_nothing(mosaicked, calibrated):
    result = mosaic_visit(calibrated.observed.root, calibrated.observed.visit)
    assert not result.made
    assert {entry.name for entry in result.reused} == {
        entry.name for entry in mosaicked.made if not entry.product_name.kind.picture
    }
    assert result.record_id is None


def _overlap_two(path: Path) -> tuple[str, ...]:
    return ("270p65x49y50", "270p65x50y50")


def _only_the_first(task: SkycellTask) -> MosaickedSkycell:
    if task.file_set.skycell == "270p65x49y50":
        raise PassingFaultError("the disk is full")
    assert [member.read_bytes() for member in task.members]
    return MosaickedSkycell(files={})


def test_a_failing_skycell_fails_alone_and_one_without_data_is_told_apart(
    register, monkeypatch, calibrated
):
    monkeypatch.setenv("CRDS_PATH", str(calibrated.observed.root.crds))
    monkeypatch.setattr(mosaic_pipeline, "skycells_of", _overlap_two)
    monkeypatch.setattr(mosaic_pipeline, "mosaic_skycell", _only_the_first)
    register("cal", 1)
    result = mosaic_visit(register.root, VISIT)
    (failure,) = result.failures
    assert failure.file_set == "r00003_p_v01001001001001_270p65x49y50_f158"
    assert (failure.error, failure.message) == ("PassingFaultError", "the disk is full")
    assert result.without_data == ("r00003_p_v01001001001001_270p65x50y50_f158",)


def test_an_unreadable_image_is_a_failure_of_its_own(register, monkeypatch, calibrated):
    monkeypatch.setenv("CRDS_PATH", str(calibrated.observed.root.crds))
    name = register("cal", 1)
    (failure,) = mosaic_visit(register.root, VISIT).failures
    assert failure.file_set == name.removesuffix("_cal.asdf")


def test_an_association_needs_no_directory(calibrated, tmp_path, monkeypatch):
    from romancal.skycell.skymap import SKYMAP

    monkeypatch.setenv("CRDS_PATH", str(calibrated.observed.root.crds))
    skycell = str(SKYMAP.model.skycells[3]["name"])
    file_set = SkycellFileSet.of_visit(VISIT, skycell, OpticalElement.F158)
    path = write_association(SkycellTask(file_set, (tmp_path / "a_cal.asdf",), PixelScale.NATIVE))
    assert path == tmp_path / f"{file_set}_asn.json"
    assert str(tmp_path) not in path.read_text()


def deliver_executed_visit(register, observed, **fields) -> ExecutedVisit:
    """Let the executed visit of the visit that `register` registers land."""
    original = LandingArea(observed.root).executed_visits([observed.visit])[observed.visit]
    document = original.model_copy(update={"visit": VISIT, **fields})
    landing = LandingArea(register.root)
    (landing.path / f"executed_{document.revision}.json").write_text(document.model_dump_json())
    assert landing.scan().taken
    return document


def test_an_exposure_that_was_executed_and_lost_is_awaited(register, observed):
    document = deliver_executed_visit(register, observed)
    register("cal", 1, 2)
    manifest = visit_manifest(register.root, VISIT)
    assert manifest.awaited == (f"{VISIT}_0002",)
    end = max(executed.end_time for executed in document.exposures)
    assert manifest.executed[ClockEvent.EXECUTION_END] == end


def test_a_visit_cut_short_is_complete_with_what_was_executed(register, observed):
    whole = deliver_executed_visit(register, observed)
    deliver_executed_visit(
        register,
        observed,
        revision=whole.revision + 1,
        status=VisitStatus.TRUNCATED,
        exposures=whole.exposures[:1],
    )
    assert visit_manifest(register.root, VISIT).missing == (f"{VISIT}_0001",)
    register("cal", 1, 2)
    manifest = visit_manifest(register.root, VISIT)
    assert manifest.complete
    assert manifest.nexposures == 2
    assert manifest.executed[ClockEvent.EXECUTION_END] == whole.exposures[0].end_time
