"""Columns of the search: rad's keywords, and what this archive knows beside them."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from roman_assets.products.kind import KINDS, Scope, Step
from roman_assets.registry.catalog.archive_catalog import archive_catalog

FILE_SET = "fileSetName"
SEPARATION = "ang_sep"
POSITION = "search_pos"
KEY = "search_key"

SETS = "sets"
"""Alias of what is known of a file set as a whole."""


class Type(StrEnum):
    """Types of columns, in MAST's words."""

    TEXT = "string"
    INTEGER = "integer"
    FLOAT = "float"
    TIME = "datetime"


_INFO = {Type.TEXT: "varchar", Type.INTEGER: "int", Type.FLOAT: "float", Type.TIME: "datetime"}
_TYPES = {
    "VARCHAR": Type.TEXT,
    "TIMESTAMPTZ": Type.TIME,
    "DOUBLE": Type.FLOAT,
    "BIGINT": Type.INTEGER,
    "INTEGER": Type.INTEGER,
    "SMALLINT": Type.INTEGER,
    "UTINYINT": Type.INTEGER,
}


@dataclass(frozen=True)
class MastColumn:
    """One column of the search.

    Parameters
    ----------
    name, type, description
        As users see them.
    sql
        How it follows from the leading product of a file set (``product``), from the metadata
        tables, or from the file set as a whole (``sets``).
    tables
        The metadata tables that `sql` needs.
    is_default
        Whether it is in an answer unless others are selected.
    of_sets
        Whether `sql` needs the file set as a whole.
    queryable
        Whether conditions may be on it.
    """

    name: str
    type: Type
    description: str
    sql: str
    tables: tuple[str, ...] = ()
    is_default: bool = True
    of_sets: bool = False
    queryable: bool = True

    @property
    def described(self) -> dict[str, object]:
        """The column in a column list."""
        return {
            "field_name": self.name,
            "column_name": self.name,
            "description": self.description,
            "qual_type": self.type.value,
            "datatype": self.info_type,
            "queryable": self.queryable,
            "default_output": self.is_default,
            "indexed": self.name in _INDEXED,
        }

    @property
    def info_type(self) -> str:
        """The type in the head of an answer."""
        return _INFO[self.type]


_INDEXED = frozenset({FILE_SET, "program", "visit_id", "ra", "dec", "s_region"})


class Category(StrEnum):
    """Categories of file sets, as MAST tells them apart."""

    DETECTOR = "detector"
    SKYCELL = "skycell"
    MICROLENSING = "microlensing"
    SPECTRA = "spectra"


_CATEGORY_OF_STEP = {
    Step.MICROLENSING: Category.MICROLENSING,
    Step.SPECTRA: Category.SPECTRA,
    Step.COMBINED_SPECTRA: Category.SPECTRA,
}


def _categories() -> str:
    by_kind = {
        kind.name: _CATEGORY_OF_STEP.get(
            kind.step, Category.SKYCELL if kind.scope is Scope.SKYCELL else Category.DETECTOR
        )
        for kind in KINDS
    }
    cases = " ".join(f"when '{kind}' then '{category}'" for kind, category in by_kind.items())
    return f"case product.kind {cases} end"


