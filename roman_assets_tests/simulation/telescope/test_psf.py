import numpy as np
import pytest
import scipy.optimize
from astropy.convolution import Box2DKernel, convolve
from roman_datamodels import datamodels
from romancal.source_catalog.psf import create_l3_psf_model, get_gridded_psf_model

from roman_assets.products.observation import OpticalElement
from roman_assets.simulation.telescope import sky_references
from roman_assets.simulation.telescope.effective_psf import (
    NATIVE_SPECTRAL_TYPE,
    OVERSAMPLING,
    SPECTRAL_TYPES,
    effective_psf,
    enclosed_energy,
    grid_positions,
)


@pytest.fixture(scope="module")
def grid():
    return effective_psf("WFI03", OpticalElement.F158, 512)


def test_stamps_hold_nearly_all_the_light(grid):
    assert grid.stamps.shape == (1, len(SPECTRAL_TYPES), 4, 361, 361)
    light = grid.stamps.sum(axis=(-2, -1)) / OVERSAMPLING**2
    assert ((light > 0.97) & (light < 1)).all()


def test_a_stars_place_is_the_centroid_of_its_core(grid):
    core = grid.stamps[0, NATIVE_SPECTRAL_TYPE, :, 173:188, 173:188]
    along = np.arange(-7, 8)
    weight = core.sum(axis=(1, 2))
    assert np.abs(core.sum(axis=1) @ along / weight).max() < 0.01
    assert np.abs(core.sum(axis=2) @ along / weight).max() < 0.01


@pytest.mark.parametrize("element", ["F106", "F158", "F184"])
def test_the_fit_of_romancal_in_native_coadds_finds_a_star_at_its_place(element):
    grid = effective_psf("WFI02", OpticalElement(element), 512)
    stamp = grid.stamps[0, NATIVE_SPECTRAL_TYPE].mean(axis=0)
    pixel = Box2DKernel(OVERSAMPLING)
    # of many dithers: spread over native pixels, and added up on native pixels
    star = convolve(convolve(stamp, pixel), pixel)[::OVERSAMPLING, ::OVERSAMPLING][43:48, 43:48]
    model = create_l3_psf_model(sky_references.epsf("WFI02", OpticalElement(element), grid))
    y, x = np.mgrid[-2:3, -2:3]

    def deviation(parameters):
        return ((model.evaluate(x, y, *parameters) - star) / np.sqrt(star)).ravel()

    flux, *place = scipy.optimize.least_squares(deviation, [1.0, 0.0, 0.0]).x
    assert 110 * np.hypot(*place) < 1.0
    assert abs(2.5e3 * np.log10(flux)) < 25


def test_romancal_takes_the_sun_like_star_and_draws_unit_flux(grid):
    assert list(SPECTRAL_TYPES)[NATIVE_SPECTRAL_TYPE] == "G2V"
    model = get_gridded_psf_model(sky_references.epsf("WFI03", OpticalElement.F158, grid))
    y, x = np.mgrid[200:290, 210:300]
    drawn = model.evaluate(x, y, 1.0, 255.3, 244.8)
    light = grid.stamps[0, NATIVE_SPECTRAL_TYPE].sum(axis=(-2, -1)).mean() / OVERSAMPLING**2
    assert drawn.sum() == pytest.approx(light, rel=0.005)


def test_hotter_stars_have_sharper_images(grid):
    peaks = grid.stamps.max(axis=(-2, -1))[0, :, 0]
    assert peaks[0] > peaks[1] > peaks[2]


def test_enclosed_energy_grows_with_the_radius(grid):
    radii, fractions = enclosed_energy(grid.stamps[0, NATIVE_SPECTRAL_TYPE, 0])
    assert (np.diff(fractions) >= -1e-6).all()
    assert 0.5 < np.interp(1.5, radii, fractions) < 0.9


def test_positions_of_a_window_are_its_corners_and_of_a_detector_a_grid():
    assert set(zip(*grid_positions(512), strict=True)) == {
        (0.0, 0.0), (511.0, 0.0), (0.0, 511.0), (511.0, 511.0),
    }  # fmt: skip
    assert len(grid_positions(None)[0]) == 9


def test_dispersing_elements_have_no_psf():
    with pytest.raises(ValueError, match="GRISM"):
        effective_psf("WFI01", OpticalElement.GRISM, 512)


def test_the_reference_is_valid(grid, tmp_path):
    path = tmp_path / "epsf.asdf"
    sky_references.epsf("WFI03", OpticalElement.F158, grid).save(path)
    with datamodels.open(path) as model:
        model.validate()
        assert list(model.meta.spectral_type) == list(SPECTRAL_TYPES)
        assert model.meta.oversample == OVERSAMPLING
