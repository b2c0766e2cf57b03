"""Formats of tables: VOTable, CSV, TSV, and Parquet with a VOTable's metadata."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from roman_assets.service.request_error import UsageError
from roman_assets.service.vo.parameters import Parameters
from roman_assets.service.vo.votable import MEDIA_TYPE, Field, described, plain, votable

_VERSION, _CONTENT = "IVOA.VOTable-Parquet.version", "IVOA.VOTable-Parquet.content"
"""Keys of the metadata of a Parquet file that a VOTable describes."""


@dataclass(frozen=True)
class TableAnswer:
    """A table to be written once, in one format.

    Parameters
    ----------
    fields
        Its columns.
    rows
        Its rows, for formats that write rows.
    batches
        Returns the same rows as Arrow has them, for formats that write columns.
    infos
        Names and values of what else is said of the table.
    extra
        Further resources of a VOTable, in XML.
    """

    fields: tuple[Field, ...]
    rows: Iterable[Sequence[Any]]
    batches: Callable[[], pa.RecordBatchReader]
    infos: Sequence[tuple[str, str]] = ()
    extra: str = ""


@dataclass(frozen=True)
class Format:
    """A format of tables: its media type, its files' extension, and how it is written."""

    media_type: str
    extension: str
    write: Callable[[BinaryIO, TableAnswer, int], None]


def _write_votable(stream: BinaryIO, answer: TableAnswer, most_rows: int) -> None:
    for part in votable(answer.fields, answer.rows, answer.infos, most_rows, answer.extra):
        stream.write(part.encode())


def _write_text(separator: str, stream: BinaryIO, answer: TableAnswer, most_rows: int) -> None:
    text = io.TextIOWrapper(stream, encoding="utf-8", newline="", write_through=True)
    writer = csv.writer(text, delimiter=separator, lineterminator="\r\n")
    writer.writerow([field.name for field in answer.fields])
    for number, row in enumerate(answer.rows):
        if number == most_rows:
            break
        writer.writerow([_lower(plain(value)) for value in row])
    text.detach()


def _lower(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value


def _write_csv(stream: BinaryIO, answer: TableAnswer, most_rows: int) -> None:
    _write_text(",", stream, answer, most_rows)


def _write_tsv(stream: BinaryIO, answer: TableAnswer, most_rows: int) -> None:
    _write_text("\t", stream, answer, most_rows)


def _write_parquet(stream: BinaryIO, answer: TableAnswer, most_rows: int) -> None:
    """Write columns as they are; a VOTable without data in the metadata describes them."""
    reader = answer.batches()
    names = [field.name for field in answer.fields]
    schema = pa.schema(
        [column.with_name(name) for column, name in zip(reader.schema, names, strict=True)]
    )
    room, overflow = most_rows, False
    # The writer would close the stream of its caller.
    output = pa.PythonFile(_Unclosed(stream), mode="w")
    # Without the schema of Arrow, readers take all metadata from those of the file.
    with pq.ParquetWriter(output, schema, compression="zstd", store_schema=False) as writer:
        for batch in reader:
            overflow = batch.num_rows > room
            part = pa.Table.from_batches([batch.slice(0, room)]).rename_columns(names)
            writer.write_table(part.cast(schema))
            room -= part.num_rows
            if overflow:
                break
        content = described(answer.fields, answer.infos, overflow=overflow)
        writer.add_key_value_metadata({_VERSION: "1.0", _CONTENT: content})


class _Unclosed(io.RawIOBase):
    """A stream that stays open when a writer closes it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def writable(self) -> bool:
        """Return that it can be written to."""
        return True

    def write(self, content: Any, /) -> int:
        """Write bytes."""
        return self._stream.write(content)


VOTABLE = Format(MEDIA_TYPE, "vot", _write_votable)
CSV = Format("text/csv;header=present", "csv", _write_csv)
TSV = Format("text/tab-separated-values", "tsv", _write_tsv)
PARQUET = Format("application/vnd.apache.parquet", "parquet", _write_parquet)
FORMATS: Mapping[str, Format] = {
    "votable": VOTABLE, "votable/td": VOTABLE, "application/x-votable+xml": VOTABLE,
    "application/x-votable+xml;serialization=tabledata": VOTABLE, "text/xml": VOTABLE,
    "csv": CSV, "text/csv": CSV, "text/csv;header=present": CSV,
    "tsv": TSV, "text/tab-separated-values": TSV,
    "parquet": PARQUET, "application/vnd.apache.parquet": PARQUET,
}  # fmt: skip
"""Formats by the names that RESPONSEFORMAT may have."""


def format_named(parameters: Parameters) -> Format:
    """Return the format that a request asks for.

    Raises
    ------
    UsageError
        If it is not known.
    """
    asked = parameters.one("RESPONSEFORMAT") or parameters.one("FORMAT") or "votable"
    name = asked.lower().replace(" ", "")
    if name not in FORMATS:
        raise UsageError(
            f"RESPONSEFORMAT: {asked[:80]!r} is not known; give one of {', '.join(FORMATS)}"
        )
    return FORMATS[name]
