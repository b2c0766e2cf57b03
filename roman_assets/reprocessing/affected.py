"""Which products something new would change, and what goes with them (R6, R14, R15).

Images decide: what is made with an image changes with it. Which images are affected is for
`roman_assets.reprocessing` to say; here they and all that belongs to them are found in
the snapshot of a `Queryable.connection`. L3 and L4 of data releases never count, since they are
never reprocessed (R13), nor L2 of theirs where only calibration is new (R7), nor prompt L3 and L4
that a release has superseded.
"""

# Names put into SQL are names of the schema; values are always parameters.
# ruff: noqa: S608

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa

from roman_assets.products.kind import Step
from roman_assets.products.lifecycle import State
from roman_assets.products.name import PROMPT_RELEASE
from roman_assets.products.pixel_scale import PixelScale
from roman_assets.references.context_comparison import (
    ContextComparison,
    ReferenceChange,
    ReferenceSelection,
)

_PREDICTED = "PREDICTED"
"""What rad calls an ephemeris that is not definitive."""

IMAGE_KINDS: Mapping[Step, str] = {
    Step.FORMATTING: "uncal",
    Step.EXPOSURE: "cal",
    Step.VISIT: "coadd",
}
"""The kind of images that each step's other products are made with."""

_PROMPT = f"state = '{State.CURRENT}' and \"release\" = '{PROMPT_RELEASE}'"
_NOT_FIXED = "data_release is null"
"""L2 that a data release has made are uniform, and stay so (R7)."""

_MADE_HERE = "products.origin is null"
"""L1 that was delivered cannot be reprocessed here."""

_OF_PARTITIONS = (
    '($partitions is null or "partition" in $partitions)'
    " and ($before is null or committed_at < $before)"
)

_CALIBRATED = f"""
select name_key, file_set, start_time, step, context, coalesce(detector, '') as detector,
    coalesce(optical_element, '') as optical_element,
    coalesce(exposure_type, '') as exposure_type,
    coalesce(reference_files, '{{}}') as reference_files,
    coalesce(list_sum(list_transform($dates::timestamptz[],
        lambda date: (date <= start_time)::integer)), 0)::integer as epoch
from products
where {_PROMPT} and {_NOT_FIXED} and context is not null and {_OF_PARTITIONS}
    and kind in ('{IMAGE_KINDS[Step.EXPOSURE]}', '{IMAGE_KINDS[Step.VISIT]}')
"""

_INDISTINCT = (
    "step", "context", "detector", "optical_element", "exposure_type", "reference_files", "epoch",
)  # fmt: skip
"""What images have in common that CRDS cannot tell apart; the epoch counts the dates gone by."""

_GROUPED = f"""
select {", ".join(_INDISTINCT)}, min(start_time) as start_time, count(*) as images
from ({_CALIBRATED}) group by {", ".join(_INDISTINCT)} order by all
"""


_CONTEXTS = f"""
select distinct context from products
where {_PROMPT} and context is not null and {_OF_PARTITIONS} order by context
"""


@dataclass(frozen=True)
class CalibratedImages:
    """Images that CRDS cannot tell apart.

    Parameters
    ----------
    selection
        What decides which references they are made with.
    images
        Their number.
    """

    selection: ReferenceSelection
    images: int


_CHOSEN_BY_REFERENCES = f"""
create or replace temp table chosen as
select name_key, file_set, step
from ({_CALIBRATED}) semi join changed using ({", ".join(_INDISTINCT)})
"""

_CHOSEN_BY_SOFTWARE = f"""
create or replace temp table chosen as
select name_key, file_set, step from products
where {_PROMPT} and {_NOT_FIXED} and {_OF_PARTITIONS}
    and kind in {tuple(IMAGE_KINDS.values())}
    and step in $steps and json_extract_string(software, $package) <> $version
"""

_CHOSEN_BY_EPHEMERIS = f"""
create or replace temp table chosen as
select name_key, file_set, step
from products join WFIExposure using (name_key, record_id, name)
where {_PROMPT} and {_MADE_HERE} and {_OF_PARTITIONS}
    and kind = '{IMAGE_KINDS[Step.FORMATTING]}'
    and ephemeris_type = $predicted and start_time >= $start and end_time <= $stop
"""

