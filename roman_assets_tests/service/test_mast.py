"""MAST's mission search from this archive: by astroquery as it is, and each operator."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError
from roman_assets.service.mast.client_configuration import write_client_configuration
from roman_assets.service.mast.column import columns
from roman_assets_tests.support.service_server import running_service
from roman_assets_tests.support.sky_archive import (
    FILE_SETS,
    FIRST,
    OTHER,
    SECOND,
    SKYCELL,
    sky_archive,
)

NOTEBOOK = """
import json, sys, warnings
from astropy.coordinates import SkyCoord
from astroquery.exceptions import InvalidQueryError
from astroquery.mast import MastMissions
missions = MastMissions(mission="roman")
told = {}
told["columns"] = list(missions.get_column_list()["name"])
found = missions.query_criteria(survey="HLWAS", optical_element="F158", sort_by="fileSetName")
told["criteria"] = list(found["fileSetName"])
told["levels"] = list(found["productLevel"])
told["median"] = float(found["image_median"][0])
around = missions.query_region(SkyCoord(270.0, 66.0, unit="deg"), radius=1, select_cols=["ra"])
told["region"] = list(around["fileSetName"])
told["separations"] = [float(value) for value in around["ang_sep"]]
products = missions.get_product_list(found[:1])
told["products"] = sorted(products["filename"])
images = missions.filter_products(products, file_suffix="_cal", size=">1")
manifest = missions.download_products(images, download_dir="fetched", verbose=False)
told["status"] = [str(value) for value in manifest["Status"]]
told["content"] = [open(path).read() for path in manifest["Local Path"]]
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    told["none"] = len(missions.query_criteria(program=99999))
try:
    missions.query_criteria(program="many")
except InvalidQueryError:
    told["invalid"] = True
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def mast_root(tmp_path_factory: pytest.TempPathFactory) -> DataRoot:
    return sky_archive(tmp_path_factory.mktemp("mast") / "data")


@pytest.fixture(scope="module")
def mast(mast_root: DataRoot) -> Iterator[str]:
    with running_service(mast_root) as url:
        yield url


def answer(url: str, **asked: Any) -> requests.Response:
    return requests.post(f"{url}/search/roman/api/v0.1/search", json=asked)


def found(url: str, *conditions: dict[str, Any], **asked: Any) -> list[str]:
    given = answer(url, conditions=list(conditions), **asked)
    assert given.status_code == 200, given.text
    return [row["fileSetName"] for row in given.json()["results"]]


