"""L1 that was formatted elsewhere goes on to L2, L3 and L4 as if packets had come."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table
from roman_datamodels import datamodels

from roman_assets.archive.file_archive import FileArchive
from roman_assets.archive.set_aside import SetAside
from roman_assets.calibration.exposure import ExposureSummary, calibrate_exposure
from roman_assets.data_root import DataRoot
from roman_assets.formatting.formatting_step import format_exposure
from roman_assets.formatting.landing import LandingArea
from roman_assets.mosaic.manifest import visit_manifest
from roman_assets.mosaic.visit import mosaic_visit
from roman_assets.products.name import ProductName
from roman_assets.products.observation import ExposureId, OpticalElement
from roman_assets.references.context import SERVERLESS_URL
from roman_assets.registry.registry import Registry
from roman_assets.simulation.telescope.crds_cache import DEFAULT_FIELDS, build_crds_cache
from roman_assets.simulation.telescope.scene import Scene, SkyCircle, SourceKind
from roman_assets_tests.support.foreign_level1 import foreign_level1
from roman_assets_tests.support.observed_visit import DETECTOR, Observed
from roman_assets_tests.support.own_crds_cache import own_crds_cache

EXPOSURE = ExposureId.parse("r0990001001001001001_0001")
ROMANISIM_DETECTOR = "WFI07"
CENTRE = DEFAULT_FIELDS[0]


def kinds_of(root: DataRoot) -> set[str]:
    return set(Registry(root).products.find(visit=str(EXPOSURE.visit))["kind"])


def process(root: DataRoot) -> ExposureSummary:
    """Take a landed exposure through all steps; return the quality of its L2."""
    assert not format_exposure(root, EXPOSURE).failures
    calibrated = calibrate_exposure(root, EXPOSURE)
    assert not calibrated.failures
    assert visit_manifest(root, EXPOSURE.visit).complete
    assert not mosaic_visit(root, EXPOSURE.visit).failures
    return ExposureSummary.of(calibrated.made)


ALL_BUT_GUIDING = {
    "uncal", "supplement", "cal", "cal_preview", "cal_thumbnail", "exposure_catalog",
    "exposure_segmentation", "association", "coadd", "coadd_preview", "coadd_thumbnail",
    "visit_catalog", "visit_segmentation",
}  # fmt: skip


def test_a_foreign_ramp_goes_on_to_l2_l3_and_l4(
    observed: Observed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRDS_PATH", str(observed.root.crds))
    root = DataRoot(tmp_path / "data")
    (ours,) = observed.current(exposure=str(observed.exposures[0]), kind="uncal")
    with datamodels.open(observed.path(ours)) as model:
        meta = model.meta
        foreign_level1(
            LandingArea(root).path,
            f"{EXPOSURE}_{DETECTOR.lower()}_f158_uncal.asdf",
            {
                "exposure.start_time": meta.exposure.start_time,
                "exposure.end_time": meta.exposure.end_time,
                "exposure.read_pattern": [list(reads) for reads in meta.exposure.read_pattern],
                "exposure.frame_time": meta.exposure.frame_time,
                "exposure.exposure_time": meta.exposure.exposure_time,
                "exposure.effective_exposure_time": meta.exposure.effective_exposure_time,
                "velocity_aberration.scale_factor": meta.velocity_aberration.scale_factor,
                **{f"wcsinfo.{key}": value for key, value in meta.wcsinfo.items()},
            },
            data=np.array(model.data),
            amp33=np.array(model.amp33),
        )
    landing = LandingArea(root)
    landing.scan()
    assert SetAside(root).list() == ()
    quality = process(root)
    assert kinds_of(root) == ALL_BUT_GUIDING
    assert quality.aligned == 1
    states = Registry(root).deadlines.groups()
    assert set(states[states["step"] != "handover"]["state"]) <= {
        "made in time", "made late", "not expected",
    }  # fmt: skip


@pytest.fixture(scope="module")
def whole_detector(tmp_path_factory: pytest.TempPathFactory):
    """An installation whose references are of one whole detector."""
    root = DataRoot(tmp_path_factory.mktemp("romanisim") / "data")
    with own_crds_cache() as patch:
        build_crds_cache(
            root.crds,
            detectors=[ROMANISIM_DETECTOR],
            optical_elements=[OpticalElement.F158],
            window=None,
        )
        patch.setenv("CRDS_PATH", str(root.crds))
        yield root


def romanisim_catalog(path: Path) -> Path:
    """Write the simulated sky's stars and galaxies as romanisim reads them."""
    sources = Scene(0).sources([SkyCircle(CENTRE.ra, CENTRE.dec, CENTRE.radius)])
    is_galaxy = sources["kind"] == str(SourceKind.GALAXY)
    assert 0 < np.count_nonzero(is_galaxy) < len(sources)
    shape = {
        "n": "sersic_index", "half_light_radius": "half_light_radius", "pa": "position_angle",
        "ba": "axis_ratio",
    }  # fmt: skip
    Table(
        {
            "ra": sources["ra"],
            "dec": sources["dec"],
            "type": np.where(is_galaxy, "SER", "PSF"),
            **{name: np.where(is_galaxy, sources[ours], -1.0) for name, ours in shape.items()},
            "F158": np.asarray(sources["F158"], dtype=np.float32),
        }
    ).write(path)
    return path


