"""The tables that TAP shows, and what TAP_SCHEMA says of them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

from roman_assets.access import Role
from roman_assets.registry.catalog.obscore import OBSCORE_COLUMNS
from roman_assets.registry.catalog.schema import ARCHIVE_TABLES, INPUTS, PRODUCTS, Column


@dataclass(frozen=True)
class VoType:
    """A type in VOTable's words."""

    datatype: str
    arraysize: str | None = None
    xtype: str | None = None


TEXT = VoType("char", "*")
_TYPES: Mapping[str, VoType] = {
    "VARCHAR": TEXT,
    "JSON": TEXT,
    "TIMESTAMPTZ": VoType("char", "*", "timestamp"),
    "TIMESTAMP WITH TIME ZONE": VoType("char", "*", "timestamp"),
    "TIMESTAMP": VoType("char", "*", "timestamp"),
    "DATE": VoType("char", "*", "timestamp"),
    "BOOLEAN": VoType("boolean"),
    "TINYINT": VoType("short"),
    "UTINYINT": VoType("short"),
    "SMALLINT": VoType("short"),
    "USMALLINT": VoType("int"),
    "INTEGER": VoType("int"),
    "UINTEGER": VoType("long"),
    "BIGINT": VoType("long"),
    "UBIGINT": VoType("long"),
    "HUGEINT": VoType("long"),
    "FLOAT": VoType("float"),
    "DOUBLE": VoType("double"),
}


def vo_type(duckdb_type: str) -> VoType:
    """Return VOTable's type for one of DuckDB's; numbers of other types become doubles."""
    if duckdb_type.startswith("DECIMAL"):
        return VoType("double")
    return _TYPES.get(duckdb_type, TEXT)


@dataclass(frozen=True)
class TapColumn:
    """One column as TAP describes it."""

    name: str
    type: VoType
    description: str
    unit: str | None = None
    ucd: str | None = None
    utype: str | None = None
    principal: bool = False
    indexed: bool = False
    std: bool = False

    @property
    def adql_name(self) -> str:
        """The name as a query needs it: quoted if it is a word of ADQL."""
        return f'"{self.name}"' if self.name.upper() in RESERVED_WORDS else self.name


@dataclass(frozen=True)
class TapTable:
    """One table as TAP describes it.

    Parameters
    ----------
    schema, name, description, columns, utype
        As users see them.
    has_places
        Whether it has the columns that tell where products lie on the sky and in the registry.
    """

    schema: str
    name: str
    description: str
    columns: tuple[TapColumn, ...]
    utype: str | None = None
    has_places: bool = False

    @property
    def full_name(self) -> str:
        """The name in queries."""
        return f"{self.schema}.{self.name}"

    @property
    def key(self) -> tuple[str, str]:
        """Schema and name, without regard to case."""
        return self.schema.lower(), self.name.lower()


OBSCORE_UTYPE = "ivo://ivoa.net/std/ObsCore#table-1.1"
PUBLISHER_DID = "obs_publisher_did"
SCHEMAS: Mapping[str, str] = {
    "ivoa": "The IVOA's view of the products",
    "roman": "Products and their metadata as this archive knows them",
    "tap_schema": "What tables and columns there are",
}
HIDDEN = ("record_id", "step", "partition", "run_id", "access", "facts", "fingerprint")
"""Columns of the registry that are of no use to scientists."""

_PRINCIPAL = frozenset({
    "dataproduct_type", "calib_level", "obs_collection", "obs_id", "obs_publisher_did",
    "access_url", "access_format", "access_estsize", "s_ra", "s_dec", "s_fov", "s_region",
    "t_min", "t_max", "t_exptime", "em_min", "em_max", "facility_name", "instrument_name",
})  # fmt: skip
_INDEXED = frozenset({"s_ra", "s_dec", "s_region", "ra", "dec", "footprint", "name", "visit"})