def test_astroquery_searches_lists_filters_and_downloads_unmodified(
    mast: str, tmp_path: Path
) -> None:
    write_client_configuration(tmp_path / "config", mast)
    places = {"ASTROPY_CONFIG_DIR": str(tmp_path / "config"), "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", NOTEBOOK], env=os.environ | places, cwd=tmp_path,
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert {"fileSetName", "visit_id", "s_region", "exposure_start_time"} <= {*told["columns"]}
    assert told["criteria"] == [FIRST, SECOND, SKYCELL]
    assert told["levels"] == ["1, 2, 4", "1, 2, 4", "3"]
    assert told["median"] == 270.0
    assert told["region"][0] in (FIRST, SKYCELL) and {*told["region"]} == {FIRST, SKYCELL}
    assert told["separations"] == pytest.approx([0, 0], abs=1e-6)
    assert told["products"] == [
        f"{FIRST}_{end}" for end in ("cal.asdf", "cat.parquet", "uncal.asdf")
    ]
    assert told["status"] == ["COMPLETE"] and told["content"] == [f"image {FIRST}"]
    assert told["none"] == 0 and told["invalid"]


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ({"fileSetName": FIRST}, {FIRST}),
        ({"fileSetName": f"{FIRST},{OTHER}"}, {FIRST, OTHER}),
        ({"fileSetName": [FIRST, OTHER]}, {FIRST, OTHER}),
        ({"fileSetName": "r00010010*"}, {FIRST, SECOND}),
        ({"fileSetName": "r00010*"}, {FIRST, SECOND, SKYCELL}),
        ({"fileSetName": "*wfi02*"}, {SECOND}),
        ({"fileSetName": f"!{FIRST}"}, {SECOND, OTHER, SKYCELL}),
        ({"visit_id": "0001001001001001001"}, {FIRST, SECOND, SKYCELL}),
        ({"visit_id": "0001001001*"}, {FIRST, SECOND, SKYCELL}),
        ({"program": 10}, {FIRST, SECOND, SKYCELL}),
        ({"program": "10"}, {FIRST, SECOND, SKYCELL}),
        ({"program": "10,20"}, {*FILE_SETS}),
        ({"program": "!10"}, {OTHER}),
        ({"program": "11..30"}, {OTHER}),
        ({"program": ">10"}, {OTHER}),
        ({"program": ">=10"}, {*FILE_SETS}),
        ({"program": "<20"}, {FIRST, SECOND, SKYCELL}),
        ({"program": "<=10,20"}, {*FILE_SETS}),
        ({"program": "10,!10"}, set()),
        ({"survey": "hlwas"}, {FIRST, SECOND, SKYCELL}),
        ({"detector": "!WFI01"}, {SECOND}),
        ({"dec": "-50..-30"}, {OTHER}),
        ({"exposure_start_time": "<2023-11-14T22:20:00"}, {FIRST, SKYCELL}),
        ({"exposure_start_time": "2023-11-14T22:25:00..2023-11-15"}, {SECOND, OTHER}),
        ({"dataset_category": "skycell"}, {SKYCELL}),
        ({"productLevel": "*2*"}, {FIRST, SECOND, OTHER}),
        ({"number_of_products": 3}, {FIRST, SECOND, OTHER}),
        ({"skycell_name": "270p65x01y50"}, {SKYCELL}),
        ({"image_median": "269..271"}, {FIRST, SECOND}),
        ({"program_title": "*50% *"}, {FIRST, SECOND, OTHER}),
        ({"program_title": "*5_% *"}, set()),
        ({"crds_context": "roman_0001.pmap"}, {FIRST, SECOND, OTHER}),
    ],
    ids=lambda value: None if isinstance(value, set) else str(value),
)
def test_each_operator_finds_what_it_means(
    mast: str, condition: dict[str, Any], expected: set[str]
) -> None:
    assert {*found(mast, condition)} == expected


def test_a_file_set_is_what_its_calibrated_image_says_and_not_its_ramp(mast: str) -> None:
    assert found(mast, {"program_title": "raw"}) == []


def test_all_conditions_must_hold(mast: str) -> None:
    assert found(mast, {"program": 10}, {"detector": "WFI02"}) == [SECOND]
    assert found(mast, {"program": 10, "detector": "WFI02"}) == [SECOND]


def test_positions_find_the_footprints_that_meet_them(mast: str) -> None:
    asked = {"target": ["270.4 66.0", "10 -40.05"], "radius": 5, "radius_units": "arcminutes"}
    given = answer(mast, **asked, conditions=[], sort_by=["fileSetName"]).json()
    rows = {row["fileSetName"]: row for row in given["results"]}
    assert rows.keys() == {SECOND, OTHER}
    assert rows[OTHER]["ang_sep"] == pytest.approx(3.0, abs=1e-3)
    assert rows[OTHER]["search_pos"] == "10 -40.05"
    both = answer(mast, target=["270 66", "270.5 66"], radius=1800).json()
    assert both["totalResults"] == 6


def test_answers_are_paged_sorted_and_counted(mast: str) -> None:
    down = {"sort_by": ["fileSetName"], "sort_desc": [True]}
    whole = found(mast, **down)
    assert whole == sorted(FILE_SETS, reverse=True)
    first = answer(mast, conditions=[], limit=3, **down).json()
    assert first["totalResults"] == 4
    rest = answer(mast, conditions=[], limit=3, offset=3, skip_count=True, **down).json()
    assert rest["totalResults"] is None
    assert [row["fileSetName"] for row in first["results"] + rest["results"]] == whole


def test_an_answer_beyond_the_limit_of_rows_says_so(mast_root: DataRoot) -> None:
    with running_service(mast_root, rows=2) as url:
        given = answer(url, conditions=[]).json()
    assert len(given["results"]) == 2 and given["totalResults"] == 4
    assert "at most 2 rows" in given["messages"][0]


def test_selected_columns_are_given_with_their_types(mast: str) -> None:
    given = answer(mast, select_cols=["program", "ra", "exposure_start_time", None]).json()
    assert given["info"] == [
        {"name": "fileSetName", "type": "varchar"}, {"name": "program", "type": "int"},
        {"name": "ra", "type": "float"}, {"name": "exposure_start_time", "type": "datetime"},
    ]  # fmt: skip


