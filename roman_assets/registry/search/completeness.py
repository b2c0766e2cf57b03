"""Gaps among the products on record: inputs that nobody knows, kinds of a file set."""

# Names put into SQL are names of the schema; values are always parameters.
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from roman_assets.access import Role
from roman_assets.products.kind import (
    KIND_BY_NAME,
    RELEASE_DELIVERY_STEPS,
    Step,
    required_kinds,
)
from roman_assets.products.name import EXTERNAL_INPUT
from roman_assets.products.observation import ExposureType, Survey
from roman_assets.products.origin import Origin
from roman_assets.registry.catalog.schema import IS_AVAILABLE
from roman_assets.registry.search.finding import Finding, FindingKind

Ask = Callable[[str, dict[str, Any]], list[tuple[Any, ...]]]
"""Return the rows of a query on the registry, with its parameters."""


def dangling_inputs(ask: Ask) -> Iterator[Finding]:
    """Find available products made from something that is neither a product nor known otherwise.

    An input is known if the registry has a generation with its name and content, available or
    not, or if it comes from outside the archive (`EXTERNAL_INPUT`).
    """
    rows = ask(
        f"select inputs.name, input_name, input_sha256 from inputs "
        f"semi join (select record_id, name from products where {IS_AVAILABLE}) "
        "using (record_id, name) "
        "anti join (select name as input_name, sha256 as input_sha256 from products) "
        "using (input_name, input_sha256) "
        "where not regexp_full_match(input_name, $external) order by all",
        {"external": EXTERNAL_INPUT.pattern},
    )
    for name, input_name, sha256 in rows:
        yield Finding(
            FindingKind.DANGLING_INPUT,
            name,
            f"made from {input_name} with the sha256 {sha256}, of which there is no record",
        )


_SETS = f"""
with sets as (
    select file_set, step, any_value("partition") as "partition",
        list_sort(list(distinct kind)) as kinds,
        any_value(survey) as survey, any_value(exposure_type) as exposure_type,
        coalesce(any_value(origin), '{Origin.PACKETS}') as origin
    from products where {IS_AVAILABLE}
        -- until its publication, a release waits for what the SSC has not delivered
        and (access = '{Role.PUBLIC}'
            or step not in {tuple(step.value for step in RELEASE_DELIVERY_STEPS)})
    group by file_set, step
)
"""


def partial_sets(ask: Ask) -> Iterator[Finding]:
    """Find file sets without a kind that the same step makes of such an exposure or visit."""
    shapes = ask(
        f"{_SETS} select distinct step, kinds, survey, exposure_type, origin from sets", {}
    )
    for step, kinds, survey, exposure_type, origin in shapes:
        missing = _missing(Step(step), kinds, survey, exposure_type, Origin(origin))
        if not missing:
            continue
        rows = ask(
            f'{_SETS} select file_set, "partition", (select arg_max(message, committed_at) '
            "from failures where failures.file_set = sets.file_set "
            "and failures.step = sets.step) from sets "
            "where step = $step and kinds = $kinds and survey is not distinct from $survey "
            "and exposure_type is not distinct from $exposure_type and origin = $origin "
            "order by all",
            {
                "step": step,
                "kinds": kinds,
                "survey": survey,
                "exposure_type": exposure_type,
                "origin": origin,
            },
        )
        for file_set, partition, failure in rows:
            failed = f"; its last failure: {failure}" if failure else ""
            yield Finding(
                FindingKind.PARTIAL_SET,
                file_set,
                f"has {', '.join(kinds)} but no {', '.join(missing)} (step {step} of "
                f"{partition}){failed}",
            )


def _missing(
    step: Step,
    kinds: list[str],
    survey: str | None,
    exposure_type: str | None,
    origin: Origin,
) -> list[str]:
    present = frozenset(KIND_BY_NAME[kind] for kind in kinds)
    required = required_kinds(
        step,
        present,
        None if survey is None else Survey(survey),
        None if exposure_type is None else ExposureType(exposure_type),
        origin,
    )
    return [kind.name for kind in required if kind not in present]
