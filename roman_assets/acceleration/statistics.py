"""Compute the statistics of an image from one selection of its pixels."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from romancal.lib import statistics

from roman_assets.acceleration.guest import Acceleration

_upstream = statistics.populate_statistics

_NORMAL = 1.482602218505602
"""Standard deviation of a normal distribution over its median absolute deviation, as astropy's."""

_DO_NOT_USE = int(statistics.pixel.DO_NOT_USE)


def populate_statistics(model: Any) -> None:
    """Write ``meta.statistics`` as `romancal.lib.statistics.populate_statistics` does.

    Upstream's own function writes those of models without data, or without a good pixel.
    """
    data: Any = getattr(model, "data", None)
    good = None if data is None else _good(model)
    if good is None or not good.any():
        _upstream(model)
        return
    if getattr(model.meta, "statistics", None) is None:
        model.meta.statistics = {}
    found = {} if isinstance(model, statistics.MosaicModel) else {"zodiacal_light": -1.0}
    selected = np.asarray(data)[good]
    median = np.median(selected, overwrite_input=True)
    deviations = np.abs(selected - median)
    found["image_median"] = float(median)
    found["image_rms"] = float(np.median(deviations, overwrite_input=True) * _NORMAL)
    found["good_pixel_fraction"] = np.sum(good) / data.size
    for key, value in found.items():
        model.meta.statistics[key] = value


def _good(model: Any) -> Any:
    good = np.isfinite(model.data)
    if getattr(model, "dq", None) is not None:
        good &= (model.dq & _DO_NOT_USE) == 0
    if getattr(model, "err", None) is not None:
        good &= model.err > 0
    return good


class _Meta(SimpleNamespace):
    statistics: dict[str, Any] | None = None


def _outputs(populate: Callable[..., Any]) -> Any:
    random = np.random.default_rng(8)
    outputs = []
    for ncols in (63, 64):
        data = random.normal(5, 1, (41, ncols)).astype(np.float32)
        data[random.random(data.shape) < 0.1] = np.nan
        dq = random.integers(0, 16, data.shape).astype(np.uint32)
        err = random.normal(1, 0.7, data.shape).astype(np.float16)
        for model in (
            SimpleNamespace(meta=_Meta(), data=data, dq=dq, err=err),
            SimpleNamespace(meta=_Meta(statistics={"image_rms": 0}), data=data, dq=None, err=None),
            SimpleNamespace(meta=_Meta(), data=np.full_like(data, np.nan), dq=dq, err=err),
        ):
            populate(model)
            outputs.append(model.meta.statistics)
    return outputs


ACCELERATIONS = (
    Acceleration(
        replaces="romancal.lib.statistics:populate_statistics",
        replacement=populate_statistics,
        reason=(
            "It selects the pixels twice and computes their median twice, at each of eight steps."
        ),
        obsolete="romancal computes the median once, or the statistics at the end.",
        checked_with={"romancal": "1.1.0", "astropy": "8.0.2"},
        source="d287cfda3083db6ec889cda6e07feb3029d0a88f218fca014d1f9e0911c4f5ce",
        outputs=_outputs,
        mirrors=("astropy.stats.funcs:mad_std", "astropy.stats.funcs:median_absolute_deviation"),
        imported_by=("romancal.stpipe.core",),
    ),
)