def test_every_column_of_the_list_can_be_selected_searched_and_sorted_by(mast: str) -> None:
    listed = requests.get(
        f"{mast}/search/util/api/v0.1/column_list", params={"mission": "roman"}
    ).json()
    assert len(listed) == len(columns()) > 140
    names = [column["column_name"] for column in listed if column["queryable"]]
    assert answer(mast, select_cols=names).status_code == 200
    values = {"string": "x", "integer": 1, "float": 1.5, "datetime": "2027-01-01"}
    conditions = [{c["column_name"]: values[c["qual_type"]]} for c in listed if c["queryable"]]
    assert answer(mast, conditions=conditions, sort_by=names).json()["results"] == []


@pytest.mark.parametrize(
    "asked",
    [
        {"conditions": [{"run_id": "x"}]},
        {"conditions": [{"record_id": "x"}]},
        {"conditions": [{"program": "many"}]},
        {"conditions": [{"exposure_start_time": "tomorrow"}]},
        {"conditions": [{"program": {"$gt": 1}}]},
        {"conditions": [{"program": ""}]},
        {"conditions": "program"},
        {"select_cols": ["fingerprint"]},
        {"sort_by": ["1; drop table products"]},
        {"sort_by": ["ang_sep"]},
        {"target": ["here"]},
        {"target": ["1 91"]},
        {"target": ["1 1"], "radius": 1801},
        {"target": ["1 1"], "radius_units": "parsec"},
        {"target": ["1 1"] * 101},
        {"limit": -1},
        {"limit": "all"},
    ],
    ids=str,
)
def test_what_cannot_be_searched_is_refused_with_the_reason(
    mast: str, asked: dict[str, Any]
) -> None:
    given = answer(mast, **asked)
    assert given.status_code == 400
    assert given.json()["messages"]


def test_products_of_many_file_sets_are_listed_with_checksums(mast: str) -> None:
    url = f"{mast}/search/roman/api/v0.1/post_list_products"
    listed = requests.post(url, json={"dataset_ids": [FIRST, SKYCELL, FIRST]}).json()["products"]
    assert [product["file_suffix"] for product in listed] == [
        "_cal", "_cat", "_uncal", "_coadd",
    ]  # fmt: skip
    assert all(len(product["sha256"]) == 64 and product["size"] > 0 for product in listed)
    for refused in (
        ["x"],
        [1],
        {"a": 1},
        [FIRST] * 3 + ["../etc"],
        [f"{FIRST[:-1]}{n}" for n in range(9)] * 200,
    ):
        assert requests.post(url, json={"dataset_ids": refused}).status_code == 400


@pytest.mark.parametrize(
    ("product", "status"),
    [
        (f"{FIRST}/{FIRST}_cal.asdf", 200),
        (f"{FIRST}_cal.asdf", 200),
        (f"{SECOND}/{FIRST}_cal.asdf", 404),
        (f"../{FIRST}_cal.asdf", 404),
        ("../../registry/snapshot.json", 404),
        (f"{FIRST}/", 404),
        ("", 404),
    ],
)
def test_only_products_are_retrieved(mast: str, product: str, status: int) -> None:
    url = f"{mast}/search/roman/api/v0.1/retrieve_product"
    given = requests.get(url, params={"product_name": product})
    assert given.status_code == status
    assert (given.content == f"image {FIRST}".encode()) is (status == 200)


def test_other_missions_and_broken_requests_are_refused(mast: str) -> None:
    listed = requests.get(f"{mast}/search/util/api/v0.1/column_list", params={"mission": "hst"})
    assert listed.status_code == 400
    for body in (b"", b"[]", b"{", b"[" * 100_000):
        given = requests.post(f"{mast}/search/roman/api/v0.1/search", data=body)
        assert given.status_code == 400
    given = requests.post(f"{mast}/search/roman/api/v0.1/search", data=b" " * (5 << 20))
    assert given.status_code == 413


def test_a_configuration_of_somebody_else_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "astroquery.cfg").write_text("[mast]\ntimeout = 5\n")
    with pytest.raises(BadInputError, match="another directory"):
        write_client_configuration(tmp_path, "http://127.0.0.1:1")
    assert "timeout" in (tmp_path / "astroquery.cfg").read_text()
