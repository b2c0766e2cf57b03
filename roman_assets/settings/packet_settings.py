"""How long packets are awaited: as `PacketPolicy` says, unless a settings file replaces it.

``packets.toml`` below the data root::

    version = 1
    cut_off_hours = 12
    wait_minutes = 10
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from roman_assets.data_root import DataRoot
from roman_assets.products.packet_policy import PacketPolicy
from roman_assets.settings.settings_file import read_settings

FILE_NAME = "packets.toml"
_HOUR, _MINUTE = timedelta(hours=1), timedelta(minutes=1)
_REMEDY = (
    "write version = 1, cut_off_hours (0.01 to 10000) and wait_minutes (0 to 10000) (docs/l0.md), "
    "or remove the file for the default waits"
)


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    version: Literal[1]
    cut_off_hours: Annotated[float, Field(ge=0.01, le=10_000, allow_inf_nan=False)] = (
        PacketPolicy.cut_off / _HOUR
    )
    wait_minutes: Annotated[float, Field(ge=0, le=10_000, allow_inf_nan=False)] = (
        PacketPolicy.wait / _MINUTE
    )


def packet_policy_of(root: DataRoot) -> PacketPolicy:
    """Read how long an installation waits for packets.

    Raises
    ------
    BadInputError
        If the settings file is there and cannot be used.
    """
    settings = read_settings(root.path / FILE_NAME, _Settings, _REMEDY)
    if settings is None:
        return PacketPolicy()
    return PacketPolicy(settings.cut_off_hours * _HOUR, settings.wait_minutes * _MINUTE)
