"""VOTables that users send: small ones, read without trust."""

from __future__ import annotations

import base64
import binascii
import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from xml.parsers import expat

from roman_assets.service.request_error import UsageError
from roman_assets.service.vo.votable import Field

MOST_COLUMNS = 200
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_TRUE = frozenset({"t", "T", "1", "true", "True", "TRUE"})
_FALSE = frozenset({"f", "F", "0", "false", "False", "FALSE"})


@dataclass(frozen=True)
class ReadTable:
    """A table that a user sent.

    Parameters
    ----------
    fields
        Its columns.
    types
        DuckDB's types of them.
    rows
        Values, None where there is none.
    """

    fields: tuple[Field, ...]
    types: tuple[str, ...]
    rows: Sequence[Sequence[Any]]


def _boolean(text: str) -> bool | None:
    return True if text in _TRUE else False if text in _FALSE else None


def _integer(text: str) -> int:
    return int(text, 16) if text.lower().startswith("0x") else int(text)


def _double(text: str) -> float:
    return float(text.replace("+Inf", "inf").replace("-Inf", "-inf"))


@dataclass(frozen=True)
class _Datatype:
    """How values of one of VOTable's datatypes are read.

    Parameters
    ----------
    type
        DuckDB's type.
    read
        From text.
    code
        The code of `struct`, big-endian; that of one character for texts.
    encoding
        Of texts.
    """

    type: str
    read: Callable[[str], Any]
    code: str
    encoding: str | None = None


_DATATYPES: Mapping[str, _Datatype] = {
    "boolean": _Datatype("BOOLEAN", _boolean, "c"),
    "unsignedByte": _Datatype("SMALLINT", _integer, "B"),
    "short": _Datatype("SMALLINT", _integer, "h"),
    "int": _Datatype("INTEGER", _integer, "i"),
    "long": _Datatype("BIGINT", _integer, "q"),
    "float": _Datatype("FLOAT", _double, "f"),
    "double": _Datatype("DOUBLE", _double, "d"),
    "char": _Datatype("VARCHAR", str, "c", "utf-8"),
    "unicodeChar": _Datatype("VARCHAR", str, "2s", "utf-16-be"),
}


@dataclass(frozen=True)
class _Column:
    """A column while its table is read; `null` is the text that stands for no value."""

    field: Field
    datatype: _Datatype
    length: int | None
    null: str | None = None


def read_votable(content: bytes, most_rows: int) -> ReadTable:
    """Read the first table of a VOTable with columns of single values.

    Parameters
    ----------
    content
        The document. Declarations of types and entities are refused (XML bombs).
    most_rows
        Rows of the table.

    Raises
    ------
    UsageError
        If it is something else, or larger.
    """
    reader = _Reader(most_rows)
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = _refused
    parser.EntityDeclHandler = _refused
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        raise UsageError(f"the uploaded table is not XML: {error}") from error
    return reader.table()


def _refused(*_: object) -> None:
    raise UsageError("the uploaded table declares a document type; send it without")


