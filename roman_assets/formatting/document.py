"""What all ancillary documents share: types of their fields, and their limits.

Field names are rad's wherever rad has the quantity.
"""

from __future__ import annotations

from datetime import UTC
from pathlib import Path
from typing import Annotated

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
)

from roman_assets.errors import BadInputError
from roman_assets.formatting.telemetry import check_moment
from roman_assets.products.observation import DETECTORS, VisitId

MOST_EXPOSURES = 9999
"""Of a visit: the names of products have four digits for them."""

MOST_READS = 65535
"""Of an exposure; `docs/l0.md` has two bytes for what counts them."""


def _known_detector(name: object) -> object:
    if name not in DETECTORS:
        raise ValueError(f"{name!r} is not a detector: expected WFI01 to WFI18")
    return name


def _visit(value: object) -> object:
    return VisitId.parse(value) if isinstance(value, str) else value


Detector = Annotated[str, BeforeValidator(_known_detector)]
UtcTime = Annotated[
    AwareDatetime,
    AfterValidator(check_moment),
    PlainSerializer(lambda time: time.astimezone(UTC).isoformat(), return_type=str),
]
Latitude = Annotated[float, Field(ge=-90, le=90)]
Seconds = Annotated[float, Field(gt=0, le=1e6)]
Angle = Annotated[float, Field(ge=-360, le=360)]
"""Degrees."""
Offset = Annotated[float, Field(ge=-360 * 3600, le=360 * 3600)]
"""Arcsec."""
Count = Annotated[int, Field(ge=0, le=2**31 - 1)]
Read = Annotated[int, Field(ge=1, le=MOST_READS)]
Revision = Annotated[int, Field(ge=1, le=2**31 - 1)]
VisitText = Annotated[VisitId, BeforeValidator(_visit), PlainSerializer(str, return_type=str)]


class Document(BaseModel):
    """A part of an ancillary document: frozen, finite numbers, no unknown field."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", arbitrary_types_allowed=True, allow_inf_nan=False
    )


def check_size(path: Path, most: int) -> None:
    """Raise `BadInputError` if a file has more bytes than its parser may be given."""
    size = path.stat().st_size
    if size > most:
        raise BadInputError(
            path, "file", f"it has {size} B, more than {most}", "deliver it in smaller pieces"
        )
