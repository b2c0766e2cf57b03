"""Images by SIA 2.0, their links, and cutouts: as pyvo uses them."""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Iterator

import asdf
import numpy as np
import pytest
import pyvo
import requests
from astropy.io import fits
from astropy.io.votable import parse_single_table
from astropy.wcs import WCS
from PIL import Image

from roman_assets.data_root import DataRoot
from roman_assets_tests.support.image_archive import (
    CAL,
    CENTRE,
    COADD,
    PIXEL,
    SHAPE,
    UNCAL,
    image_archive,
    planes,
    sky_wcs,
)
from roman_assets_tests.support.service_server import running_service
from roman_assets_tests.support.sky_archive import FIRST, OTHER, SECOND, SKYCELL, sky_archive

needs_stilts = pytest.mark.skipif(
    shutil.which("stilts") is None, reason="Debian's package stilts is missing"
)
RADIUS = 20 * PIXEL
CIRCLE = f"{CENTRE[0]} {CENTRE[1]} {RADIUS}"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> DataRoot:
    return image_archive(tmp_path_factory.mktemp("images") / "data")


@pytest.fixture(scope="module")
def url(root: DataRoot) -> Iterator[str]:
    with running_service(root, cutout_pixels=30_000) as served:
        yield served


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_service(sky_archive(tmp_path_factory.mktemp("sky") / "data")) as served:
        yield served


def soda(url: str, **given: str) -> requests.Response:
    return requests.get(f"{url}/soda/sync", params={"ID": CAL, **given})


def file_sets(url: str, **given: object) -> set[str]:
    answer = requests.get(f"{url}/sia/query", params=given)
    assert answer.status_code == 200, answer.text
    return set(parse_single_table(io.BytesIO(answer.content)).to_table()["obs_id"])


def test_pyvo_finds_images_follows_their_links_and_cuts_them(url: str) -> None:
    service = pyvo.dal.SIA2Service(f"{url}/sia")
    found = service.search(pos=(*CENTRE, 0.01), calib_level=2)
    assert found["obs_publisher_did"].tolist() == [f"ivo://roman-assets/products?{CAL}"]
    links = found[0].getdatalink()
    semantics = {row["semantics"]: row["access_url"] for row in links}
    assert requests.get(semantics["#this"]).content.startswith(b"#ASDF")
    assert semantics["#progenitor"].endswith(UNCAL)
    assert semantics["#derivation"].endswith(COADD)
    cut = found[0].processed(circle=(*CENTRE, RADIUS))
    with fits.open(io.BytesIO(cut.read())) as hdus:
        assert all(41 <= side <= 43 for side in hdus["SCI"].data.shape)


def test_pyvo_cuts_what_tap_finds(url: str) -> None:
    tap = pyvo.dal.TAPService(f"{url}/tap")
    found = tap.run_sync("SELECT * FROM ivoa.ObsCore WHERE dataproduct_subtype = 'coadd'")
    cut = found[0].processed(circle=(*CENTRE, RADIUS))
    assert cut.read(6) == b"SIMPLE"


def test_a_cutout_has_all_planes_and_the_exact_wcs(url: str) -> None:
    content = soda(url, CIRCLE=CIRCLE, RESPONSEFORMAT="asdf").content
    with asdf.open(io.BytesIO(content)) as file:
        left, bottom = file["cutout"]["left"], file["cutout"]["bottom"]
        part = file["roman"]
        ny, nx = part["data"].shape
        assert 41 <= nx <= 43 and 41 <= ny <= 43
        for name in ("data", "dq", "err", "context"):
            whole = planes()[name][..., bottom : bottom + ny, left : left + nx]
            assert np.array_equal(part[name], whole) and part[name].dtype == whole.dtype
        assert "amp33" not in part and part["meta"]["title"] == "kept"
        assert part["meta"]["wcsinfo"]["s_region"].startswith("POLYGON ICRS 2")
        x, y = np.meshgrid(np.arange(nx), np.arange(ny))
        assert np.allclose(
            part["meta"]["wcs"](x, y), sky_wcs()(x + left, y + bottom), rtol=0, atol=1e-12
        )


def test_fits_has_the_same_planes_and_a_wcs_good_to_a_hundredth_of_a_pixel(url: str) -> None:
    content = soda(url, CIRCLE=CIRCLE).content
    with fits.open(io.BytesIO(content)) as hdus:
        left, bottom = hdus[0].header["CUTLEFT"], hdus[0].header["CUTBOTT"]
        ny, nx = hdus["SCI"].data.shape
        assert [hdu.name for hdu in hdus[1:]] == ["SCI", "CONTEXT", "DQ", "ERR"]
        assert hdus["SCI"].header["BUNIT"] == "DN/s"
        assert np.array_equal(
            hdus["DQ"].data, planes()["dq"][bottom : bottom + ny, left : left + nx]
        )
        x, y = np.meshgrid(np.arange(nx), np.arange(ny))
        ra, dec = sky_wcs()(x + left, y + bottom)
        found_x, found_y = WCS(hdus["SCI"].header).all_world2pix(ra, dec, 0)
        assert np.hypot(found_x - x, found_y - y).max() < 0.01