class _Reader:
    """Collects one table from the events of a parser."""

    def __init__(self, most_rows: int) -> None:
        self._most_rows = most_rows
        self._columns: list[_Column] = []
        self._rows: list[tuple[Any, ...]] = []
        self._row: list[str] = []
        self._text: list[str] | None = None
        self._tables = 0
        self._flagged = False

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        name = tag.rpartition(":")[2]
        if name == "TABLE":
            self._tables += 1
        if self._tables != 1:
            return
        if name == "FIELD":
            self._columns.append(self._column(attributes))
        elif name == "VALUES" and self._columns and "null" in attributes:
            self._columns[-1] = replace(self._columns[-1], null=attributes["null"].strip())
        elif name == "FITS":
            raise UsageError("the uploaded table is in FITS; send TABLEDATA or BINARY")
        elif name == "TR":
            self._row = []
        elif name in ("TD", "STREAM"):
            if attributes.get("href") or attributes.get("encoding", "base64") != "base64":
                raise UsageError("the uploaded table's data are elsewhere or in an odd encoding")
            self._text = []
        elif name in ("BINARY", "BINARY2"):
            self._flagged = name == "BINARY2"

    def text(self, text: str) -> None:
        if self._text is not None:
            self._text.append(text)

    def end(self, tag: str) -> None:
        name = tag.rpartition(":")[2]
        if self._tables != 1:
            return
        if name == "TD" and self._text is not None:
            self._row.append("".join(self._text))
            self._text = None
        elif name == "TR":
            if len(self._row) != len(self._columns):
                raise UsageError("the uploaded table has rows of another length than its columns")
            self._add(map(_from_text, self._columns, self._row))
        elif name == "STREAM" and self._text is not None:
            content, self._text = "".join(self._text), None
            self._add_binary(content)

    def table(self) -> ReadTable:
        if not self._columns:
            raise UsageError("the uploaded table has no columns")
        types = tuple(column.datatype.type for column in self._columns)
        return ReadTable(tuple(column.field for column in self._columns), types, self._rows)

    def _column(self, attributes: Mapping[str, str]) -> _Column:
        name, datatype = attributes.get("name", ""), attributes.get("datatype", "")
        size = attributes.get("arraysize", "1").strip()
        taken = {column.field.name.lower() for column in self._columns}
        if _NAME.fullmatch(name) is None or name.lower() in taken:
            raise UsageError(f"the uploaded table has a column {name[:50]!r}: give it another name")
        known = _DATATYPES.get(datatype)
        is_text = known is not None and known.encoding is not None
        if known is None or not (is_text or size == "1") or not re.fullmatch(r"\d{0,6}\*?", size):
            raise UsageError(f"the uploaded table's column {name} has no single values")
        if len(self._columns) == MOST_COLUMNS:
            raise UsageError(f"the uploaded table has more than {MOST_COLUMNS} columns")
        field = Field(
            name,
            "char" if is_text else datatype,
            "*" if is_text else None,
            attributes.get("xtype"),
            attributes.get("unit"),
            attributes.get("ucd"),
        )
        return _Column(field, known, None if size.endswith("*") else int(size))

    def _add(self, values: Iterator[Any]) -> None:
        if len(self._rows) == self._most_rows:
            raise UsageError(f"the uploaded table has more than {self._most_rows} rows")
        self._rows.append(tuple(values))

    def _add_binary(self, content: str) -> None:
        if not self._columns:
            raise UsageError("the uploaded table has no columns")
        try:
            data = base64.b64decode("".join(content.split()), validate=True)
            place = 0
            while place < len(data):
                row, place = _binary_row(self._columns, data, place, self._flagged)
                self._add(iter(row))
        except (binascii.Error, struct.error, ValueError) as error:
            raise UsageError(f"the uploaded table's binary data are damaged: {error}") from error


def _from_text(column: _Column, text: str) -> Any:
    if column.datatype.encoding is not None:
        return text or None
    text = text.strip()
    if text in ("", column.null):
        return None
    try:
        return column.datatype.read(text)
    except ValueError as error:
        name = column.field.name
        raise UsageError(f"the uploaded table's column {name} has {text[:30]!r}") from error


def _binary_row(
    columns: Sequence[_Column], data: bytes, place: int, flagged: bool
) -> tuple[list[Any], int]:
    """Return the values of a row of BINARY or BINARY2 (flagged), and where the next begins."""
    flags = b""
    if flagged:
        flags = data[place : place + -(-len(columns) // 8)]
        place += len(flags)
    values = []
    for number, column in enumerate(columns):
        value, place = _binary_value(column, data, place)
        missing = flagged and flags[number // 8] & (0x80 >> number % 8)
        values.append(None if missing else value)
    return values, place


def _binary_value(column: _Column, data: bytes, place: int) -> tuple[Any, int]:
    code, encoding = column.datatype.code, column.datatype.encoding
    width = struct.calcsize(f">{code}")
    if encoding is None:
        (value,) = struct.unpack_from(f">{code}", data, place)
        if code == "c":
            return _boolean(value.decode("latin-1")), place + width
        return (None if str(value) == column.null else value), place + width
    length = column.length
    if length is None:
        (length,) = struct.unpack_from(">i", data, place)
        place += 4
    end = place + length * width
    if not place <= end <= len(data):
        raise ValueError("a text goes beyond the end")
    return data[place:end].decode(encoding).rstrip("\0") or None, end
