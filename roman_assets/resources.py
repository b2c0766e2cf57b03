"""The resource every asset and sensor takes: which installation it works for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import dagster as dg

from roman_assets.data_root import DATA_ROOT_VARIABLE, DataRoot


class Installation(dg.ConfigurableResource):  # type: ignore[type-arg]
    """One installation of the platform: its data root and the size of its worker pool.

    All paths come from here and a step keeps no other state between runs, so any machine that
    sees the same root may do the work.

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
        """Give the variables by which other programs find the same installation."""
        return {DATA_ROOT_VARIABLE: str(self.root.path)}

    @property
    def root(self) -> DataRoot:
        """The directory tree."""
        if self.data_root:
            return replace(DataRoot.from_environment(), path=Path(self.data_root).absolute())
        return DataRoot.from_environment()
