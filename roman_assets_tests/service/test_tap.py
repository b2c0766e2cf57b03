"""TAP as pyvo uses it: at once, as jobs, with uploads; limits are loud."""

from __future__ import annotations

import io
import shutil
import subprocess
import time
from collections.abc import Iterator

import pyarrow.parquet as pq
import pytest
import pyvo
import requests
from astropy.io.votable import parse, parse_single_table
from astropy.table import Table

from roman_assets.data_root import DataRoot
from roman_assets.registry.catalog.obscore import OBSCORE_COLUMNS
from roman_assets.registry.registry import Registry
from roman_assets.registry.store.fold import fold
from roman_assets_tests.support.service_server import running_service
from roman_assets_tests.support.sky_archive import FIRST, OTHER, SECOND, SKYCELL, facts, sky_archive
from roman_assets_tests.support.small_archive import publish

EVERYTHING = "SELECT obs_id, dataproduct_subtype FROM ivoa.ObsCore"


@pytest.fixture(scope="module")
def tap_root(tmp_path_factory: pytest.TempPathFactory) -> DataRoot:
    return sky_archive(tmp_path_factory.mktemp("tap") / "data")


@pytest.fixture(scope="module")
def url(tap_root: DataRoot) -> Iterator[str]:
    with running_service(tap_root) as served:
        yield served


@pytest.fixture(scope="module")
def tap(url: str) -> pyvo.dal.TAPService:
    return pyvo.dal.TAPService(f"{url}/tap")


def ask(url: str, query: str, **given: str) -> requests.Response:
    data = {"LANG": "ADQL", "QUERY": query, **given}
    return requests.post(f"{url}/tap/sync", data=data)


def column(url: str, query: str) -> list[str]:
    answer = ask(url, query, RESPONSEFORMAT="csv")
    assert answer.status_code == 200, answer.text
    return [line.split(",")[0] for line in answer.text.split("\r\n")[1:-1]]


def test_pyvo_asks_at_once(tap: pyvo.dal.TAPService) -> None:
    found = tap.run_sync(
        "SELECT obs_id, s_ra FROM ivoa.ObsCore WHERE dataproduct_subtype = 'cal' AND "
        "1 = CONTAINS(POINT('ICRS', s_ra, s_dec), CIRCLE('ICRS', 270, 66, 0.1))"
    )
    assert found["obs_id"].tolist() == [FIRST]
    assert found.getdesc("s_ra").unit == "deg"
    assert found.getdesc("s_ra").ucd == "pos.eq.ra"


def test_pyvo_runs_a_job_and_deletes_it(tap: pyvo.dal.TAPService, url: str) -> None:
    job = tap.submit_job(EVERYTHING)
    assert job.phase == "PENDING"
    job.run().wait(phases=["COMPLETED", "ERROR"], timeout=30)
    assert job.phase == "COMPLETED"
    assert len(job.fetch_result()) == 10
    address = job.url
    job.delete()
    assert requests.get(address).status_code == 404


def test_a_job_with_an_invalid_query_ends_with_the_reason(tap: pyvo.dal.TAPService) -> None:
    job = tap.submit_job("SELECT nothing FROM ivoa.ObsCore")
    job.run().wait(timeout=30)
    assert job.phase == "ERROR"
    with pytest.raises(pyvo.dal.DALQueryError, match="nothing"):
        job.raise_if_error()


def test_a_job_can_be_aborted(url: str) -> None:
    endless = "SELECT COUNT(*) FROM " + ", ".join(f"tap_schema.columns AS c{n}" for n in range(6))
    job = requests.post(f"{url}/tap/async", data={"QUERY": endless, "LANG": "ADQL"}).url
    requests.post(f"{job}/phase", data={"phase": "run"})
    requests.post(f"{job}/phase", data={"PHASE": "ABORT"})
    assert requests.get(f"{job}/phase").text == "ABORTED"
    started = time.monotonic()
    other = requests.post(
        f"{url}/tap/async", data={"QUERY": EVERYTHING, "LANG": "ADQL", "PHASE": "RUN"}
    ).url
    waited = requests.get(other, params={"wait": "-1"})
    assert "COMPLETED" in waited.text and time.monotonic() - started < 20


