"""The shift between where the WCS puts sources and where their spectra are.

romancal does not align spectral images with the sky, so the pointing error is in their WCS.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter1d

from roman_assets.simulation.ssc.spectral_image import SpectralImage, Values
from roman_assets.simulation.ssc.trace_fit import Traces, in_pixel

WIDEST_SHIFT = 6.0
"""Pixels by which the pointing may be off."""
MOST_SOURCES = 80
"""The brightest ones decide."""
_SEARCHES = ((WIDEST_SHIFT, 1.0), (WIDEST_SHIFT, 0.5), (1.0, 0.1), (0.1, 0.02))
"""How far and in which steps shifts are tried, pixels."""
_CORE = 3
_CORE_WIDTH = 0.7
_ALMOST_ALL = 0.9999


def find_shift(image: SpectralImage, data: Values, x: Values, y: Values) -> tuple[float, float]:
    """Find the shift with which flat spectra at the sources' places explain most of an image.

    One axis after the other, in ever smaller steps: across the dispersion the traces say where they
    are, along it the edges of the band and the response.

    Parameters
    ----------
    image
        The image.
    data
        Its pixels without the background.
    x, y
        Where the direct images would be.
    """
    model = _FlatSpectra(image, data, x, y)
    best = np.zeros(2)
    for reach, step in _SEARCHES:
        for axis in (0, 1):
            places = np.repeat(best[None], 2 * round(reach / step) + 1, axis=0)
            steps = np.arange(len(places)) * step - reach
            places[:, axis] = np.clip(places[:, axis] + steps, -WIDEST_SHIFT, WIDEST_SHIFT)
            explained = [model.explained(*place) for place in places]
            # where nothing tells one place from another, the present one stays
            best = places[np.lexsort((-np.abs(steps), explained))[-1]]
    return float(best[0]), float(best[1])


class _FlatSpectra:
    """What flat spectra at some places explain of an image."""

    def __init__(self, image: SpectralImage, data: Values, x: Values, y: Values) -> None:
        self._data = np.where(image.mask, 0.0, data)
        self._x, self._y = x, y
        self._rows = np.arange(data.shape[0])
        dispersion = image.dispersion
        self._offset = np.arange(np.floor(dispersion.offset[0]), dispersion.offset[-1] + 1, 0.25)
        self._response = dispersion.electrons_per_maggie(self._offset)

    def explained(self, dx: float, dy: float) -> float:
        """Return the likelihood, up to a factor, when sources are fitted one by one.

        Each has a noise of its own, which is not known: so the brightest do not decide alone.
        """
        total = 0.0
        for source_x, source_y in zip(self._x + dx, self._y + dy, strict=True):
            column = round(source_x)
            if not _CORE <= column < self._data.shape[1] - _CORE:
                continue
            columns = np.arange(column - _CORE, column + _CORE + 1)
            across = in_pixel(columns - source_x, np.array(_CORE_WIDTH))
            along = np.interp(self._rows - source_y, self._offset, self._response, 0.0, 0.0)
            seen = self._data[:, columns[0] : columns[-1] + 1] @ across
            norm, signal = float((along**2).sum() * (seen**2).sum()), float(seen @ along)
            if norm > 0 and signal > 0:
                total -= float(np.log1p(-min(signal**2 / norm, _ALMOST_ALL)))
        return total


def find_row_shift(traces: Traces, electrons: Values, error: Values) -> float:
    """Find by how many rows spectra lie above their places.

    Each spectrum is taken for the response of the instrument times a smooth one, so that the edges
    of the band tell where it is; what fits all of them best is right.

    Parameters
    ----------
    traces
        Sources bright enough to see the edges.
    electrons, error
        e/s by row and source.
    """
    shifts = np.arange(-_WIDEST_ROW_SHIFT, _WIDEST_ROW_SHIFT + _ROW_STEP / 2, _ROW_STEP)
    total = np.zeros(len(shifts))
    rows = np.arange(electrons.shape[0])
    fine = np.arange(traces.dispersion.offset[0] - 12, traces.dispersion.offset[-1] + 12, 0.1)
    response = gaussian_filter1d(
        traces.dispersion.electrons_per_maggie(fine), _LINE_WIDTH / 0.1, mode="nearest"
    )
    for place in range(electrons.shape[1]):
        offset = rows - traces.y[place]
        near = (offset > fine[0] + 4) & (offset < fine[-1] - 4)
        if near.sum() > _FEWEST_ROWS:
            misfit = _misfits(
                offset[near], electrons[near, place], error[near, place], fine, response, shifts
            )
            total += misfit / max(float(misfit.min()) / near.sum(), 1.0)
    return _minimum(shifts, total)


def _misfits(
    offset: Values, electrons: Values, error: Values, fine: Values, response: Values, shifts: Values
) -> Values:
    """Return chi squared of a smooth spectrum behind the response, moved by each shift."""
    along = 2 * (offset - offset.mean()) / np.ptp(offset)
    smooth = np.vander(along, _SMOOTH_TERMS) / error[:, None]
    misfits = []
    for shift in shifts:
        design = smooth * np.interp(offset - shift, fine, response)[:, None]
        solution, *_ = np.linalg.lstsq(design, electrons / error, rcond=None)
        misfits.append(float((((electrons / error) - design @ solution) ** 2).sum()))
    return np.array(misfits)


def _minimum(places: Values, values: Values) -> float:
    """Return where a parabola through the least of some values and its neighbours is least."""
    least = int(np.clip(np.argmin(values), 1, len(values) - 2))
    before, here, after = values[least - 1 : least + 2]
    bend = before - 2 * here + after
    return float(places[least] + (np.diff(places)[0] * (before - after) / bend / 2 if bend else 0))


_WIDEST_ROW_SHIFT, _ROW_STEP = 4.0, 0.1
_LINE_WIDTH = 0.8
"""Standard deviation of a line along the dispersion, pixels."""
_SMOOTH_TERMS = 4
_FEWEST_ROWS = 40
