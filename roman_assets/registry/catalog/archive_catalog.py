"""The metadata tables of the archive, read from rad's ``archive_catalog`` annotations.

rad says for every piece of metadata into which table and column of the archive's database it goes
and which type it has there. Nothing of it is repeated here, so another release of rad changes the
tables by itself.
"""

from __future__ import annotations

import functools
import importlib.resources
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from typing import Any

from roman_assets.registry.catalog.rad_schema import parse_schema

_URI = "asdf://stsci.edu/datamodels/roman/"
_SSC_DIRECTORIES = ("schemas/SSC/MSOS", "schemas/SSC/GDPS")
"""What the SSC delivers of the Wide Field Instrument; ``CGI`` is the coronagraph's."""

_TABLES_OF_KIND: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"Science WFI Level 1", ("WFIExposure",)),
    (r"Science WFI Level 2", ("WFIExposure", "ScienceRefData")),
    (r"Science WFI Level 3", ("WFIMosaic", "ScienceRefData")),
    (r"Guide Window Level 1.*", ("GuideWindow",)),
    (r"Science WFI Level 4 .*Source Catalog.*", ("SourceCatalog", "ScienceRefData")),
    (r"Science WFI Level 4 .*Segmentation Map.*", ("SegmentationMap", "ScienceRefData")),
    (r"Science WFI Level \d MSOS Reference Frame", ("WFIMSOSReferenceFrame",)),
)
"""Which tables have a row for a product, by its schema's ``archive_meta``; the first match counts.

An annotation names every table its value is ever needed in, also those that are about other
products: the schemas share their parts.
"""

_FAMILIES: tuple[tuple[str, str, str], ...] = (
    (r"Science WFI Level \d MSOS .*", "WFIMSOS", "WFIMSOSCatalog"),
    (r"Science WFI Level 4 Spec .*", "WFISpec", "WFISpec"),
)
"""The kinds of the SSC that share tables whose names begin alike, and the first of these.

Releases of rad differ in how many tables a family has: 1.2.1 has four where 1.1.0 has one. A
product has its row in the table that most of its schema's values go into, the first one on a tie.
"""

_TYPES: Mapping[str, str] = {
    "datetime2": "TIMESTAMPTZ",
    "float": "DOUBLE",
    "bigint": "BIGINT",
    "int": "INTEGER",
    "smallint": "SMALLINT",
    "tinyint": "UTINYINT",
}
"""DuckDB types of rad's datatypes, which are those of SQL Server; all others are text."""

_ANY_TEXT = "nvarchar(max)"


@dataclass(frozen=True)
class ArchiveColumn:
    """One column of a metadata table.

    Parameters
    ----------
    name
        Its name.
    datatype
        rad's type, such as ``nvarchar(20)``.
    paths
        Where a product's metadata have the value, such as ``exposure.start_time``; the first
        that is there counts, since schemas of one table can differ.
    description
        rad's title.
    """

    name: str
    datatype: str
    paths: tuple[str, ...]
    description: str

    @property
    def type(self) -> str:
        """The type in DuckDB."""
        return _TYPES.get(self.datatype, "VARCHAR")

    @property
    def length(self) -> int | None:
        """How many characters a text may have, None if there is no limit."""
        match = re.fullmatch(r"n?(?:var)?char\((\d+)\)", self.datatype)
        return int(match[1]) if match else None


@dataclass(frozen=True)
class ArchiveTable:
    """One metadata table: one row for each generation of each product file of some schemas.

    Parameters
    ----------
    name
        rad's name.
    schemas
        The schemas of the products with a row, by rad's names without version.
    columns
        What rad annotates, in order of appearance.
    """

    name: str
    schemas: tuple[str, ...]
    columns: tuple[ArchiveColumn, ...]


