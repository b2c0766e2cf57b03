"""Products by name: what is current, what was before, and what became of it."""

# Names put into SQL are column names of the schema; values are always parameters.
# ruff: noqa: S608

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from roman_assets.access import Role
from roman_assets.products.kind import GROUP_SCOPES, KINDS, SKYCELL_IMAGES, Maker, Step
from roman_assets.products.lifecycle import AVAILABLE, Quality, State, Transition
from roman_assets.products.name import PROMPT_RELEASE
from roman_assets.products.pixel_scale import PIXEL_SCALE, PixelScale
from roman_assets.records.record import (
    ProductEntry,
    ProductInput,
    UtcTime,
)
from roman_assets.registry.catalog.schema import (
    CURRENT_PRODUCTS,
    IS_AVAILABLE,
    METADATA,
)
from roman_assets.registry.queryable import Queryable
from roman_assets.registry.search.condition import conditions_of, places_of

if TYPE_CHECKING:
    import pandas as pd


class RegisteredProduct(ProductEntry):
    """A product entry with its place in the archive's history.

    Parameters
    ----------
    generation
        How often a product of this name had been made, from 1.
    state
        What has become of it.
    committed_at
        When its record was written, UTC.
    ended_at
        When it ceased to be available, UTC; None while it is.
    record_id
        Its commit record.
    quality, quality_reason
        A person's grade and why, None without one.
    """

    generation: int
    state: State
    committed_at: UtcTime
    ended_at: UtcTime | None
    record_id: str
    quality: Quality | None = None
    quality_reason: str | None = None

    @property
    def is_bad(self) -> bool:
        """Whether it must not be used: coadds and releases leave it out."""
        return self.quality is Quality.BAD

    @property
    def is_withdrawn_for_good(self) -> bool:
        """Whether a person has withdrawn it, so that no routine run remakes it."""
        return self.state is State.WITHDRAWN and self.is_bad

    @property
    def is_available(self) -> bool:
        """Whether the archive shows it."""
        return self.state in AVAILABLE


