"""Settings files of an installation: TOML below the data root, checked against a model."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from roman_assets.errors import BadInputError

_Settings = TypeVar("_Settings", bound=BaseModel)


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
        text = path.read_text()
    except FileNotFoundError:
        return None
    try:
        return model.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise BadInputError(path, "file", f"no TOML: {error}", remedy) from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        reason = f"{first['msg']} (found {first['input']!r})"
        raise BadInputError(path, field, reason, remedy) from error