@dataclass(frozen=True)
class ArchiveSchema:
    """What one of rad's schemas says about a product for the archive.

    Parameters
    ----------
    name
        rad's name without version, such as ``wfi_image``.
    datamodel
        The class of `roman_datamodels.datamodels`, None for what the SSC delivers.
    paths
        The metadata that tables need of such a product.
    """

    name: str
    datamodel: str | None
    paths: tuple[str, ...]


@dataclass(frozen=True)
class ArchiveCatalog:
    """All metadata tables, and which product has a row in which."""

    tables: tuple[ArchiveTable, ...]
    schemas: tuple[ArchiveSchema, ...]

    def schema_of(self, datamodel: str | None) -> ArchiveSchema | None:
        """Return the schema of a datamodel, None if it has no row in any table."""
        if datamodel is None:
            return None
        found = (schema for schema in self.schemas if schema.datamodel == datamodel)
        return next(found, None)

    def schema_named(self, name: str) -> ArchiveSchema:
        """Return a schema by rad's name without version; `KeyError` for any other."""
        found = (schema for schema in self.schemas if schema.name == name)
        try:
            return next(found)
        except StopIteration:
            raise KeyError(name) from None


@functools.cache
def archive_catalog() -> ArchiveCatalog:
    """Return the metadata tables of the installed release of rad."""
    return read_archive_catalog(importlib.resources.files("rad.resources"))


def read_archive_catalog(resources: Traversable) -> ArchiveCatalog:
    """Read the metadata tables from a release of rad.

    The schemas are read as they are, which takes a tenth of a second; asdf and rad's own parser,
    which give the same, take one and more in each process that looks at the registry.

    Parameters
    ----------
    resources
        A directory laid out as the package ``rad.resources``: ``manifests`` and ``schemas``.

    Returns
    -------
    ArchiveCatalog
        The tables of the newest schemas of the Wide Field Instrument.
    """
    release = _Release(resources)
    entries = {
        schema: tuple(schema.entries())
        for schema in (_AnnotatedSchema(release, uri) for uri in release.product_schemas())
        if schema.tables
    }
    return ArchiveCatalog(
        tables=tuple(_tables(entries)),
        schemas=tuple(_archive_schema(schema, found) for schema, found in entries.items()),
    )


class _Release:
    """The schemas of one release of rad."""

    def __init__(self, resources: Traversable) -> None:
        self._resources = resources
        self._loaded: dict[str, Any] = {}

    def load(self, uri: str) -> Any:
        """Return what is at an address of rad, which may have a fragment."""
        base, _, fragment = uri.partition("#")
        if base not in self._loaded:
            path = f"{base.removeprefix(_URI)}.yaml"
            content = self._resources.joinpath(*path.split("/")).read_bytes()
            self._loaded[base] = parse_schema(content)
        part = self._loaded[base]
        for name in filter(None, fragment.split("/")):
            part = part[name]
        return part

    def product_schemas(self) -> Iterator[str]:
        """Go through the newest schemas of whole products, those of the SSC as well."""
        newest = max(self._names("manifests", "datamodels-"), key=_version)
        for tag in self.load(f"{_URI}manifests/{newest}")["tags"]:
            yield tag["schema_uri"]
        for directory in _SSC_DIRECTORIES:
            names = self._names(directory, "wfi_")
            versions = {_unversioned(name): name for name in sorted(names, key=_version)}
            for name in sorted(versions.values()):
                yield f"{_URI}{directory}/{name}"

    def _names(self, directory: str, prefix: str) -> list[str]:
        return [
            entry.name.removesuffix(".yaml")
            for entry in self._resources.joinpath(*directory.split("/")).iterdir()
            if entry.name.startswith(prefix) and entry.name.endswith(".yaml")
        ]


@dataclass(frozen=True)
class _Entry:
    """One value of a schema's products that goes into one column."""

    table: str
    column: str
    datatype: str
    path: str
    title: str


