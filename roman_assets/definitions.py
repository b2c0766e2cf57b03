"""What Dagster loads: the definitions of every feature in `roman_assets.defs`, with resources."""

from __future__ import annotations

from collections.abc import Mapping

import dagster as dg

from roman_assets.defs.deadlines import definitions as deadlines
from roman_assets.defs.exposure import definitions as exposure
from roman_assets.defs.lib.memory import SensorMemory
from roman_assets.defs.lib.resources import Installation, fixed_resources
from roman_assets.defs.notices import definitions as notices
from roman_assets.defs.releases import definitions as releases
from roman_assets.defs.reprocessing import definitions as reprocessing
from roman_assets.defs.ssc import definitions as ssc
from roman_assets.defs.upkeep import definitions as upkeep
from roman_assets.defs.visit import definitions as visit

FEATURES = (exposure, visit, ssc, releases, reprocessing, deadlines, upkeep, notices)


def build_defs(resource_overrides: Mapping[str, object] | None = None) -> dg.Definitions:
    """Return the definitions of all features.

    Parameters
    ----------
    resource_overrides
        Resources by name, in place of those that take their settings from the environment.
    """
    return dg.Definitions.merge(
        *(feature.defs for feature in FEATURES),
        dg.Definitions(
            resources=fixed_resources(
                {
                    "installation": Installation(),
                    "memory": SensorMemory(),
                    "pipes": dg.PipesSubprocessClient(),
                    # Dagster's default would take a directory from run configuration, and
                    # unpickle what lies there.
                    "io_manager": dg.InMemoryIOManager(),  # type: ignore[no-untyped-call]
                    **(resource_overrides or {}),
                }
            ),
            executor=dg.in_process_executor,
        ),
    )


defs = build_defs()
