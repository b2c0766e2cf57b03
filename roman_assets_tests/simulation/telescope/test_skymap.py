from pathlib import Path

import asdf
import numpy as np
import pytest
import romancal.skycell
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st

from roman_assets.simulation.telescope.scene import SkyCircle
from roman_assets.simulation.telescope.skymap import (
    projection_regions,
    skycells_of,
    skymap,
    tabulate,
)


@pytest.fixture(scope="module")
def official():
    path = Path(romancal.skycell.__file__).parent / "tests" / "data" / "skymap_subset.asdf"
    if not path.is_file():
        pytest.skip("this romancal comes without its sky map subset")
    with pytest.warns(asdf.exceptions.AsdfWarning), asdf.open(path, memmap=False) as file:
        yield (
            np.array(file["roman"]["projection_regions"]),
            np.array(file["roman"]["skycells"]),
        )


def _difference(ours, theirs, name):
    difference = ours[name].astype(float) - theirs[name]
    if name.startswith("ra") or name == "orientat":
        return np.abs((difference + 180) % 360 - 180)
    return np.abs(difference)


def test_the_rule_reproduces_the_official_polar_regions(official):
    theirs, _ = official
    ours, _ = tabulate(projection_regions()[: len(theirs)])
    assert ours.dtype == theirs.dtype
    for name in theirs.dtype.names:
        assert _difference(ours, theirs, name).max() < 1e-12, name


def test_the_rule_reproduces_the_official_skycells_name_by_name(official):
    regions, theirs = official
    theirs = theirs[: regions["skycell_end"].max()]
    _, ours = tabulate(projection_regions()[: len(regions)])
    assert ours.dtype == theirs.dtype
    assert ours["name"].tolist() == theirs["name"].tolist()
    for name in theirs.dtype.names[1:]:
        assert _difference(ours, theirs, name).max() < 1e-12, name


def test_the_sky_has_4058_regions():
    assert len(projection_regions()) == 4058


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 359.9), st.floats(-89.9, 89.9))
def test_every_place_on_the_sky_is_in_a_region(ra, dec):
    place = np.array([ra]), np.array([dec])
    holders = [region for region in projection_regions() if region.contains(*place)[0]]
    # two where a place lies on the edge between regions, up to four at a corner
    assert 1 <= len(holders) <= 4


def test_skycells_cover_their_region_without_gaps():
    region = next(r for r in projection_regions() if r.name == "270p65")
    plane = WCS(naxis=2)
    plane.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    plane.wcs.crval = [region.ra_tangent, region.dec_tangent]
    plane.wcs.cdelt = [0.055 / 3600] * 2
    random = np.random.default_rng(0)
    ra = random.uniform(region.ra_min, region.ra_max, 2000)
    dec = random.uniform(region.dec_min, region.dec_max, 2000)
    x, y = plane.wcs_world2pix(ra, dec, 1)
    names = {
        f"270p65x{50 + round(row):02d}y{50 + round(column):02d}"
        for row, column in zip(y / 4800, x / 4800, strict=True)
    }
    assert names <= set(skycells_of(region)["name"])


def test_names_tell_the_region_and_the_place_in_it():
    _, cells = skymap([SkyCircle(270.0, 65.0, 0.1)])
    middle = cells[cells["name"] == "270p65x50y50"][0]
    assert middle["ra_center"] == pytest.approx(270.0)
    assert (middle["x_tangent"], middle["y_tangent"]) == (2499.5, 2499.5)
    above = cells[cells["name"] == "270p65x51y50"][0]
    assert above["dec_center"] - middle["dec_center"] == pytest.approx(
        4800 * 0.055 / 3600, rel=1e-4
    )


def test_regions_of_a_subset_are_found_by_their_index():
    regions, cells = skymap([SkyCircle(270.0, 66.4, 0.2)])
    assert len(regions) == 2
    assert regions["index"].tolist() == [0, 1]
    assert regions["skycell_end"][-1] == len(cells)
    for region in regions:
        names = cells["name"][region["skycell_start"] : region["skycell_end"]]
        assert len({name[:6] for name in names}) == 1


def test_a_field_across_ra_zero_gets_the_regions_on_both_sides():
    regions, _ = skymap([SkyCircle(0.0, 10.0, 5.0)])
    assert regions["ra_tangent"].min() < 10
    assert regions["ra_tangent"].max() > 350
