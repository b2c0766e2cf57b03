"""The data-availability notification: what the SSC says about the files of a delivery (R12).

rad gives two of its names (``filename`` and ``fileCreationTimestamp``) and the schemas of
``metadata``, a flat object; the rest was decided here, in the same manner.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    FailFast,
    Field,
    JsonValue,
    ValidationError,
)
from pydantic.alias_generators import to_camel

from roman_assets.errors import BadInputError
from roman_assets.records.record import ProductInput, Sha256
from roman_assets.registry.catalog.header import LARGEST_INTEGER

NOTIFICATION = "notification.json"
"""Its name within a delivery; it is written last."""

LARGEST_NOTIFICATION = 32 << 20
"""Bytes; more is not read."""

MOST_SEPARATORS = 200_000
"""Commas and opening brackets in a notification, hence values; some 60,000 inputs fit."""

MOST_FILES = 1000
"""Files in a delivery; a visit of 18 detectors has some 100."""

LARGEST_FILE = 1 << 40
"""Bytes of one file."""

_YEARS = range(2000, 2200)
_LONGEST_TEXT = 10_000
_LONGEST_FIELD = 200


def _named_within_limits(item: ProductInput) -> ProductInput:
    if len(item.name) > 255:
        raise ValueError("the name should have at most 255 characters")
    return item


def _in_utc(moment: datetime) -> datetime:
    if moment.year not in _YEARS:
        raise ValueError(f"it should be between {_YEARS[0]} and {_YEARS[-1]}")
    return moment.astimezone(UTC)


def _single(value: JsonValue) -> JsonValue:
    if isinstance(value, list | dict):
        raise ValueError("it should be a single value: rad's schemas of the SSC are flat")
    if isinstance(value, str) and len(value) > _LONGEST_TEXT:
        raise ValueError(f"it should have at most {_LONGEST_TEXT} characters")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("it should be a finite number")
    if isinstance(value, int) and abs(value) > LARGEST_INTEGER:
        raise ValueError("it should be an integer of 64 bits")
    return value


_Name = Annotated[str, Field(min_length=1, max_length=255)]
_Input = Annotated[ProductInput, AfterValidator(_named_within_limits)]
_Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]
_Value = Annotated[JsonValue, AfterValidator(_single)]


class _Sent(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True
    )


class DeliveredFile(_Sent):
    """What the SSC says about one file.

    Parameters
    ----------
    filename
        Its official name, which is its name in the delivery.
    file_size, sha256
        Bytes, and what is in it.
    file_creation_timestamp
        When the SSC made it; a later one of the same name takes the place of an earlier one.
    inputs
        The products it was made from, by name and content.
    software_versions
        By package name.
    metadata
        As rad's schema of its kind has them; those of ``ssc_basic`` may be left out.
    """

    filename: _Name
    file_size: Annotated[int, Field(ge=0, le=LARGEST_FILE)]
    sha256: Sha256
    file_creation_timestamp: _Moment
    inputs: Annotated[tuple[_Input, ...], FailFast(), Field(min_length=1)]
    software_versions: Annotated[dict[_Name, _Name], Field(min_length=1, max_length=1000)]
    metadata: Annotated[dict[_Name, _Value], Field(max_length=1000)]


class Notification(_Sent):
    """What the SSC says about a delivery.

    Parameters
    ----------
    version
        Of this format.
    files
        All files of the delivery but the notification itself.
    """

    version: Literal[1]
    files: Annotated[
        tuple[DeliveredFile, ...], FailFast(), Field(min_length=1, max_length=MOST_FILES)
    ]

    @classmethod
    def parse(cls, content: bytes, source: str) -> Notification:
        """Read a notification.

        Raises
        ------
        BadInputError
            If it is invalid: the first fault, with its place.
        """
        # counted before parsing: as objects and faults, values take a thousand times their bytes
        if (found := sum(map(content.count, (b",", b"[", b"{")))) > MOST_SEPARATORS:
            raise BadInputError(
                source, "JSON", f"{found} commas and brackets are more than {MOST_SEPARATORS}",
                "deliver fewer files at once",
            )  # fmt: skip
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            more = error.error_count() - 1
            raise BadInputError(
                source,
                ".".join(map(str, first["loc"]))[:_LONGEST_FIELD] or "JSON",
                f"{first['msg']}{f' (and {more} more faults)' if more else ''}",
                "correct the notification and deliver again",
            ) from error

    def as_json(self) -> bytes:
        """Return it as it is sent."""
        return self.model_dump_json(by_alias=True, indent=2).encode()


def metadata_of(file: DeliveredFile) -> dict[str, Any]:
    """Return a file's metadata with those of ``ssc_basic``, which the SOC adds (rad says so)."""
    return {
        "instrument": "WFI",
        "origin": "IPAC/SSC",
        **file.metadata,
        "filename": file.filename,
        "file_date": file.file_creation_timestamp.strftime("%Y-%m-%dT%H:%M:%S.%f"),
    }
