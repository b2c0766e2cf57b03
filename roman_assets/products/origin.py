"""Where the L1 of an exposure comes from."""

from __future__ import annotations

from enum import StrEnum


class Origin(StrEnum):
    """The place where the L1 of an exposure is formatted; what follows is the same for both."""

    PACKETS = "packets"
    """This platform, from the packets of the exposure."""
    DELIVERED = "delivered"
    """A formatting system or a simulator elsewhere, which delivers L1 files."""
