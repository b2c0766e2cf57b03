from __future__ import annotations

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from hypothesis import given, settings
from hypothesis import strategies as st

from roman_assets.products.observation import OpticalElement, Survey
from roman_assets.simulation.telescope.coverage import sky_positions, skycells_of_exposures
from roman_assets.simulation.telescope.detector_geometry import FULL_ACTIVE_PIXELS, detector_wcs
from roman_assets.simulation.telescope.planned_exposure import Pointing
from roman_assets.simulation.telescope.scene import SkyCircle
from roman_assets.simulation.telescope.skymap import skycells_at, skymap
from roman_assets.simulation.telescope.survey_plan import VisitPlan, VisitRequest

pointings = st.builds(Pointing, st.floats(0, 359.9), st.floats(-89, 89), st.floats(0, 359.9))


@settings(deadline=None, max_examples=10)
@given(pointing=pointings, detector=st.sampled_from(["WFI01", "WFI09", "WFI18"]))
def test_detectors_are_where_their_wcs_says(pointing: Pointing, detector: str) -> None:
    ra, dec = sky_positions(pointing, [detector])
    side = np.linspace(-0.5, FULL_ACTIVE_PIXELS - 0.5, round(len(ra) ** 0.5))
    x, y = (axis.ravel() for axis in np.meshgrid(side, side))
    wcs = detector_wcs(detector, pointing.ra, pointing.dec, pointing.pa, None)
    expected = SkyCoord(*wcs(x, y, with_bounding_box=False), unit="deg")
    assert SkyCoord(ra, dec, unit="deg").separation(expected).max() < 1 * u.mas


@pytest.mark.parametrize("field", [(270.0, 66.0), (0.1, -5.0), (135.0, 89.9), (200.0, -89.7)])
def test_the_middle_of_a_skycell_lies_in_it(field: tuple[float, float]) -> None:
    _, cells = skymap([SkyCircle(*field, 0.3)])
    centre = SkyCoord(*field, unit="deg")
    near = SkyCoord(cells["ra_center"], cells["dec_center"], unit="deg").separation(centre)
    for cell in cells[near < 0.3 * u.deg]:
        found = skycells_at(np.array([cell["ra_center"]]), np.array([cell["dec_center"]]))
        # next to the border of a region the map has cells whose middle lies in the next region
        assert cell["name"] in found or found[0][:6] != cell["name"][:6]


def test_an_exposure_touches_the_skycells_around_its_detectors_and_no_others() -> None:
    pointing = Pointing(270.0, 66.0, 30.0)
    request = VisitRequest(Survey.GAS, 1, OpticalElement.F158, pointing, "SUB2", visits=2)
    plan = VisitPlan.from_requests([request])
    coverage = skycells_of_exposures(plan.exposures)
    _, cells = skymap([SkyCircle(270.0, 66.0, 1.0)])
    middle = {
        str(cell["name"]): SkyCoord(cell["ra_center"], cell["dec_center"], unit="deg")
        for cell in cells
    }
    first, _, again, _ = (coverage[planned.exposure] for planned in plan.exposures)
    assert first == again
    assert 60 < len(first) < 120
    points = SkyCoord(*sky_positions(pointing, plan.detectors), unit="deg")
    for name, position in middle.items():
        nearest = points.separation(position).min()
        if name in first:
            assert nearest < 195 * u.arcsec  # half the diagonal of a skycell
        elif nearest < 80 * u.arcsec:
            pytest.fail(f"{name} is missing")
