import numpy as np
import pytest
from astropy.table import Table

from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError
from roman_assets.products.observation import OpticalElement, VisitId
from roman_assets.simulation.telescope.scene import FILTERS, Scene, SkyCircle
from roman_assets.simulation.telescope.truth import (
    APERTURE,
    NANOJANSKY_PER_MAGGIE,
    compare_catalog,
    read_truth,
    write_truth,
)

F158 = OpticalElement.F158
VISIT = VisitId(1, 1, 1, 1, 1, 1)


@pytest.fixture
def truth():
    """Forty stars of magnitude 19, 20 arcsec apart."""
    sky = Scene(1).sources([SkyCircle(50.0, 0.0, 0.05)])
    stars = sky[sky["kind"] == "simulated_star"][:40]
    stars["ra"], stars["dec"] = 50.0 + np.arange(40) * 20 / 3600, np.zeros(40)
    for name in FILTERS:
        stars[name] = 10 ** (-0.4 * 19.0)
    return stars


def _catalog(truth, east_mas=0.0, mmag=0.0):
    flux = truth["F158"] * NANOJANSKY_PER_MAGGIE * 10 ** (-0.4 * mmag / 1e3)
    return Table(
        {
            "ra_psf": truth["ra"] + east_mas / 3.6e6,
            "dec_psf": truth["dec"],
            "psf_flux": flux,
            "psf_flags": np.zeros(len(truth), dtype=int),
        }
    )


def test_injected_errors_come_back(truth):
    shift = np.where(np.arange(40) % 2, 3.0, -3.0)
    found = compare_catalog(_catalog(truth, shift + 4.0, mmag=-7.0), truth, F158)
    assert found.n == 40
    assert found.position_rms_mas == pytest.approx(5.0, rel=1e-3)
    assert found.position_offset_mas == pytest.approx(4.0, rel=1e-3)
    assert found.median_flux_error_mmag == pytest.approx(7.0, rel=1e-3)
    assert found.flux_bias_mmag == pytest.approx(-7.0, rel=1e-3)


def test_a_perfect_catalogue_has_no_errors(truth):
    found = compare_catalog(_catalog(truth), truth, F158)
    assert (found.n, found.position_rms_mas, found.median_flux_error_mmag) == pytest.approx(
        (40, 0, 0), abs=1e-6
    )


def test_aperture_fluxes_are_corrected_by_the_stated_energy(truth):
    catalog = _catalog(truth)
    catalog["aper04_flux"] = 0.8 * catalog["psf_flux"]
    catalog["ra_centroid_win"], catalog["dec_centroid_win"] = catalog["ra_psf"], catalog["dec_psf"]
    catalog.meta["aperture_radii"] = {"circle_arcsec": np.array([0.2, 0.4, 0.8])}
    catalog.meta["ee_fractions"] = np.array([0.5, 0.8, 0.9])
    found = compare_catalog(catalog, truth, F158, measurement=APERTURE)
    assert found.median_flux_error_mmag == pytest.approx(0, abs=1e-6)


def test_crowded_faint_and_saturated_stars_do_not_count(truth):
    truth["ra"][1] = truth["ra"][0] + 1 / 3600
    truth["F158"][2] = 10 ** (-0.4 * 12.0)
    truth["F158"][3] = 10 ** (-0.4 * 24.0)
    assert compare_catalog(_catalog(truth), truth, F158).n == 36


def test_sources_without_a_position_do_not_count(truth):
    catalog = _catalog(truth)
    catalog["ra_psf"][:5] = np.nan
    assert compare_catalog(catalog, truth, F158).n == 35


def test_stars_whose_fit_is_flagged_do_not_count(truth):
    catalog = _catalog(truth)
    catalog["psf_flags"][:3] = 1
    catalog["psf_flux"][:3] *= 0.3
    found = compare_catalog(catalog, truth, F158)
    assert (found.n, found.flux_bias_mmag) == pytest.approx((37, 0.0), abs=1e-6)


def test_nothing_in_common_is_told_from_agreement(truth):
    found = compare_catalog(_catalog(truth)[:0], truth, F158)
    assert found.n == 0
    assert np.isnan(found.position_rms_mas)


def test_truth_is_kept_for_each_visit(tmp_path, truth):
    root = DataRoot(tmp_path)
    truth.meta["seed"] = 4
    write_truth(root, VISIT, truth)
    again = read_truth(root, VISIT)
    assert again.meta["seed"] == 4
    assert np.array_equal(again["ra"], truth["ra"])
    with pytest.raises(BadInputError, match="no truth"):
        read_truth(root, VisitId(2, 1, 1, 1, 1, 1))
