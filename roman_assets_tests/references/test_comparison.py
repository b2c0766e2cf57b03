from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from roman_assets.errors import BadInputError
from roman_assets.products.kind import Step
from roman_assets.products.observation import ExposureType, OpticalElement
from roman_assets.references import context_comparison as comparison
from roman_assets.references.context import best_references
from roman_assets.references.context_comparison import (
    ContextComparison,
    ReferenceChange,
    ReferenceSelection,
)
from roman_assets.simulation.telescope.crds_mappings import CONTEXTS
from roman_assets.simulation.telescope.reference_delivery import deliver_reference

TRUE = CONTEXTS[1]
START = datetime(2027, 6, 1, tzinfo=UTC)


def selection(detector: str, start: datetime = START, context: str = TRUE) -> ReferenceSelection:
    """Give what an exposure of darks was made with: all that CRDS chose and romancal recorded."""
    found = best_references(
        detector, OpticalElement.DARK, ExposureType.WFI_IM_DARK, start, context=context
    )
    recorded = {
        kind: name for kind, name in found.items() if name != "N/A" and not kind.startswith("pars-")
    }
    return ReferenceSelection(
        Step.EXPOSURE, context, detector, "DARK", "WFI_IM_DARK", start, recorded
    )


def test_one_new_reference_changes_one_detector_from_its_date_on(cache_of_three: Path) -> None:
    old = selection("WFI02")
    new = deliver_reference(cache_of_three, "photom", "WFI02", use_after=START)
    compared = ContextComparison(new, [TRUE])
    name = best_references(
        "WFI02", OpticalElement.DARK, ExposureType.WFI_IM_DARK, START, context=new
    )["photom"]
    assert compared.changes(old) == (ReferenceChange("photom", old.references["photom"], name),)
    assert name != old.references["photom"]
    assert compared.changes(selection("WFI02", START - timedelta(seconds=1))) == ()
    assert compared.changes(selection("WFI01")) == ()
    assert START in compared.dates


def test_products_of_the_same_context_never_change(cache_of_three: Path) -> None:
    assert ContextComparison(TRUE, CONTEXTS).changes(selection("WFI01")) == ()


def test_a_reference_that_was_not_used_does_not_count(cache_of_three: Path) -> None:
    old = selection("WFI02")
    without = replace(old, references={k: v for k, v in old.references.items() if k != "photom"})
    new = deliver_reference(cache_of_three, "photom", "WFI02")
    assert ContextComparison(new, [TRUE]).changes(without) == ()


def test_a_reference_where_there_was_none_counts_if_the_pipeline_asks_for_it(
    cache_of_three: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = selection("WFI02")
    compared = ContextComparison(TRUE, [CONTEXTS[0]])
    compared.rules = {**compared.rules, "area": compared.rules["gain"]}
    old = replace(selection("WFI02", context=CONTEXTS[0]))
    for asked, expected in ((frozenset({"area"}), ["area"]), (frozenset(), [])):
        monkeypatch.setattr(comparison, "reference_kinds", lambda step, asked=asked: asked)
        kinds = [change.kind for change in compared.changes(old)]
        assert [kind for kind in kinds if kind == "area"] == expected


def test_a_context_that_is_gone_is_compared_by_what_is_on_record(cache_of_three: Path) -> None:
    old = replace(selection("WFI02"), context="roman_0000.pmap")
    compared = ContextComparison(TRUE, ["roman_0000.pmap"])
    assert compared.changes(old) == ()
    other = replace(old, references=old.references | {"gain": "roman_wfi_gain_9999.asdf"})
    assert [change.kind for change in compared.changes(other)] == ["gain"]


def test_a_rule_that_needs_what_is_not_known_counts(cache_of_three: Path) -> None:
    old = replace(selection("WFI02"), context="roman_0000.pmap")
    with_dust = replace(old, references={"dustmap": "roman_wfi_dustmap_0001.fits"})
    (change,) = ContextComparison(TRUE, ["roman_0000.pmap"]).changes(with_dust)
    assert change.new == comparison.UNDECIDED


def test_a_context_the_cache_does_not_have_is_told(cache_of_three: Path) -> None:
    with pytest.raises(BadInputError, match=r"no roman_0009\.pmap"):
        ContextComparison("roman_0009.pmap", [TRUE])
