"""What the pointing of an image goes back to (R4)."""

from __future__ import annotations

from enum import StrEnum


class PointingSource(StrEnum):
    """What the WCS of an L2 image and of its supplement goes back to."""

    OWN = "own stars"
    """romancal aligned the image with the astrometric catalogue."""
    COMMON = "common"
    """Other images of the exposure (see `roman_assets.calibration.common_pointing`)."""
    PLANNED = "planned"
    """The planned pointing: nothing refined it."""


ALIGNED = "COMPLETE"
"""Status of romancal's tweakreg in an image with refined pointing."""

ALIGNMENT_FAILED = "FAILED"
"""Status of tweakreg where it looked for stars and did not find enough."""
