"""What ADQL may say, and what it may not: the syntax tree is the boundary."""

from __future__ import annotations

import io
from collections.abc import Iterator

import duckdb
import pytest

from roman_assets.data_root import DataRoot
from roman_assets.service.archive_service import Service
from roman_assets.service.request_error import RequestError, TooExpensiveError, UsageError
from roman_assets.service.tap.tap_query import tap_request, write_answer
from roman_assets.service.vo.parameters import Parameters
from roman_assets.settings.service_settings import ServiceSettings
from roman_assets_tests.support.sky_archive import sky_archive


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    root: DataRoot = sky_archive(tmp_path_factory.mktemp("adql") / "data")
    settings = ServiceSettings(memory_mib=300, spill_mib=100)
    opened = Service.of(root, settings)
    yield opened
    opened.snapshots.close()


def ask(service: Service, query: str, seconds: float = 30.0) -> list[str]:
    parameters = Parameters({"QUERY": [query], "RESPONSEFORMAT": ["csv"]})
    stream = io.BytesIO()
    write_answer(service, tap_request(parameters, service, "http://here", seconds), stream)
    return stream.getvalue().decode().split("\r\n")[1:-1]


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("LOG(EXP(2))", 2), ("LOG10(100)", 2), ("MOD(7, 4)", 3), ("POWER(2, 10)", 1024),
        ("ROUND(2.345, 2)", 2.35), ("ROUND(2.5)", 3), ("TRUNCATE(2.999, 1)", 2.9),
        ("TRUNCATE(-2.9)", -2), ("CEILING(1.2)", 2), ("FLOOR(-1.2)", -2), ("ABS(-3)", 3),
        ("DEGREES(PI())", 180), ("RADIANS(180) / PI()", 1), ("ATAN2(1, 1) * 4 / PI()", 1),
        ("COT(PI() / 4)", 1), ("SQRT(LOG10(10000))", 2), ("COALESCE(NULL, 5)", 5),
        ("CAST('7' AS INTEGER)", 7), ("CASE WHEN 1 = 2 THEN 3 ELSE 4 END", 4), ("2 + 3 * 4", 14),
        ("7 & 3", 3), ("4 | 1", 5), ("SIGN(-5)", -1), ("1.5e2", 150),
        ("AREA(CIRCLE(0, 0, 180))", 41252.96), ("DISTANCE(0, 0, 90, 0)", 90),
    ],
)  # fmt: skip
def test_functions_mean_what_adql_says(service: Service, expression: str, value: float) -> None:
    (found,) = ask(service, f"SELECT {expression} AS answer")
    assert float(found) == pytest.approx(value, abs=0.01 if value > 1000 else 1e-9)


@pytest.mark.parametrize(
    "query",
    [
        "SELECT 'it''s' || LOWER('X') AS a",
        "SELECT TOP 2 * FROM ivoa.obscore ORDER BY t_min DESC OFFSET 1",
        "SELECT DISTINCT TOP 5 calib_level FROM IVOA.OBSCORE",
        'SELECT "s_ra" AS "Right Ascension" FROM ivoa.ObsCore',
        "SELECT o.* FROM ivoa.ObsCore o",
        "SELECT ivoa.ObsCore.s_ra FROM ivoa.ObsCore",
        "SELECT COUNT(*), COUNT(DISTINCT obs_id), MAX(s_ra) FROM ivoa.ObsCore",
        "SELECT calib_level, COUNT(*) FROM ivoa.ObsCore GROUP BY calib_level HAVING COUNT(*) > 1",
        "SELECT a.obs_id FROM ivoa.ObsCore a LEFT OUTER JOIN ivoa.ObsCore b ON a.obs_id = b.obs_id",
        "SELECT p.visit FROM roman.products p NATURAL JOIN roman.inputs i",
        "SELECT obs_id FROM ivoa.ObsCore WHERE calib_level IN (1, 2) AND obs_id NOT LIKE 'x%'",
        "SELECT obs_id FROM ivoa.ObsCore WHERE s_ra BETWEEN 1 AND 2 OR NOT s_dec IS NULL",
        "SELECT obs_id FROM ivoa.ObsCore o WHERE EXISTS (SELECT 1 FROM roman.products p "
        "WHERE p.file_set = o.obs_id)",
        "SELECT q.x FROM (SELECT s_ra AS x FROM ivoa.ObsCore) AS q WHERE q.x > ALL (SELECT 1)",
        "WITH q AS (SELECT s_ra AS x FROM ivoa.ObsCore) SELECT x FROM q",
        "SELECT obs_id FROM ivoa.ObsCore UNION SELECT name FROM roman.products",
        "SELECT obs_id FROM ivoa.ObsCore EXCEPT ALL SELECT name FROM roman.products",
        "SELECT obs_id FROM ivoa.ObsCore WHERE obs_title ILIKE '%IMAGE%' -- a remark",
        "SELECT name FROM roman.products WHERE start_time > '2023-01-01T00:00:00'",
    ],
)
def test_queries_of_all_forms_are_answered(service: Service, query: str) -> None:
    ask(service, query)


