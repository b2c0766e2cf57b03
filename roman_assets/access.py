"""Access (R1): the roles, and how the software knows which one it serves.

What protects L0 and everything internal are the permissions of the file system, or the policy of a
bucket: general users are given `archive/public` and `archive/registry`, and nothing else. The role
decides what the software offers; somebody who takes a role that is not theirs meets the
permissions.
"""

from __future__ import annotations

import os
from enum import StrEnum

from roman_assets.errors import AccessDeniedError, BadInputError

ROLE_VARIABLE = "ROMAN_ASSETS_ROLE"
"""Role of a process: ``public`` (default of readers) or ``operations``."""


class Role(StrEnum):
    """For whom something is done, or who may see it."""

    PUBLIC = "public"
    """General users: the products under their official names and what is citable of them."""
    OPERATIONS = "operations"
    """Operators: L0, records, blobs, what was set aside, failures and runs as well."""

    @classmethod
    def from_environment(cls) -> Role | None:
        """Take the role from ``ROMAN_ASSETS_ROLE``, None if it is not set.

        Raises
        ------
        BadInputError
            If it is set to something else.
        """
        value = os.environ.get(ROLE_VARIABLE)
        if not value:
            return None
        try:
            return cls(value.lower())
        except ValueError as error:
            raise BadInputError(
                "environment",
                ROLE_VARIABLE,
                f"{value!r} is not a role",
                f"set it to {' or '.join(cls)}, or leave it out",
            ) from error

    def may_see(self, owner: Role) -> bool:
        """Return whether this role sees what is meant for `owner`."""
        return owner is Role.PUBLIC or self is Role.OPERATIONS


def require_operations(role: Role, what: str) -> None:
    """Refuse what only operators may have.

    Parameters
    ----------
    role
        Of who asks.
    what
        What is asked for, for the message.

    Raises
    ------
    AccessDeniedError
        If the role is not `Role.OPERATIONS`.
    """
    if role is not Role.OPERATIONS:
        raise AccessDeniedError(
            f"{what} needs the role {Role.OPERATIONS}, and this is done for the role {role}. "
            f"Remedy: if you operate this installation, give --role {Role.OPERATIONS} or set "
            f"{ROLE_VARIABLE}={Role.OPERATIONS}"
        )