_CHOSEN_BY_TIME = f"""
create or replace temp table chosen as
select name_key, file_set, step from products
where {_PROMPT} and {_OF_PARTITIONS} and kind = '{IMAGE_KINDS[Step.FORMATTING]}'
    and start_time < $stop and end_time >= $start
    and ($detectors is null or detector in $detectors)
"""

_CHOSEN_BY_EXPOSURE = f"""
create or replace temp table chosen as
select name_key, file_set, step from products
where {_PROMPT} and {_MADE_HERE} and {_OF_PARTITIONS}
    and kind = '{IMAGE_KINDS[Step.FORMATTING]}'
    and exposure in $exposures
"""

_CHOSEN_BY_PIXEL_SCALE = f"""
create or replace temp table chosen as
select name_key, file_set, step from products
where {_PROMPT} and {_OF_PARTITIONS} and kind = '{IMAGE_KINDS[Step.VISIT]}'
    and coalesce(pixel_scale, {PixelScale.recorded({}).arcsec}) <> $arcsec
"""

_COLUMNS = (
    "name", "kind", "level", "step", "file_set", "exposure", "visit", "survey", "optical_element",
    "detector", "skycell", "size",
)  # fmt: skip

# With L1 goes the exposure's FACE file, whose file set is another.
_AFFECTED = f"""
create or replace temp table affected as
with formatted as (
    select distinct name_key, left(file_set, 25) as exposure from chosen
    where step = '{Step.FORMATTING}'
)
select name_key, {", ".join(_COLUMNS)} from products
where {_PROMPT} and (
    step in ('{Step.EXPOSURE}', '{Step.VISIT}')
        and (name_key, file_set) in (select (name_key, file_set) from chosen)
    or step = '{Step.FORMATTING}'
        and (name_key, exposure) in (select (name_key, exposure) from formatted))
"""

_FOLLOWING = f"""
select {", ".join(_COLUMNS)} from products
where {_PROMPT} and step = '{Step.VISIT}'
    and name_key in (select name_key from affected where step <> '{Step.VISIT}')
    and name not in (select name from affected)
order by name
"""

_CONTEXTS_OF_VISITS = f"""
with images as (
    select visit, context as old,
        if((name_key, file_set) in (select (name_key, file_set) from affected), $context, context)
            as new
    from products
    where {_PROMPT} and kind = '{IMAGE_KINDS[Step.EXPOSURE]}'
        and name_key in (select name_key from affected)
)
select visit, list(distinct old order by old) as old, list(distinct new order by new) as new
from images group by visit order by visit
"""


_NOT_MADE_SINCE = f"""
select distinct visit from products
where {_PROMPT} and kind = '{IMAGE_KINDS[Step.VISIT]}' and visit in $visits
    and committed_at < $since
"""


