"""Settings of the archive service: its limits, unless a settings file replaces them.

``service.toml`` below the data root::

    version = 1
    seconds = 30
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from roman_assets.data_root import DataRoot
from roman_assets.settings.settings_file import read_settings

FILE_NAME = "service.toml"
SERVICE_VARIABLE = "ROMAN_ASSETS_SERVICE"
"""Address of the archive service, for links from Dagster's UI; ``dev`` sets it."""
_REMEDY = "correct the field as docs/service.md describes, or remove the file for the defaults"

_Count = Annotated[int, Field(ge=1)]
_Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]


class ServiceSettings(BaseModel):
    """What one request may cost, and what the service says of itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    url: str | None = Field(default=None, pattern=r"^https?://[^\s/]+(/[^\s]*)?$")
    """Address under which users reach the service; by default that of each request."""
    publisher: str = Field(default="ivo://roman-assets/products", pattern=r"^ivo://[^\s?#]+$")
    """IVOA identifier of who publishes."""
    rows: _Count = 100_000
    """Most rows of one answer."""
    seconds: _Seconds = 30.0
    """Longest time of one query."""
    cutout_pixels: _Count = 4_000_000
    """Most pixels of a cutout."""
    cutouts: _Count = 2
    """Cutouts and pictures that are made at once; others wait."""
    job_seconds: _Seconds = 600.0
    """Longest time of an asynchronous query."""
    jobs: _Count = 500
    """Asynchronous queries that are kept."""
    job_hours: Annotated[float, Field(gt=0, le=8760, allow_inf_nan=False)] = 24.0
    """How long a query and its answer are kept."""
    jobs_mib: _Count = 4096
    """Disk space of all answers that are kept."""
    memory_mib: _Count = 1024
    """Memory of all queries together."""
    spill_mib: _Count = 2048
    """Disk space of all queries together, for what does not fit into memory."""
    queries: _Count = 8
    """Queries at once; others wait."""
    waiting_seconds: _Seconds = 15.0
    """Longest time a request waits for its turn."""
    body_kib: _Count = 4096
    """Largest body of a request."""
    body_seconds: _Seconds = 30.0
    """Longest time in which a request must arrive."""


def service_address(root: DataRoot, environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the address under which users reach the archive service, None if nothing says it.

    Parameters
    ----------
    root
        The installation: the address in its settings comes first.
    environment
        Names it otherwise.

    Raises
    ------
    BadInputError
        If the settings file is there and cannot be used.
    """
    address = service_settings_of(root).url or environment.get(SERVICE_VARIABLE)
    return address.rstrip("/") if address else None


def service_settings_of(root: DataRoot) -> ServiceSettings:
    """Read the settings of the archive service.

    Raises
    ------
    BadInputError
        If the settings file is there and cannot be used.
    """
    return read_settings(root.path / FILE_NAME, ServiceSettings, _REMEDY) or ServiceSettings()