class _AnnotatedSchema:
    """What one schema, with all that it refers to, says about the archive."""

    def __init__(self, release: _Release, uri: str) -> None:
        self._release = release
        self._uri = uri
        schema = release.load(uri)
        self.name = _unversioned(uri.removeprefix(f"{_URI}schemas/"))
        self.datamodel: str | None = schema.get("datamodel_name")
        self._kind: str = schema.get("archive_meta", "").strip()

    @functools.cached_property
    def tables(self) -> tuple[str, ...]:
        """The tables with a row for each of its products."""
        for pattern, tables in _TABLES_OF_KIND:
            if re.fullmatch(pattern, self._kind):
                return tables
        for pattern, prefix, first in _FAMILIES:
            if re.fullmatch(pattern, self._kind):
                return (self._fullest(prefix, first),)
        return ()

    def _fullest(self, prefix: str, first: str) -> str:
        """Return the table of a family that most values go into."""
        columns: dict[str, set[str]] = {first: set()}
        for entry in self._all_entries:
            if entry.table.startswith(prefix):
                columns.setdefault(entry.table, set()).add(entry.column)
        return max(columns, key=lambda table: len(columns[table]))

    def entries(self) -> Iterator[_Entry]:
        return (entry for entry in self._all_entries if entry.table in self.tables)

    @functools.cached_property
    def _all_entries(self) -> tuple[_Entry, ...]:
        return tuple(self._walk())

    def _walk(self) -> Iterator[_Entry]:
        for path, schema in self._annotated(self._release.load(self._uri), self._uri, ()):
            annotation = schema["archive_catalog"]
            for destination in annotation["destination"]:
                table, column = destination.split(".")
                title = " ".join(str(schema.get("title", column)).split())
                yield _Entry(table, column, annotation["datatype"], _metadata_path(path), title)

    def _annotated(
        self, schema: Any, base: str, path: tuple[str, ...]
    ) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
        """Go through what is annotated; all parts of a combined schema count."""
        if not isinstance(schema, Mapping):
            return
        reference = schema.get("$ref", "")
        address = base.partition("#")[0] + reference if reference[:1] == "#" else reference
        if address.startswith(_URI):
            yield from self._annotated(self._release.load(address), address, path)
        if "archive_catalog" in schema:
            yield path, schema
        for part in schema.get("allOf", ()):
            yield from self._annotated(part, base, path)
        for key, value in schema.get("properties", {}).items():
            yield from self._annotated(value, base, (*path, key))


def _metadata_path(path: tuple[str, ...]) -> str:
    return ".".join(path[1:] if path[0] == "meta" else path)


def _tables(entries: Mapping[_AnnotatedSchema, tuple[_Entry, ...]]) -> Iterator[ArchiveTable]:
    known = [table for _, tables in _TABLES_OF_KIND for table in tables]
    known += [first for _, _, first in _FAMILIES]
    for name in dict.fromkeys([*known, *(table for schema in entries for table in schema.tables)]):
        mine = [entry for found in entries.values() for entry in found if entry.table == name]
        columns = dict.fromkeys(entry.column for entry in mine)
        if columns:
            yield ArchiveTable(
                name,
                tuple(schema.name for schema in entries if name in schema.tables),
                tuple(
                    _column(column, [entry for entry in mine if entry.column == column])
                    for column in columns
                ),
            )


def _column(name: str, entries: list[_Entry]) -> ArchiveColumn:
    datatypes = {entry.datatype for entry in entries}
    return ArchiveColumn(
        name,
        # Schemas that disagree about a column's type agree on text.
        datatypes.pop() if len(datatypes) == 1 else _ANY_TEXT,
        tuple(dict.fromkeys(entry.path for entry in entries)),
        entries[0].title,
    )


def _archive_schema(schema: _AnnotatedSchema, entries: Iterable[_Entry]) -> ArchiveSchema:
    return ArchiveSchema(
        schema.name, schema.datamodel, tuple(dict.fromkeys(entry.path for entry in entries))
    )


def _unversioned(name: str) -> str:
    return name.rpartition("-")[0]


def _version(name: str) -> tuple[int, ...]:
    return tuple(int(number) for number in name.rpartition("-")[2].split("."))
