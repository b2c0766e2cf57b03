"""What a check of archive, journal and registry can find, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class FindingKind(StrEnum):
    """What can be wrong."""

    DAMAGED_RECORD = "damaged record"
    DAMAGED_REGISTRY = "damaged registry"
    WRONG_REGISTRY = "registry differs from records"
    MISSING_BLOB = "missing blob"
    WRONG_BLOB = "wrong blob"
    LOST_PRODUCT = "lost product"
    WRONG_PUBLIC_NAME = "public name differs from records"
    UNKNOWN_PUBLIC_NAME = "public name without a product"
    DANGLING_INPUT = "dangling input"
    PARTIAL_SET = "partial file set"
    LEFT_BEHIND = "made from an overwritten product"
    NEVER_TAKEN = "product of what was never taken"
    HIDDEN_PRODUCT = "hidden product of a published release"
    ORPHAN_BLOB = "orphan blob"
    LEFTOVER = "leftover of a dead writer"
    DAMAGED_CASE = "damaged case of what was set aside"


_BY_MENDING = "run `roman-assets fsck --mend`"
_MAKE_AGAIN = "run the step of the product again"

REMEDIES: Mapping[FindingKind, str] = {
    FindingKind.DAMAGED_RECORD: f"{_BY_MENDING}, which sets it aside; restore it from a backup or "
    "run the step of its partition again",
    FindingKind.DAMAGED_REGISTRY: f"{_BY_MENDING} or `roman-assets rebuild`",
    FindingKind.WRONG_REGISTRY: f"{_BY_MENDING} or `roman-assets rebuild`",
    FindingKind.MISSING_BLOB: f"restore the blob from a backup; else {_BY_MENDING}, then "
    f"{_MAKE_AGAIN}",
    FindingKind.WRONG_BLOB: f"{_BY_MENDING}, which sets it aside; then {_MAKE_AGAIN}",
    FindingKind.LOST_PRODUCT: _MAKE_AGAIN,
    FindingKind.WRONG_PUBLIC_NAME: _BY_MENDING,
    FindingKind.UNKNOWN_PUBLIC_NAME: _BY_MENDING,
    FindingKind.DANGLING_INPUT: "restore the commit record of the input from a backup, or "
    "reprocess the product from what there is",
    FindingKind.PARTIAL_SET: "run its step again",
    FindingKind.LEFT_BEHIND: f"{_BY_MENDING}, which states it overwritten; then {_MAKE_AGAIN}",
    FindingKind.NEVER_TAKEN: f"{_BY_MENDING}, which withdraws it; it can still be cited",
    FindingKind.HIDDEN_PRODUCT: f"{_BY_MENDING}, which shows it to everyone",
    FindingKind.ORPHAN_BLOB: _BY_MENDING,
    FindingKind.LEFTOVER: _BY_MENDING,
    FindingKind.DAMAGED_CASE: f"{_BY_MENDING}, then judge by the file itself",
}


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Parameters
    ----------
    kind
        What.
    subject
        The product, file or record it is about.
    detail
        What was found.
    mended
        Whether all is well with it now.
    """

    kind: FindingKind
    subject: str
    detail: str
    mended: bool = False

    @property
    def remedy(self) -> str:
        """What a person has to do, empty if nothing is left to do."""
        return "" if self.mended else REMEDIES[self.kind]