@pytest.mark.parametrize(
    "query",
    [
        # files and the network
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        'SELECT * FROM "/etc/passwd"',
        "SELECT * FROM 'https://example.org/x.parquet'",
        "SELECT read_text('/etc/passwd') AS x",
        "SELECT * FROM glob('*')",
        "SELECT * FROM parquet_scan('x')",
        "COPY ivoa.ObsCore TO '/tmp/x'",
        "SELECT * INTO x FROM ivoa.ObsCore",
        "ATTACH '/tmp/x' AS x",
        "EXPORT DATABASE '/tmp/x'",
        "INSTALL httpfs",
        "LOAD httpfs",
        # settings and the engine
        "SELECT * FROM duckdb_settings()",
        "SELECT current_setting('memory_limit')",
        "SELECT getvariable('service_url')",
        "SELECT getenv('HOME')",
        "SET memory_limit = '100GB'",
        "PRAGMA database_list",
        "SHOW TABLES",
        "DESCRIBE ivoa.ObsCore",
        "EXPLAIN SELECT 1",
        "CALL duckdb_functions()",
        "SELECT version()",
        # other tables
        "SELECT * FROM products",
        "SELECT * FROM main.products",
        "SELECT * FROM memory.main.products",
        "SELECT * FROM records",
        "SELECT * FROM roman.records",
        "SELECT * FROM roman.events",
        "SELECT * FROM roman.failures",
        "SELECT * FROM information_schema.tables",
        "SELECT * FROM sqlite_master",
        "SELECT * FROM duckdb_tables",
        "SELECT * FROM pg_catalog.pg_class",
        "SELECT * FROM near1",
        "SELECT * FROM tap_upload.other",
        # other columns
        "SELECT run_id FROM roman.products",
        "SELECT record_id FROM roman.products",
        "SELECT step FROM roman.products",
        "SELECT partition FROM roman.products",
        "SELECT _healpix FROM ivoa.ObsCore",
        "SELECT rowid FROM ivoa.ObsCore",
        "SELECT p FROM roman.products p",
        "SELECT COLUMNS('.*') FROM roman.products",
        "SELECT * EXCLUDE (name) FROM roman.products",
        "SELECT * REPLACE (1 AS name) FROM roman.products",
        # changes
        "DROP VIEW ivoa.ObsCore",
        "DELETE FROM tap_schema.tables",
        "INSERT INTO tap_schema.tables VALUES (1)",
        "UPDATE tap_schema.tables SET utype = 'x'",
        "CREATE TABLE x AS SELECT 1",
        "SELECT 1; DROP VIEW ivoa.ObsCore",
        "SELECT 1; SELECT 2",
        # what DuckDB understands and ADQL does not
        "FROM ivoa.ObsCore",
        "SELECT range(1000000000)",
        "SELECT unnest(range(1000000000))",
        "SELECT * FROM range(10)",
        "SELECT * FROM generate_series(1, 10)",
        "WITH RECURSIVE q AS (SELECT 1 AS a UNION ALL SELECT a + 1 FROM q) SELECT * FROM q",
        "SELECT * FROM (VALUES (1)) v",
        "SELECT repeat('x', 1000000000)",
        "SELECT obs_id FROM ivoa.ObsCore WHERE regexp_matches(obs_id, '(a+)+$')",
        "SELECT ROW_NUMBER() OVER (ORDER BY s_ra) FROM ivoa.ObsCore",
        "SELECT * FROM ivoa.ObsCore TABLESAMPLE (10 PERCENT)",
        "SELECT [1, 2, 3]",
        "SELECT {'a': 1}",
        "SELECT obs_id[1] FROM ivoa.ObsCore",
        "SELECT s_ra::VARCHAR FROM ivoa.ObsCore x, LATERAL (SELECT 1) y",
        "SELECT CAST('x' AS BLOB)",
        "SELECT CAST('{}' AS JSON)",
        "SELECT $1",
        "SELECT @@version",
        "SELECT TOP (SELECT 1) * FROM ivoa.ObsCore",
        "SELECT list_transform([1], x -> x)",
        "SELECT INTERVAL '1' DAY",
        "SELECT adql_log(1)",
        "SELECT region_meets_region('x', 'y')",
        # no ADQL
        "",
        "SELECT",
        "SELECT FROM WHERE",
        "SELECT (1",
        "SELECT 'a",
        "SELECT LOG(1, 2, 3)",
        "SELECT POINT(1, 2)",
        "SELECT 1 WHERE 1 = CONTAINS(POINT(1, 2))",
        "SELECT 1 WHERE 1 = CONTAINS(1, 2)",
        "SELECT 1 WHERE 1 = CONTAINS(POINT('GALACTIC', 1, 2), CIRCLE(1, 2, 3))",
        "SELECT 1 WHERE 1 = INTERSECTS(POLYGON(0, 0, 1, 1, 2, 0, 1, 0.5), CIRCLE(1, 2, 3))",
        "SELECT obs_id FROM ivoa.ObsCore WHERE 1 = INTERSECTS(s_region, CIRCLE(1, 200, 3))",
        "SELECT " + "(" * 3000 + "1" + ")" * 3000,
        "SELECT " + "NOT " * 3000 + "TRUE",
        "SELECT 1 -- " + "x" * 70_000,
    ],
    ids=lambda query: query[:60],
)
def test_everything_else_is_refused(service: Service, query: str) -> None:
    with pytest.raises(UsageError):
        ask(service, query)


