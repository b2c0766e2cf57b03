"""Evaluate a grid of PSFs at a star in one compiled call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from photutils.psf import gridded_models

from roman_assets.acceleration import psf_kernels
from roman_assets.acceleration.guest import Acceleration

_Model = gridded_models.GriddedPSFModel
_upstream = _Model.evaluate


def evaluate(self: Any, x: Any, y: Any, flux: Any, x_0: Any, y_0: Any) -> NDArray[np.float64]:
    """Evaluate the model as `photutils.psf.GriddedPSFModel.evaluate` does.

    Upstream's own function evaluates models without a grid or a fill value, and values that are
    not finite.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    position = np.ravel(x_0)[0], np.ravel(y_0)[0]
    if (
        self.fill_value is None
        or min(len(self._xgrid), len(self._ygrid)) < 2
        or x.shape != y.shape
        or not 0 < x.ndim < 3
        or np.size(flux) != 1
        or not np.isfinite(position).all()
    ):
        values: NDArray[np.float64] = _upstream(self, x, y, flux, x_0, y_0)
        return values
    numbers, weights = psf_kernels.neighbours(
        *position, *_as_floats(self._xgrid, self._ygrid, self.grid_xypos)
    )
    splines = [self._calc_interpolator(number).tck for number in numbers]
    xknots, yknots, _ = splines[0]
    ny, nx = self.data.shape[1:]
    sampling = (
        float(self.oversampling[1]),
        float(self.oversampling[0]),
        float(self.origin[0]),
        float(self.origin[1]),
    )
    found = psf_kernels.evaluate(
        x.ravel(), y.ravel(), np.ravel(flux)[0], *position,
        sampling,
        xknots, yknots, tuple(spline[2] for spline in splines), weights,
        (nx - 1.0, ny - 1.0), self.fill_value,
    )  # fmt: skip
    return found.reshape(x.shape)


def _as_floats(*arrays: Any) -> tuple[NDArray[np.float64], ...]:
    return tuple(np.asarray(array, np.float64) for array in arrays)


def _outputs(evaluate: Callable[..., Any]) -> Any:
    from astropy.nddata import NDData

    random = np.random.default_rng(7)
    y, x = np.mgrid[-12:13, -12:13]
    images = [np.exp(-(x**2 + 1.1 * y**2) / width) for width in (9, 10, 11, 12, 13, 14)]
    images = [image + 1e-3 * random.normal(size=image.shape) for image in images]
    grid = [(column, row) for row in (0, 100) for column in (0, 60, 128)]
    model = _Model(NDData(np.array(images), meta={"grid_xypos": grid, "oversampling": 4}))
    outputs = []
    for x_0, y_0 in ((40.2, 30.7), (60, 99.9), (0, 0), (-3.4, 120), (127.99, 100), (60.0001, 50)):
        row, column = np.mgrid[:5, :5] + np.round([[[y_0]], [[x_0]]]) - 2
        outputs.append(evaluate(model, column, row, np.array([123.4]), np.array([x_0]), [y_0]))
        outputs.append(evaluate(model, column[0] + 1.7, row[0], 5.0, x_0, y_0))
    return outputs


ACCELERATIONS = (
    Acceleration(
        replaces="photutils.psf.gridded_models:GriddedPSFModel.evaluate",
        replacement=evaluate,
        reason=(
            "The fit of a star evaluates four splines at 25 pixels some 30 times, each in "
            "dozens of numpy calls, and computes the same basis four times."
        ),
        obsolete="photutils evaluates the four splines together, or fits many stars at once.",
        checked_with={"photutils": "3.0.0", "scipy": "1.17.1", "numba": "0.68.1"},
        source="5debbfac715a72900c0f92b07776741d09da2171db23c78b50a90c4a6b87e6bb",
        outputs=_outputs,
        mirrors=(
            "photutils.psf.gridded_models:GriddedPSFModel._calc_model_values",
            "photutils.psf.gridded_models:GriddedPSFModel._find_bounding_points",
            "photutils.psf.gridded_models:GriddedPSFModel._calc_bilinear_weights",
            "photutils.psf.gridded_models:GriddedPSFModel._calc_interpolator",
        ),
    ),
)
