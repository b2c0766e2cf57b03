"""Extraction from a spectral image that the simulated telescope made, against its truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from astropy.table import Table

from roman_assets.products.observation import OpticalElement
from roman_assets.simulation.ssc.dispersion import dispersion_of
from roman_assets.simulation.ssc.source_list import SourceList
from roman_assets.simulation.ssc.spectra import Extraction, Spectrum, combined, extract
from roman_assets.simulation.ssc.spectral_image import SpectralImage
from roman_assets.simulation.telescope.detector_geometry import detector_wcs
from roman_assets.simulation.telescope.response import DetectorResponse
from roman_assets.simulation.telescope.scene import FILTERS, Scene, SkyCircle
from roman_assets.simulation.telescope.spectrum import with_lines
from roman_assets_tests.support.spectral_truth import (
    ISOLATED,
    SpectralTruth,
    flux_ratio,
    line_shift,
)

GRISM, PRISM = OpticalElement.GRISM, OpticalElement.PRISM
DETECTOR, WINDOW = "WFI01", 256
PLACES = np.array([
    [20.3, 128.0], [50.7, 60.0], [55.4, 150.0], [85.8, 90.0], [112.2, 200.0], [140.5, 110.0],
    [170.1, 170.0], [200.6, 70.0], [203.1, 80.0], [232.4, 140.0],
])  # fmt: skip
"""Where the direct images are; for the grism, where the red and blue ends are in turn.

