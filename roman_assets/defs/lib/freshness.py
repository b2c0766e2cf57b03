"""Freshness policies from the clocks of the installation (R2, R5, R9, R10).

Dagster's policy looks at the newest product of an asset, whatever its exposure or visit: it says
"the stream has stalled". Whether one exposure is late, its due time and margin say (see
`roman_assets.defs.lib.materialization_metadata`). The description of each asset says so too:
`freshness_sentence`.
"""

from __future__ import annotations

from datetime import timedelta

import dagster as dg

from roman_assets.data_root import DataRoot
from roman_assets.products.deadline import Deadline
from roman_assets.products.kind import Level
from roman_assets.settings.deadline_settings import deadlines_of

_SHORTEST = timedelta(minutes=1)
"""Dagster accepts no shorter window."""


def freshness_policy(level: Level) -> dg.FreshnessPolicy:
    """Return the policy that fails when no product of a level was made for its whole latency.

    It warns when a product due by then would be at risk. The deadlines are those of the
    installation at the time the definitions are loaded.

    Raises
    ------
    BadInputError
        If the installation's ``deadlines.toml`` cannot be used.
    """
    deadline = _deadline(level)
    fail = max(deadline.latency, _SHORTEST)
    warn = max(deadline.latency - deadline.warning, _SHORTEST)
    return dg.FreshnessPolicy.time_window(
        fail_window=fail, warn_window=warn if warn < fail else None
    )


def freshness_sentence(level: Level) -> str:
    """Return what the policy of a level can and cannot tell, for the description of an asset."""
    hours = max(_deadline(level).latency, _SHORTEST) / timedelta(hours=1)
    return (
        f"The freshness policy fails when nothing was made of this asset for {hours:g} h: the "
        "stream has stalled, or nothing was observed. It looks only at the newest "
        "materialization, so it cannot tell whether one exposure or visit is late or missing. "
        f"The check `in_time` tells that for each partition."
    )


def _deadline(level: Level) -> Deadline:
    return deadlines_of(DataRoot.from_environment())[level]
