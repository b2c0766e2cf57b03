"""romancal takes out of the simulated ramps what the simulated detectors put in."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.time import Time
from roman_datamodels import datamodels
from roman_datamodels.dqflags import pixel
from romancal.pipeline import ExposurePipeline

from roman_assets.products.observation import ExposureId, ExposureType, OpticalElement, Survey
from roman_assets.references.context import use_context
from roman_assets.simulation.telescope.crds_cache import build_crds_cache
from roman_assets.simulation.telescope.crds_mappings import CONTEXTS
from roman_assets.simulation.telescope.detector_geometry import wcsinfo
from roman_assets.simulation.telescope.effective_psf import JITTER_MAS
from roman_assets.simulation.telescope.planned_exposure import PlannedExposure, Pointing
from roman_assets.simulation.telescope.response import DetectorResponse
from roman_assets.simulation.telescope.scene import SourceKind
from roman_assets.simulation.telescope.telescope import Telescope, velocity_aberration
from roman_assets_tests.simulation.telescope.conftest import FIELD, SEED

FILTER = OpticalElement.F158
OUTSIDE = -999999


def planned_exposure(detector, exposure_type=ExposureType.WFI_IMAGE, element=FILTER):
    return PlannedExposure(
        exposure=ExposureId.parse("r0000101001001001001_0001"),
        survey=Survey.HLWAS,
        exposure_type=exposure_type,
        optical_element=element,
        pointing=Pointing(FIELD.ra, FIELD.dec, 0.0),
        ma_table_number=4,
        start=datetime(2027, 6, 1, tzinfo=UTC),
        duration=timedelta(seconds=200),
        target="field",
        nexposures=1,
        detectors=(detector,),
    )


def level1(telescope, planned):
    (detector,) = planned.detectors
    readout, _ = telescope.expose(planned, detector)
    table, pointing = planned.ma_table, planned.pointing
    model = datamodels.ScienceRawModel.create_fake_data(
        {"data": readout.resultants, "amp33": readout.reference_output}
    )
    meta = model.meta
    meta.instrument.update(
        name="WFI",
        detector=detector,
        optical_element=str(planned.optical_element),
        data_encoding_offset=0,
    )
    meta.exposure.update(
        type=str(planned.exposure_type),
        start_time=Time(planned.start),
        read_pattern=[list(reads) for reads in table.read_pattern],
        nresultants=table.nresultants,
        frame_time=table.frame_time,
        exposure_time=table.exposure_time,
        effective_exposure_time=table.effective_exposure_time,
        data_problem=None,
    )
    meta.wcsinfo.update(wcsinfo(pointing.ra, pointing.dec, pointing.pa))
    meta.velocity_aberration.scale_factor = velocity_aberration(planned)
    meta.guide_star.update(
        window_xstart=OUTSIDE,
        window_xstop=OUTSIDE,
        window_ystart=OUTSIDE,
        window_ystop=OUTSIDE,
        jitter_major=JITTER_MAS,
        jitter_minor=JITTER_MAS,
        jitter_position_angle=0.0,
    )
    meta.filename = f"{planned.exposure}_{detector}_uncal.asdf".lower()
    for absent in ("reference_read", "reference_amp33", "resultantdq"):
        model.pop(absent, None)
    return model


def isolated_stars(telescope, planned, catalog):
    """Errors in magnitude, their uncertainties and position errors (mas) of lone, fair stars."""
    (detector,) = planned.detectors
    truth = telescope.sources(planned, detector)
    place = SkyCoord(truth["ra"], truth["dec"], unit="deg")
    found = SkyCoord(catalog["ra_psf"], catalog["dec_psf"], unit="deg")
    nearest, distance, _ = place.match_to_catalog_sky(found)
    _, isolation, _ = place.match_to_catalog_sky(place, nthneighbor=2)
    flux = np.array(truth[str(planned.optical_element)])
    magnitude = -2.5 * np.log10(flux)
    chosen = (
        (truth["kind"] != str(SourceKind.GALAXY))
        & (distance < 0.1 * u.arcsec)
        & (isolation > 2 * u.arcsec)
        & (magnitude > 17.8)
        & (magnitude < 21)
        & (np.array(catalog["warning_flags"])[nearest] == 0)
    )
    measured = np.array(catalog["psf_flux"])[nearest] * 1e-9 / 3631
    uncertainty = np.array(catalog["psf_flux_err"] / catalog["psf_flux"])[nearest]
    offsets = place[chosen].spherical_offsets_to(found[nearest[chosen]])
    return (
        -2.5 * np.log10(measured[chosen] / flux[chosen]),
        2.5 / np.log(10) * uncertainty[chosen],
        np.array([offset.to_value(u.mas) for offset in offsets]),
    )


@pytest.fixture(scope="module")
def telescope():
    return Telescope(seed=SEED)


@pytest.fixture(scope="module")
def uncal(telescope, tmp_path_factory):
    path = tmp_path_factory.mktemp("l1") / "r0000101001001001001_0001_wfi02_f158_uncal.asdf"
    level1(telescope, planned_exposure("WFI02")).save(path)
    return path


def calibrate(path, **steps):
    image, catalog, _ = ExposurePipeline.call(str(path), steps=steps)
    return image, catalog


def test_stars_come_out_where_they_are_and_as_bright_as_they_are(
    cache, use_cache, telescope, uncal
):
    use_cache(cache)
    image, catalog = calibrate(uncal)
    status = image.meta.cal_step
    for step in (
        "dq_init", "saturation", "linearity", "ramp_fit", "dark", "assign_wcs", "photom",
        "flat_field", "source_catalog", "tweakreg",
    ):  # fmt: skip
        assert status[step] == "COMPLETE", step
    # romancal has no window-sized reference output nor read times
    assert (status.refpix, status.dark_decay) == ("SKIPPED", "SKIPPED")
    assert image.meta.ref_file.crds.context == CONTEXTS[-1]
    errors, noise, offsets = isolated_stars(
        telescope, planned_exposure("WFI02"), catalog.source_catalog
    )
    assert len(errors) >= 8
    assert abs(np.average(errors, weights=noise**-2)) < 0.004
    # the median of normally distributed errors is 0.67 of their uncertainty
    assert np.median(np.abs(errors) / noise) < 1.35
    assert np.sqrt((offsets**2).mean(axis=1)).max() < 2
    assert np.isfinite(catalog.source_catalog["dust_ebv"]).all()


def test_the_earlier_context_makes_stars_fainter(cache, use_cache, telescope, uncal):
    use_cache(cache)
    use_context(CONTEXTS[0])
    image, catalog = calibrate(uncal)
    assert image.meta.ref_file.crds.context == CONTEXTS[0]
    errors, noise, _ = isolated_stars(telescope, planned_exposure("WFI02"), catalog.source_catalog)
    # conversions are too small by 2 %
    assert np.average(errors, weights=noise**-2) == pytest.approx(0.022, abs=0.005)


def test_the_sky_comes_out_even_and_as_bright_as_it_is(cache, use_cache, telescope, uncal):
    use_cache(cache)
    image, _ = calibrate(uncal, source_catalog={"skip": True}, tweakreg={"skip": True})
    good = (image.dq & pixel.DO_NOT_USE) == 0
    response = DetectorResponse("WFI02", telescope.window, SEED)
    rate = response.sky_rate(FILTER) / response.nominal_gain
    sky = [
        np.median(part[ok]) for part, ok in zip(_quarters(image.data), _quarters(good), strict=True)
    ]
    assert np.mean(sky) == pytest.approx(rate, rel=0.04)
    assert np.ptp(sky) < 0.02 * rate


def _quarters(array):
    half = array.shape[0] // 2
    return [
        array[y, x]
        for y in (slice(half), slice(half, None))
        for x in (slice(half), slice(half, None))
    ]


@pytest.mark.parametrize(
    ("exposure_type", "element", "flattened"),
    [
        (ExposureType.WFI_SPECTRAL, OpticalElement.GRISM, False),
        (ExposureType.WFI_SPECTRAL, OpticalElement.PRISM, False),
        (ExposureType.WFI_IM_DARK, OpticalElement.DARK, False),
        (ExposureType.WFI_FLAT, FILTER, False),
        (ExposureType.WFI_WFSC, FILTER, True),
    ],
)
def test_other_exposures_go_through(
    cache, use_cache, tmp_path, uncal, exposure_type, element, flattened
):
    use_cache(cache)
    path = tmp_path / "other_uncal.asdf"
    with datamodels.open(uncal) as model:
        model.meta.exposure.type = str(exposure_type)
        model.meta.instrument.optical_element = str(element)
        # the first resultants are enough to see which steps run
        model.data, model.amp33 = model.data[:4].copy(), model.amp33[:4].copy()
        pattern = [list(reads) for reads in model.meta.exposure.read_pattern]
        model.meta.exposure.read_pattern = pattern[:4]
        model.meta.exposure.nresultants = 4
        model.save(path)
    image, catalog = calibrate(path)
    assert catalog is None
    assert image.meta.cal_step.photom == "COMPLETE"
    assert image.meta.cal_step.assign_wcs == "COMPLETE"
    assert (image.meta.cal_step.flat_field == "COMPLETE") is flattened


@pytest.mark.slow
def test_a_whole_detector_goes_through_every_step(use_cache, tmp_path):
    detector = "WFI05"
    cache = use_cache(tmp_path / "crds")
    build_crds_cache(
        cache,
        detectors=[detector],
        optical_elements=[FILTER],
        window=None,
        seed=SEED,
        sky_fields=[FIELD],
    )
    telescope, planned = Telescope(seed=SEED, window=None), planned_exposure(detector)
    path = tmp_path / "r0000101001001001001_0001_wfi05_f158_uncal.asdf"
    level1(telescope, planned).save(path)
    image, catalog = calibrate(path)
    # the others belong to mosaics, or to WFI18
    later = {"flux", "outlier_detection", "skymatch", "wfi18_transient"}
    status = {step: str(value) for step, value in image.meta.cal_step.items()}
    assert {step for step, value in status.items() if value != "COMPLETE"} == later
    errors, _, offsets = isolated_stars(telescope, planned, catalog.source_catalog)
    assert len(errors) > 300
    # pixel areas differ by up to 2.3 % from that of the centre, which L2 catalogues assume
    assert abs(np.median(errors)) < 0.003
    assert np.median(np.abs(errors)) < 0.012
    assert np.sqrt((offsets**2).mean(axis=1)).max() < 2