def _obscore() -> TapTable:
    return TapTable(
        "ivoa",
        "ObsCore",
        "One available public data product a row (ObsCore 1.1)",
        tuple(
            TapColumn(
                column.name,
                VoType("char", "*", "adql:REGION")
                if column.name == "s_region"
                else vo_type(column.type),
                column.description,
                column.unit,
                column.ucd,
                f"obscore:{column.utype}",
                principal=column.name in _PRINCIPAL,
                indexed=column.name in _INDEXED,
                std=True,
            )
            for column in OBSCORE_COLUMNS
        ),
        OBSCORE_UTYPE,
        has_places=True,
    )


def _described(columns: tuple[Column, ...], hidden: tuple[str, ...]) -> tuple[TapColumn, ...]:
    return tuple(
        TapColumn(
            column.name,
            vo_type(column.type),
            column.description,
            column.unit,
            indexed=column.name in _INDEXED,
        )
        for column in columns
        if column.name not in hidden and Role.PUBLIC.may_see(column.access)
    )


_INDEX_COLUMNS = ("healpix", "name_key", "row_key", "input_key", "ordinal")


def _text(name: str, description: str) -> TapColumn:
    return TapColumn(name, TEXT, description, std=True)


def _number(name: str, description: str) -> TapColumn:
    return TapColumn(name, VoType("int"), description, std=True)


TAP_SCHEMA: tuple[TapTable, ...] = (
    TapTable("tap_schema", "schemas", "Schemas", (
        _text("schema_name", "name"), _text("utype", "utype"),
        _text("description", "what is in it"), _number("schema_index", "place in lists"),
    )),
    TapTable("tap_schema", "tables", "Tables", (
        _text("schema_name", "its schema"), _text("table_name", "name in queries"),
        _text("table_type", "table or view"), _text("utype", "utype"),
        _text("description", "what a row is"), _number("table_index", "place in lists"),
    )),
    TapTable("tap_schema", "columns", "Columns", (
        _text("table_name", "its table"), _text("column_name", "name in queries"),
        _text("datatype", "VOTable datatype"), _text("arraysize", "VOTable arraysize"),
        _text("xtype", "VOTable xtype"), _number("size", "length, deprecated"),
        _text("description", "what it says"), _text("utype", "utype"), _text("unit", "unit"),
        _text("ucd", "UCD"), _number("indexed", "1 if conditions on it are fast"),
        _number("principal", "1 if shown first"), _number("std", "1 if a standard defines it"),
        _number("column_index", "place in lists"),
    )),
    TapTable("tap_schema", "keys", "Foreign keys", (
        _text("key_id", "identifier"), _text("from_table", "table with the key"),
        _text("target_table", "table it refers to"), _text("description", "what it relates"),
        _text("utype", "utype"),
    )),
    TapTable("tap_schema", "key_columns", "Columns of foreign keys", (
        _text("key_id", "identifier"), _text("from_column", "column of the key"),
        _text("target_column", "column it refers to"),
    )),
)  # fmt: skip


@functools.cache
def tap_tables() -> tuple[TapTable, ...]:
    """Return all tables, in the order in which they are listed."""
    of_archive = (
        TapTable(
            "roman",
            table.name,
            f"{table.row}; available ones only. Join by name",
            _described(table.columns, ("record_id", *_INDEX_COLUMNS)),
        )
        for table in ARCHIVE_TABLES
    )
    return (
        _obscore(),
        TapTable(
            "roman",
            "products",
            "One available product file a row",
            _described(PRODUCTS.columns, (*HIDDEN, *_INDEX_COLUMNS)),
            has_places=True,
        ),
        TapTable(
            "roman",
            "inputs",
            "One file that an available product was made from a row",
            _described(INPUTS.columns, ("record_id", "name_key", "input_key")),
        ),
        *of_archive,
        *TAP_SCHEMA,
    )


@dataclass(frozen=True)
class ForeignKey:
    """A column that refers to one of another table."""

    table: str
    column: str
    target_table: str
    target_column: str
    description: str

    @property
    def id(self) -> str:
        """What identifies it."""
        return f"{self.table}.{self.column}"


_SCHEMA_KEYS = (
    ("tables", "schema_name", "schemas", "schema_name"),
    ("columns", "table_name", "tables", "table_name"),
    ("keys", "from_table", "tables", "table_name"),
    ("keys", "target_table", "tables", "table_name"),
    ("key_columns", "key_id", "keys", "key_id"),
)