ENDLESS = "SELECT COUNT(*) AS n FROM " + ", ".join(f"tap_schema.columns AS c{n}" for n in range(5))


def test_a_join_of_billions_of_rows_ends_in_time_and_hurts_nobody(service: Service) -> None:
    with pytest.raises(TooExpensiveError, match=r"more than 0\.5 s"):
        ask(service, ENDLESS, seconds=0.5)
    assert ask(service, "SELECT 1 AS a") == ["1"]


def test_a_query_that_needs_too_much_memory_is_refused(service: Service) -> None:
    pairs = "tap_schema.columns AS a, tap_schema.columns AS b, tap_schema.columns AS c"
    wide = (
        "SELECT DISTINCT a.description || b.description || c.description || b.column_name AS x, "
        f"a.column_name || c.column_name AS y FROM {pairs} ORDER BY 1"
    )
    with pytest.raises(TooExpensiveError):
        ask(service, wide, seconds=60)
    assert ask(service, "SELECT 1 AS a") == ["1"]


def test_what_a_cursor_is_asked_changes_nothing_for_others(service: Service) -> None:
    before = ask(service, "SELECT COUNT(*) AS n FROM tap_schema.columns")
    near = "SELECT obs_id FROM ivoa.ObsCore WHERE 1 = INTERSECTS(s_region, CIRCLE(270, 66, 1))"
    assert ask(service, near) == ask(service, near)
    assert ask(service, "SELECT COUNT(*) AS n FROM tap_schema.columns") == before


def test_the_engine_refuses_what_the_tree_would_let_through(service: Service) -> None:
    with service.snapshots.cursor() as cursor:
        for statement in (
            "select * from read_text('/etc/passwd')",
            "copy (select 1) to '/tmp/roman-assets-attack'",
            "attach '/tmp/roman-assets-attack' as attack",
            "set memory_limit = '100GB'",
            "set enable_external_access = true",
            "install httpfs",
        ):
            with pytest.raises(duckdb.Error):
                cursor.execute(statement).fetchall()


def test_errors_tell_nothing_of_the_machine(service: Service) -> None:
    for query in (
        "SELECT * FROM '/etc/passwd'",
        "SELECT CAST(obs_id AS INTEGER) FROM ivoa.ObsCore",
    ):
        with pytest.raises(RequestError) as told:
            ask(service, query)
        assert "archive/registry" not in str(told.value) and "memory.main" not in str(told.value)
