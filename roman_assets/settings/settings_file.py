"""Settings files of an installation: TOML below the data root, checked against a model."""

from __future__ import annotations

import reprlib
import stat
import tomllib
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from roman_assets.errors import BadInputError

_Settings = TypeVar("_Settings", bound=BaseModel)

LARGEST = 1 << 20
"""Bytes of the largest settings file that is read."""


def read_settings(path: Path, model: type[_Settings], remedy: str) -> _Settings | None:
    """Read a settings file.

    Parameters
    ----------
    path
        The file.
    model
        What may be in it.
    remedy
        What to do about a file that cannot be used.

    Returns
    -------
    BaseModel or None
        The settings, None if there is no such file.

    Raises
    ------
    BadInputError
        If the file is there and cannot be used; it names the field.
    """
    try:
        text = _content(path, remedy).decode("utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(path, "file", f"it cannot be read: {error}", remedy) from error
    try:
        return model.model_validate(tomllib.loads(text))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "file"
        found = reprlib.repr(first["input"])
        raise BadInputError(path, field, f"{first['msg']} (found {found})", remedy) from error
    except (ValueError, RecursionError) as error:
        raise BadInputError(path, "file", f"no TOML: {error}", remedy) from error


def _content(path: Path, remedy: str) -> bytes:
    """Read a regular file of at most `LARGEST` bytes; nothing else is opened, nor more read."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise BadInputError(path, "file", "it cannot be read: it is not a regular file", remedy)
    with path.open("rb") as stream:
        content = stream.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise BadInputError(path, "file", f"it has more than {LARGEST} bytes", remedy)
    return content
