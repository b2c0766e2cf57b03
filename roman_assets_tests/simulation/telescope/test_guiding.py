from dataclasses import replace

import numpy as np
import pysiaf
import pytest

from roman_assets.formatting.ancillary import parse_document
from roman_assets.formatting.executed_visit import VisitStatus
from roman_assets.formatting.packet import SequenceCounters, encode
from roman_assets.products.observation import ExposureType, OpticalElement, Survey
from roman_assets.simulation.telescope.effective_psf import effective_psf
from roman_assets.simulation.telescope.execution import (
    detector_aperture,
    executed_visit,
    ma_table_document,
    telescope_pointing,
)
from roman_assets.simulation.telescope.guiding import (
    ACQUISITION,
    TRACKING,
    WANDER,
    Wander,
    face_telemetry,
    guide_window_readout,
)
from roman_assets.simulation.telescope.planned_exposure import Pointing
from roman_assets.simulation.telescope.point_spread import PointSpread
from roman_assets.simulation.telescope.response import DetectorResponse
from roman_assets.simulation.telescope.survey_plan import demo_plan
from roman_assets.simulation.telescope.telescope import Telescope

TELESCOPE = Telescope(seed=3)
ARCSEC = np.radians(1 / 3600)


@pytest.fixture(scope="module")
def plan():
    return demo_plan(detectors=["WFI01"])


@pytest.fixture(scope="module")
def spread():
    return PointSpread(effective_psf("WFI01", OpticalElement.F158, 512))


def _readout(planned, spread, star=None):
    return guide_window_readout(
        planned,
        DetectorResponse("WFI01", 512, 3),
        star or TELESCOPE.guide_star(planned, "WFI01"),
        Wander.of(planned, 3),
        spread,
        seed=3,
    )


def test_windows_show_the_guide_star_where_centroids_say(plan, spread):
    readout = _readout(plan.exposures[0], spread)
    for phase in (readout.acquisition, readout.tracking):
        image = phase.signal_resultants.astype(float) - phase.pedestal_resultants
        rows, columns = np.indices(image.shape[1:])
        near = np.hypot(*(axis - image.shape[1] / 2 for axis in (rows, columns))) < 6
        image = np.where(near, image, 0)
        total = image.sum(axis=(1, 2))
        x = (image * columns).sum(axis=(1, 2)) / total + phase.lower_left_corners[:, 0]
        y = (image * rows).sum(axis=(1, 2)) / total + phase.lower_left_corners[:, 1]
        measured = np.stack([x, y], axis=1).mean(axis=0)
        assert measured == pytest.approx(phase.centroids.mean(axis=0), abs=0.3)
    assert readout.edge_acquisition is None


def test_every_read_of_the_exposure_is_guided(plan, spread):
    planned = plan.exposures[0]
    tracking = _readout(planned, spread).tracking
    nreads = planned.ma_table.read_pattern[-1][-1]
    assert tracking.exposure_mapping.tolist() == list(range(1, nreads + 1))
    assert np.all(np.diff(tracking.pedestal_times) > np.timedelta64(0))
    assert np.all(tracking.pedestal_times < tracking.centroid_times)
    assert np.all(tracking.centroid_times < tracking.signal_times)


def test_spectra_are_acquired_in_two_phases(plan, spread):
    planned = plan.exposures[-1]
    assert planned.exposure_type is ExposureType.WFI_SPECTRAL
    readout = _readout(planned, spread)
    assert readout.edge_acquisition is not None
    assert readout.acquisition.pedestal_times[-1] < readout.edge_acquisition.pedestal_times[0]
    assert {phase.mode for phase in (readout.acquisition, readout.tracking)} == {
        "WSM_ACQ_HC", "WSM_TRK",
    }  # fmt: skip


def test_a_dark_exposure_is_guided_by_pseudo_stars(plan, spread):
    dark = replace(
        plan.exposures[0],
        exposure_type=ExposureType.WFI_IM_DARK,
        optical_element=OpticalElement.DARK,
    )
    star = TELESCOPE.guide_star(dark, "WFI01")
    readout = _readout(dark, spread, star)
    assert star.pseudo_star
    assert np.all(np.isnan(readout.tracking.centroids))
    rise = readout.tracking.signal_resultants.astype(float) - readout.tracking.pedestal_resultants
    assert abs(rise.mean()) < 1


