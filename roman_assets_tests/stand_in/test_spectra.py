from __future__ import annotations

import numpy as np
import pytest
from astropy.table import Table

from roman_assets.products.observation import OpticalElement
from roman_assets.stand_in.dispersion import dispersion_of
from roman_assets.stand_in.spectra import (
    Profile,
    SpectralImage,
    Spectrum,
    combined,
    extract,
)

ELEMENT = OpticalElement.PRISM
DISPERSION = dispersion_of(ELEMENT, "WFI01")
PLACES = np.array([[60.0, 128.0], [90.4, 40.0], [97.3, 150.0], [170.8, 90.0], [220.2, 200.0]])
FLUX = np.array([3e-8, 2e-8, 2.5e-8, 5e-8, 3e-8])
SHIFT = (1.3, -2.1)
SHAPE = (256, 256)


class Plane:
    """A WCS whose degrees are pixels."""

    def invert(self, x, y, with_bounding_box=True):
        return np.asarray(x), np.asarray(y)


@pytest.fixture(scope="module")
def image() -> SpectralImage:
    """Flat spectra with overlaps, noise, and a telescope that misses its pointing."""
    rows, columns = np.arange(SHAPE[0]), np.arange(SHAPE[1])
    data = np.full(SHAPE, 0.5)
    for (x, y), flux in zip(PLACES + SHIFT, FLUX, strict=True):
        along = flux * DISPERSION.electrons_per_maggie(rows - y)
        data += np.outer(along, Profile()(columns - x))
    error = np.sqrt(data / 100)
    data = data + np.random.default_rng(3).normal(0, 1, SHAPE) * error
    mask = np.zeros(SHAPE, dtype=bool)
    return SpectralImage("x", data, error, mask, Plane(), ELEMENT, "WFI01", {})


@pytest.fixture(scope="module")
def spectra(image: SpectralImage) -> dict[int, Spectrum]:
    found = extract(image, Table({"RA": PLACES[:, 0], "DEC": PLACES[:, 1]}))
    assert np.allclose(found.shift, SHIFT, atol=0.5)
    return {one.number: one for one in found.spectra}


def flat(wavelength: np.ndarray, maggies: float) -> np.ndarray:
    """W m⁻² nm⁻¹ of a source of the same AB magnitude at all wavelengths."""
    return maggies * 3631e-26 * 2.99792458e17 / wavelength**2


def test_fluxes_are_within_a_tenth_of_the_truth(spectra: dict[int, Spectrum]) -> None:
    assert spectra.keys() == set(range(len(FLUX)))
    for number, one in spectra.items():
        good = one.usable
        ratio = one.flux[good] / flat(one.wavelength[good], FLUX[number])
        assert abs(np.median(ratio) - 1) < 0.1, number


def test_wavelengths_are_within_a_pixel_of_the_truth(spectra: dict[int, Spectrum]) -> None:
    for number, one in spectra.items():
        true = DISPERSION.wavelength_at(np.arange(SHAPE[0]) - PLACES[number, 1] - SHIFT[1])
        step = np.abs(DISPERSION.nanometres_per_pixel(np.arange(SHAPE[0]) - one.y))
        good = one.usable & np.isfinite(true)
        assert np.all(np.abs(one.wavelength - true)[good] < step[good])


def test_spectra_that_overlap_are_said_to(spectra: dict[int, Spectrum]) -> None:
    alone, beside = spectra[0], spectra[2]
    assert np.median(alone.contamination[alone.usable]) < 0.05
    assert np.median(beside.contamination[beside.usable]) > np.median(
        alone.contamination[alone.usable]
    )


def test_combined_spectra_are_closer_to_the_truth_where_there_are_more(
    spectra: dict[int, Spectrum],
) -> None:
    one = spectra[0]
    grid = np.linspace(900.0, 1500.0, 50)
    single, error = combined([one], grid)
    both, smaller = combined([one, one], grid)
    seen = np.isfinite(single)
    assert seen.any()
    assert np.allclose(both[seen], single[seen])
    assert np.allclose(smaller[seen], error[seen] / np.sqrt(2))


def test_a_wavelength_beyond_the_order_has_no_flux() -> None:
    beyond = np.array([DISPERSION.offset[-1] + 10, DISPERSION.offset[0] - 10])
    assert np.isnan(DISPERSION.wavelength_at(beyond)).all()
    assert not DISPERSION.calibrated(beyond).any()
    assert (DISPERSION.electrons_per_maggie(beyond) == 0).all()