def test_pyvo_joins_an_uploaded_table(tap: pyvo.dal.TAPService) -> None:
    mine = Table({"target": ["here", "there"], "ra": [270.5, 10.0], "dec": [66.0, 80.0]})
    query = (
        "SELECT m.target, o.obs_id FROM tap_upload.mine AS m JOIN ivoa.ObsCore AS o "
        "ON 1 = INTERSECTS(o.s_region, CIRCLE('ICRS', m.ra, m.dec, 0.01)) "
        "WHERE o.calib_level = 2"
    )
    for run in (tap.run_sync, tap.run_async):
        found = run(query, uploads={"mine": mine})
        assert [(row["target"], row["obs_id"]) for row in found] == [("here", SECOND)]


def test_a_truncated_answer_says_so(url: str) -> None:
    for maxrec, overflows in (("3", True), ("9", True), ("10", False), ("11", False)):
        answer = ask(url, EVERYTHING, MAXREC=maxrec)
        assert ("OVERFLOW" in answer.text) is overflows
        table = parse_single_table(io.BytesIO(answer.content))
        assert len(table.array) == min(10, int(maxrec))
    empty = ask(url, EVERYTHING, MAXREC="0")
    assert "OVERFLOW" in empty.text
    assert len(parse_single_table(io.BytesIO(empty.content)).fields) == 2


def test_the_limit_of_rows_holds_whatever_is_asked_for(tap_root: DataRoot) -> None:
    with running_service(tap_root, rows=4) as served:
        tap = pyvo.dal.TAPService(f"{served}/tap")
        for maxrec in (None, 1000):
            with pytest.warns(pyvo.dal.exceptions.DALOverflowWarning):
                assert len(tap.run_sync(EVERYTHING, maxrec=maxrec)) == 4
        assert len(column(served, EVERYTHING)) == 4


def test_an_invalid_query_is_told_in_a_votable(tap: pyvo.dal.TAPService, url: str) -> None:
    answer = ask(url, "SELECT nothing FROM ivoa.ObsCore")
    assert answer.status_code == 400
    (info,) = parse(io.BytesIO(answer.content)).resources[0].infos
    assert (info.name, info.value) == ("QUERY_STATUS", "ERROR") and "nothing" in info.content
    with pytest.raises(pyvo.dal.DALQueryError, match="nothing"):
        tap.run_sync("SELECT nothing FROM ivoa.ObsCore")


@pytest.mark.parametrize(
    "given",
    [
        {"LANG": "SQL"},
        {"RESPONSEFORMAT": "pdf"},
        {"MAXREC": "-1"},
        {"MAXREC": "many"},
        {"REQUEST": "getCapabilities"},
        {"UPLOAD": "a,file:///etc/passwd"},
        {"UPLOAD": "a,http://127.0.0.1:22/"},
        {"UPLOAD": "a,http://169.254.169.254/latest/meta-data"},
        {"UPLOAD": "a,param:missing"},
        {"UPLOAD": "a b,param:x"},
    ],
    ids=str,
)
def test_parameters_that_cannot_be_are_refused(url: str, given: dict[str, str]) -> None:
    answer = ask(url, EVERYTHING, **given)
    assert answer.status_code == 400 and 'value="ERROR"' in answer.text


def test_names_of_parameters_are_without_regard_to_case(url: str) -> None:
    answer = requests.get(f"{url}/tap/sync", params={"lang": "adql", "query": "SELECT 1 AS one"})
    assert parse_single_table(io.BytesIO(answer.content)).array["one"].tolist() == [1]


def test_formats_of_text_have_the_same_rows(url: str) -> None:
    query = "SELECT obs_id, t_min, target_name FROM ivoa.ObsCore ORDER BY obs_id, t_min"
    comma = ask(url, query, RESPONSEFORMAT="csv")
    assert comma.headers["content-type"].startswith("text/csv")
    tab = ask(url, query, FORMAT="text/tab-separated-values")
    assert tab.text.replace("\t", ",") == comma.text
    table = parse_single_table(io.BytesIO(ask(url, query).content)).array
    assert table["obs_id"].tolist() == [line.split(",")[0] for line in comma.text.split()[1:]]


