"""Conditions on columns, in MAST's notation, as SQL with parameters.

``a,b`` is either; ``!a`` is anything but; ``<``, ``<=``, ``>``, ``>=`` and ``a..b`` compare; in
texts, ``*`` stands for any characters. Text is compared without regard to case. A row without a
value meets no condition.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from roman_assets.service.mast.column import FILE_SET, MastColumn, Type
from roman_assets.service.request_error import UsageError

MOST_VALUES = 10_000
_OPERATORS = ("<=", ">=", "<", ">")
_KEY_DIGITS = 19


@dataclass
class Conditions:
    """Conditions that must all hold.

    Parameters
    ----------
    sql
        One expression each.
    parameters
        Their values, by name.
    """

    sql: list[str] = field(default_factory=list)
    parameters: dict[str, Any] = field(default_factory=dict)

    def add(self, column: MastColumn, value: object) -> None:
        """Add the condition that a column has one of some values.

        Raises
        ------
        UsageError
            If the value does not suit the column.
        """
        items = _items(column, value)
        wanted = [item for item in items if not item.startswith("!")]
        unwanted = [item[1:] for item in items if item.startswith("!")]
        parts = [f"not ({self._comparison(column, item)})" for item in unwanted]
        if wanted:
            parts.append(" or ".join(self._comparison(column, item) for item in wanted))
        self.sql += [f"({part})" for part in parts]
        if wanted and not unwanted and column.name in _VISIT_DIGITS:
            self._narrow(_VISIT_DIGITS[column.name], wanted)

    def parameter(self, value: object) -> str:
        """Return the placeholder of a value."""
        name = f"value{len(self.parameters)}"
        self.parameters[name] = value
        return f"${name}"

    def _comparison(self, column: MastColumn, item: str) -> str:
        sql, read = column.sql, _reader(column)
        low, dots, high = item.partition("..")
        if dots and column.type is not Type.TEXT:
            return f"{sql} between {self.parameter(read(low))} and {self.parameter(read(high))}"
        for operator in _OPERATORS:
            if item.startswith(operator):
                return f"{sql} {operator} {self.parameter(read(item[len(operator) :]))}"
        if column.type is not Type.TEXT:
            return f"{sql} = {self.parameter(read(item))}"
        if "*" in item:
            return f"lower({sql}) like {self.parameter(_pattern(item))} escape '\\'"
        return f"lower({sql}) = {self.parameter(item.lower())}"

    def _narrow(self, digits: Callable[[str], str | None], wanted: list[str]) -> None:
        """Return where products lie with such names, which changes nothing else."""
        found = [digits(item.lower()) for item in wanted]
        ranges = [given for given in found if given is not None]
        if len(ranges) == len(found):
            parts = [
                f"product.name_key between {self.parameter(int(given.ljust(_KEY_DIGITS, '0')))} "
                f"and {self.parameter(int(given.ljust(_KEY_DIGITS, '9')))}"
                for given in ranges
            ]
            self.sql.append(f"({' or '.join(parts)})")


def _reader(column: MastColumn) -> Callable[[str], object]:
    """Return what reads a value of a column."""

    def read(text: str) -> object:
        try:
            return _READERS[column.type](text.strip())
        except (ValueError, OverflowError) as error:
            raise UsageError(
                f"{column.name}: {text!r} is not of type {column.type.value}"
            ) from error

    return read


def _items(column: MastColumn, value: object) -> list[str]:
    values = value if isinstance(value, list) else [value]
    if any(not isinstance(item, str | int | float) for item in values):
        raise UsageError(f"{column.name}: give text or numbers")
    items = [part.strip() for item in values for part in str(item).split(",")]
    items = [item for item in items if item not in ("", "!")]
    if not items:
        raise UsageError(f"{column.name}: there is no value")
    if len(items) > MOST_VALUES:
        raise UsageError(f"{column.name}: give at most {MOST_VALUES} values")
    return items


def _pattern(item: str) -> str:
    escaped = re.sub(r"([\\%_])", r"\\\1", item.lower())
    return escaped.replace("*", "%")


def _time(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _integer(text: str) -> float:
    number = float(text)
    return int(number) if number.is_integer() else number


_READERS: Mapping[Type, Callable[[str], object]] = {
    Type.TEXT: str,
    Type.INTEGER: _integer,
    Type.FLOAT: float,
    Type.TIME: _time,
}


def _of_visit(item: str) -> str | None:
    """Return the digits with which the visits of a condition begin."""
    match = re.match(r"\d{1,19}(?=\*|$)", item, re.ASCII)
    return match[0] if match else None


def _of_file_set(item: str) -> str | None:
    # After five digits, names of groups of exposures go on otherwise.
    match = re.match(r"r(\d{6,19})(?=\*)|r(\d{19})(?=_)", item, re.ASCII)
    return (match[1] or match[2]) if match else None


_VISIT_DIGITS: Mapping[str, Callable[[str], str | None]] = {
    "visit_id": _of_visit,
    FILE_SET: _of_file_set,
}
