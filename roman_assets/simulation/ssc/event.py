"""The search for microlensing events in light curves.

Each light curve is fitted with a constant and with Paczyński's curve, on a grid of peak times,
Einstein times and impact parameters, the source's and the blended flux being solved for; the best
is refined. An event is what the curve explains better than a constant, by more than `THRESHOLD` in
χ², with at least `FEWEST_EPOCHS` epochs well above the baseline, if its peak is as high and its
time as short as one can tell apart from drifts: ``u0 < 1.5`` and ``tE`` less than the season.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

Values = NDArray[np.float64]

THRESHOLD = 60.0
"""Least improvement of χ²; noise alone reaches some 30 in a thousand light curves."""
FEWEST_EPOCHS = 2
"""Epochs that must rise above the baseline by `RISE` standard errors. One alone may be anything;
events of a day or two, seen once a day, have no more."""
RISE = 3.0
LARGEST_IMPACT = 1.5
"""In Einstein radii; drifts and jumps are fitted best by larger ones."""
EXCLUDED = 9.0
"""What fits worse than the best by more, in χ², is not what it is."""
LARGEST_REDUCED_CHI2 = 3.0
"""Of the curve; single epochs that are off are fitted best by curves that do not fit."""
FEWEST_MEASUREMENTS = 8
"""Light curves with fewer epochs are not searched."""
SAME_TIME = 0.3
"""In Einstein times."""
SYSTEMATIC_FLOOR = 0.004
"""Part of the flux that is added to its error in quadrature: what photometry repeats no better."""

MOST_IMPACT = 2.0
"""Largest impact parameter that is tried, in Einstein radii."""
_LEAST_IMPACT = 1e-3
_PEAKS, _TIMES, _IMPACTS = 80, 12, np.array([0.03, 0.1, 0.2, 0.35, 0.5, 0.7, 1.0])


@dataclass(frozen=True)
class Event:
    """A microlensing event.

    Parameters
    ----------
    t0, te, u0
        Time of the peak (MJD), Einstein time (days), impact parameter (Einstein radii).
    source_flux, blend_flux
        Of the star that is magnified, and of what is not.
    delta_chi2
        How much better the curve is than a constant.
    reduced_chi2
        Of the curve, by degrees of freedom.
    """

    t0: float
    te: float
    u0: float
    source_flux: float
    blend_flux: float
    delta_chi2: float
    reduced_chi2: float

    @property
    def rise(self) -> float:
        """By how much the flux is larger at the peak."""
        peak = (self.u0**2 + 2) / (self.u0 * np.sqrt(self.u0**2 + 4))
        return float(self.source_flux * (peak - 1))

    def is_at_the_time_of(self, other: Event) -> bool:
        """Return whether two events peak at one time, as far as one can tell."""
        return abs(self.t0 - other.t0) < SAME_TIME * max(self.te, other.te)


def magnification(
    time: Values, t0: Values | float, te: Values | float, u0: Values | float
) -> Values:
    """Return the magnification of a point source by a point lens; times in days.

    What simulates events and what looks for them share no code.
    """
    u2 = np.square(u0) + np.square((time - t0) / te)
    result: Values = (u2 + 2) / np.sqrt(u2 * (u2 + 4))
    return result


def total_error(flux: Values, error: Values) -> Values:
    """Return standard errors with what photometry repeats no better."""
    result: Values = np.hypot(error, SYSTEMATIC_FLOOR * np.abs(flux))
    return result


def constant_chi2(flux: Values, error: Values) -> tuple[float, float]:
    """Return the weighted mean and χ² of a constant."""
    weight = 1 / error**2
    mean = float((weight * flux).sum() / weight.sum())
    return mean, float((weight * (flux - mean) ** 2).sum())


def search(time: Values, flux: Values, error: Values) -> Event | None:
    """Search one light curve.

    Parameters
    ----------
    time
        MJD, ascending.
    flux, error
        As `total_error` gives the latter; all finite.

    Returns
    -------
    Event or None
        None if there is none above `THRESHOLD`.
    """
    if len(time) < FEWEST_MEASUREMENTS:
        return None
    if constant_chi2(flux, error)[1] < THRESHOLD:
        # no curve can improve it by more
        return None
    best = best_curve(time, flux, error)
    if best is not None and best.u0 > LARGEST_IMPACT:
        # short events with a blend of any flux are fitted as well by many impact parameters
        closer = best_curve(time, flux, error, LARGEST_IMPACT)
        excluded = closer is None or best.delta_chi2 - closer.delta_chi2 > EXCLUDED
        best = None if excluded else closer
    if best is None or best.delta_chi2 < THRESHOLD:
        return None
    if best.te > time[-1] - time[0]:
        return None
    if best.reduced_chi2 > LARGEST_REDUCED_CHI2:
        return None
    baseline = float(np.percentile(flux, 30))
    return best if int((flux - baseline > RISE * error).sum()) >= FEWEST_EPOCHS else None


def best_curve(
    time: Values, flux: Values, error: Values, most_impact: float = MOST_IMPACT
) -> Event | None:
    """Return the best fit, None unless one with a positive source does better than flat."""
    _, flat = constant_chi2(flux, error)
    grid, curves = _grid(tuple(time.tolist()))
    chi2, source, _ = _solved(curves, flux, error)
    chi2 = np.where(source > 0, chi2, np.inf)
    start = grid[int(np.argmin(chi2))]
    if not np.isfinite(chi2.min()):
        return None

    def residuals(parameters: Values) -> Values:
        curve = magnification(time, parameters[0], np.exp(parameters[1]), np.exp(parameters[2]))
        _, fs, fb = _solved(curve[None], flux, error)
        result: Values = (flux - fs[0] * curve - fb[0]) / error
        return result

    span, step = time[-1] - time[0], float(np.median(np.diff(time)))
    low = [time[0] - span / 4, np.log(step / 10), np.log(_LEAST_IMPACT)]
    high = [time[-1] + span / 4, np.log(2 * span), np.log(most_impact)]
    begin = np.clip([start[0], np.log(start[1]), np.log(start[2])], low, high)
    fitted = least_squares(residuals, begin, bounds=(low, high), x_scale=[step, 1.0, 1.0])
    t0, te, u0 = fitted.x[0], float(np.exp(fitted.x[1])), float(np.exp(fitted.x[2]))
    curve = magnification(time, t0, te, u0)
    found, fs, fb = _solved(curve[None], flux, error)
    if not fs[0] > 0:
        return None
    freedom = max(len(time) - 5, 1)
    return Event(
        float(t0), te, u0, float(fs[0]), float(fb[0]), flat - float(found[0]),
        float(found[0]) / freedom,
    )  # fmt: skip


@lru_cache(maxsize=8)
def _grid(times: tuple[float, ...]) -> tuple[Values, Values]:
    """Return parameters, shape (n, 3), and the curves they make at some times, shape (n, times)."""
    time = np.array(times)
    span, step = time[-1] - time[0], float(np.median(np.diff(time)))
    t0 = np.linspace(time[0], time[-1], _PEAKS)
    te = np.geomspace(max(step / 2, span / 200), span / 2, _TIMES)
    grid = np.stack(np.meshgrid(t0, te, _IMPACTS, indexing="ij"), axis=-1).reshape(-1, 3)
    return grid, magnification(time, *(grid[:, number, None] for number in range(3)))


def _solved(curves: Values, flux: Values, error: Values) -> tuple[Values, Values, Values]:
    """Solve for source and blend flux: χ², source and blend for each curve."""
    weight = 1 / error**2
    mean_curve = (curves * weight).sum(axis=1) / weight.sum()
    mean_flux = (flux * weight).sum() / weight.sum()
    rise = curves - mean_curve[:, None]
    norm = (weight * rise**2).sum(axis=1)
    source = (weight * rise * (flux - mean_flux)).sum(axis=1) / np.where(norm > 0, norm, np.inf)
    blend = mean_flux - source * mean_curve
    chi2 = (weight * (flux - source[:, None] * curves - blend[:, None]) ** 2).sum(axis=1)
    return chi2, source, blend