@pytest.mark.parametrize(
    "region",
    [
        {"POS": f"CIRCLE {CIRCLE}"},
        {"CIRCLE": f"{CENTRE[0]} {CENTRE[1]} {PIXEL / 10}"},
        {"POLYGON": "269.999 65.9998 270.001 65.9998 270.001 66.0002 269.999 66.0002"},
        {"POS": "RANGE 269.999 270.001 65.9998 66.0002"},
        {"POS": "RANGE 269.999 270.001 -Inf +Inf"},
        {"CIRCLE": f"{CENTRE[0]} {CENTRE[1] + 100 * PIXEL} {30 * PIXEL}"},
    ],
)
def test_a_cutout_has_every_pixel_of_the_region(url: str, region: dict[str, str]) -> None:
    answer = soda(url, **region)
    assert answer.status_code == 200, answer.text
    with fits.open(io.BytesIO(answer.content)) as hdus:
        left, bottom = hdus[0].header["CUTLEFT"], hdus[0].header["CUTBOTT"]
        top, right = bottom + hdus["SCI"].data.shape[0], left + hdus["SCI"].data.shape[1]
    y, x = np.indices(SHAPE)
    ra, dec = sky_wcs()(x, y)
    words = " ".join(region.values()).replace("CIRCLE ", "").split()
    if "RANGE" in words or "POLYGON" in region:
        numbers = [float(word.replace("Inf", "inf")) for word in words if word != "RANGE"]
        west, east, south, north = (
            numbers if "RANGE" in words else (269.999, 270.001, 65.9998, 66.0002)
        )
        inside = (west < ra) & (ra < east) & (south < dec) & (dec < north)
    else:
        centre_ra, centre_dec, radius = map(float, words)
        across = (ra - centre_ra) * np.cos(np.radians(centre_dec))
        inside = np.hypot(across, dec - centre_dec) < radius * 0.999
    rows, columns = np.nonzero(inside)
    if rows.size:
        assert left <= columns.min() and columns.max() < right
        assert bottom <= rows.min() and rows.max() < top
        assert right - left <= np.ptp(columns) + 6 and top - bottom <= np.ptp(rows) + 6
    else:
        assert right - left <= 2 and top - bottom <= 2


@pytest.mark.parametrize(
    ("given", "status", "words"),
    [
        ({"CIRCLE": "10 10 0.1"}, 204, ""),
        ({"CIRCLE": f"{CENTRE[0]} {CENTRE[1]} 1"}, 413, ""),
        ({}, 400, "UsageFault"),
        ({"CIRCLE": "1 2"}, 400, "UsageFault"),
        ({"CIRCLE": "1 95 2"}, 400, "UsageFault"),
        ({"CIRCLE": "a b c"}, 400, "UsageFault"),
        ({"POLYGON": "1 2 3 4"}, 400, "UsageFault"),
        ({"POS": "SQUARE 1 2 3"}, 400, "UsageFault"),
        ({"POS": "RANGE 2 1 3 4"}, 400, "UsageFault"),
        ({"CIRCLE": CIRCLE, "POS": f"CIRCLE {CIRCLE}"}, 400, "MultiValuedParamNotSupported"),
        ({"CIRCLE": CIRCLE, "ID": [CAL, COADD]}, 400, "MultiValuedParamNotSupported"),
        ({"CIRCLE": CIRCLE, "RESPONSEFORMAT": "gif"}, 400, "UsageFault"),
        ({"CIRCLE": CIRCLE, "ID": f"{FIRST}_cat.parquet"}, 400, "UsageFault"),
        ({"CIRCLE": CIRCLE, "ID": "../../etc/passwd"}, 404, "UsageFault"),
        ({"CIRCLE": CIRCLE, "ID": f"{SECOND}_cal.asdf"}, 404, "UsageFault"),
    ],
    ids=lambda value: None if isinstance(value, set) else str(value),
)
def test_cutouts_that_cannot_be_are_refused_in_the_words_of_soda(
    url: str, given: dict[str, str], status: int, words: str
) -> None:
    answer = soda(url, **given)
    assert answer.status_code == status
    if status == 413:
        assert "300 x 200 pixels" in answer.text
    else:
        assert words in answer.text