@functools.cache
def foreign_keys() -> tuple[ForeignKey, ...]:
    """Return all foreign keys."""
    of_products = (
        ForeignKey(table.full_name, "name", "roman.products", "name", "the product of a row")
        for table in tap_tables()
        if table.schema == "roman" and table.name != "products"
    )
    of_schema = (
        ForeignKey(f"tap_schema.{table}", column, f"tap_schema.{target}", key, "what it is of")
        for table, column, target, key in _SCHEMA_KEYS
    )
    return (*of_products, *of_schema)


_RESERVED = """
    ABSOLUTE ACTION ADD ALL ALLOCATE ALTER AND ANY ARE AS ASC ASSERTION AT AUTHORIZATION AVG BEGIN
    BETWEEN BIT BIT_LENGTH BOTH BY CASCADE CASCADED CASE CAST CATALOG CHAR CHARACTER CHAR_LENGTH
    CHARACTER_LENGTH CHECK CLOSE COALESCE COLLATE COLLATION COLUMN COMMIT CONNECT CONNECTION
    CONSTRAINT CONSTRAINTS CONTINUE CONVERT CORRESPONDING COUNT CREATE CROSS CURRENT CURRENT_DATE
    CURRENT_TIME CURRENT_TIMESTAMP CURRENT_USER CURSOR DATE DAY DEALLOCATE DECIMAL DECLARE DEFAULT
    DEFERRABLE DEFERRED DELETE DESC DESCRIBE DESCRIPTOR DIAGNOSTICS DISCONNECT DISTINCT DOMAIN
    DOUBLE DROP ELSE END END-EXEC ESCAPE EXCEPT EXCEPTION EXEC EXECUTE EXISTS EXTERNAL EXTRACT FALSE
    FETCH FIRST FLOAT FOR FOREIGN FOUND FROM FULL GET GLOBAL GO GOTO GRANT GROUP HAVING HOUR
    IDENTITY IMMEDIATE IN INDICATOR INITIALLY INNER INPUT INSENSITIVE INSERT INT INTEGER INTERSECT
    INTERVAL INTO IS ISOLATION JOIN KEY LANGUAGE LAST LEADING LEFT LEVEL LIKE LOCAL LOWER MATCH MAX
    MIN MINUTE MODULE MONTH NAMES NATIONAL NATURAL NCHAR NEXT NO NOT NULL NULLIF NUMERIC
    OCTET_LENGTH OF ON ONLY OPEN OPTION OR ORDER OUTER OUTPUT OVERLAPS PAD PARTIAL POSITION
    PRECISION PREPARE PRESERVE PRIMARY PRIOR PRIVILEGES PROCEDURE PUBLIC READ REAL REFERENCES
    RELATIVE RESTRICT REVOKE RIGHT ROLLBACK ROWS SCHEMA SCROLL SECOND SECTION SELECT SESSION
    SESSION_USER SET SIZE SMALLINT SOME SPACE SQL SQLCODE SQLERROR SQLSTATE SUBSTRING SUM
    SYSTEM_USER TABLE TEMPORARY THEN TIME TIMESTAMP TIMEZONE_HOUR TIMEZONE_MINUTE TO TRAILING
    TRANSACTION TRANSLATE TRANSLATION TRIM TRUE UNION UNIQUE UNKNOWN UPDATE UPPER USAGE USER USING
    VALUE VALUES VARCHAR VARYING VIEW WHEN WHENEVER WHERE WITH WORK WRITE YEAR ZONE
    ABS ACOS AREA ASIN ATAN ATAN2 BOX CEILING CENTROID CIRCLE CONTAINS COORD1 COORD2 COORDSYS COS
    COT DEGREES DISTANCE EXP FLOOR ILIKE INTERSECTS IN_UNIT LOG LOG10 MOD OFFSET PI POINT POLYGON
    POWER RADIANS RAND REGION ROUND SIGN SIN SQRT TAN TOP TRUNCATE BIGINT
"""
RESERVED_WORDS = frozenset(_RESERVED.split())
"""Words that a query must quote to use them as names (ADQL 2.1)."""