Through the prism the third and second overlap in part, the eighth and ninth nearly everywhere.
"""
GRISM_ENDS = np.resize([-430.0, 430.0], len(PLACES))
MAGNITUDES = np.array([18.5, 18.0, 19.0, 18.2, 18.8, 17.5, 18.0, 18.4, 18.9, 18.3])
POINTING_ERROR = (1.3, -2.1)
TIME = 300.0
SKY = 1.0


@dataclass
class Extracted:
    extraction: Extraction
    truth: SpectralTruth

    def matched(self) -> list[tuple[Spectrum, int]]:
        found = [(one, self.truth.row_at(one.x, one.y)) for one in self.extraction.spectra]
        return [(one, row) for one, row in found if row is not None]

    def isolated(self) -> list[tuple[Spectrum, int]]:
        return [
            (one, row)
            for one, row in self.matched()
            if self.truth.contamination(row, np.flatnonzero(one.usable)) < ISOLATED
        ]


@pytest.fixture(scope="module", params=[GRISM, PRISM])
def extracted(request: pytest.FixtureRequest) -> Extracted:
    """Ten stars, with a telescope that misses its pointing, and photon noise."""
    element = request.param
    x, y = PLACES.T
    if element is GRISM:
        y = y + GRISM_ENDS
    wcs = detector_wcs(DETECTOR, 270.0, 66.0, 30.0, WINDOW)
    ra, dec = wcs(x, y, with_bounding_box=False)
    dx, dy = POINTING_ERROR
    sources = with_lines(Scene(1).sources([SkyCircle(270.0, 66.0, 0.02)])[: len(PLACES)], 1)
    sources["kind"], sources["redshift"], sources["line_width"] = "simulated_star", 0.0, -1.0
    sources["ra"], sources["dec"] = wcs(x + dx, y + dy, with_bounding_box=False)
    for place, band in enumerate(FILTERS):
        colour = 0.15 * (3 - place) * np.sin(x)
        sources[str(band)] = 10 ** (-0.4 * (MAGNITUDES + colour))
    truth = SpectralTruth.of(sources, wcs, DetectorResponse(DETECTOR, WINDOW, 1), element)
    rng = np.random.default_rng(3)
    data = rng.poisson((truth.light.clip(0) + SKY) * TIME) / TIME
    image = SpectralImage(
        "x", data, np.sqrt(data.clip(SKY) / TIME), np.zeros(data.shape, dtype=bool), wcs,
        element, DETECTOR, {},
    )  # fmt: skip
    return Extracted(extract(image, SourceList.of_stars(ra, dec)), truth)


def test_the_pointing_error_is_found(extracted: Extracted) -> None:
    assert np.allclose(extracted.extraction.shift, POINTING_ERROR, atol=0.3)


def test_fluxes_of_isolated_sources_are_within_a_tenth_of_the_truth(extracted: Extracted) -> None:
    isolated = extracted.isolated()
    assert len(isolated) >= 6
    for one, row in isolated:
        good = one.usable
        true = extracted.truth.flux(row, one.wavelength[good])
        assert abs(flux_ratio(one.flux[good], one.error[good], true) - 1) < 0.1, row


def test_wavelengths_are_within_a_pixel_of_the_truth(extracted: Extracted) -> None:
    assert len(extracted.matched()) == len(PLACES)
    for one, row in extracted.matched():
        rows = np.flatnonzero(one.usable)
        dispersion = extracted.extraction.image.dispersion
        step = np.abs(dispersion.nanometres_per_pixel(rows - one.y))
        true = extracted.truth.wavelength(row, rows)
        assert np.all(np.abs(one.wavelength[rows] - true) < step), row


def test_lines_are_found_at_their_true_wavelengths(extracted: Extracted) -> None:
    clear = 0
    for one, row in extracted.isolated():
        good = one.usable
        at, flux, error = one.wavelength[good], one.flux[good], one.error[good]
        shift, improvement = line_shift(at, flux, error, extracted.truth.flux(row, at))
        clear += improvement > 50
        assert improvement < 50 or abs(shift) < 1, row
    assert clear >= 4


def test_where_a_source_is_contaminated_its_spectrum_says_so(extracted: Extracted) -> None:
    for one, row in extracted.matched():
        good = one.usable
        own, light = extracted.truth.in_aperture(row, np.flatnonzero(good))
        true = float((1 - own / light).mean())
        assert one.contamination[good].mean() == pytest.approx(true, abs=0.1), row


def test_a_source_between_others_is_told_apart_from_them(extracted: Extracted) -> None:
    for one, row in extracted.matched():
        good = one.usable
        true = extracted.truth.flux(row, one.wavelength[good])
        assert abs(flux_ratio(one.flux[good], one.error[good], true) - 1) < 0.2, row


def test_combined_spectra_are_closer_to_the_truth_where_there_are_more(
    extracted: Extracted,
) -> None:
    one = extracted.extraction.spectra[0]
    at = one.wavelength[one.usable]
    grid = np.linspace(at.min() - 50, at.max(), 50)
    single, error = combined([one], grid)
    both, smaller = combined([one, one], grid)
    seen = np.isfinite(single)
    assert seen.any()
    assert not seen.all()
    assert np.allclose(both[seen], single[seen])
    assert np.allclose(smaller[seen], error[seen] / np.sqrt(2))


@pytest.mark.parametrize("element", [GRISM, PRISM])
def test_a_wavelength_beyond_the_order_has_no_flux(element: OpticalElement) -> None:
    dispersion = dispersion_of(element, DETECTOR)
    beyond = np.array([dispersion.offset[-1] + 10, dispersion.offset[0] - 10])
    assert np.isnan(dispersion.wavelength_at(beyond)).all()
    assert not dispersion.calibrated(beyond).any()
    assert (dispersion.electrons_per_maggie(beyond) == 0).all()


def entries(rows: list[tuple[float, float, float, float]]) -> Table:
    """A catalogue of (ra and dec in arcsec from (270, 0), flux, semimajor)."""
    table = Table(rows=rows, names=("ra", "dec", "flux", "semimajor"))
    table["ra"], table["dec"] = 270 + table["ra"] / 3600, table["dec"] / 3600
    table["semiminor"], table["angle"] = table["semimajor"], 0.0
    return table


def test_direct_images_add_what_the_catalogue_of_stars_lacks() -> None:
    stars = SourceList.of_stars(np.array([270.0]), np.array([0.0]))
    joined = stars.joined(entries([(0.05, 0.0, 2e-8, 0.0), (3.0, 0.0, 1e-8, 0.3)]))
    assert len(joined) == 2
    assert joined.flux.tolist() == [2e-8, 1e-8]
    assert joined.semimajor.tolist() == [0.0, 0.3]
    assert len(joined.joined(entries([(3.1, 0.0, 5e-8, 0.3)]))) == 2


def test_stars_that_a_direct_image_takes_for_one_extended_source_stay_two_stars() -> None:
    stars = SourceList.of_stars(270 + np.array([-0.7, 0.7]) / 3600, np.zeros(2))
    assert len(stars.joined(entries([(0.0, 0.0, 3e-8, 0.9)]))) == 2
    assert np.isnan(stars.joined(entries([(0.0, 0.0, 3e-8, 0.9)])).flux).all()


def test_a_source_keeps_its_number_whatever_else_is_in_the_list() -> None:
    alone = SourceList.of_stars(np.array([270.001]), np.array([66.0]))
    among = SourceList.of_stars(np.array([269.9, 270.001]), np.array([66.1, 66.0]))
    assert alone.identity[0] == among.identity[1] != among.identity[0]
