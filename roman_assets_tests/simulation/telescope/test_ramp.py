import numpy as np
import pytest
from astropy.table import Table

from roman_assets.products.observation import ExposureType, OpticalElement
from roman_assets.simulation.telescope.detector_geometry import BORDER_PIXELS, detector_wcs
from roman_assets.simulation.telescope.effective_psf import EpsfGrid, effective_psf
from roman_assets.simulation.telescope.light import ILLUMINATION, electron_rates
from roman_assets.simulation.telescope.multiaccum import ma_table
from roman_assets.simulation.telescope.point_spread import PointSpread, pixel_positions
from roman_assets.simulation.telescope.ramp import add_dark_decay, reference_output, resultants
from roman_assets.simulation.telescope.response import DetectorResponse
from roman_assets.simulation.telescope.scene import FILTERS, Scene, SkyCircle

WINDOW = 128
F158 = OpticalElement.F158


@pytest.fixture(scope="module")
def response():
    return DetectorResponse("WFI03", WINDOW, 1)


@pytest.fixture(scope="module")
def spread():
    return PointSpread(effective_psf("WFI03", F158, WINDOW))


@pytest.fixture(scope="module")
def wcs():
    return detector_wcs("WFI03", 270.0, 66.0, 30.0, WINDOW)


@pytest.fixture(scope="module")
def blank(response, wcs, spread):
    return electron_rates(response, ExposureType.WFI_IMAGE, F158, _sources(wcs, []), wcs, spread)


def _sources(wcs, rows):
    """A truth table of (kind, x, y, maggies)."""
    names = ("name", "kind", "ra", "dec", *FILTERS, "sersic_index", "half_light_radius",
             "axis_ratio", "position_angle")  # fmt: skip
    table = Scene(1).sources([SkyCircle(10, 10, 0.001)])[:0]
    for kind, x, y, flux in rows:
        shape = (1.0, 0.2, 0.7, 40.0) if kind == "galaxy" else (0, 0, 0, 0)
        ra, dec = wcs(x, y, with_bounding_box=False)
        row = ("source", kind, float(ra), float(dec), *[flux] * len(FILTERS), *shape)
        table.add_row(dict(zip(names, row, strict=True)))
    return table


def _net(response, wcs, spread, blank, rows, element=F158, kind=ExposureType.WFI_IMAGE):
    rates = electron_rates(response, kind, element, _sources(wcs, rows), wcs, spread)
    efficiency = response.quantum_efficiency(element)
    return np.where(efficiency > 0, (rates - blank) / np.where(efficiency > 0, efficiency, 1), 0)


def test_a_star_yields_its_electrons_at_its_place(response, wcs, spread, blank):
    net = _net(response, wcs, spread, blank, [("gaia", 60.3, 70.8, 1e-7)])
    expected = 1e-7 * response.electron_rate(F158)
    total = net.sum()
    assert 0.95 < total / expected < 1.0
    y, x = np.indices(net.shape)
    core = np.hypot(x - 60.3, y - 70.8) < 3
    centre = [(net * axis)[core].sum() / net[core].sum() for axis in (x, y)]
    assert centre == pytest.approx([60.3, 70.8], abs=0.15)


def test_a_galaxy_yields_its_electrons_and_lies_along_its_position_angle(
    response, wcs, spread, blank
):
    net = _net(response, wcs, spread, blank, [("galaxy", 64.0, 64.0, 1e-7)])
    assert net.sum() == pytest.approx(1e-7 * response.electron_rate(F158), rel=0.06)
    y, x = np.indices(net.shape) - 64
    core = np.hypot(x, y) < 10
    xx, xy, yy = (np.sum((net * product)[core]) for product in (x * x, x * y, y * y))
    ra, dec = wcs(64.0, 64.0)
    angle = np.radians(40.0)
    towards = wcs.invert(
        ra + 1e-4 * np.sin(angle) / np.cos(np.radians(dec)), dec + 1e-4 * np.cos(angle)
    )
    expected = np.arctan2(towards[1] - 64, towards[0] - 64)
    measured = 0.5 * np.arctan2(2 * xy, xx - yy)
    assert np.cos(2 * (measured - expected)) > 0.9


def test_sources_outside_of_the_detector_still_shine_into_it(response, wcs, spread, blank):
    net = _net(response, wcs, spread, blank, [("gaia", -10.0, 64.0, 1e-5)])
    assert net[:, 0].sum() > 100
    assert net[:, 60:].sum() == 0


@pytest.mark.parametrize("kind", list(ExposureType))
def test_only_exposures_with_the_shutter_open_see_the_sky(response, wcs, spread, kind):
    element = OpticalElement.DARK if kind.endswith("DARK") else F158
    images = [
        electron_rates(response, kind, element, _sources(wcs, rows), wcs, spread)
        for rows in ([], [("gaia", 64.0, 64.0, 1e-6)])
    ]
    assert ILLUMINATION[kind].sky == (not np.array_equal(*images))
    assert (images[0].max() > 0) == (not kind.endswith("DARK"))


