"""What there is of a visit to co-add, and what is missing (R9)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError
from roman_assets.formatting.executed_visit import ExecutedVisit, VisitStatus
from roman_assets.formatting.landing import executed_visits
from roman_assets.products.deadline import ClockEvent
from roman_assets.products.kind import ProductKind, Step, expected_kinds
from roman_assets.products.name import DetectorFileSet, ProductName
from roman_assets.products.observation import ExposureId, ExposureType, Survey, VisitId
from roman_assets.publishing.provenance import as_input
from roman_assets.records.record import ProductInput
from roman_assets.registry.registry import Registry
from roman_assets.registry.search.generations import RegisteredProduct
from roman_assets.registry.work_history import VisitExposure


@dataclass(frozen=True)
class VisitManifest:
    """What there is of a visit, to be added up.

    Parameters
    ----------
    visit
        Which one.
    members
        Its current prompt L2 images, by name.
    exposures
        The exposures they come from.
    nexposures
        The planned number (``meta.visit.nexposures``), None before anything of it is registered.
    missing
        What is missing: exposures without L2, and file sets of single detectors without one.
        Exposures that were planned and never seen count, unless the observatory cut the visit
        short.
    failed
        Those file sets of `missing` that could not be made, or that a person graded ``BAD``: they
        are not awaited.
    status
        How its execution ended, None while the executed visit is not in the landing area.
    executed
        The time range of its execution as far as known (UTC): start of the first exposure, end of
        the last.
    survey, exposure_type
        Of the visit, None before anything of it is registered.
    """

    visit: VisitId
    members: tuple[ProductInput, ...]
    exposures: tuple[ExposureId, ...]
    nexposures: int | None
    missing: tuple[str, ...]
    failed: frozenset[str] = frozenset()
    status: VisitStatus | None = None
    executed: Mapping[ClockEvent, datetime] = field(default_factory=dict)
    survey: Survey | None = None
    exposure_type: ExposureType | None = None

    @property
    def complete(self) -> bool:
        """Everything executed is in, with L2 of every detector."""
        return self.nexposures is not None and not self.missing

    @property
    def awaited(self) -> tuple[str, ...]:
        """What is missing and may still come."""
        return tuple(name for name in self.missing if name not in self.failed)

    @property
    def digest(self) -> str:
        """A sha256 of the members' names and contents and of what is missing.

        It changes whenever the visit is to be reprocessed.
        """
        lines = [
            *(f"{member.name} {member.sha256}" for member in self.members),
            *(f"without {name}" for name in self.missing),
        ]
        return hashlib.sha256("\n".join([str(self.visit), *lines]).encode()).hexdigest()

    @property
    def kinds(self) -> tuple[ProductKind, ...]:
        """The kinds of products that the SOC makes promptly of this visit, perhaps none (R12)."""
        if self.survey is None or self.exposure_type is None:
            return ()
        return expected_kinds(self.survey, self.exposure_type, (Step.VISIT,))


def visit_manifest(root: DataRoot, visit: VisitId) -> VisitManifest:
    """List the current L2 images of a visit and what is missing.

    Parameters
    ----------
    root
        The installation.
    visit
        Which one; of an unknown visit the manifest is empty.
    """
    with Registry(root) as registry:
        return visit_manifests(root, registry, [visit])[visit]


def visit_manifests(
    root: DataRoot, registry: Registry, visits: Iterable[VisitId]
) -> Mapping[VisitId, VisitManifest]:
    """List the current L2 images of several visits; faster than one by one.

    Raises
    ------
    BadInputError
        If one of them cannot be listed.
    """
    listed = listed_visits(root, registry, visits)
    for fault in listed.faults.values():
        raise fault
    return listed.manifests


@dataclass(frozen=True)
class ListedVisits:
    """The products of several visits.

    Parameters
    ----------
    manifests
        Of the visits that can be listed.
    faults
        Why the others cannot be.
    """

    manifests: Mapping[VisitId, VisitManifest]
    faults: Mapping[VisitId, BadInputError]


def listed_visits(root: DataRoot, registry: Registry, visits: Iterable[VisitId]) -> ListedVisits:
    """List what there is of several visits; one that cannot be listed holds up no other."""
    wanted = list(visits)
    seen = registry.work.exposures_of_visits(wanted)
    ramps = _by_visit(registry.products.find(visit=map(str, wanted), kind="uncal")["name"])
    documents = executed_visits(root, wanted)
    exposures = [str(one.exposure) for found in seen.values() for one in found]
    failures = _by_exposure(registry.work.failures(exposures)["file_set"]) if exposures else {}
    events = registry.receipts.events_of(exposures)
    manifests: dict[VisitId, VisitManifest] = {}
    faults: dict[VisitId, BadInputError] = {}
    for visit in wanted:
        try:
            manifests[visit] = _manifest(
                visit,
                seen.get(visit, ()),
                documents.get(visit),
                [str(name.file_set) for name in ramps.get(visit, ())],
                failures,
                [events.get(str(one.exposure), {}) for one in seen.get(visit, ())],
            )
        except ValueError as error:
            faults[visit] = BadInputError(
                visit, "visit", f"its exposures cannot be listed: {error}", _CORRECT
            )
    return ListedVisits(manifests, faults)


_CORRECT = "deliver its executed visit again, corrected, with a higher revision"


def _manifest(
    visit: VisitId,
    seen: Sequence[VisitExposure],
    document: ExecutedVisit | None,
    ramps: Iterable[str],
    failures: Mapping[str, frozenset[str]],
    events: Iterable[Mapping[ClockEvent, datetime]],
) -> VisitManifest:
    bad = frozenset[str]().union(*(one.bad for one in seen))
    members = sorted((entry for one in seen for entry in _good(one)), key=lambda entry: entry.name)
    planned = [one.nexposures for one in seen if one.nexposures is not None]
    if document is not None:
        planned = [document.nexposures]
    nexposures = max(planned, default=None)
    images = {str(entry.product_name.file_set) for entry in members}
    failed = frozenset(name for one in seen for name in failures.get(str(one.exposure), ())) | bad
    detectors = {*ramps, *failed, *_sent_down(document)}
    missing = tuple(_missing(_expected(visit, nexposures, document), detectors, images, failed))
    return VisitManifest(
        visit=visit,
        members=tuple(as_input(entry) for entry in members),
        exposures=tuple(one.exposure for one in seen if any(_good(one))),
        nexposures=nexposures,
        missing=missing,
        failed=failed.intersection(missing),
        status=None if document is None else document.status,
        executed=_execution(document, events),
        survey=next((Survey(one.survey) for one in seen if one.survey), None),
        exposure_type=next(
            (ExposureType(one.exposure_type) for one in seen if one.exposure_type), None
        ),
    )


def _good(exposure: VisitExposure) -> Iterator[RegisteredProduct]:
    """Yield the L2 images that nobody graded bad: the others are left out of coadds."""
    return (entry for entry in exposure.cal if str(entry.product_name.file_set) not in exposure.bad)


def _expected(
    visit: VisitId, nexposures: int | None, document: ExecutedVisit | None
) -> frozenset[str]:
    """Return the exposures the visit is made of: all planned, or those executed if it was cut."""
    if document is not None and document.status is VisitStatus.TRUNCATED:
        return frozenset(map(str, document.exposure_ids))
    return frozenset(str(ExposureId(visit, number + 1)) for number in range(nexposures or 0))


def _sent_down(document: ExecutedVisit | None) -> Iterator[str]:
    """Yield the file sets of the detectors of which data were sent down."""
    if document is None:
        return
    for executed in document.exposures:
        exposure = ExposureId(document.visit, executed.exposure)
        for detector in executed.detectors:
            yield str(DetectorFileSet(exposure, detector, document.optical_element))


def _missing(
    exposures: Iterable[str], detectors: Iterable[str], images: set[str], failed: frozenset[str]
) -> list[str]:
    """Name whole exposures without an image, unless it is known that all detectors failed."""
    lacking: dict[str, set[str]] = {exposure: set() for exposure in exposures}
    for name in set(detectors) - images:
        lacking.setdefault(_exposure_of(name), set()).add(name)
    begun = {_exposure_of(name) for name in images}
    return sorted(
        name
        for exposure, names in lacking.items()
        for name in (names if exposure in begun or (names and names <= failed) else {exposure})
    )


def _exposure_of(file_set: str) -> str:
    return "_".join(file_set.split("_", 2)[:2])


def _by_visit(names: Iterable[str]) -> dict[VisitId, list[ProductName]]:
    groups: dict[VisitId, list[ProductName]] = {}
    for name in map(ProductName.parse, names):
        if name.visit is not None:
            groups.setdefault(name.visit, []).append(name)
    return groups


_OF_DETECTOR = re.compile(r"_wfi\d\d_", re.ASCII)


def _by_exposure(file_sets: Iterable[str]) -> dict[str, frozenset[str]]:
    """Group the file sets of detectors; FACE, which gives no image, is left out."""
    groups: dict[str, set[str]] = {}
    for name in filter(_OF_DETECTOR.search, file_sets):
        groups.setdefault(_exposure_of(name), set()).add(name)
    return {exposure: frozenset(names) for exposure, names in groups.items()}


def _execution(
    document: ExecutedVisit | None, events: Iterable[Mapping[ClockEvent, datetime]]
) -> dict[ClockEvent, datetime]:
    """Return when the visit's first exposure began and its last one ended, lost ones included."""
    executed = () if document is None else document.exposures
    moments = [
        *events,
        *(
            {ClockEvent.EXECUTION_START: one.start_time, ClockEvent.EXECUTION_END: one.end_time}
            for one in executed
        ),
    ]
    return {
        event: choose(times)
        for event, choose in _EXECUTION_OF_VISIT.items()
        if (times := [known[event] for known in moments if event in known])
    }


_EXECUTION_OF_VISIT = {ClockEvent.EXECUTION_START: min, ClockEvent.EXECUTION_END: max}
