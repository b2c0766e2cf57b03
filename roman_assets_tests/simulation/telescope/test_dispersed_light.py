from __future__ import annotations

import numpy as np
import pytest
from astropy.table import Table
from roman_technical_information import __file__ as published

from roman_assets.products.observation import OpticalElement
from roman_assets.simulation.telescope.detector_geometry import detector_wcs
from roman_assets.simulation.telescope.dispersed_light import add_spectra, first_order
from roman_assets.simulation.telescope.response import DetectorResponse, sky_rate
from roman_assets.simulation.telescope.scene import FILTERS, PIVOT_WAVELENGTH, Scene, SkyCircle
from roman_assets.simulation.telescope.spectrum import PASCHEN_LINES, spectral_flux, with_lines

WINDOW = 256
DETECTOR = "WFI03"
GRISM, PRISM = OpticalElement.GRISM, OpticalElement.PRISM
PLACE = (120.3, 140.0)
FLUX = 1e-7


@pytest.fixture(scope="module")
def response() -> DetectorResponse:
    return DetectorResponse(DETECTOR, WINDOW, 1)


@pytest.fixture(scope="module")
def wcs():
    return detector_wcs(DETECTOR, 270.0, 66.0, 30.0, WINDOW)


def source(wcs, *, kind: str = "simulated_star", width: float = 0.0, flux: float = FLUX) -> Table:
    table = with_lines(Scene(1).sources([SkyCircle(10, 10, 0.01)])[:1], 1)
    ra, dec = wcs(*PLACE, with_bounding_box=False)
    table["kind"], table["ra"], table["dec"] = kind, float(ra), float(dec)
    for element in FILTERS:
        table[str(element)] = flux
    table["redshift"], table["line_width"] = 0.0, width
    table["sersic_index"], table["half_light_radius"], table["axis_ratio"] = 1.0, 0.2, 0.8
    return table


def drawn(response: DetectorResponse, element: OpticalElement, sources: Table, wcs) -> np.ndarray:
    image = np.zeros((WINDOW, WINDOW))
    add_spectra(image, response, element, sources, wcs)
    return image


@pytest.mark.parametrize("kind", ["simulated_star", "galaxy"])
def test_a_prism_spectrum_has_nearly_all_the_light_of_its_source(response, wcs, kind) -> None:
    image = drawn(response, PRISM, source(wcs, kind=kind), wcs)
    assert image.sum() == pytest.approx(FLUX * response.electron_rate(PRISM), rel=0.05)
    columns = image.sum(axis=0)
    assert columns[116:125].sum() > 0.8 * columns.sum()


@pytest.mark.parametrize(("element", "name"), [(GRISM, "grism"), (PRISM, "prism")])
def test_wavelengths_lie_as_the_published_dispersion_says(element, name) -> None:
    path = published.replace("__init__.py", "data/WideFieldInstrument/Spectroscopy/Dispersion")
    table = Table.read(f"{path}/WFI_{name}_dispersion.ecsv", format="ascii.ecsv")
    order = first_order(DETECTOR, element)
    row = np.interp(np.asarray(table[f"{name[0]}_mean_lam"]), order.wavelength, order.row)
    local = np.gradient(np.asarray(table[f"{name[0]}_mean_lam"])) / np.gradient(row)
    assert np.allclose(local, table[f"{name[0]}_dispersion"], rtol=0.01)


def test_an_absorption_line_is_where_its_wavelength_falls(response, wcs) -> None:
    with_line = drawn(response, PRISM, source(wcs, width=-1.0), wcs).sum(axis=1)
    without = drawn(response, PRISM, source(wcs), wcs).sum(axis=1)
    missing = without - with_line
    order = first_order(DETECTOR, PRISM)
    for line in PASCHEN_LINES:
        row = PLACE[1] + np.interp(line, order.wavelength, order.row)
        near = np.arange(round(row) - 3, round(row) + 4)
        assert (missing[near] * near).sum() / missing[near].sum() == pytest.approx(row, abs=0.3)


def test_red_light_spreads_farther_across_than_blue_light(response, wcs) -> None:
    image = drawn(response, GRISM, source(wcs), wcs)
    column = round(PLACE[0])
    share = image[:, column - 1 : column + 2].sum(axis=1) / image.sum(axis=1)
    assert share[20] > share[235] + 0.02


def test_spectra_agree_with_the_fluxes_of_images_but_for_lines() -> None:
    sources = with_lines(Scene(1).sources([SkyCircle(270.0, 66.0, 0.02)]), 1)
    sources["line_width"] = 0.0
    for row in sources[:10]:
        for element in FILTERS:
            at = np.array([PIVOT_WAVELENGTH[element] * 1e3])
            assert spectral_flux(row, at)[0] == pytest.approx(row[str(element)])


def test_a_galaxy_emits_what_its_equivalent_width_says() -> None:
    sources = with_lines(Scene(1).sources([SkyCircle(270.0, 66.0, 0.02)]), 1)
    galaxy = sources[sources["kind"] == "galaxy"][0]
    stretch = 1 + galaxy["redshift"]
    wavelength = np.arange(-20.0, 20.0, 0.02) + 656.46 * stretch
    flux = spectral_flux(galaxy, wavelength)
    continuum = np.interp(wavelength, wavelength[[0, -1]], flux[[0, -1]])
    width = ((flux / continuum - 1) * 0.02).sum()
    assert width == pytest.approx(galaxy["line_width"] * stretch, rel=0.02)


def test_lines_do_not_depend_on_what_else_is_asked_for() -> None:
    sources = with_lines(Scene(1).sources([SkyCircle(270.0, 66.0, 0.02)]), 1)
    alone = with_lines(Scene(1).sources([SkyCircle(270.0, 66.0, 0.02)])[3:4], 1)
    assert alone["line_width"][0] == sources["line_width"][3]


@pytest.mark.parametrize(("element", "published_rate"), [(GRISM, 0.65), (PRISM, 0.95)])
def test_the_sky_is_as_bright_as_published(element, published_rate) -> None:
    assert sky_rate(DETECTOR, element) == pytest.approx(1.1 * published_rate)
