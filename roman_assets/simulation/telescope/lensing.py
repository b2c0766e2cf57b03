"""Microlensing events of a simulated season: stars that a passing lens makes brighter for days.

A point lens before a point source magnifies it by ``(u² + 2) / (u √(u² + 4))``, where ``u² = u0² +
((t - t0) / tE)²`` (Paczyński 1986, ApJ 304, 1). Far more stars are lensed than in the real sky, so
that a small window of a detector has enough of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Self
from zlib import crc32

import numpy as np
from astropy.table import Table
from astropy.time import Time
from numpy.typing import NDArray

from roman_assets.products.observation import Survey
from roman_assets.simulation.telescope.planned_exposure import PlannedExposure
from roman_assets.simulation.telescope.scene import FILTERS, SourceKind

LENSED_FRACTION: Mapping[str, float] = {SourceKind.STAR: 0.4, SourceKind.BULGE: 0.02}
"""Of the simulated stars, by kind of source."""
IMPACT_PARAMETERS = (0.05, 0.7)
"""Range of u0, in Einstein radii, evenly filled."""
EINSTEIN_TIMES = (0.05, 0.2)
"""Range of tE, in lengths of the season, evenly filled in the logarithm."""
PEAKS = (0.1, 0.9)
"""Range of t0 within the season, evenly filled."""
SHORTEST_SEASON = 1.0
"""Days; nothing is lensed in plans that are shorter."""


@dataclass(frozen=True)
class LensingSeason:
    """The events of a season, which its seed and the names of the stars decide.

    Parameters
    ----------
    seed
        Of the simulated sky.
    start, end
        Of the first and the last exposure of the season, MJD.
    """

    seed: int
    start: float
    end: float

    @classmethod
    def of(cls, exposures: Iterable[PlannedExposure], seed: int) -> Self | None:
        """Return the season of a plan's Galactic Bulge exposures, None without one."""
        times = [_mjd(one.start) for one in exposures if one.survey is Survey.GBTDS]
        if not times or max(times) - min(times) < SHORTEST_SEASON:
            return None
        return cls(seed, min(times), max(times))

    def events(self, sources: Table) -> Table:
        """Return the truth table with the events.

        Returns
        -------
        Table
            With ``lens_t0`` (MJD), ``lens_te`` (days) and ``lens_u0``; zeros for sources without.
        """
        described = sources.copy()
        stars = zip(sources["name"].tolist(), sources["kind"].tolist(), strict=True)
        drawn = np.array([_event(self, name, kind) for name, kind in stars])
        for number, name in enumerate(("lens_t0", "lens_te", "lens_u0")):
            described[name] = drawn.reshape(-1, 3)[:, number]
        return described

    def magnified(self, sources: Table, time: datetime) -> Table:
        """Return sources with the fluxes that they have at a time (UTC)."""
        events = self.events(sources)
        lensed = events["lens_te"] > 0
        factor = np.ones(len(events))
        factor[lensed] = magnification(
            _mjd(time), events["lens_t0"][lensed], events["lens_te"][lensed],
            events["lens_u0"][lensed],
        )  # fmt: skip
        for element in FILTERS:
            events[str(element)] = np.asarray(events[str(element)]) * factor
        return events


@lru_cache(maxsize=1 << 18)
def _event(season: LensingSeason, name: str, kind: str) -> tuple[float, float, float]:
    # every exposure of a season asks for the same stars
    rng = np.random.default_rng([season.seed, crc32(name.encode()), 86])
    chance, peak, impact, width = rng.random(4)
    if chance >= LENSED_FRACTION.get(kind, 0.0):
        return 0.0, 0.0, 0.0
    length = season.end - season.start
    low, high = np.log(EINSTEIN_TIMES)
    return (
        season.start + length * float(np.interp(peak, (0, 1), PEAKS)),
        length * float(np.exp(low + width * (high - low))),
        float(np.interp(impact, (0, 1), IMPACT_PARAMETERS)),
    )


def magnification(
    time: NDArray[np.float64] | float,
    t0: NDArray[np.float64] | float,
    te: NDArray[np.float64] | float,
    u0: NDArray[np.float64] | float,
) -> NDArray[np.float64]:
    """Return Paczyński's magnification; times in days."""
    u2 = np.square(u0) + np.square((np.asarray(time) - t0) / te)
    result: NDArray[np.float64] = (u2 + 2) / np.sqrt(u2 * (u2 + 4))
    return result


def _mjd(time: datetime) -> float:
    return float(Time(time).mjd)
