"""VOTables, written row by row: any number of rows in little memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from xml.sax.saxutils import escape, quoteattr

MEDIA_TYPE = "application/x-votable+xml"
_ROWS_AT_ONCE = 500
_NAMESPACE = "http://www.ivoa.net/xml/VOTable/v1.3"


@dataclass(frozen=True)
class Field:
    """One column of a table, in VOTable's words."""

    name: str
    datatype: str = "char"
    arraysize: str | None = "*"
    xtype: str | None = None
    unit: str | None = None
    ucd: str | None = None
    utype: str | None = None
    description: str | None = None
    id: str | None = None

    @property
    def xml(self) -> str:
        """The element."""
        given = {
            "ID": self.id, "name": self.name, "datatype": self.datatype,
            "arraysize": self.arraysize, "xtype": self.xtype, "unit": self.unit, "ucd": self.ucd,
            "utype": self.utype,
        }  # fmt: skip
        attributes = "".join(
            f" {name}={quoteattr(value)}" for name, value in given.items() if value is not None
        )
        if self.description is None:
            return f"<FIELD{attributes}/>\n"
        return f"<FIELD{attributes}><DESCRIPTION>{_text(self.description)}</DESCRIPTION></FIELD>\n"


def votable(
    fields: Sequence[Field],
    rows: Iterable[Sequence[Any]],
    infos: Iterable[tuple[str, str]] = (),
    most_rows: int | None = None,
    extra: str = "",
) -> Iterator[str]:
    """Go through the parts of a VOTable with one table.

    Parameters
    ----------
    fields, rows
        The table.
    infos
        Names and values of what else is said of the answer.
    most_rows
        Rows beyond are left out, and the table says that it overflows.
    extra
        Further resources, in XML.
    """
    yield (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<VOTABLE version="1.4" xmlns="{_NAMESPACE}">\n<RESOURCE type="results">\n'
        '<INFO name="QUERY_STATUS" value="OK"/>\n'
    )
    for name, value in infos:
        yield f"<INFO name={quoteattr(name)} value={quoteattr(_text(value, escaped=False))}/>\n"
    yield "<TABLE>\n"
    yield from (field.xml for field in fields)
    yield "<DATA><TABLEDATA>\n"
    overflow = False
    part: list[str] = []
    for number, row in enumerate(rows):
        if most_rows is not None and number >= most_rows:
            overflow = True
            break
        part.append("<TR>" + "".join(f"<TD>{_cell(value)}</TD>" for value in row) + "</TR>\n")
        if len(part) == _ROWS_AT_ONCE:
            yield "".join(part)
            part = []
    yield "".join(part) + "</TABLEDATA></DATA>\n</TABLE>\n"
    if overflow:
        yield (
            '<INFO name="QUERY_STATUS" value="OVERFLOW">'
            f"There are more rows than the {most_rows} of this answer</INFO>\n"
        )
    yield f"</RESOURCE>\n{extra}</VOTABLE>\n"


def described(
    fields: Sequence[Field], infos: Iterable[tuple[str, str]] = (), *, overflow: bool = False
) -> str:
    """Return the VOTable that describes a table without having its data.

    Parameters
    ----------
    fields, infos
        As in `votable`.
    overflow
        Whether the table was cut off.
    """
    status = "OVERFLOW" if overflow else "OK"
    told = "".join(
        f"<INFO name={quoteattr(name)} value={quoteattr(_text(value, escaped=False))}/>\n"
        for name, value in infos
    )
    columns = "".join(field.xml for field in fields)
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<VOTABLE version="1.4" xmlns="{_NAMESPACE}">\n<RESOURCE type="results">\n'
        f'<INFO name="QUERY_STATUS" value="{status}"/>\n{told}'
        f"<TABLE>\n{columns}</TABLE>\n</RESOURCE>\n</VOTABLE>\n"
    )


def error_votable(message: str) -> str:
    """Return the VOTable that tells an error."""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<VOTABLE version="1.4" xmlns="{_NAMESPACE}">\n<RESOURCE type="results">\n'
        f'<INFO name="QUERY_STATUS" value="ERROR">{_text(message)}</INFO>\n'
        "</RESOURCE>\n</VOTABLE>\n"
    )


def plain(value: Any) -> Any:
    """Return a value as formats of text write it; None if there is none."""
    if isinstance(value, datetime):
        utc = value.astimezone(UTC) if value.tzinfo else value
        return utc.replace(tzinfo=None).isoformat(timespec="milliseconds")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return float(value)
    return value


def _cell(value: Any) -> str:
    value = plain(value)
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _number(value)
    return _text(str(value))


def _number(value: float) -> str:
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "+Inf" if value > 0 else "-Inf"
    return repr(value)


def _text(text: str, escaped: bool = True) -> str:
    """Return text without the characters that XML cannot have."""
    kept = "".join(
        letter if letter >= " " or letter in "\t\n\r" else "�"
        for letter in text
        if not "\ud800" <= letter <= "\udfff" and letter not in "\ufffe\uffff"
    )
    return escape(kept) if escaped else kept