class AffectedProducts:
    """The products that one change affects: first choose the images, then ask for the products.

    Parameters
    ----------
    connection
        The newest snapshot; what is worked out lies in temporary tables of it.
    partitions
        Only products of these exposures and visits, all by default.
    before
        Only images that were made before this time (UTC).
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        partitions: Iterable[str] | None = None,
        before: datetime | None = None,
    ) -> None:
        self._connection = connection
        self._images = {
            "partitions": None if partitions is None else sorted(set(partitions)),
            "before": before,
        }

    def contexts(self) -> list[str]:
        """Return the contexts that images were made with."""
        return [row["context"] for row in self._rows(_CONTEXTS, **self._images)]

    def choose_by_references(
        self, comparison: ContextComparison
    ) -> list[tuple[CalibratedImages, tuple[ReferenceChange, ...]]]:
        """Choose the images of which a reference would be another; tell which."""
        dates = list(comparison.dates)
        rows = self._rows(_GROUPED, dates=dates, **self._images)
        changed = [
            (row, CalibratedImages(selection, row["images"]), changes)
            for row in rows
            if (changes := comparison.changes(selection := _selection(row)))
        ]
        columns = {name: [row[name] for row, _, _ in changed] for name in _INDISTINCT}
        types = {name: pa.int32() if name == "epoch" else pa.string() for name in _INDISTINCT}
        self._connection.register("changed", pa.table(columns, pa.schema(types)))
        self._run(_CHOSEN_BY_REFERENCES, dates=dates)
        self._connection.unregister("changed")
        return [(images, changes) for _, images, changes in changed]

    def choose_by_software(self, package: str, version: str, steps: Iterable[Step]) -> None:
        """Choose the images of steps that were made with another version of a package."""
        self._run(
            _CHOSEN_BY_SOFTWARE,
            package=f'$."{package}"',
            version=version,
            steps=[step.value for step in steps],
        )

    def choose_by_ephemeris(self, start: datetime, stop: datetime) -> None:
        """Choose the ramps with a predicted ephemeris of exposures within a time range, UTC."""
        self._run(_CHOSEN_BY_EPHEMERIS, predicted=_PREDICTED, start=start, stop=stop)

    def choose_by_time(
        self, start: datetime, stop: datetime, detectors: Iterable[str] | None = None
    ) -> None:
        """Choose the ramps that overlap a time range (UTC), of all detectors or of some."""
        chosen = None if detectors is None else sorted(set(detectors))
        self._run(_CHOSEN_BY_TIME, start=start, stop=stop, detectors=chosen)

    def choose_exposures(self, exposures: Iterable[str]) -> None:
        """Choose the ramps of exposures."""
        self._run(_CHOSEN_BY_EXPOSURE, exposures=sorted(set(exposures)))

    def choose_by_pixel_scale(self, scale: PixelScale) -> None:
        """Choose the coadds whose pixels are not of this scale."""
        self._run(_CHOSEN_BY_PIXEL_SCALE, arcsec=scale.arcsec)

    def products(self) -> pd.DataFrame:
        """Return the products that the chosen images take along, in the order of their names.

        Returns
        -------
        pandas.DataFrame
            ``name``, ``kind``, ``level``, ``step``, ``file_set``, ``exposure``, ``visit``,
            ``survey``, ``optical_element``, ``detector``, ``skycell`` and ``size`` (bytes). Of
            ramps that change, all L1 of their exposures and what is made with them; of L2 images
            and coadds what is made with them.
        """
        self._connection.execute(_AFFECTED)
        return self._connection.execute(
            f"select {', '.join(_COLUMNS)} from affected order by name"
        ).df()

    def following(self) -> pd.DataFrame:
        """Return the L3 and L4 of the visits of which `products` has L2, in the same columns."""
        return self._connection.execute(_FOLLOWING).df()

    def contexts_of_visits(self, context: str) -> list[dict[str, Any]]:
        """Return the contexts of the L2 of each visit concerned, before and after.

        Parameters
        ----------
        context
            The context that the images of `products` would be made with.

        Returns
        -------
        list of dict
            ``visit``, ``old`` and ``new``, the contexts in order.
        """
        return self._rows(_CONTEXTS_OF_VISITS, context=context)

    def visits_not_made_since(
        self, visits: Iterable[str], since: datetime | None
    ) -> frozenset[str]:
        """Return those visits that have a coadd older than a time (UTC)."""
        rows = self._rows(_NOT_MADE_SINCE, visits=sorted(set(visits)), since=since)
        return frozenset(row["visit"] for row in rows)

    def _run(self, sql: str, **parameters: Any) -> None:
        self._connection.execute(sql, self._images | parameters)

    def _rows(self, sql: str, **parameters: Any) -> list[dict[str, Any]]:
        answer = self._connection.execute(sql, parameters)
        columns = [column[0] for column in answer.description]
        return [dict(zip(columns, row, strict=True)) for row in answer.fetchall()]


def _selection(row: Mapping[str, Any]) -> ReferenceSelection:
    return ReferenceSelection(
        step=Step(row["step"]),
        context=row["context"],
        detector=row["detector"],
        optical_element=row["optical_element"],
        exposure_type=row["exposure_type"],
        start_time=row["start_time"],
        references=json.loads(row["reference_files"]),
    )