def test_parquet_has_the_same_rows_and_the_metadata_of_the_votable(url: str) -> None:
    query = "SELECT obs_id, t_min, access_estsize, s_ra AS x FROM ivoa.ObsCore ORDER BY obs_id"
    answer = ask(url, query, RESPONSEFORMAT="parquet")
    assert answer.headers["content-type"] == "application/vnd.apache.parquet"
    table = pq.read_table(io.BytesIO(answer.content))
    text = parse_single_table(io.BytesIO(ask(url, query).content))
    assert table.column_names == [field.name for field in text.fields]
    for name in table.column_names:
        assert table[name].to_pylist() == text.array[name].tolist()
    stated = table.schema.metadata[b"IVOA.VOTable-Parquet.content"]
    fields = parse_single_table(io.BytesIO(stated)).fields
    assert [(one.name, one.ucd, one.unit, one.datatype) for one in fields] == [
        (one.name, one.ucd, one.unit, one.datatype) for one in text.fields
    ]


def test_parquet_that_is_truncated_says_so(url: str) -> None:
    for maxrec, overflows in (("0", True), ("3", True), ("10", False)):
        answer = ask(url, EVERYTHING, MAXREC=maxrec, FORMAT="parquet")
        table = pq.read_table(io.BytesIO(answer.content))
        assert table.num_rows == int(maxrec)
        stated = table.schema.metadata[b"IVOA.VOTable-Parquet.content"]
        assert (b"OVERFLOW" in stated) is overflows


def test_an_empty_answer_in_parquet_has_its_columns(url: str) -> None:
    query = "SELECT obs_id FROM ivoa.ObsCore WHERE obs_id = 'nothing'"
    answer = ask(url, query, RESPONSEFORMAT="parquet")
    assert pq.read_table(io.BytesIO(answer.content)).column_names == ["obs_id"]


def test_tap_schema_and_tables_describe_what_queries_return(tap: pyvo.dal.TAPService) -> None:
    listed = tap.run_sync("SELECT table_name FROM tap_schema.tables")["table_name"].tolist()
    assert {table.name for table in tap.tables} == {*listed}
    for name in listed:
        described = [column.name.strip('"') for column in tap.tables[name].columns]
        assert tap.run_sync(f"SELECT TOP 1 * FROM {name}").fieldnames == tuple(described)
    obscore = [column.name for column in tap.tables["ivoa.ObsCore"].columns]
    assert obscore == [column.name for column in OBSCORE_COLUMNS]


def test_addresses_in_answers_lead_to_the_files(url: str, tap: pyvo.dal.TAPService) -> None:
    found = tap.run_sync(
        f"SELECT access_url, obs_publisher_did FROM ivoa.ObsCore WHERE obs_id = '{OTHER}' "
        "AND calib_level = 2"
    )
    assert requests.get(found["access_url"][0]).content == f"image {OTHER}".encode()
    assert found["obs_publisher_did"][0].endswith(f"?{OTHER}_cal.asdf")


def test_metadata_of_rad_are_joined_by_name(url: str) -> None:
    query = (
        "SELECT p.name FROM roman.products AS p JOIN roman.WFIExposure AS w ON p.name = w.name "
        "WHERE w.image_median > 100 ORDER BY 1"
    )
    assert column(url, query) == [f"{FIRST}_cal.asdf", f"{SECOND}_cal.asdf"]


