"""The pixel scale of an installation's prompt coadds: native, unless a settings file says not.

``coadds.toml`` below the data root::

    version = 1
    prompt_visit = "native"     # or "skymap"

A data release states its own in its declaration.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from roman_assets.data_root import DataRoot
from roman_assets.products.pixel_scale import PixelScale
from roman_assets.settings.settings_file import read_settings

FILE_NAME = "coadds.toml"
_REMEDY = (
    'write version = 1 and prompt_visit = "native" or "skymap" (docs/calibration.md), or remove '
    "the file for the native scale"
)


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    version: Literal[1]
    prompt_visit: PixelScale = PixelScale.NATIVE


def prompt_pixel_scale(root: DataRoot) -> PixelScale:
    """Read the pixel scale of the prompt coadds of a visit.

    Raises
    ------
    BadInputError
        If the settings file is there and cannot be used.
    """
    settings = read_settings(root.path / FILE_NAME, _Settings, _REMEDY)
    return PixelScale.NATIVE if settings is None else settings.prompt_visit
