"""Pages for people: they name the products, and read without JavaScript."""

from __future__ import annotations

import html
import re
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from roman_assets.data_root import DataRoot
from roman_assets.service.sky_view import drawing_of
from roman_assets_tests.support.service_server import running_service
from roman_assets_tests.support.small_archive import CAL, CAT, COADD, COADD_CAT, PACKETS, UNCAL
from roman_assets_tests.support.small_products import exposure


def names_on(page: str) -> set[str]:
    return set(re.findall(r'href="/products/([^"]+)"', page))


def test_the_first_page_lists_the_newest_products(served: str) -> None:
    page = requests.get(f"{served}/").text
    assert {CAL, CAT, COADD, UNCAL} <= names_on(page)
    assert page.index(CAL) < page.index(UNCAL)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"level": "L2"}, {CAL}),
        ({"name": "*_uncal.asdf"}, {UNCAL}),
        ({"exposure": exposure(), "kind": "cal"}, {CAL}),
        ({"ra": "270", "dec": "66", "radius": "0.01", "level": "L3", "kind": "coadd"}, {COADD}),
        ({"ra": "10", "dec": "66"}, set()),
        ({"survey": "HLTDS"}, set()),
    ],
)
def test_a_search_finds_what_it_asks_for(
    served: str, query: dict[str, str], found: set[str]
) -> None:
    answer = requests.get(f"{served}/products", params=query)
    assert answer.status_code == 200
    assert names_on(answer.text) == found


CORNERS = [(9.9, -40.1), (10.1, -40.1), (10.1, -39.9), (9.9, -39.9)]


def test_footprints_are_drawn_with_north_up_and_east_to_the_left() -> None:
    region = "POLYGON ICRS " + " ".join(f"{ra} {dec}" for ra, dec in CORNERS)
    drawing = drawing_of([{"name": "x_cal.asdf", "footprint": region}, {"name": "y"}], "/base")
    assert drawing is not None
    assert drawing.centre == pytest.approx((10, -40), abs=1e-3)
    assert 0.2 < drawing.width < 0.23
    ((name, link, corners),) = drawing.polygons
    assert (name, link) == ("x_cal.asdf", "/base/products/x_cal.asdf")
    points = [tuple(map(float, corner.split(","))) for corner in corners.split()]
    for (x, y), (ra, dec) in zip(points, CORNERS, strict=True):
        assert (x < drawing.side / 2) is (ra > 10) and (y < drawing.side / 2) is (dec > -40)


def test_footprints_all_over_the_sky_are_not_drawn() -> None:
    regions = [f"POLYGON ICRS {ra} 0 {ra + 0.1} 0 {ra} 0.1" for ra in (0, 90, 180)]
    rows = [{"name": "x", "footprint": region} for region in regions]
    assert drawing_of(rows, "") is None
    assert drawing_of([], "") is None


def test_a_search_shows_footprints_on_the_sky(served: str) -> None:
    page = requests.get(f"{served}/products?level=L2").text
    assert "<polygon" in page and f'<a href="/products/{CAL}"><polygon' in page


@pytest.mark.parametrize(
    "query",
    [
        {"visit": "r1"},
        {"survey": "XYZ"},
        {"ra": "270"},
        {"ra": "nan", "dec": "0"},
        {"ra": "1", "dec": "100"},
        {"after": "yesterday"},
    ],
)
def test_a_search_that_cannot_be_is_explained(served: str, query: dict[str, str]) -> None:
    answer = requests.get(f"{served}/products", params=query)
    assert answer.status_code == 400
    assert 'role="alert"' in answer.text


def test_a_product_page_tells_its_generations_and_where_it_came_from(served: str) -> None:
    page = requests.get(f"{served}/products/{CAL}").text
    assert UNCAL in names_on(page)
    assert "roman_0001.pmap" in page and "roman_0002.pmap" in page and "Overwritten" in page


def test_a_product_page_says_what_each_generation_changed(served: str) -> None:
    page = html.unescape(requests.get(f"{served}/products/{CAL}").text)
    assert "CRDS context roman_0001.pmap → roman_0002.pmap" in page
    assert "roman_assets 0.1.0+g1234567 → none" in page
    first = requests.get(f"{served}/products/{UNCAL}").text
    assert "first generation" in first and "→" not in first


def test_a_product_page_draws_the_lineage_up_to_the_packets_and_down_to_the_catalogues(
    served: str,
) -> None:
    page = requests.get(f"{served}/products/{UNCAL}").text
    graph = page[page.index('<svg class="lineage"') : page.index("</svg>")]
    assert PACKETS.name in graph
    assert {CAL, CAT, COADD, COADD_CAT} <= names_on(graph)
    x = {
        name: int(re.search(rf"<title>{re.escape(name)}</title>\s*<rect x=\"(\d+)\"", graph)[1])
        for name in (PACKETS.name, UNCAL, CAL, COADD, COADD_CAT)
    }
    assert list(x.values()) == sorted(x.values()) and len(set(x.values())) == len(x)


def test_the_snippets_run_as_they_stand(served: str, tmp_path: Path) -> None:
    name = COADD.replace("_coadd.asdf", "_asn.json")
    page = requests.get(f"{served}/products/{name}").text
    shell, python = (html.unescape(code) for code in re.findall(r"<code>(.*?)</code>", page, re.S))
    done = subprocess.run(["sh", "-ec", shell], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and f"{name}: OK" in done.stdout, done
    done = subprocess.run([sys.executable, "-c", python], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0 and b"asn_type" in done.stdout, done


def test_what_a_user_writes_is_escaped(served: str) -> None:
    attack = "<script>alert(1)</script>"
    for path in (f"products?name={attack}", f"products?visit={attack}", f"products/{attack}"):
        assert attack not in requests.get(f"{served}/{path}").text
    policy = requests.get(served).headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy


def test_pages_are_compressed(served: str) -> None:
    answer = requests.get(served, headers={"accept-encoding": "gzip"})
    assert answer.headers["content-encoding"] == "gzip"


def test_pages_of_other_sites_may_read_the_archive(served: str) -> None:
    asked = {"origin": "https://aladin.example", "access-control-request-method": "GET"}
    asked["access-control-request-headers"] = "range"
    assert requests.options(f"{served}/files/{CAL}", headers=asked).status_code == 200
    answer = requests.get(f"{served}/files/{CAL}", headers={"origin": "https://aladin.example"})
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "ETag" in answer.headers["access-control-expose-headers"]


def test_an_empty_archive_has_pages_too(tmp_path: Path) -> None:
    with running_service(DataRoot(tmp_path / "data")) as url:
        assert "no products yet" in requests.get(url).text
        assert requests.get(f"{url}/products?level=L2").status_code == 200
        assert requests.get(f"{url}/health").json() == {"status": "ok"}


def test_a_damaged_registry_is_told_as_unhealthy(tmp_path: Path) -> None:
    root = DataRoot(tmp_path / "data")
    root.public_registry.mkdir(parents=True)
    (root.public_registry / "snapshot.json").write_text("{")
    with running_service(root) as url:
        answer = requests.get(f"{url}/health")
        assert answer.status_code == 503
        assert str(tmp_path) not in answer.text