def test_what_is_published_is_found_without_a_restart(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    root = sky_archive(tmp_path_factory.mktemp("growing") / "data")
    with running_service(root) as served:
        assert len(column(served, "SELECT name FROM roman.products")) == 10
        new = SKYCELL.replace("x01y50", "x02y50")
        publish(root, {f"{new}_coadd.asdf": b"new"}, 4000, metadata=facts(271.0, 66.0, 0))
        fold(root)
        around = "SELECT obs_id FROM ivoa.ObsCore WHERE 1 = CONTAINS(POINT(271, 66), s_region)"
        assert column(served, around) == [new]


REGIONS = {
    "CIRCLE('ICRS', 270.3, 66.0, 0.05)": {"cone": (270.3, 66.0, 0.05)},
    "CIRCLE('ICRS', 270.0, 66.0, 1.0)": {"cone": (270.0, 66.0, 1.0)},
    "POINT('ICRS', 10.05, -40.05)": {"cone": (10.05, -40.05, 0.0)},
    "POLYGON('ICRS', 270.03, 65, 271, 65, 271, 67, 270.03, 67)": {
        "polygon": [(270.03, 65), (271, 65), (271, 67), (270.03, 67)]
    },
    "BOX('ICRS', 10, -40, 0.01, 0.01)": {
        "polygon": [(9.995, -40.005), (10.005, -40.005), (10.005, -39.995), (9.995, -39.995)]
    },
    "CIRCLE('ICRS', 100, 0, 10)": {"cone": (100.0, 0.0, 10.0)},
}


@pytest.mark.parametrize("region", REGIONS)
def test_intersections_are_those_of_the_registry(tap_root: DataRoot, url: str, region: str) -> None:
    expected = set(Registry(tap_root).products.find(**REGIONS[region])["name"])
    for condition in (
        f"1 = INTERSECTS(footprint, {region})",
        f"INTERSECTS({region}, footprint) = 1",
        f"NOT 0 = INTERSECTS({region}, p.footprint)",
        f"INTERSECTS({region}, footprint) + 0 = 1",
    ):
        query = f"SELECT p.name FROM roman.products AS p WHERE {condition}"
        assert set(column(url, query)) == expected
    outside = set(
        column(url, f"SELECT name FROM roman.products WHERE 0 = INTERSECTS(footprint, {region})")
    )
    assert outside == set(Registry(tap_root).products.find()["name"]) - expected


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("1 = CONTAINS(POINT('ICRS', ra, dec), CIRCLE('ICRS', 270.2, 66, 0.1))", {FIRST, SKYCELL}),
        ("1 = CONTAINS(POINT(ra, dec), BOX(270, 66, 0.01, 0.01))", {FIRST, SKYCELL}),
        ("1 = CONTAINS(footprint, CIRCLE(270, 66, 0.1))", {FIRST, SKYCELL}),
        ("1 = CONTAINS(footprint, CIRCLE(270, 66, 0.05))", set()),
        ("1 = CONTAINS(CIRCLE(270, 66, 0.01), footprint)", {FIRST, SKYCELL}),
        ("1 = CONTAINS(CIRCLE(270, 66, 0.03), footprint)", set()),
        (
            "1 = CONTAINS(footprint, POLYGON(269, 65, 271, 65, 271, 67, 269, 67))",
            {FIRST, SECOND, SKYCELL},
        ),
        ("DISTANCE(POINT(ra, dec), POINT(10, -40)) < 0.001", {OTHER}),
        ("DISTANCE(ra, dec, 10, -40) < 0.001", {OTHER}),
        ("COORD1(POINT(ra, dec)) < 100 AND COORD2(POINT('', ra, dec)) < 0", {OTHER}),
        ("1 = INTERSECTS(footprint, REGION('CIRCLE ICRS 10 -40 0.01'))", {OTHER}),
        ("1 = INTERSECTS(footprint, CIRCLE(POINT(10, -40), 0.01))", {OTHER}),
        ("1 = CONTAINS(CIRCLE(ra, dec, 0.1), CIRCLE(10, -40, 0.2))", {OTHER}),
    ],
)  # fmt: skip
def test_geometry_means_what_adql_says(url: str, condition: str, expected: set[str]) -> None:
    query = f"SELECT DISTINCT file_set FROM roman.products WHERE {condition}"
    assert set(column(url, query)) == expected


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("stilts") is None, reason="Debian's package stilts is missing")
def test_taplint_finds_no_error(url: str) -> None:
    stages = "TMV TME TMS TMC CPV CAP AVV QGE QPO QAS UWS MDQ OBS UPL EXA"
    command = ["stilts", "taplint", f"tapurl={url}/tap", f"stages={stages}", "report=EWF"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert "Totals: Errors: 0; Warnings: 0; Failures: 0" in done.stdout, done.stdout


@pytest.mark.skipif(shutil.which("stilts") is None, reason="Debian's package stilts is missing")
def test_votlint_accepts_answers(url: str) -> None:
    answer = ask(url, "SELECT TOP 3 * FROM ivoa.ObsCore", MAXREC="2")
    done = subprocess.run(
        ["stilts", "votlint", "votable=-"], input=answer.content, capture_output=True
    )
    assert done.returncode == 0 and done.stdout == b"", done.stdout