class Generations:
    """Queries for generations of products, by name.

    Parameters
    ----------
    snapshot
        The registry to ask.
    """

    def __init__(self, snapshot: Queryable) -> None:
        self._snapshot = snapshot

    def current(self, names: Iterable[str]) -> dict[str, RegisteredProduct]:
        """Return the current entries of products by name; names without one are absent."""
        wanted = sorted(set(names))
        if not wanted:
            return {}
        rows = self._snapshot.rows(
            f"""
            with wanted as (
                select * from products where {IS_AVAILABLE} and name in $names
                    and name_key in name_keys($names)
            ), made_from as (
                select record_id, name,
                    list({{'name': input_name, 'sha256': input_sha256}} order by ordinal) as inputs
                from inputs where name in $names
                    and name_key in name_keys($names)
                group by all
            )
            select wanted.*, inputs
            from wanted left join made_from using (record_id, name) order by name
            """,
            {"names": wanted},
        )
        return {row["name"]: _entry(row) for row in rows}

    def of(self, names: Iterable[str]) -> dict[str, tuple[RegisteredProduct, ...]]:
        """Return all generations of products by name, oldest first; unknown names are absent.

        What was overwritten or removed is there with all it takes to cite and reproduce it.
        """
        wanted = sorted(set(names))
        if not wanted:
            return {}
        names_wanted = {"name": wanted}
        conditions, parameters = conditions_of(names_wanted)
        where = " and ".join([*conditions, *places_of(names_wanted)])
        rows = self._snapshot.rows(
            f"""
            with wanted as (
                select * from products where {where}
            ), made_from as (
                select record_id, name,
                    list({{'name': input_name, 'sha256': input_sha256}} order by ordinal) as inputs
                from inputs where {where} group by all
            )
            select wanted.*, inputs
            from wanted left join made_from using (record_id, name) order by name, generation
            """,
            parameters,
        )
        found: dict[str, tuple[RegisteredProduct, ...]] = {}
        for row in rows:
            found[row["name"]] = (*found.get(row["name"], ()), _entry(row))
        return found

    def lost_partitions(self, step: Step, partitions: Iterable[str]) -> frozenset[str]:
        """Return the partitions with a product of a step that is gone and was not replaced.

        It is lost, or was withdrawn before everyone could see it.
        """
        rows = self._snapshot.rows(
            f"""
            select distinct "partition" from (
                select "partition", name from products where "partition" in $partitions
                    and step = $step
                group by "partition", name
                having bool_or(state = '{State.LOST}'
                    or state = '{State.WITHDRAWN}' and access <> '{Role.PUBLIC}')
                    and not bool_or({IS_AVAILABLE})
            )
            """,
            {"step": step.value, "partitions": list(partitions)},
        )
        return frozenset(row["partition"] for row in rows)

    def quality_statements(self, after: datetime | None = None) -> list[dict[str, Any]]:
        """Return what people said of the quality of public products, in the order of commit.

        Parameters
        ----------
        after
            Only what was committed at this time or later.

        Returns
        -------
        list of dict
            ``record_id`` and ``committed_at`` (UTC) of the statement; ``name``, ``kind``,
            ``partition``, ``generation``, ``sha256`` and ``size`` (bytes) of the product;
            ``quality``, ``reason``, ``valid_from`` and ``valid_until`` (UTC); ``withdrawn``,
            whether the same record withdrew it.
        """
        return self._snapshot.rows(
            f"""
            with said as (
                select * from transitions where transition = '{Transition.GRADED}'
                    and ($after is null or committed_at >= $after)
            ), gone as (
                select record_id, name from transitions
                where transition = '{Transition.WITHDRAWN}'
                    and ($after is null or committed_at >= $after)
            )
            select said.record_id, said.committed_at, said.name, product.kind,
                product."partition", product.generation, product.sha256, product.size,
                said.quality, said.reason, said.valid_from, said.valid_until,
                gone.name is not null as withdrawn
            from said join products as product on product.name_key = said.name_key
                and product.name = said.name and product.record_id = said.made_by
            left join gone on gone.record_id = said.record_id and gone.name = said.name
            where product.access = '{Role.PUBLIC}'
            order by said.committed_at, said.record_id, said.name
            """,
            {"after": after},
        )

    def made_from(self, inputs: Iterable[ProductInput]) -> dict[ProductInput, set[tuple[str, str]]]:
        """Return what was made from files: name and commit record of each generation."""
        wanted = {(item.name, item.sha256): item for item in inputs}
        rows = self._snapshot.rows(
            "select distinct input_name, input_sha256, name, record_id from inputs "
            "where input_key in list_transform($hashes, lambda hash: md5_number_lower(hash)) "
            "and input_sha256 in $hashes",
            {"hashes": sorted({sha256 for _, sha256 in wanted})},
        )
        made: dict[ProductInput, set[tuple[str, str]]] = {item: set() for item in wanted.values()}
        for row in rows:
            item = wanted.get((row["input_name"], row["input_sha256"]))
            if item is not None:
                made[item].add((row["name"], row["record_id"]))
        return made

    def superseded_sets(self) -> pd.DataFrame:
        """Return the available products of every prompt file set that a release has superseded.

        Returns
        -------
        pandas.DataFrame
            ``name``, ``kind``, ``file_set``, ``survey``, ``visit``, ``size`` (bytes), ``sha256``,
            ``state`` and ``record_id`` of each, ordered by name; ``superseded_at`` (UTC) and
            ``superseded_by``, the cause on record, null for members that are not superseded
            themselves; ``replaced``, whether a published data release of the survey has products in
            their place. For each kind in the file set, or the coadd it follows, and each exposure
            of the visit that it was made from, there is a product of the same kind, skycell or
            detector, and optical element that was made from that exposure.
        """
        return self._snapshot.query(
            f"""
            with recursive stated as (
                select name_key, name, made_by as record_id, min(committed_at) as superseded_at,
                    arg_min(cause, (committed_at, record_id)) as superseded_by
                from transitions where transition = '{Transition.SUPERSEDED}' group by all
            ), sets as (
                select distinct name_key, file_set from products
                where state = '{State.SUPERSEDED}'
            ), prompt as (
                select file_set, {_PLACE} as place, name_key, record_id, name
                from products semi join sets using (name_key, file_set)
                where {IS_AVAILABLE}
            ), prompt_from as (
                -- and what of their visit these were made from, down to what is of one exposure
                from prompt union
                select prompt_from.file_set, place, made.name_key, made.record_id, made.name
                from prompt_from join inputs using (name_key, record_id, name)
                    join products as made on made.name_key = inputs.name_key
                    and made.name = input_name and made.sha256 = input_sha256
                where made.exposure is null
            ), used as (
                select distinct file_set, place, {_EXPOSURE_OF_INPUT} as exposure
                from prompt_from join inputs using (name_key, record_id, name)
                where {_IS_OF_EXPOSURE} and name_key(input_name) = name_key
            ), released as (
                select {_PLACE} as place, name_key, record_id, name from products
                where {IS_AVAILABLE} and access = '{Role.PUBLIC}'
                    and "release" <> '{PROMPT_RELEASE}' and kind in $decisive
                    and {_PLACE} in (select place from prompt)
            ), released_from as (
                from released union
                select place, made.name_key, made.record_id, made.name
                from released_from join inputs using (name_key, record_id, name)
                    join products as made on made.name = input_name and made.sha256 = input_sha256
                where made.exposure is null
            ), taken_over as (
                select distinct place, {_EXPOSURE_OF_INPUT} as exposure
                from released_from join inputs using (name_key, record_id, name)
                where {_IS_OF_EXPOSURE}
            ), replaced_sets as (
                select file_set, bool_and(taken_over.exposure is not null) as replaced from (
                    select file_set, place, exposure from prompt
                    left join used using (file_set, place)
                ) left join taken_over using (place, exposure) group by file_set
            )
            select name, kind, file_set, survey, visit, size, sha256, state, record_id,
                superseded_at, superseded_by, coalesce(replaced, false) as replaced
            from products semi join sets using (name_key, file_set)
                left join stated using (name_key, name, record_id)
                left join replaced_sets using (file_set)
            where {IS_AVAILABLE} order by name
            """,
            {"decisive": [kind for kind in _STANDS_FOR if _STANDS_FOR[kind] == kind]},
        )

    def volumes(self) -> pd.DataFrame:
        """Return how much was there from when to when, all generations summed up by the hour.

        Returns
        -------
        pandas.DataFrame
            ``size`` and ``released_size`` (bytes; the latter with coadds on the pixels of the sky
            map, as those of releases are) and ``products`` by ``level``, ``grouped`` (made of
            several exposures), ``released`` (by a data release), ``survey``, ``begin``,
            ``superseded_at`` and ``end`` (UTC; the latter null while they are available).
        """
        return self._snapshot.query(
            f"""
            with stated as (
                select name_key, name, made_by as record_id, min(committed_at) as superseded_at
                from transitions where transition = '{Transition.SUPERSEDED}' group by all
            )
            select level, exposure is null as "grouped",
                "release" <> '{PROMPT_RELEASE}' as released, survey,
                date_trunc('hour', committed_at) as "begin",
                date_trunc('hour', superseded_at) as superseded_at,
                date_trunc('hour', ended_at) as "end",
                sum(size)::double as size, sum({_ON_SKYMAP})::double as released_size,
                count(*) as products
            from products left join stated using (name_key, name, record_id)
            where state <> '{State.REFUSED}' group by all order by all
            """,
            {},
        )

    def mean_sizes(self) -> tuple[dict[str, float], float | None]:
        """Return the mean size of the prompt products, bytes by kind, and of ramps the length.

        Coadds and their segmentation maps count as if they were on the pixels of the sky map.

        Returns
        -------
        sizes, resultants
            The latter is the mean number of resultants of ramps, None if there are no ramps.
        """
        rows = self._snapshot.rows(
            f"select kind, avg({_ON_SKYMAP}) as size, avg(naxis3) as length "
            f"from {CURRENT_PRODUCTS} where \"release\" = '{PROMPT_RELEASE}' group by kind",
            {},
        )
        lengths = {row["kind"]: row["length"] for row in rows}
        return {row["kind"]: float(row["size"]) for row in rows}, lengths.get("uncal")