_OWN: tuple[MastColumn, ...] = (
    MastColumn(FILE_SET, Type.TEXT, "Name of the file set, up to the suffix", "product.file_set"),
    MastColumn(
        "dataset_category", Type.TEXT, "detector, skycell, microlensing or spectra", _categories()
    ),
    MastColumn(
        "productLevel", Type.TEXT, "Levels of the products of the file set", "sets.levels",
        of_sets=True,
    ),
    MastColumn("instrument_name", Type.TEXT, "Instrument", "'WFI'"),
    MastColumn("optical_element", Type.TEXT, "Optical element", "product.optical_element"),
    MastColumn("detector", Type.TEXT, "Detector", "product.detector"),
    MastColumn("exposure_type", Type.TEXT, "Type of the exposure", "product.exposure_type"),
    MastColumn("exposure_time", Type.FLOAT, "Exposure time (s)", "product.exposure_time"),
    MastColumn(
        "exposure_start_time", Type.TIME, "Start of the (first) exposure, UTC",
        "product.start_time",
    ),
    MastColumn(
        "exposure_end_time", Type.TIME, "End of the (last) exposure, UTC", "product.end_time"
    ),
    MastColumn("program", Type.INTEGER, "Program number", "product.program"),
    MastColumn("visit_id", Type.TEXT, "Identifier of the visit", "product.visit[2:]"),
    MastColumn("survey", Type.TEXT, "HLWAS, HLTDS, GBTDS or GAS", "product.survey"),
    MastColumn(
        "data_release", Type.TEXT, "p for prompt products, else the data release",
        'product."release"',
    ),
    MastColumn("crds_context", Type.TEXT, "CRDS context", "product.context"),
    MastColumn("ra", Type.FLOAT, "Right ascension of the centre, ICRS (deg)", "product.ra"),
    MastColumn("dec", Type.FLOAT, "Declination of the centre, ICRS (deg)", 'product."dec"'),
    MastColumn("s_region", Type.TEXT, "Footprint, ICRS (deg)", "product.footprint"),
    MastColumn("skycell_name", Type.TEXT, "Cell of the sky map", "product.skycell"),
    MastColumn("access", Type.TEXT, "Who may read the products", "upper(product.access)"),
)  # fmt: skip
"""Columns that the registry's table of products answers, quickly."""

_FILE_SET_FACTS: tuple[MastColumn, ...] = (
    MastColumn(
        "number_of_products", Type.INTEGER, "Products of the file set", "sets.products",
        of_sets=True,
    ),
    MastColumn(
        "total_size", Type.INTEGER, "Size of these products (byte)", "sets.size", of_sets=True
    ),
    MastColumn(
        "last_changed", Type.TIME, "When a product of it was made last, UTC", "sets.changed",
        of_sets=True,
    ),
)  # fmt: skip
"""Columns of this archive, after MAST's."""

_OF_SEARCHES: tuple[MastColumn, ...] = (
    MastColumn(
        SEPARATION, Type.FLOAT, "Separation of the centre from the position (arcmin)", "near.sep",
        is_default=False, queryable=False,
    ),
    MastColumn(
        POSITION, Type.TEXT, "Position that was searched", "near.pos",
        is_default=False, queryable=False,
    ),
)  # fmt: skip
"""Columns of searches around positions."""

METADATA_TABLES = ("WFIExposure", "WFIMosaic", "WFIMSOSReferenceFrame", "WFIMSOSCatalog", "WFISpec")
"""rad's tables with a row about a file set's leading product, in order of preference."""

_REFERENCES = "ScienceRefData"

_DEFAULT_METADATA = frozenset({
    "product_type", "execution_plan", "pass", "segment", "observation", "visit", "exposure",
    "observation_id", "ma_table_name", "ma_table_number", "read_pattern", "program_title",
    "investigator_name", "program_category", "calibration_software_version", "filedate",
    "orientation", "pixel_scale", "projection", "image_median", "image_rms",
    "good_pixel_fraction", "time_mean", "visit_start_time",
})  # fmt: skip


@functools.cache
def columns() -> Mapping[str, MastColumn]:
    """Return the columns of the search by name, MAST's first."""
    own = {column.name: column for column in _OWN}
    others = {column.name: column for column in _metadata_columns() if column.name not in own}
    ours = {column.name: column for column in (*_FILE_SET_FACTS, *_OF_SEARCHES)}
    return own | others | ours


def _metadata_columns() -> Iterator[MastColumn]:
    tables = {table.name: table for table in archive_catalog().tables}
    found: dict[str, list[tuple[str, Type, str]]] = {}
    for name in (*METADATA_TABLES, _REFERENCES):
        for column in tables[name].columns:
            found.setdefault(column.name, []).append(
                (name, _TYPES[column.type], column.description)
            )
    for name, places in found.items():
        kinds = {kind for _, kind, _ in places}
        kind = kinds.pop() if len(kinds) == 1 else Type.TEXT
        cast = "::varchar" if kind is Type.TEXT else ""
        values = ", ".join(f'"{table}"."{name}"{cast}' for table, _, _ in places)
        yield MastColumn(
            name,
            kind,
            places[0][2],
            f"coalesce({values})",
            tables=tuple(table for table, _, _ in places),
            is_default=name in _DEFAULT_METADATA,
        )
