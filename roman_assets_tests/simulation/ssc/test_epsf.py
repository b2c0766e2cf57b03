from __future__ import annotations

import numpy as np
import pytest
from astropy.nddata import NDData
from photutils.psf import CircularGaussianPRF, GriddedPSFModel

from roman_assets.simulation.ssc.epsf import EffectivePsf

OVERSAMPLING, REACH = 4, 10


def gridded(places: list[tuple[float, float]]) -> GriddedPSFModel:
    """Give ePSFs that widen from place to place."""
    row, column = np.indices((2 * OVERSAMPLING * REACH + 1,) * 2) / OVERSAMPLING
    stamps = [
        CircularGaussianPRF().evaluate(column, row, 1.0, REACH, REACH, 1.2 + number / 10)
        for number, _ in enumerate(places)
    ]
    meta = {"grid_xypos": places, "oversampling": OVERSAMPLING}
    return GriddedPSFModel(NDData(np.array(stamps), meta=meta))


@pytest.mark.parametrize("nodes", [(50.0,), (0.0, 99.0), (0.0, 40.0, 99.0)])
@pytest.mark.parametrize("place", [(50.3, 20.6), (0.0, 99.0), (-3.0, 101.7), (40.0, 70.2)])
def test_a_stamp_has_the_values_of_photutils(
    nodes: tuple[float, ...], place: tuple[float, float]
) -> None:
    model = gridded([(x, y) for y in nodes for x in nodes])
    columns, rows = (round(at) + np.arange(-6, 7) for at in place)
    x, y = np.meshgrid(columns, rows)
    expected = model.evaluate(x, y, 1.0, *place)
    assert EffectivePsf(model).stamp(rows, columns, *place) == pytest.approx(expected, abs=1e-12)


def test_it_says_how_far_it_reaches() -> None:
    psf = EffectivePsf(gridded([(50.0, 50.0)]))
    assert psf.reach == REACH - 1
