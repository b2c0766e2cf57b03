"""Which reference files another context would choose for products, by CRDS's own rules (R15).

CRDS is asked once for all products that it cannot tell apart: those of one detector, optical
element and type of exposure, made with the same references, between two dates at which any of the
compared rules changes.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from roman_assets.errors import BadInputError
from roman_assets.products.kind import Step
from roman_assets.references.context import require_context

NONE = "N/A"
"""What a context says where there is no reference."""

UNDECIDED = "?"
"""In place of a name: the rule asks for a parameter that the registry does not hold."""

COADD_DETECTOR = "WFI02"
"""The detector in whose name romancal looks up the references of coadds."""

_INSTRUMENT = "WFI"


@dataclass(frozen=True)
class ReferenceSelection:
    """What decides which references products were made with, and which they would be made with.

    Parameters
    ----------
    step
        The work that made them.
    context
        The context they were made with.
    detector
        ``WFI01`` to ``WFI18``; empty for coadds.
    optical_element, exposure_type
        As in ``meta.instrument.optical_element`` and ``meta.exposure.type``.
    start_time
        Start of the (first) exposure of any of them, UTC.
    references
        The reference files on record, by kind.
    """

    step: Step
    context: str
    detector: str
    optical_element: str
    exposure_type: str
    start_time: datetime
    references: Mapping[str, str]

    @property
    def header(self) -> dict[str, str]:
        """The parameters as CRDS names them."""
        return {
            "ROMAN.META.INSTRUMENT.NAME": _INSTRUMENT,
            "ROMAN.META.INSTRUMENT.DETECTOR": self.detector or COADD_DETECTOR,
            "ROMAN.META.INSTRUMENT.OPTICAL_ELEMENT": self.optical_element,
            "ROMAN.META.EXPOSURE.TYPE": self.exposure_type,
            "ROMAN.META.EXPOSURE.START_TIME": (
                f"{self.start_time.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
            ),
        }


@dataclass(frozen=True)
class ReferenceChange:
    """A reference file that would be another one, or where there was or would be none."""

    kind: str
    old: str
    new: str


class ContextComparison:
    """Compares what products were made with and what a context would choose for them now.

    Parameters
    ----------
    context
        The context to compare with.
    made_with
        The contexts that products were made with. One that the cache has no more is compared by
        the references on record alone.

    Raises
    ------
    BadInputError
        If the cache has no such context.

    Attributes
    ----------
    rules : mapping
        Of the new context, by kind of reference.
    """

    def __init__(self, context: str, made_with: Iterable[str]) -> None:
        self.rules = _rules(require_context(context))
        self._old = {name: _known_rules(name) for name in {*made_with} - {context}}
        self.context = context

    @property
    def dates(self) -> tuple[datetime, ...]:
        """The dates (UTC) from which on one of the rules that differ chooses another file."""
        found: set[datetime] = set()
        for old in self._old.values():
            kinds = self.rules.keys() if old is None else _differing(old, self.rules)
            for rules in (old or {}, self.rules):
                found.update(date for kind in kinds for date in _use_after_dates(rules.get(kind)))
        return tuple(sorted(found))

    def changes(self, selection: ReferenceSelection) -> tuple[ReferenceChange, ...]:
        """Return the references that would be others, by kind.

        A reference that is not on record counts only where the pipeline of these products asks for
        it: parameter references, which are never on record, and those that the old context did not
        have.
        """
        if selection.context == self.context:
            return ()
        old = self._old[selection.context]
        kinds = selection.references.keys() if old is None else _differing(old, self.rules)
        changes = (self._change(kind, old or {}, selection) for kind in sorted(kinds))
        return tuple(change for change in changes if change is not None)

    def _change(
        self, kind: str, old: Mapping[str, Any], selection: ReferenceSelection
    ) -> ReferenceChange | None:
        header, recorded = selection.header, selection.references.get(kind)
        before = recorded or _choice(old.get(kind), header)
        after = _choice(self.rules.get(kind), header)
        if before == after and after != UNDECIDED:
            return None
        if recorded is None and not _counts_without_record(kind, before, selection.step):
            return None
        return ReferenceChange(kind, before, after)


def _counts_without_record(kind: str, before: str, step: Step) -> bool:
    wanted = before == NONE or kind.startswith("pars-")
    return wanted and kind in reference_kinds(step)


@functools.cache
def reference_kinds(step: Step) -> frozenset[str]:
    """Return the kinds of references that romancal's pipeline of a step asks for."""
    from romancal.pipeline import ExposurePipeline, MosaicPipeline

    pipelines = {Step.EXPOSURE: ExposurePipeline, Step.VISIT: MosaicPipeline}
    if step not in pipelines:
        return frozenset()
    steps = list(pipelines[step].step_defs.values())
    kinds = {kind for one in steps for kind in one.reference_file_types}
    return frozenset(kinds | {f"pars-{one.__name__.lower()}" for one in [pipelines[step], *steps]})


def _rules(context: str) -> Mapping[str, Any]:
    """Return the rules of a context: by kind a `crds` mapping, or a word where there is none."""
    from crds.core import rmap
    from crds.core.exceptions import CrdsError

    try:
        selections = rmap.get_cached_mapping(context).get_imap(_INSTRUMENT).selections
        return {kind: selections[kind] for kind in selections}
    except (CrdsError, OSError) as error:
        raise BadInputError(
            f"CRDS context {context}", "mapping", str(error), "repair or complete the cache"
        ) from error


def _known_rules(context: str) -> Mapping[str, Any] | None:
    try:
        return _rules(context)
    except BadInputError:
        return None


def _differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> set[str]:
    return {kind for kind in old.keys() | new.keys() if _name(old, kind) != _name(new, kind)}


def _name(rules: Mapping[str, Any], kind: str) -> str:
    """Return the name of a rule: rules are never changed, so those of one name are the same."""
    rule = rules.get(kind, NONE)
    return rule if isinstance(rule, str) else str(rule.basename)


def _choice(rule: Any, header: Mapping[str, str]) -> str:
    if rule is None or isinstance(rule, str):
        return NONE
    if not set(rule.get_required_parkeys()) <= header.keys():
        return UNDECIDED
    found = rule.get_best_ref(rule.minimize_header(header))
    return NONE if found is None or found.startswith("NOT FOUND") else str(found)


def _use_after_dates(rule: Any) -> Iterator[datetime]:
    if rule is not None and not isinstance(rule, str):
        yield from _dates_of(rule.selector)


def _dates_of(selector: Any) -> Iterator[datetime]:
    from crds.core.selectors import Selector, UseAfterSelector
    from crds.core.timestamp import parse_date

    if isinstance(selector, UseAfterSelector):
        yield from (parse_date(key).replace(tzinfo=UTC) for key in selector.keys())  # noqa: SIM118
    for choice in selector.choices():
        if isinstance(choice, Selector):
            yield from _dates_of(choice)