def test_previews_are_pictures_and_known_by_their_etag(url: str) -> None:
    answer = requests.get(f"{url}/previews/{CAL}")
    assert Image.open(io.BytesIO(answer.content)).size == (SHAPE[1], SHAPE[0])
    again = requests.get(f"{url}/previews/{CAL}", headers={"if-none-match": answer.headers["etag"]})
    assert again.status_code == 304
    assert f'src="/previews/{CAL}"' in requests.get(f"{url}/products/{CAL}").text
    assert requests.get(f"{url}/previews/{FIRST}_cat.parquet").status_code == 400


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"POS": "CIRCLE 270 66 0.01"}, {FIRST, SKYCELL}),
        ({"POS": ["CIRCLE 270.5 66 0.01", "CIRCLE 10 -40 0.01"]}, {SECOND, OTHER}),
        ({"POS": "RANGE 269 271 65 67"}, {FIRST, SECOND, SKYCELL}),
        ({"POS": "RANGE 0 360 -90 -30"}, {OTHER}),
        ({"POS": "RANGE -Inf +Inf 66.02 66.03", "CALIB": "2"}, {FIRST, SECOND}),
        ({"POS": "POLYGON 9 -41 11 -41 11 -39 9 -39"}, {OTHER}),
        ({"POS": "CIRCLE 100 0 1"}, set()),
        ({"BAND": "1.5e-6"}, {FIRST, SECOND, SKYCELL}),
        ({"BAND": "-Inf 1.2e-6"}, {OTHER}),
        ({"TIME": "60262.925 60262.9275"}, {FIRST, SKYCELL}),
        ({"CALIB": ["3", "4"]}, {SKYCELL}),
        ({"ID": f"ivo://roman-assets/products?{FIRST}_cal.asdf"}, {FIRST}),
        ({"COLLECTION": "roman prompt", "DPTYPE": "image", "CALIB": "3"}, {SKYCELL}),
        ({"INSTRUMENT": "WFI", "FACILITY": "Roman", "CALIB": "3"}, {SKYCELL}),
        ({"INSTRUMENT": "ACS"}, set()),
        ({"POL": "I"}, set()),
        ({"FOV": "10 +Inf"}, set()),
        ({"EXPTIME": "139 140", "CALIB": "3"}, {SKYCELL}),
        ({"SPATRES": "0 0.1"}, {OTHER}),
        ({"calib": "3"}, {SKYCELL}),
    ],
    ids=lambda value: None if isinstance(value, set) else str(value),
)
def test_each_parameter_of_sia_selects(sky: str, given: dict[str, str], expected: set[str]) -> None:
    assert file_sets(sky, **given) == expected


@pytest.mark.parametrize(
    "given",
    [
        {"POS": "CIRCLE 1 2"}, {"POS": "here"}, {"POS": "CIRCLE 1 100 1"}, {"BAND": "2 1"},
        {"TIME": "now"}, {"CALIB": "x"}, {"MAXREC": "x"}, {"BAND": "NaN"},
        {"RESPONSEFORMAT": "csv"}, {"POS": "RANGE 5 1 2 3"},
    ],
    ids=lambda value: None if isinstance(value, set) else str(value),
)  # fmt: skip
def test_values_that_cannot_be_are_told_in_a_votable(sky: str, given: dict[str, str]) -> None:
    answer = requests.get(f"{sky}/sia/query", params=given)
    assert answer.status_code == 400 and 'value="ERROR"' in answer.text


def test_maxrec_limits_images_loudly(sky: str) -> None:
    answer = requests.get(f"{sky}/sia/query", params={"MAXREC": "2"})
    assert len(parse_single_table(io.BytesIO(answer.content)).array) == 2
    assert "OVERFLOW" in answer.text
    empty = requests.get(f"{sky}/sia/query", params={"MAXREC": "0"})
    assert len(parse_single_table(io.BytesIO(empty.content)).fields) > 30


def test_links_of_many_products_come_at_once_with_a_row_for_each_unknown_one(sky: str) -> None:
    asked = [f"{FIRST}_cal.asdf", "ivo://roman-assets/products?nothing", f"{OTHER}_cal.asdf"]
    answer = requests.post(f"{sky}/datalink/links", data={"ID": asked})
    assert "content=datalink" in answer.headers["content-type"]
    table = parse_single_table(io.BytesIO(answer.content)).to_table()
    this = table[table["semantics"] == "#this"]
    assert this["ID"].tolist() == asked
    assert [bool(text) for text in this["error_message"]] == [False, True, False]
    assert this["error_message"][1].startswith("NotFoundFault")
    none = requests.get(f"{sky}/datalink/links")
    assert len(parse_single_table(io.BytesIO(none.content)).array) == 0
    assert (
        requests.post(
            f"{sky}/datalink/links", data={"ID": [f"x{number}" for number in range(1001)]}
        ).status_code
        == 400
    )


@needs_stilts
@pytest.mark.parametrize("path", [f"datalink/links?ID={CAL}", "sia/query?POS=CIRCLE 270 66 1"])
def test_validators_accept_the_documents(url: str, path: str) -> None:
    content = requests.get(f"{url}/{path}").content
    lint = ["datalinklint" if "datalink" in path else "votlint", "votable=-"]
    done = subprocess.run(["stilts", *lint], input=content, capture_output=True)
    told = [
        line for line in done.stdout.decode().splitlines() if line.startswith(("ERROR", "WARN"))
    ]
    assert told == [], told


@needs_stilts
def test_capabilities_keep_their_schemas(url: str) -> None:
    for service in ("sia", "soda", "datalink"):
        for path in ("capabilities", "availability"):
            content = requests.get(f"{url}/{service}/{path}").content
            done = subprocess.run(
                ["stilts", "xsdvalidate", "uselocals=true", "doc=-"],
                input=content, capture_output=True,
            )  # fmt: skip
            assert done.returncode == 0, done.stdout + done.stderr
