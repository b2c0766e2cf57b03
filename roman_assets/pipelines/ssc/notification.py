"""The data-availability notification: what the SSC says about the files of a delivery (R12).

rad gives two of its names (``filename`` and ``fileCreationTimestamp``) and the schemas of
``metadata``, a flat object; the rest was decided here, in the same manner.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, NonNegativeInt, ValidationError
from pydantic.alias_generators import to_camel

from roman_assets.errors import BadInputError
from roman_assets.registry.record import ProductInput, Sha256, UtcTime

NOTIFICATION = "notification.json"
"""Its name within a delivery; it is written last."""

LARGEST_NOTIFICATION = 64 << 20
"""Bytes; more is not read."""

_Name = Annotated[str, Field(min_length=1, max_length=255)]


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
    file_size: NonNegativeInt
    sha256: Sha256
    file_creation_timestamp: UtcTime
    inputs: Annotated[tuple[ProductInput, ...], Field(min_length=1)]
    software_versions: Annotated[dict[str, str], Field(min_length=1)]
    metadata: dict[str, JsonValue]


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
    files: Annotated[tuple[DeliveredFile, ...], Field(min_length=1)]

    @classmethod
    def parse(cls, content: bytes, source: str) -> Notification:
        """Read a notification.

        Raises
        ------
        BadInputError
            If it is none: the first fault, with its place.
        """
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            more = error.error_count() - 1
            raise BadInputError(
                source,
                ".".join(map(str, first["loc"])) or "JSON",
                f"{first['msg']}{f' (and {more} more faults)' if more else ''}",
                "correct the notification and deliver again",
            ) from error

    def as_json(self) -> bytes:
        """Give it as it is sent."""
        return self.model_dump_json(by_alias=True, indent=2).encode()


def metadata_of(file: DeliveredFile) -> dict[str, Any]:
    """Give a file's metadata with those of ``ssc_basic``, which the SOC adds (rad says so)."""
    return {
        "instrument": "WFI",
        "origin": "IPAC/SSC",
        **file.metadata,
        "filename": file.filename,
        "file_date": file.file_creation_timestamp.strftime("%Y-%m-%dT%H:%M:%S.%f"),
    }