_STANDS_FOR = {
    kind.name: kind.name if kind.maker is Maker.SSC else kind.follows or kind.name
    for kind in KINDS
    if kind.scope in GROUP_SCOPES
}
"""For each kind the one that a release must have in its place before a prompt product is removed.

What follows a coadd is made by the same work; what the SSC delivers comes kind by kind.
"""

_CASES = " ".join(f"when '{kind}' then '{other}'" for kind, other in _STANDS_FOR.items())
_PLACE = (
    "struct_pack(survey := coalesce(survey, ''), "
    f"kind := case kind {_CASES} else kind end, "
    "skycell := coalesce(skycell, ''), detector := coalesce(detector, ''), "
    "optical_element := optical_element)"
)
"""What a product and the one that takes its place have in common."""

_IS_OF_EXPOSURE = r"regexp_matches(input_name, '^r\d{19}_\d{4}_')"

_ON_SKYMAP = (
    f"size * if(kind in {SKYCELL_IMAGES}, "
    f"(coalesce({PIXEL_SCALE}, {PixelScale.SKYMAP.arcsec}) / {PixelScale.SKYMAP.arcsec}) ** 2, 1)"
)
"""The size that a product would have if a coadd were on the pixels of the sky map, bytes."""

_EXPOSURE_OF_INPUT = "array_to_string(split(input_name, '_')[:2], '_')"


def _entry(row: Mapping[str, Any]) -> RegisteredProduct:
    return RegisteredProduct(
        name=row["name"],
        sha256=row["sha256"],
        size=row["size"],
        fingerprint=row["fingerprint"],
        inputs=tuple(ProductInput(**item) for item in row["inputs"] or ()),
        context=row["context"],
        software=json.loads(row["software"] or "{}"),
        references=json.loads(row["reference_files"] or "{}"),
        metadata=_metadata(row),
        access=row["access"],
        generation=row["generation"],
        state=row["state"],
        committed_at=row["committed_at"],
        ended_at=row["ended_at"],
        record_id=row["record_id"],
        quality=row["quality"],
        quality_reason=row["quality_reason"],
    )


def _metadata(row: Mapping[str, Any]) -> dict[str, Any]:
    """Put the metadata of the commit record together again; times as ISO 8601 in UTC."""
    known = {
        column.name: _READ_AS_JSON.get(column.type, _unchanged)(row[column.name])
        for column in METADATA
        if row[column.name] is not None
    }
    others: dict[str, Any] = json.loads(row["facts"] or "{}")
    return known | others


def _unchanged(value: Any) -> Any:
    return value


_READ_AS_JSON: Mapping[str, Callable[[Any], Any]] = {
    "TIMESTAMPTZ": lambda time: time.astimezone(UTC).isoformat(),
    "JSON": json.loads,
}
