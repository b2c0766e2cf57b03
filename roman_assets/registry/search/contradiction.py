"""Products whose state contradicts a rule, and the transitions that end it.

Publishing keeps these rules. They can be broken by a process that dies at the wrong moment, by
records that another version wrote, and by documents that were corrected after the products.
"""

# Names put into SQL are names of the schema; values are always parameters.
# ruff: noqa: S608

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from roman_assets.access import Role
from roman_assets.products.kind import KINDS, Step
from roman_assets.products.lifecycle import Quality, Transition
from roman_assets.products.name import PROMPT_RELEASE
from roman_assets.records.record import ExposureReceipt, ProductTransition, ReleasePhase
from roman_assets.registry.catalog.schema import IS_AVAILABLE
from roman_assets.registry.search.completeness import Ask
from roman_assets.registry.search.finding import Finding, FindingKind
from roman_assets.software import same_software


@dataclass(frozen=True)
class Contradiction:
    """One product that contradicts a rule.

    Parameters
    ----------
    kind
        The kind of contradiction.
    change
        The transition that ends it; its reason states the finding.
    """

    kind: FindingKind
    change: ProductTransition

    def finding(self, *, mended: bool) -> Finding:
        """Return it as `roman_assets.upkeep.fsck.fsck` reports it."""
        return Finding(self.kind, self.change.name, self.change.reason, mended)


def contradictions(ask: Ask) -> Iterator[Contradiction]:
    """Find all available products that contradict a rule, each once."""
    found: set[str] = set()
    for find in _ALL:
        for one in find(ask):
            if one.change.name not in found:
                found.add(one.change.name)
                yield one


_FOLLOWS = {kind.name: kind.follows for kind in KINDS if kind.follows is not None}


def _left_behind(ask: Ask) -> Iterator[Contradiction]:
    """Find what follows a product and was made from, or with, another generation of it (R14).

    A product of the SSC names what it follows among its inputs. What the SOC makes was made by the
    same work as what it follows: with its context, and with software of the same results.
    """
    rows = ask(
        f"""
        with follows as (
            select unnest($followers) as kind, unnest($leaders) as leader
        ), available as (
            select name_key, name, record_id, sha256, file_set, kind, step, context, software
            from products where {IS_AVAILABLE} and kind in (from (
                select kind from follows union select leader from follows))
        ), pairs as (
            select follower.*, leader.name as leader, leader.sha256 as present,
                leader.context is not distinct from follower.context as same_context,
                leader.software as leading_software
            from available as follower join follows using (kind)
                join available as leader on leader.kind = follows.leader
                    and leader.file_set = follower.file_set and leader.name_key = follower.name_key
        ), named as (
            select name_key, record_id, name, bool_or(input_sha256 = present) as fits
            from pairs join inputs using (name_key, record_id, name)
            where input_name = leader group by all
        )
        select name, record_id, sha256, leader,
            if(not coalesce(fits, same_context), null, step), software, leading_software
        from pairs left join named using (name_key, record_id, name)
        where not coalesce(fits, same_context and software is not distinct from leading_software)
        order by all
        """,
        {"followers": list(_FOLLOWS), "leaders": list(_FOLLOWS.values())},
    )
    for name, record_id, sha256, leader, step, *software in rows:
        if step is not None and same_software(Step(step), *map(_versions, software)):
            continue
        yield _contradiction(
            FindingKind.LEFT_BEHIND, Transition.OVERWRITTEN, name, record_id, sha256,
            f"it was not made from the present {leader} (R14)", leader,
        )  # fmt: skip


def _versions(text: str | None) -> dict[str, str]:
    found: dict[str, str] = json.loads(text or "{}")
    return found


