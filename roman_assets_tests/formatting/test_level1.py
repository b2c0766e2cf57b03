from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
import roman_datamodels as rdm
from astropy.coordinates import SkyCoord
from stcal.alignment.util import sregion_to_footprint

import roman_assets
from roman_assets.errors import BadInputError
from roman_assets.formatting.executed_visit import GuideWindowTable
from roman_assets.formatting.level1 import science_raw
from roman_assets.formatting.level1_guiding import face_model, guide_window_model
from roman_assets.formatting.level1_metadata import Observation
from roman_assets.formatting.orbit_ephemeris import EphemerisKind, SpacecraftState
from roman_assets.products.observation import DETECTORS, ExposureType
from roman_assets_tests.support.telemetry_samples import (
    EXPOSURE,
    MA_TABLE,
    START,
    executed_visit,
    face,
    guide_star,
    guide_window,
    readout,
)

STATE = SpacecraftState(
    START + timedelta(seconds=10),
    "EME2000",
    np.array([-5e7, -1.3e8, -5.7e7]),
    np.array([27.7, -9.3, -4.0]),
)


def observation(**changes) -> Observation:
    visit = executed_visit(**changes)
    return Observation(
        EXPOSURE, visit, visit.exposures[0], MA_TABLE, STATE, EphemerisKind.PREDICTED
    )


def every_file(one: Observation) -> dict:
    return {
        "science": science_raw(one, readout(), guide_window()),
        "guide_window": guide_window_model(one, guide_window()),
        "face": face_model(one, face(), ["WFI01", "WFI02"]),
    }


