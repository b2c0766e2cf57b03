"""The resource every asset and sensor takes: which installation it works for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import dagster as dg

from roman_assets.data_root import DATA_ROOT_VARIABLE, DataRoot


@dataclass(frozen=True)
class Installation:
    """One installation of the platform: its data root and the size of its worker pool.

    All paths come from here and a step keeps no other state between runs, so any machine that
    sees the same root may do the work.

    It is not Dagster configuration: data root, archive and the SSC's commands come from the
    environment and the settings below the data root. So a user who may start runs in the
    UI can neither read another directory nor choose a command.

    Parameters
    ----------
    data_root
        Root directory (see `roman_assets.data_root.DataRoot`); empty stands for the environment
        variable ``ROMAN_ASSETS_DATA`` of the process that uses it.
    workers
        Processes that calibrate side by side; None lets the pipelines choose for the machine.
    """

    data_root: str = ""
    workers: int | None = None

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables by which other programs find the same installation."""
        return {DATA_ROOT_VARIABLE: str(self.root.path)}

    @property
    def root(self) -> DataRoot:
        """The directory tree."""
        if self.data_root:
            return replace(DataRoot.from_environment(), path=Path(self.data_root).absolute())
        return DataRoot.from_environment()


def fixed_resources(values: Mapping[str, object]) -> dict[str, dg.ResourceDefinition]:
    """Return resources by name; Dagster rejects run configuration for any of them."""
    return {name: _fixed_resource(value) for name, value in values.items()}


def _fixed_resource(value: object) -> dg.ResourceDefinition:
    if isinstance(value, dg.IOManager):
        io_manager = value
        return dg.IOManagerDefinition(lambda _: io_manager, config_schema={})
    return dg.ResourceDefinition(lambda _: value, config_schema={})