def romanisim(root: DataRoot, directory: Path) -> Path:
    """Let romanisim's own command write L1 with the references of the installation."""
    command = Path(sys.executable).with_name("romanisim-make-image")
    subprocess.run(
        [
            sys.executable, command, f"{EXPOSURE}_{{}}_{{bandpass}}_uncal.asdf",
            "--level", "1", "--usecrds", "--bandpass", "F158", "--sca", ROMANISIM_DETECTOR[3:],
            "--radec", str(CENTRE.ra), str(CENTRE.dec), "--rng_seed", "1",
            "--catalog", romanisim_catalog(directory / "sky.ecsv"), "--ma_table_number", "4",
            "--date", "2027-06-01T00:00:00", "--drop-extra-dq",
            "--meta", "visit.nexposures=1", "--meta", "program.subcategory=HLWA",
        ],
        cwd=directory,
        env=os.environ
        | {
            "CRDS_PATH": str(root.crds),
            "CRDS_OBSERVATORY": "roman",
            "CRDS_SERVER_URL": SERVERLESS_URL,
            "CRDS_READONLY_CACHE": "1",
        },
        check=True,
    )  # fmt: skip
    return directory / f"{EXPOSURE}_{ROMANISIM_DETECTOR.lower()}_f158_uncal.asdf"


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_whole_detector_of_romanisim_goes_on_to_l2_l3_and_l4(
    whole_detector: DataRoot, tmp_path: Path
) -> None:
    landing = LandingArea(whole_detector)
    written = romanisim(whole_detector, tmp_path)
    written.rename(landing.path / written.name)
    assert landing.scan().taken == (written.name,)
    quality = process(whole_detector)
    assert kinds_of(whole_detector) == ALL_BUT_GUIDING
    assert quality.aligned == 1
    assert quality.alignment_rms is not None
    assert quality.alignment_rms < 5
    assert quality.source_count is not None
    assert quality.source_count > 1000
    assert brightest_are_there(whole_detector)


def brightest_are_there(root: DataRoot) -> bool:
    """Whether the stars that were simulated are where the L2 catalogue has its sources."""
    from astropy import units as u
    from astropy.coordinates import SkyCoord

    (row,) = (
        Registry(root)
        .products.find(exposure=str(EXPOSURE), kind="exposure_catalog")
        .to_dict("records")
    )
    found = Table.read(FileArchive(root).path(ProductName.parse(row["name"])))
    sources = Scene(0).sources([CENTRE])
    stars = sources[(sources["kind"] != str(SourceKind.GALAXY)) & (sources["F158"] > 10**-8.0)]
    stars = stars[stars["F158"] < 10**-7.2]
    ours = SkyCoord(found["ra"], found["dec"], unit="deg")
    simulated = SkyCoord(stars["ra"], stars["dec"], unit="deg")
    on_image = simulated[simulated.separation(ours[len(ours) // 2]) < 2 * u.arcmin]
    _, separation, _ = on_image.match_to_catalog_sky(ours)
    return len(on_image) >= 10 and bool(np.median(separation.arcsec) < 0.02)
