"""For whom a command is done (R1)."""

from __future__ import annotations

import os
from pathlib import Path

from roman_assets.access import ROLE_VARIABLE, Role, require_operations
from roman_assets.data_root import DataRoot
from roman_assets.errors import AccessDeniedError


def use_role(role: Role | None) -> None:
    """Make a role that of this process and of all it starts."""
    if role is not None:
        os.environ[ROLE_VARIABLE] = role.value


def require_operator(command: str) -> None:
    """Reject operator commands from other roles.

    Without a stated role, a user is an operator if the file system permits access to the private
    trees.

    Raises
    ------
    AccessDeniedError
        If the role is another, or a private tree is closed to the user.
    """
    role = Role.from_environment()
    if role is not None:
        require_operations(role, command)
    root = DataRoot.from_environment()
    for path in (root.path, *root.private):
        if _is(path, os.F_OK) and not _is(path, os.R_OK | os.W_OK | os.X_OK):
            raise AccessDeniedError(
                f"{command} needs the role {Role.OPERATIONS}, and {path} is closed to you. Remedy: "
                "work as a user who operates this installation; ls, query, get, history and "
                "provenance are for everyone"
            )


def _is(path: Path, mode: int) -> bool:
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)