@pytest.mark.parametrize("corner", [(4.0, 4.0), (515.0, 515.0)])
def test_windows_stay_on_the_detector(plan, spread, corner):
    planned = plan.exposures[0]
    star = TELESCOPE.guide_star(planned, "WFI01").model_copy(
        update={"predicted_x": corner[0], "predicted_y": corner[1]}
    )
    for table, phase in zip(
        (ACQUISITION, TRACKING),
        (_readout(planned, spread, star).acquisition, _readout(planned, spread, star).tracking),
        strict=True,
    ):
        assert phase.upper_right_corners.max() <= 519
        spans = phase.upper_right_corners - phase.lower_left_corners
        assert np.all(spans == table.size - 1)


def test_attitude_estimates_report_the_wander_of_the_windows(plan):
    planned = plan.exposures[0]
    wander = Wander.of(planned, 3)
    stars = {"WFI01": TELESCOPE.guide_star(planned, "WFI01")}
    face = face_telemetry(planned, stars, wander, seed=3)
    assert np.std(face.epsilon) / ARCSEC == pytest.approx(WANDER, rel=0.4)
    assert np.abs(face.epsilon + wander.y * ARCSEC).max() < 6 * np.sqrt(face.epsilon_var[0])
    assert len(face.centroid_times) == len(wander.x)
    assert set(face.num_stars_used) == {1}
    assert b"".join(encode(face, SequenceCounters()))


@pytest.fixture(scope="module")
def visits(plan):
    documents = {}
    for visit, exposures in plan.visits.items():
        stars = {
            planned.exposure: {"WFI01": TELESCOPE.guide_star(planned, "WFI01")}
            for planned in exposures
        }
        documents[visit] = executed_visit(exposures, stars, 512)
    return documents


def test_executed_visits_are_documents_the_ground_can_read(visits, plan):
    for visit, document in visits.items():
        assert parse_document(document.model_dump(mode="json"), "visit") == document
        first = plan.visits[visit][0]
        assert document.survey is first.survey
        assert document.nexposures == len(document.exposures) == first.nexposures
        assert document.status is VisitStatus.COMPLETED
    assert {document.survey for document in visits.values()} == set(Survey) - {Survey.GAS}


def test_ma_tables_last_as_long_on_the_ground_as_in_the_sky(plan):
    for planned in plan.exposures:
        document = ma_table_document(planned.ma_table)
        assert document.exposure_time == pytest.approx(planned.ma_table.exposure_time)
        assert parse_document(document.model_dump(mode="json"), "table") == document


@pytest.mark.parametrize(("ra", "dec", "pa"), [(270.0, 66.0, 0.0), (12.3, -45.6, 210.0)])
def test_the_boresight_is_that_of_siaf(ra, dec, pa):
    centre = pysiaf.Siaf("Roman")["WFI_CEN"]
    attitude = pysiaf.utils.rotations.attitude(
        centre.V2Ref, centre.V3Ref, ra, dec, (pa - centre.V3IdlYAngle) % 360
    )
    v1_ra, v1_dec = pysiaf.utils.rotations.pointing(attitude, 0.0, 0.0)
    pa_v3 = pysiaf.utils.rotations.posangle(attitude, 0.0, 0.0)
    found = telescope_pointing(Pointing(ra, dec, pa))
    assert (found.ra_v1, found.dec_v1) == pytest.approx((float(v1_ra), float(v1_dec)), abs=1e-8)
    assert found.pa_v3 % 360 == pytest.approx(float(pa_v3) % 360, abs=1e-3)


def test_corners_of_a_whole_detector_are_those_of_siaf():
    aperture = pysiaf.Siaf("Roman")["WFI07_FULL"]
    found = detector_aperture("WFI07", None)
    v2, v3 = aperture.corners("tel", rederive=False)
    distances = np.hypot(
        np.subtract.outer(found.v2_corners, v2), np.subtract.outer(found.v3_corners, v3)
    )
    assert distances.min(axis=0).max() < 1.0
    assert (found.nrows, found.ncolumns) == (4096, 4096)
