"""The families of errors the platform tells apart.

`BadInputError` says that data cannot be used as they are: trying again will fail again,
a person has to act. `PassingFaultError` says that the surroundings failed (a full disk, a lost
worker): trying again may succeed. `AccessDeniedError` says that the role does not allow it (R1).
"""

from __future__ import annotations


class PlatformError(Exception):
    """Base of every error this package raises on purpose."""


class BadInputError(PlatformError):
    """Input that cannot be used, with what a person needs to repair it.

    Parameters
    ----------
    source
        The file (or packet stream) that is at fault.
    field
        The field, keyword or packet number within it.
    reason
        What is wrong, with the value found.
    remedy
        What to do about it.
    """

    def __init__(self, source: object, field: str, reason: str, remedy: str) -> None:
        self.source = printable(str(source))
        self.field = printable(field)
        self.reason = printable(reason)
        self.remedy = remedy
        super().__init__(source, field, reason, remedy)

    def __str__(self) -> str:
        return f"{self.source}: {self.field}: {self.reason}. Remedy: {self.remedy}"


class LostPacketsError(BadInputError):
    """Packets that have not come down: nothing is wrong with what has."""


class PassingFaultError(PlatformError):
    """A fault of the surroundings, not of the data: the same work may succeed later."""


class AccessDeniedError(PlatformError):
    """Something that the role, or the file system, does not allow (R1)."""


def printable(text: str) -> str:
    """Escape what UTF-8 cannot express: file names hold any bytes, JSON any half of a pair."""
    return text.encode("utf-8", "backslashreplace").decode()