def _hidden(ask: Ask) -> Iterator[Contradiction]:
    """Find what only operators see of a data release that is published (R13)."""
    rows = ask(
        f"""
        select name, products.record_id, sha256, "release", survey from products
        semi join (from releases where phase = $published) as shown using ("release", survey)
        where {IS_AVAILABLE} and "release" <> $prompt and access <> $public
            -- a release leaves out what is graded so
            and quality is distinct from $bad
        order by name
        """,
        {
            "bad": Quality.BAD.value,
            "published": ReleasePhase.PUBLISHED.value,
            "prompt": PROMPT_RELEASE,
            "public": Role.PUBLIC.value,
        },
    )
    for name, record_id, sha256, release, survey in rows:
        yield _contradiction(
            FindingKind.HIDDEN_PRODUCT, Transition.PUBLISHED, name, record_id, sha256,
            f"{release} of {survey} is published, and only operators see it (R13)",
            f"{survey}_{release}",
        )  # fmt: skip


_TOLD = """
select "partition" as exposure, optical_element, detectors from receipts
qualify row_number() over (partition by "partition" order by committed_at desc, record_id desc) = 1
"""
_NEWLY_TOLD = """
select unnest($exposures) as exposure, unnest($elements) as optical_element,
    unnest($detectors::varchar[][]) as detectors
"""


def _never_taken(ask: Ask) -> Iterator[Contradiction]:
    """Find products of observations that the newest executed visit no longer lists."""
    yield from _withdrawn(ask(_contradicting(_TOLD), {}))


def contradicted_by(ask: Ask, receipts: Mapping[str, ExposureReceipt]) -> list[Contradiction]:
    """Find the available products that contradict the newest executed visit.

    Parameters
    ----------
    ask
        Gives the rows of a query on the registry.
    receipts
        Statements of the newest executed visit, by exposure.
    """
    known = {key: one for key, one in receipts.items() if one.optical_element is not None}
    if not known:
        return []
    parameters = {
        "exposures": list(known),
        "elements": [str(one.optical_element) for one in known.values()],
        "detectors": [list(one.detectors) for one in known.values()],
    }
    return list(_withdrawn(ask(_contradicting(_NEWLY_TOLD), parameters)))


def _contradicting(told: str) -> str:
    """Return the query for products of exposures, or of their visits, that cannot be.

    Of an exposure that was not executed the executed visit names no detector.
    """
    return f"""
    with told as materialized (
        select *, partition_key(exposure) as name_key, split_part(exposure, '_', 1) as visit
        from ({told}) where optical_element is not null
    ), visits as (
        select visit, name_key, list(distinct optical_element) as elements from told
        where len(detectors) > 0 group by all
    )
    select name, record_id, sha256, told.exposure, case
        when len(detectors) = 0 then 'was not executed'
        when products.optical_element <> told.optical_element
            then 'was taken with ' || told.optical_element
        else 'has no ' || detector end as reason
    from products join told using (name_key, exposure)
    where {IS_AVAILABLE} and (len(detectors) = 0
        or products.optical_element <> told.optical_element
        or (detector is not null and not list_contains(detectors, detector)))
    union all
    select name, record_id, sha256, visit,
        'was taken with ' || array_to_string(elements, ', ')
    from products join visits using (name_key, visit)
    where {IS_AVAILABLE} and exposure is null and "release" = '{PROMPT_RELEASE}'
        and not list_contains(elements, optical_element)
    order by all
    """


def _withdrawn(rows: Iterable[tuple[Any, ...]]) -> Iterator[Contradiction]:
    for name, record_id, sha256, subject, reason in rows:
        yield _contradiction(
            FindingKind.NEVER_TAKEN, Transition.WITHDRAWN, name, record_id, sha256,
            f"by the newest executed visit, {subject} {reason}", subject,
        )  # fmt: skip


_ALL: tuple[Callable[[Ask], Iterator[Contradiction]], ...] = (
    _never_taken,
    _left_behind,
    _hidden,
)


def _contradiction(
    kind: FindingKind,
    transition: Transition,
    name: str,
    made_by: str,
    sha256: str,
    reason: str,
    cause: str,
) -> Contradiction:
    return Contradiction(
        kind,
        ProductTransition(
            transition=transition,
            name=name,
            made_by=made_by,
            sha256=sha256,
            reason=reason,
            cause=cause,
        ),
    )
