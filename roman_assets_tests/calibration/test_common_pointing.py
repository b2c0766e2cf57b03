"""The common pointing of an exposure, against where a simulated telescope really points."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from gwcs.wcs import WCS, Step
from roman_datamodels import datamodels

from roman_assets.calibration import common_pointing
from roman_assets.calibration.common_pointing import (
    AlignedImage,
    CommonPointing,
    CommonPointingTask,
    point_like_the_others,
)
from roman_assets.calibration.detector import CalibratedDetector, DetectorQuality
from roman_assets.products.observation import DETECTORS
from roman_assets.products.pointing import ALIGNED, ALIGNMENT_FAILED, PointingSource
from roman_assets.references.context import operational_context
from roman_assets.simulation.telescope.detector_geometry import (
    detector_wcs,
    distortion,
    siaf_aperture,
)
from roman_assets_tests.support.observed_visit import Calibrated

WINDOW = 512
SPARSE = ("WFI03", "WFI08", "WFI12", "WFI16")
RICH = tuple(name for name in DETECTORS if name not in SPARSE)
MAS = np.deg2rad(1e-3 / 3600)
STARS, SCATTER_MAS = 20, 1.5


def vectors(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    ra, dec = np.deg2rad(ra), np.deg2rad(dec)
    return np.column_stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)])


@pytest.fixture(scope="module")
def truth() -> Mapping[str, AlignedImage]:
    """All images as an alignment without errors finds them."""
    x, y = (axis.ravel() for axis in np.meshgrid(*2 * [np.linspace(0, WINDOW - 1, 5)]))
    images = {}
    for name in DETECTORS:
        wcs = detector_wcs(name, 270.0001, 65.9999, 30.0005, WINDOW, velocity_aberration=1.00008)
        aperture = siaf_aperture(name)
        images[name] = AlignedImage(
            name=name,
            telescope=np.column_stack(distortion(name, WINDOW)(x, y)),
            sky=vectors(*wcs(x, y)),
            reference=np.array([aperture.V2Ref, aperture.V3Ref]),
            aberration=1.00008,
            stars=STARS,
            scatter=SCATTER_MAS,
        )
    return images


def measured(truth: Mapping[str, AlignedImage], names: Iterable[str], seed: int = 1):
    """Images displaced at random, as the scatter of their stars displaces them."""
    rng = np.random.default_rng(seed)
    sigma = SCATTER_MAS / np.sqrt(2 * STARS) * MAS
    return [replace(truth[name], sky=truth[name].sky + rng.normal(0, sigma, 3)) for name in names]


def error(common: CommonPointing, image: AlignedImage) -> float:
    """The largest error (mas) of the pointing on an image."""
    return float(np.linalg.norm(common.sky(image.telescope) - image.sky, axis=1).max() / MAS)


def test_of_18_images_14_point_the_other_four_within_half_a_mas(truth) -> None:
    common = CommonPointing.of(measured(truth, RICH))
    for name in SPARSE:
        assert error(common, truth[name]) < 0.5
        assert common.uncertainty(truth[name].telescope) < 0.5


def test_the_stated_uncertainty_is_the_error_that_many_fits_have(truth) -> None:
    givers, image = ("WFI01", "WFI02", "WFI09"), truth["WFI18"]
    fits = [CommonPointing.of(measured(truth, givers, seed)) for seed in range(60)]
    rms = np.sqrt(np.mean([error(fit, image) ** 2 for fit in fits]))
    stated = np.median([fit.uncertainty(image.telescope) for fit in fits])
    assert 0.6 < stated / rms < 1.7


def test_one_image_alone_is_no_sure_guide_to_the_far_end_of_the_focal_plane(truth) -> None:
    common = CommonPointing.of(measured(truth, ["WFI01"]))
    assert common.uncertainty(truth["WFI01"].telescope) < 1
    assert common.uncertainty(truth["WFI18"].telescope) > 5


def test_the_order_of_the_images_makes_no_difference(truth) -> None:
    images = measured(truth, RICH)
    one, other = CommonPointing.of(images), CommonPointing.of(images[::-1])
    assert (one.rotation == other.rotation).all()
    assert (one.covariance == other.covariance).all()


def test_an_image_with_wrong_matches_makes_the_pointing_uncertain_and_stands_out(truth) -> None:
    images = measured(truth, RICH)
    images[0] = replace(images[0], sky=images[0].sky + 30 * MAS)
    common = CommonPointing.of(images)
    assert max(common.residuals, key=common.residuals.__getitem__) == images[0].name
    assert common.uncertainty(truth["WFI03"].telescope) > error(common, truth["WFI03"]) / 2
    assert common.uncertainty(truth["WFI03"].telescope) > 1


@dataclass
class Pointed:
    """An image that was put back to its planned pointing, then pointed like itself before."""

    before: Mapping[str, Path]
    after: CalibratedDetector

    def wcs(self, files: Mapping[str, Path], kind: str) -> Any:
        with datamodels.open(files[kind]) as model:
            return model.meta.wcs if kind == "cal" else model.wcs_l2

    def apart(self, one: Any, other: Any) -> float:
        """The largest distance between two WCS, mas."""
        places = np.array([10.0, 250.0, 490.0])
        x, y = map(np.ravel, np.meshgrid(places, places))
        return float(
            np.linalg.norm(vectors(*one(x, y)) - vectors(*other(x, y)), axis=1).max() / MAS
        )


@pytest.fixture
def pointed(calibrated: Calibrated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pointed:
    monkeypatch.chdir(tmp_path)
    before, files = {}, {}
    (tmp_path / "aligned").mkdir()
    for entry in calibrated.first.made:
        kind, path = entry.product_name.kind.name, calibrated.observed.path(entry.name)
        before[kind], files[kind] = tmp_path / "aligned" / entry.name, tmp_path / entry.name
        for target in (before[kind], files[kind]):
            target.write_bytes(path.read_bytes())
    with datamodels.open(before["cal"]) as image:
        steps = {step.frame.name: step for step in image.meta.wcs.pipeline}
        steps["v2v3vacorr"] = Step(steps["v2v3vacorr"].frame, steps.pop("v2v3corr").transform)
        image.meta.wcs = WCS(list(steps.values()))
        image.meta.cal_step.tweakreg = ALIGNMENT_FAILED
        quality = DetectorQuality.of(image, None)
        image.save(files["cal"])
    rows = pq.read_table(files["exposure_catalog"])
    for column in ("ra_psf", "dec_psf"):
        place = rows.schema.get_field_index(column)
        rows = rows.set_column(place, rows.schema.field(place), pa.array(np.zeros(len(rows))))
    pq.write_table(rows, files["exposure_catalog"])
    unaligned = CalibratedDetector(files, operational_context(), {}, quality)
    task = CommonPointingTask(unaligned, (before["supplement"],))
    return Pointed(before, point_like_the_others(task))


def test_image_supplement_and_catalogue_get_the_pointing_and_say_so(pointed: Pointed) -> None:
    files, quality = pointed.after.files, pointed.after.quality
    aligned = pointed.wcs(pointed.before, "cal")
    assert pointed.apart(pointed.wcs(files, "cal"), aligned) < 2
    assert pointed.apart(pointed.wcs(files, "supplement"), pointed.wcs(files, "cal")) < 1e-3
    with datamodels.open(files["cal"]) as image, datamodels.open(files["supplement"]) as refined:
        assert image.validate() is None and refined.validate() is None
        fit = image.meta.wcs_fit_results
        assert fit["images"] == [pointed.before["supplement"].name]
        assert "other images" in fit["status"] and fit["n_detector"] == 1
        assert 0 < 1e3 * fit["uncertainty"] < 2 and len(fit["residuals"]) == 1
        assert refined.meta.wcs_fit_results["status"] == fit["status"]
        assert refined.meta.wcsinfo.s_region == image.meta.wcsinfo.s_region
        assert image.meta.wcs.name == aligned.name
    assert (quality.alignment, quality.pointing) == (ALIGNED, PointingSource.COMMON)
    assert quality.alignment_matches is not None and quality.alignment_matches >= 10
    assert quality.alignment_rms is not None and 0 < quality.alignment_rms < 5
    assert not list(files["cal"].parent.glob("pointed/*"))


def test_nothing_but_positions_changes_in_the_catalogue(pointed: Pointed) -> None:
    before = pq.read_table(pointed.before["exposure_catalog"])
    after = pq.read_table(pointed.after.files["exposure_catalog"])
    assert after.schema.equals(before.schema, check_metadata=True)
    changed = {name for name in before.column_names if before[name] != after[name]}
    assert {"ra_psf", "dec_psf"} <= changed
    assert all(name.startswith(("ra", "dec")) for name in changed)
    moved = np.array(after["dec_psf"]) - np.array(before["dec_psf"])
    assert np.nanmax(np.abs(np.deg2rad(moved))) < 2 * MAS


def test_an_image_for_which_the_pointing_is_too_uncertain_keeps_the_planned_one(
    pointed: Pointed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(common_pointing, "LARGEST_UNCERTAINTY_MAS", 1e-3)
    content = {path: path.read_bytes() for path in pointed.after.files.values()}
    failed = replace(
        pointed.after.quality, alignment=ALIGNMENT_FAILED, pointing=PointingSource.PLANNED
    )
    task = CommonPointingTask(
        replace(pointed.after, quality=failed), (pointed.before["supplement"],)
    )
    result = point_like_the_others(task)
    assert result.quality.pointing is PointingSource.PLANNED
    assert result.quality.alignment_uncertainty is not None
    assert {path: path.read_bytes() for path in result.files.values()} == content
