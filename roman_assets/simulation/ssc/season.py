"""A season's light curves of one detector, and what is found in them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from astropy import units as u
from astropy.coordinates import SkyCoord
from numpy.typing import NDArray

from roman_assets.simulation.ssc.event import (
    FEWEST_MEASUREMENTS,
    THRESHOLD,
    Event,
    best_curve,
    constant_chi2,
    magnification,
    search,
    total_error,
)

Values = NDArray[np.float64]

EPOCH_COLUMNS = ("object_id", "mjd", "flux", "flux_error", "image")
_STEADY = 5.0
"""Objects within so many standard errors of their median in all epochs tell the zero point."""
SAME_PLACE = 0.06
"""Arcsec within which objects found in two visits are the same; half a pixel."""
BLEND_RADIUS = 0.35
"""Arcsec within which objects share what happens to one of them."""
WING_RADIUS, WING_PART = 3.0, 0.005
"""Arcsec to which the wings of a bright star reach, and the most of its light that their model may
leave to a neighbour."""
INJECTIONS = 200
"""Events injected into light curves to measure how many are found."""


def tied_together(epochs: pd.DataFrame) -> pd.DataFrame:
    """Bring all images of a season to one zero point.

    The median over bright objects of their flux in an image, over their median in the season, is
    divided out. What varies is a small part of them and does not move a median.

    Parameters
    ----------
    epochs
        A row for each object and image: `EPOCH_COLUMNS`, fluxes in DN/s.
    """
    measured = np.isfinite(epochs["flux"]) & (epochs["flux_error"] > 0)
    good: pd.DataFrame = epochs[measured].reset_index(drop=True)
    if good.empty:
        return good
    typical = good.groupby("object_id")["flux"].transform("median")
    bright = typical > 30 * good["flux_error"]
    chosen = good[bright] if bright.any() else good
    ratio = chosen["flux"] / typical[chosen.index]
    zero = ratio.groupby(chosen["image"]).median()
    factor = good["image"].map(zero).fillna(1.0)
    good["flux"] /= factor
    good["flux_error"] /= factor
    ordered: pd.DataFrame = good.sort_values(["object_id", "mjd"], ignore_index=True)
    return ordered


def renumbered(epochs: pd.DataFrame, theirs: pd.DataFrame, ours: pd.DataFrame) -> pd.DataFrame:
    """Return measurements the numbers that other objects at the same places have.

    Parameters
    ----------
    epochs
        `EPOCH_COLUMNS`, by the numbers of `theirs`.
    theirs, ours
        Objects: ``object_id``, ``ra`` and ``dec`` (degrees).

    Returns
    -------
    pandas.DataFrame
        Without what has no counterpart within `SAME_PLACE`.
    """
    columns = ["object_id", "ra", "dec"]
    if theirs[columns].equals(ours[columns]):
        return epochs
    if theirs.empty or ours.empty:
        return epochs[:0]
    their_sky, our_sky = (SkyCoord(one["ra"], one["dec"], unit="deg") for one in (theirs, ours))
    nearest, distance, _ = our_sky.match_to_catalog_sky(their_sky)
    back, _, _ = their_sky.match_to_catalog_sky(our_sky)
    same = (distance.arcsec < SAME_PLACE) & (back[nearest] == np.arange(len(ours)))
    number = dict(
        zip(theirs["object_id"].to_numpy()[nearest[same]], ours["object_id"][same], strict=True)
    )
    known: pd.DataFrame = epochs[epochs["object_id"].isin(list(number))]
    return known.assign(object_id=known["object_id"].map(number))


@dataclass(frozen=True)
class LightCurve:
    """The light curve of one object.

    Parameters
    ----------
    object_id
        Which object.
    time, flux, error
        MJD; DN/s, errors with what photometry repeats no better, and at least as large as
        successive epochs differ: where stars are crowded, what is not separated moves across the
        pixels with each pointing, and fluxes scatter by more than photons do.
    photon_error
        The errors without that.
    """

    object_id: int
    time: Values
    flux: Values
    error: Values
    photon_error: Values

    @property
    def scatter(self) -> float:
        """Robust standard deviation over the median flux."""
        spread = 1.4826 * np.median(np.abs(self.flux - np.median(self.flux)))
        return float(spread / np.median(self.flux))

    @property
    def noise(self) -> float:
        """Median photon error over the median flux."""
        return float(np.median(self.photon_error) / np.median(self.flux))

    @property
    def reduced_chi2(self) -> float:
        """Of a constant, by degrees of freedom."""
        _, chi2 = constant_chi2(self.flux, self.error)
        return chi2 / max(len(self.flux) - 1, 1)


def light_curves(epochs: pd.DataFrame) -> Iterator[LightCurve]:
    """Yield the light curves of a table as `tied_together` gives it."""
    for object_id, rows in epochs.groupby("object_id"):
        flux, error = (rows[name].to_numpy(dtype=float) for name in ("flux", "flux_error"))
        time = rows["mjd"].to_numpy(dtype=float)
        yield light_curve(int(str(object_id)), time, flux, error)


def light_curve(object_id: int, time: Values, flux: Values, photon_error: Values) -> LightCurve:
    """Return a light curve with its errors."""
    error = total_error(flux, photon_error)
    if len(time) >= FEWEST_MEASUREMENTS:
        steps = np.diff(flux) / np.hypot(error[1:], error[:-1])
        # events last for several epochs: what lies between neighbours is noise
        error = error * max(1.0, 1.4826 * float(np.median(np.abs(steps))))
    return LightCurve(object_id, time, flux, error, photon_error)


def variability(curves: list[LightCurve]) -> pd.DataFrame:
    """Return how much each object varies."""
    return pd.DataFrame(
        [
            {
                "object_id": curve.object_id,
                "epochs": len(curve.time),
                "mean_flux": float(np.mean(curve.flux)),
                "relative_scatter": curve.scatter,
                "relative_photon_noise": curve.noise,
                "reduced_chi2": curve.reduced_chi2,
            }
            for curve in curves
        ]
    )


def events(curves: list[LightCurve], objects: pd.DataFrame) -> dict[int, Event]:
    """Search all light curves.

    Parameters
    ----------
    curves
        Of all objects of a field.
    objects
        ``object_id``, ``ra`` and ``dec`` (degrees).

    Returns
    -------
    dict
        The events by object. An event shows in its neighbours as well; of those that are one, by
        place and time, the clearest is given.
    """
    found = {one.object_id: search(one.time, one.flux, one.error) for one in curves}
    sure = {number: event for number, event in found.items() if event is not None}
    if not sure:
        return {}
    numbers = sorted(sure, key=lambda number: -sure[number].delta_chi2)
    places = objects.set_index("object_id").loc[numbers]
    sky = SkyCoord(places["ra"], places["dec"], unit="deg")
    first, second, distance, _ = sky.search_around_sky(sky, WING_RADIUS * u.arcsec)
    pairs = [
        (numbers[one], numbers[other], float(arcsec))
        for one, other, arcsec in zip(first, second, distance.arcsec, strict=True)
        if one < other and sure[numbers[one]].is_at_the_time_of(sure[numbers[other]])
    ]
    ghosts = {
        other
        for one, other, arcsec in pairs
        if arcsec < BLEND_RADIUS or sure[other].rise < WING_PART * sure[one].rise
    }
    return {number: sure[number] for number in numbers if number not in ghosts}


def detection_efficiency(curves: list[LightCurve], seed: int = 1) -> pd.DataFrame:
    """Inject events into steady light curves and search them, with and without.

    Returns
    -------
    pandas.DataFrame
        A row for each search: ``object_id``, ``t0``, ``te``, ``u0``, ``expected_delta_chi2`` (zeros
        without an injection), ``detected`` and ``BinaryClass``: TP, FN, FP or TN. Injections that
        would not reach the threshold without noise are left out.
    """
    rng = np.random.default_rng(seed)
    steady = [
        one
        for one in curves
        if len(one.time) >= FEWEST_MEASUREMENTS
        and np.all(np.abs(one.flux - np.median(one.flux)) < _STEADY * one.error)
    ]
    rows = [_searched(one, one.flux, (0.0, 0.0, 0.0), 0.0) for one in steady]
    for number in range(INJECTIONS if steady else 0):
        one = steady[number % len(steady)]
        span = one.time[-1] - one.time[0]
        drawn = (
            float(one.time[0] + span * rng.uniform(0.1, 0.9)),
            float(span * np.exp(rng.uniform(np.log(0.02), np.log(0.3)))),
            float(rng.uniform(0.02, 1.0)),
        )
        curve = magnification(one.time, *drawn)
        flux = one.flux + np.median(one.flux) * (curve - 1)
        expected = constant_chi2(np.median(one.flux) * curve, one.error)[1]
        if expected > THRESHOLD:
            rows.append(_searched(one, flux, drawn, expected))
    names = ("object_id", "t0", "te", "u0", "expected_delta_chi2", "detected", "BinaryClass")
    return pd.DataFrame(rows, columns=names)


def _searched(
    curve: LightCurve, flux: Values, drawn: tuple[float, float, float], expected: float
) -> tuple[object, ...]:
    injected = light_curve(curve.object_id, curve.time, flux, curve.photon_error)
    found = search(injected.time, injected.flux, injected.error) is not None
    kind = ("TP" if found else "FN") if expected else ("FP" if found else "TN")
    return (curve.object_id, *drawn, expected, found, kind)


def chance_improvements(curves: list[LightCurve], seed: int = 1) -> Values:
    """Return by how much noise alone lets the best curve improve χ²: of shuffled light curves."""
    rng = np.random.default_rng(seed)
    found = []
    for one in curves:
        order = rng.permutation(len(one.time))
        best = best_curve(one.time, one.flux[order], one.error[order])
        found.append(0.0 if best is None else best.delta_chi2)
    return np.array(found)