def test_positions_are_those_of_the_wcs_also_far_outside(wcs):
    x = np.array([-500.0, 64.0, 700.0])
    places = Table(dict(zip(("ra", "dec"), wcs(x, x, with_bounding_box=False), strict=True)))
    assert np.allclose(pixel_positions(places, wcs), [x, x], atol=1e-3)


def test_points_are_drawn_as_photutils_draws_them_for_the_fit(spread):
    from astropy.nddata import NDData
    from photutils.psf import GriddedPSFModel

    grid = effective_psf("WFI03", F158, WINDOW)
    stamps = grid.stamps[0, 1].astype(float)
    # Stamps that differ, so that mixing them matters.
    stamps = stamps * np.array([1.0, 1.1, 0.9, 1.2])[:, None, None]
    places = list(zip(grid.pixel_x, grid.pixel_y, strict=True))
    model = GriddedPSFModel(NDData(stamps, meta={"grid_xypos": places, "oversampling": 4}))
    changed = EpsfGrid(np.stack([stamps] * 2)[None], grid.pixel_x, grid.pixel_y)
    stamp, column, row = PointSpread(changed).stamp(30.27, 99.61, radius=5)
    y, x = np.mgrid[row : row + 11, column : column + 11].astype(float)
    assert np.allclose(stamp, model.evaluate(x, y, 1.0, 30.27, 99.61), atol=1e-7)


@pytest.fixture(scope="module")
def ramps(response):
    """Linear counts of a uniformly lit detector, in electrons above the pedestal."""
    table = ma_table(3)
    rates = np.full(response.relative_area.shape, 40.0)
    cube = resultants(rates, response, table, np.random.default_rng(1))
    linear = response.linear_counts(cube.astype(float)) - response.pedestal
    good = response.dq[response.active] == 0
    inner = slice(BORDER_PIXELS, -BORDER_PIXELS)
    return table, cube, (linear * response.gain)[:, inner, inner][:, good]


def test_ramps_rise_with_the_light(ramps, response):
    table, _, electrons = ramps
    times = [np.mean(reads) * table.frame_time for reads in table.read_pattern]
    dark = float(np.median(response.dark_rate * response.gain))
    measured = electrons.mean(axis=1)
    assert measured == pytest.approx((40.0 + dark) * np.array(times), rel=5e-3)


def test_resultants_vary_as_averages_of_reads_do(ramps, response):
    table, _, electrons = ramps
    read_noise = np.mean(response.read_noise**2) * response.nominal_gain**2
    differences = np.diff(electrons, axis=0)
    for number, pair in enumerate(zip(table.read_pattern, table.read_pattern[1:], strict=False)):
        expected = sum(read_noise / len(reads) for reads in pair)
        expected += 40.0 * table.frame_time * _poisson_reads(*pair)
        assert differences[number].var() == pytest.approx(expected, rel=0.06)


def _poisson_reads(first, second):
    """Variance of the difference of two averages over that of one read's electrons."""
    weights = np.zeros(second[-1])
    for read in first:
        weights[:read] -= 1 / len(first)
    for read in second:
        weights[:read] += 1 / len(second)
    return float(np.sum(weights**2))


def test_the_signal_after_reset_is_what_romancal_subtracts():
    from types import SimpleNamespace

    from romancal.dark_decay.dark_decay import subtract_dark_decay

    table = ma_table(3)
    whole = SimpleNamespace(dark_decay=(0.8, 23.0), shape=(4096, 4096), detector="WFI04")
    means = np.zeros((table.nresultants, 4096, 4096), dtype=np.float32)
    add_dark_decay(means, whole, table)
    assert means[0].max() > 0.5
    subtract_dark_decay(means, 0.8, 23.0, table.frame_time, table.read_pattern, 4)
    assert np.abs(means).max() < 1e-5


def test_light_stays_out_of_the_reference_border(ramps, response):
    _, cube, _ = ramps
    border = np.ones(response.shape, dtype=bool)
    border[response.active] = False
    rise = cube[-1].astype(float) - cube[0]
    assert abs(rise[border].mean()) < 1
    assert rise[~border].mean() > 500


def test_a_saturated_pixel_stops_counting(response):
    rates = np.full(response.relative_area.shape, 1e5)
    cube = resultants(rates, response, ma_table(3), np.random.default_rng(1))
    inner = cube[-1][response.active]
    assert cube.dtype == np.uint16
    assert np.all(inner >= response.saturation[response.active] - 50)
    assert np.all(inner <= response.saturation[response.active] * 1.05 + 50)


def test_the_reference_output_is_as_tall_as_the_detector(response):
    table = ma_table(4)
    output = reference_output(response, table, np.random.default_rng(1))
    assert output.shape == (9, WINDOW + 8, 128)
    assert output.dtype == np.uint16
    assert output[4].std() < output[0].std()