def leaves(tree, path=""):
    for name, value in tree.items():
        if hasattr(value, "items"):
            yield from leaves(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    directory = tmp_path_factory.mktemp("l1")
    opened = {}
    for name, model in every_file(observation()).items():
        path = directory / model.meta.filename
        model.save(path)
        opened[name] = rdm.open(path)
    return opened


@pytest.mark.parametrize("name", ["science", "guide_window", "face"])
def test_files_are_valid_by_rad_and_say_all_that_is_known(files, name):
    files[name].validate()
    for path, value in leaves(files[name]["meta"]):
        assert str(value) not in ("?", "-999999", "-999999.0"), f"{path} has not been filled"


def test_file_names_are_the_official_ones(files):
    assert [model.meta.filename for model in files.values()] == [
        "r0000101001001001001_0001_wfi01_f158_uncal.asdf",
        "r0000101001001001001_0001_wfi01_f158_gw.asdf",
        "r0000101001001001001_0001_f158_face.asdf",
    ]


def test_the_counts_are_those_sent(files):
    sent, guide = readout(), guide_window()
    np.testing.assert_array_equal(files["science"]["data"], sent.resultants)
    np.testing.assert_array_equal(files["science"]["amp33"], sent.reference_output)
    made = files["guide_window"]
    for prefix, phase in (("acq", guide.acquisition), ("track", guide.tracking)):
        np.testing.assert_array_equal(
            made[f"{prefix}_data"]["signal_resultants"], phase.signal_resultants
        )
        np.testing.assert_array_equal(
            made["amp33"][f"amp33_{prefix}_pedestals"], phase.pedestal_reference_output
        )
    np.testing.assert_array_equal(made["centroid"]["track_centroids"], guide.tracking.centroids)
    assert made["centroid"]["acq_centroids"].shape == (3, 1, 2)
    np.testing.assert_array_equal(files["face"]["face_data"]["zeta"], face().zeta)


def test_identifiers_are_rads(files):
    meta = files["science"].meta
    assert meta.observation.visit_id == "0000101001001001001"
    assert meta.observation.observation_id == "0000101001001001001011010001"
    assert meta.observation["pass"] == 1
    assert meta.visit.nexposures == 2
    assert meta.guide_star.guide_window_id == "00001010010010010011"
    assert meta.program.subcategory == "HLWA"
    assert meta.sdf_software_version == roman_assets.__version__


def test_times_and_reads_are_those_of_the_visit_and_the_ma_table(files):
    exposure = files["science"].meta.exposure
    assert exposure.start_time.isot == "2027-06-01T12:00:00.250"
    assert exposure.exposure_time == pytest.approx(6 * 3.16)
    assert exposure.effective_exposure_time == pytest.approx(4 * 3.16)
    assert exposure.nresultants == 3
    assert [list(reads) for reads in exposure.read_pattern] == [[1], [2, 3], [4, 5, 6]]
    assert exposure.truncated is False


def test_the_ephemeris_is_at_the_middle_and_moves_the_sky(files):
    meta = files["science"].meta
    assert meta.ephemeris.type == "PREDICTED"
    assert meta.ephemeris.spatial_y == -1.3e8
    assert meta.ephemeris.time == pytest.approx(61557.5 + 10.25 / 86400, abs=1e-9)
    direction = SkyCoord(meta.wcsinfo.ra_ref, meta.wcsinfo.dec_ref, unit="deg").cartesian.xyz
    towards = float(np.dot(direction.value, STATE.velocity)) / 299792.458
    assert meta.velocity_aberration.scale_factor == pytest.approx(1 + towards, abs=1e-8)
    apparent = SkyCoord(
        meta.velocity_aberration.ra_reference, meta.velocity_aberration.dec_reference, unit="deg"
    )
    moved = apparent.separation(SkyCoord(meta.wcsinfo.ra_ref, meta.wcsinfo.dec_ref, unit="deg"))
    assert 5 < moved.arcsec < 21


def test_every_detector_is_where_romancal_puts_it_by_the_siaf():
    from romancal.orientation._lib import WCSRef
    from romancal.orientation._siaf import open_siaf
    from romancal.orientation._wcs import wcsinfo_from_siaf

    siaf = open_siaf()
    base = observation(detectors=DETECTORS)
    pointing = base.executed.pointing
    for detector in DETECTORS:
        truth = siaf[f"{detector}_FULL"]
        v2, v3 = truth.corners("tel")
        aperture = base.visit.apertures[detector].model_copy(
            update={
                "v2_ref": truth.V2Ref, "v3_ref": truth.V3Ref, "v3yangle": truth.V3IdlYAngle,
                "v2_corners": tuple(v2), "v3_corners": tuple(v3),
            }
        )  # fmt: skip
        apertures = {**base.visit.apertures, detector: aperture}
        one = replace(base, visit=base.visit.model_copy(update={"apertures": apertures}))
        made = science_raw(one, readout(detector), guide_window(detector)).meta.wcsinfo
        expected = wcsinfo_from_siaf(
            f"{detector}_FULL", WCSRef(pointing.ra_v1, pointing.dec_v1, pointing.pa_v3)
        )
        here = SkyCoord(made.ra_ref, made.dec_ref, unit="deg")
        assert here.separation(SkyCoord(expected.ra, expected.dec, unit="deg")).mas < 0.01
        assert made.roll_ref == pytest.approx(expected.pa % 360, abs=1e-6)
        np.testing.assert_allclose(
            sregion_to_footprint(made.s_region), sregion_to_footprint(expected.s_region), atol=1e-7
        )


def test_the_guide_window_limits_are_those_of_all_windows():
    guide = guide_window()
    corners = guide.tracking.lower_left_corners.copy()
    corners[2] = (90, 95)
    moved = replace(guide, tracking=replace(guide.tracking, lower_left_corners=corners))
    one = observation()
    star = science_raw(one, readout(), moved).meta.guide_star
    assert (star.window_xstart, star.window_ystart, star.window_xstop) == (90, 95, 115)
    limits = guide_window_model(one, moved).meta.guide_window
    assert (limits.min_track_xstart, limits.min_acq_xstart, limits.track_xsize) == (90, 100, 16)


def test_darks_have_no_centroids():
    model = guide_window_model(observation(exposure_type=ExposureType.WFI_IM_DARK), guide_window())
    model.validate()
    assert model["centroid"]["track_centroids"] is None
    assert model["centroid"]["acq_centroid_times"][0] is None


def spectral(**changes) -> Observation:
    one = observation()
    guiding = one.executed.guiding.model_copy(update=changes)
    return replace(one, executed=one.executed.model_copy(update={"guiding": guiding}))


def test_edge_acquisition_needs_its_table():
    table = GuideWindowTable(
        id="GW0009", cycles_per_science_read=4, pedestal_exposure_time=0.1, signal_exposure_time=0.2
    )
    one = spectral(edge_acquisition=table, wsm_edge_used="blue")
    model = guide_window_model(one, guide_window(edge=True))
    model.validate()
    assert model.meta.edge_acq_ma_table_id == "GW0009"
    assert model.meta.wsm_edge_used == "blue"
    assert model["edge_acq_data"]["signal_resultants"].shape[0] == 2
    with pytest.raises(BadInputError, match="edge acquisition"):
        guide_window_model(observation(), guide_window(edge=True))


def test_face_tells_which_windows_guided():
    stars = {"WFI01": guide_star(), "WFI02": guide_star().model_copy(update={"pseudo_star": True})}
    meta = face_model(spectral(stars=stars), face(), ["WFI01"]).meta
    assert meta.expected_gw_tracking["WFI01"] == "GUIDE"
    assert meta.expected_gw_tracking["WFI02"] == "SKY_FIXED"
    assert meta.expected_gw_tracking["WFI18"] == "NOT_USED"
    assert meta.detector_gw_files["WFI01"].endswith("wfi01_f158_gw.asdf")
    assert meta.detector_gw_files["WFI02"] is None
    assert list(meta.ma_table_ids_used) == ["GW0001", "GW0002"]


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (readout(size=32), r"shape \(3, 32, 32\)"),
        (readout(nresultants=2), r"shape \(2, 24, 24\)"),
        (readout(start=START + timedelta(hours=1)), r"\+3600"),
    ],
)
def test_telemetry_that_does_not_fit_the_visit_is_refused(sent, said):
    with pytest.raises(BadInputError, match=said):
        science_raw(observation(), sent, guide_window())
