"""Answers to queries, written in the format that was asked for."""

# The SQL is what `roman_assets.service.tap.translation` made; numbers are checked.
# ruff: noqa: S608

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import duckdb

from roman_assets.service.archive_service import Service
from roman_assets.service.request_error import TooExpensiveError, UsageError
from roman_assets.service.tap.database import set_addresses, sources
from roman_assets.service.tap.place import Places
from roman_assets.service.tap.tap_schema import TapColumn, VoType, vo_type
from roman_assets.service.tap.translation import SourceTable, Translation, translate
from roman_assets.service.tap.upload import create_uploaded, uploaded_tables
from roman_assets.service.vo.descriptor import IDENTIFIER, descriptors, with_identifier
from roman_assets.service.vo.parameters import Parameters, maxrec
from roman_assets.service.vo.table_format import Format, TableAnswer, format_named
from roman_assets.service.vo.votable import Field
from roman_assets.service.vo.votable_reader import ReadTable

_LANGUAGES = ("ADQL", "ADQL-2.0", "ADQL-2.1")
_ROWS_AT_ONCE = 1000

Started = Callable[[duckdb.DuckDBPyConnection], None]


@dataclass(frozen=True)
class TapRequest:
    """A query with all that says how to answer it.

    Parameters
    ----------
    query
        ADQL.
    format
        Of the answer.
    most_rows
        Of the answer.
    url
        Address of the service, for addresses in the answer.
    seconds
        Time it may take.
    uploads
        Tables that came with it.
    """

    query: str
    format: Format
    most_rows: int
    url: str
    seconds: float
    uploads: Mapping[str, ReadTable] = field(default_factory=dict)


def tap_request(parameters: Parameters, service: Service, url: str, seconds: float) -> TapRequest:
    """Read what a request asks for.

    Parameters
    ----------
    parameters
        Of the request.
    service
        Whose limits hold.
    url
        Address of the service.
    seconds
        Time the query may take.

    Raises
    ------
    UsageError
        If a parameter is invalid or missing.
    """
    request = parameters.one("REQUEST")
    if request not in (None, "doQuery"):
        raise UsageError(f"REQUEST: {request[:50]!r} is not doQuery")
    language = parameters.one("LANG") or "ADQL"
    if language.upper() not in _LANGUAGES:
        raise UsageError(
            f"LANG: {language[:50]!r} is not known; give one of {', '.join(_LANGUAGES)}"
        )
    query = parameters.one("QUERY")
    if query is None:
        raise UsageError("QUERY is missing")
    return TapRequest(
        query=query,
        format=format_named(parameters),
        most_rows=maxrec(parameters, service.settings.rows),
        url=url,
        seconds=seconds,
        uploads=uploaded_tables(parameters, service.settings.rows, service.settings.body_kib << 10),
    )


def write_answer(
    service: Service,
    asked: TapRequest,
    stream: BinaryIO,
    started: Started = lambda cursor: None,
) -> None:
    """Answer a query.

    Parameters
    ----------
    service
        Whose registry is asked.
    asked
        The query.
    stream
        Where the answer goes.
    started
        Called with the cursor that the query runs on; interrupting that ends it.

    Raises
    ------
    UsageError
        If the query is invalid.
    TooExpensiveError
        If it needs more time or memory than there is.
    """
    with service.snapshots.cursor(asked.seconds) as cursor:
        started(cursor)
        set_addresses(cursor, asked.url, service.settings.publisher)
        tables = {**sources(), **_uploaded(cursor, asked.uploads)}
        places = Places(cursor, service.registry.products.widest_footprint())
        translated = translate(asked.query, tables, places)
        with _told_to_user():
            statement = f"select * from ({translated.sql}) as answer limit {asked.most_rows + 1}"
            relation = cursor.sql(statement)
            fields, extra = _with_services(translated, relation.description, asked.url)
            answer = TableAnswer(
                fields,
                _rows(cursor, statement),
                functools.partial(relation.to_arrow_reader, _ROWS_AT_ONCE),
                [("QUERY", asked.query)],
                extra,
            )
            asked.format.write(stream, answer, asked.most_rows)


@contextmanager
def _told_to_user() -> Iterator[None]:
    """Raise what a query is at fault for as such."""
    try:
        yield
    except (duckdb.InterruptException, duckdb.OutOfMemoryException):
        raise
    except (
        duckdb.BinderException, duckdb.CatalogException, duckdb.ConversionException,
        duckdb.DataError, duckdb.InvalidInputException, duckdb.NotImplementedException,
        duckdb.OutOfRangeException, duckdb.ParserException, duckdb.TypeMismatchException,
    ) as error:  # fmt: skip
        raise UsageError(f"the query cannot be answered: {str(error).splitlines()[0]}") from error
    except RecursionError as error:
        raise TooExpensiveError("the query is nested too deeply") from error


def _uploaded(
    cursor: duckdb.DuckDBPyConnection, uploads: Mapping[str, ReadTable]
) -> dict[tuple[str, str], SourceTable]:
    return {
        ("tap_upload", name.lower()): create_uploaded(cursor, name, table)
        for name, table in uploads.items()
    }


def _rows(cursor: duckdb.DuckDBPyConnection, statement: str) -> Iterator[Sequence[Any]]:
    cursor.execute(statement)
    while part := cursor.fetchmany(_ROWS_AT_ONCE):
        yield from part


def _with_services(
    translated: Translation, description: Any, url: str
) -> tuple[tuple[Field, ...], str]:
    """Return the columns of an answer, and what can be asked about its rows."""
    fields = _fields(translated, description)
    known = [column.name if column else "" for column in translated.columns]
    if known.count(IDENTIFIER) != 1:
        return fields, ""
    name = fields[known.index(IDENTIFIER)].name
    return tuple(with_identifier(fields, name)), descriptors(url)


def _fields(translated: Translation, description: Any) -> tuple[Field, ...]:
    fields, taken = [], set()
    for number, column in enumerate(description):
        known = translated.columns[number] if number < len(translated.columns) else None
        name = translated.names[number] if number < len(translated.names) else column[0]
        name = known.name if known is not None and known.name.lower() == name.lower() else name
        while name.lower() in taken:
            name += "_"
        taken.add(name.lower())
        fields.append(_field(name, known, vo_type(str(column[1]))))
    return tuple(fields)


def _field(name: str, known: TapColumn | None, kind: VoType) -> Field:
    if known is None:
        return Field(name, kind.datatype, kind.arraysize, kind.xtype)
    kind = known.type if known.type.datatype == kind.datatype else kind
    return Field(
        name, kind.datatype, kind.arraysize, kind.xtype, known.unit, known.ucd, known.utype,
        known.description,
    )  # fmt: skip
