"""Settings files of an installation: TOML below the data root, checked against a model."""

from __future__ import annotations

import reprlib
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
        text = path.read_text(encoding="utf-8")
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
