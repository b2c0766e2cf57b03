"""How much the archive holds over time, for one retention or another (R13)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError
from roman_assets.products.kind import SKYCELL_IMAGES, Level, ProductKind, Scope, Step
from roman_assets.products.pixel_scale import PixelScale
from roman_assets.products.retention_policy import RetentionPeriods
from roman_assets.registry.registry import Registry
from roman_assets.rehearsal.planned_work import Observations

_MEGABYTE = 1e6
_POINTS = 400


class Holding(StrEnum):
    """What shares its fate in the archive."""

    LEVEL1 = "L1"
    LEVEL2 = "L2"
    LEVEL4 = "L4 of exposures"
    PROMPT = "prompt L3 and their L4"
    RELEASED = "L3 and L4 of releases"


_OF_LEVEL: Mapping[Level, Holding] = {
    Level.L1: Holding.LEVEL1,
    Level.L2: Holding.LEVEL2,
    Level.L4: Holding.LEVEL4,
}


@dataclass(frozen=True)
class ProductSizes:
    """How large products are.

    Parameters
    ----------
    megabytes
        Mean size by name of the product kind, MB; of coadds and their segmentation maps on the
        pixels of the sky map.
    resultants
        Of the ramps whose size that is; a ramp grows with them.
    source
        Where the figures come from.
    """

    megabytes: Mapping[str, float]
    resultants: float
    source: str

    def of(
        self, kind: ProductKind, resultants: float = 1.0, scale: PixelScale = PixelScale.SKYMAP
    ) -> float:
        """Return the size of a product, bytes.

        Parameters
        ----------
        kind
            Of the product.
        resultants
            Of a ramp.
        scale
            Pixels of a coadd.

        Raises
        ------
        BadInputError
            If none is known.
        """
        size = self.megabytes.get(kind.name)
        if size is None:
            raise BadInputError(self.source, kind.name, "no size is known", "use `--sizes stated`")
        bytes_ = size * _MEGABYTE
        if kind.name == "uncal":
            return bytes_ * resultants / self.resultants
        return bytes_ / (scale.skymap_pixels**2 if kind.name in SKYCELL_IMAGES else 1)


STATED_SIZES = ProductSizes(
    {
        "uncal": 107.0, "guide_window": 0.1, "face": 0.02, "cal": 205.0, "supplement": 0.05,
        "exposure_catalog": 0.3, "exposure_segmentation": 67.0, "association": 0.001,
        "coadd": 481.0, "visit_catalog": 0.3, "visit_segmentation": 97.0,
    },
    8,
    "docs/reprocessing.md: whole detectors",
)  # fmt: skip


def measured_sizes(root: DataRoot) -> ProductSizes:
    """Take the mean sizes of the products that an installation has."""
    with Registry(root) as registry:
        sizes, resultants = registry.generations.mean_sizes()
    megabytes = {kind: size / _MEGABYTE for kind, size in sizes.items()}
    return ProductSizes(megabytes, resultants or 1.0, f"mean sizes in {root.path}")


def stocks_of_registry(root: DataRoot) -> pd.DataFrame:
    """Return what an installation has held, in the columns that `stocks_of_plan` gives."""
    with Registry(root) as registry:
        found = registry.generations.volumes()
    holding = [
        (Holding.RELEASED if released else Holding.PROMPT) if grouped else _OF_LEVEL[Level(level)]
        for level, grouped, released in zip(
            found["level"], found["grouped"], found["released"], strict=True
        )
    ]
    return _stocks(found.assign(holding=holding))


def stocks_of_plan(
    observations: Observations, sizes: ProductSizes, scale: PixelScale = PixelScale.NATIVE
) -> pd.DataFrame:
    """Return what a plan will make the archive hold, each product as soon as it is observed.

    Parameters
    ----------
    observations
        The plan.
    sizes
        Of its products.
    scale
        Pixels of the prompt coadds.

    Returns
    -------
    pandas.DataFrame
        ``holding``, ``survey``, ``size`` (bytes), ``released_size`` (what a release has in their
        place, on the pixels of the sky map), ``begin``, ``superseded_at`` and ``end`` (UTC; NaT
        where it has none).

    Raises
    ------
    BadInputError
        If the size of a kind is not known.
    """
    rows: list[dict[str, Any]] = []
    for number, planned in enumerate(observations.exposures):
        detectors = len(planned.detectors)
        for step in (Step.FORMATTING, Step.EXPOSURE):
            for kind in observations.kinds(number, step):
                one = sizes.of(kind, planned.ma_table.nresultants)
                size = one * (detectors if kind.scope is Scope.DETECTOR else 1)
                rows.append(_row(_OF_LEVEL[kind.level], planned.survey, size, size, planned.end))
    for number, visit in enumerate(observations.visits):
        last = observations.exposures[visit.members[-1]]
        cells = len(observations.skycells_of_visit(number, (1 << len(visit.members)) - 1))
        prompt, released = (
            cells * sum(sizes.of(kind, scale=one) for kind in visit.kinds)
            for one in (scale, PixelScale.SKYMAP)
        )
        rows.append(_row(Holding.PROMPT, last.survey, prompt, released, last.end))
    return _stocks(pd.DataFrame(rows))


def _row(
    holding: Holding, survey: str, size: float, released_size: float, begin: datetime
) -> dict[str, Any]:
    return {
        "holding": holding,
        "survey": str(survey),
        "size": size,
        "released_size": released_size,
        "begin": begin,
    }


def _stocks(rows: pd.DataFrame) -> pd.DataFrame:
    sizes, times = ["size", "released_size"], ["begin", "superseded_at", "end"]
    stocks = rows.reindex(columns=["holding", "survey", *sizes, *times])
    for column in times:
        stocks[column] = pd.to_datetime(stocks[column], utc=True).astype("datetime64[us, UTC]")
    return stocks.astype(dict.fromkeys(sizes, float))


def with_releases(stocks: pd.DataFrame, moments: Iterable[datetime]) -> pd.DataFrame:
    """Publish data releases, each of all that was observed before (R13).

    Each supersedes the prompt L3 and L4, and adds its own of the same skycells on the pixels of the
    sky map, which stay for good.
    """
    found = stocks.copy()
    prompt = (found["holding"] == Holding.PROMPT) & found["end"].isna()
    copies = []
    for moment in sorted(moments):
        of_it = prompt & (found["begin"] <= moment)
        made = found.loc[of_it, ["survey", "released_size"]].assign(
            size=found["released_size"], holding=Holding.RELEASED, begin=moment
        )
        copies.append(made)
        found.loc[of_it & found["superseded_at"].isna(), "superseded_at"] = moment
    return _stocks(pd.concat([found, *map(_stocks, copies)], ignore_index=True))


def volume_over_time(
    stocks: pd.DataFrame, periods: RetentionPeriods | None, times: pd.DatetimeIndex
) -> pd.DataFrame:
    """Return how much is held at some times.

    Parameters
    ----------
    stocks
        As `stocks_of_plan` gives them.
    periods
        How long superseded products stay; None for ever.
    times
        When (UTC).

    Returns
    -------
    pandas.DataFrame
        Bytes, by time and `Holding`.
    """
    end = stocks["end"]
    if periods is not None:
        stay = pd.to_timedelta([periods.of(survey) for survey in stocks["survey"]])
        removed = (stocks["superseded_at"] + stay).where(stocks["holding"] == Holding.PROMPT)
        end = pd.concat([end, removed], axis=1).min(axis=1)
    return pd.DataFrame(
        {
            holding: _held(
                stocks["size"], stocks["begin"], end, stocks["holding"] == holding, times
            )
            for holding in Holding
        },
        index=times,
    )


def _held(
    size: pd.Series,
    begin: pd.Series,
    end: pd.Series,
    chosen: pd.Series,
    times: pd.DatetimeIndex,
) -> pd.Series:
    come = _summed(size[chosen], begin[chosen], times)
    gone = chosen & end.notna()
    return pd.Series(come - _summed(size[gone], end[gone], times), index=times)


def _summed(size: pd.Series, when: pd.Series, times: pd.DatetimeIndex) -> Any:
    """Return the sizes summed up to each time."""
    ordered = when.sort_values()
    sums = np.concatenate([[0.0], np.cumsum(size.loc[ordered.index].to_numpy())])
    return sums[ordered.searchsorted(times, side="right")]


def moments_of(stocks: pd.DataFrame, longest: timedelta) -> pd.DatetimeIndex:
    """Return times from the first product to when the last that is superseded is gone.

    Raises
    ------
    BadInputError
        Without any product.
    """
    if stocks.empty:
        raise BadInputError("registry", "products", "there are none", "give a plan with --plan")
    changes = stocks[["begin", "superseded_at", "end"]]
    first: datetime = changes.min().min()
    last: datetime = changes.max().max()
    return pd.date_range(first, last + longest * 1.05 + timedelta(days=1), periods=_POINTS)


def draw_volumes(volumes: Mapping[str, pd.DataFrame], path: Path) -> None:
    """Draw the holdings of the first choice, and the total of each, as a PNG.

    Parameters
    ----------
    volumes
        As `volume_over_time` gives them, by what to call them.
    path
        The file to write.
    """
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6), layout="constrained")
    axes = figure.subplots()
    (first, *others) = volumes
    unit, name = _unit(max(held.sum(axis=1).max() for held in volumes.values()))
    drawn = volumes[first] / unit
    axes.stackplot(drawn.index, drawn.to_numpy().T, labels=[str(one) for one in Holding], alpha=0.7)
    for title, style in zip(others, ("--", ":", "-."), strict=False):
        held = volumes[title].sum(axis=1) / unit
        axes.plot(held.index, held, color="black", ls=style, label=f"all, if {title}")
    locator = AutoDateLocator()  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    axes.set(xlabel="UTC", ylabel=f"volume, {name}", title=f"What the archive holds: {first}")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left")
    figure.savefig(path, dpi=110, format="png")


def _unit(largest: float) -> tuple[float, str]:
    units = ((1e15, "PB"), (1e12, "TB"), (1e9, "GB"), (1e6, "MB"))
    return next((unit for unit in units if largest >= unit[0]), units[-1])
