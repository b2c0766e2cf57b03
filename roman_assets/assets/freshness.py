"""Freshness policies from the specification's clocks (R2, R5, R9, R10).

Dagster's policy looks at the newest product of an asset, whatever its exposure or visit: it says
"the stream has stalled". Whether one exposure is late, its due time and margin say (see
`roman_assets.assets.report`).
"""

from __future__ import annotations

import dagster as dg

from roman_assets.products.deadline import DEADLINES
from roman_assets.products.kind import Level

WARNING_FRACTION = 0.75
"""Part of the latency after which a stalled stream is worth a warning."""


def freshness_policy(level: Level) -> dg.FreshnessPolicy:
    """Give the policy that fails when no product of a level was made for its whole latency."""
    latency = DEADLINES[level].latency
    return dg.FreshnessPolicy.time_window(
        fail_window=latency, warn_window=latency * WARNING_FRACTION
    )
