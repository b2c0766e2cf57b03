"""The rules of the specification in any order of what can happen, against a small model of them.

One example is an installation in which many visits live at once, each with a sequence of events of
its own; the retention sweep goes over all of them. So hundreds of sequences cost few folds.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from roman_assets.access import Role
from roman_assets.archive.store import Archive, Staged
from roman_assets.data_root import DataRoot
from roman_assets.products.kind import KIND_BY_NAME, Step
from roman_assets.products.lifecycle import Transition
from roman_assets.products.name import (
    DetectorFileSet,
    ExposureFileSet,
    ProductName,
    SkycellFileSet,
)
from roman_assets.products.observation import ExposureId, OpticalElement, Survey, VisitId
from roman_assets.products.retention_policy import RetentionPeriods
from roman_assets.reader.archive_reader import ArchiveReader
from roman_assets.records.journal import Journal
from roman_assets.records.record import (
    Cause,
    Change,
    CommitRecord,
    Decision,
    ProductEntry,
    ProductInput,
    ProductTransition,
    Proposal,
    Statement,
    Verdict,
)
from roman_assets.registry.registry import Registry
from roman_assets.registry.search.finding import FindingKind
from roman_assets.registry.store.fold import fold, rebuild
from roman_assets.upkeep.fsck import fsck
from roman_assets.upkeep.sweep import sweep
from roman_assets_tests.support.small_products import (
    ANY_FINGERPRINT,
    moment,
    public_content,
    registry_content,
)

SEQUENCES = 100
LONGEST = 10
DAYS = 400
ELEMENT = OpticalElement.F158
SURVEYS = (Survey.HLWAS, Survey.HLTDS)
PERIODS = RetentionPeriods(timedelta(days=90), {Survey.HLTDS: timedelta(days=30)})
CONTENTS = tuple(f"content {number}".encode() for number in range(4))
RELEASES = ("r0", "r1")


class Event(StrEnum):
    """What can happen to a visit."""

    FORMAT = "L1 is made (again)"
    CALIBRATE = "L2, supplement and L4 are made (again)"
    CALIBRATE_FOR_RELEASE = "L2, supplement and L4 are made again for a release"
    CALIBRATE_WITHOUT_L4 = "L2 and supplement are made (again), L4 cannot be"
    MOSAIC = "prompt L3 and L4 are made (again)"
    RUN_RELEASE = "L3 and L4 of the release are made"
    PUBLISH_RELEASE = "the release is published"
    LOSE = "a file is found to be lost"
    CORRECT = "a corrected executed visit says that it was not taken so"
    PROPOSE = "somebody proposes to make it again early"
    APPROVE = "somebody approves"
    REJECT = "somebody rejects"


@dataclass(frozen=True)
class Happening:
    """An event of a visit at a time, with what is drawn at random for it."""

    event: Event
    day: int
    content: int
    release: str
    chosen: int


happenings = st.builds(
    Happening,
    st.sampled_from(Event),
    st.integers(0, DAYS),
    st.integers(0, len(CONTENTS) - 1),
    st.sampled_from(RELEASES),
    st.integers(0, 11),
)
sequences = st.lists(
    st.lists(happenings, min_size=1, max_size=LONGEST), min_size=SEQUENCES, max_size=SEQUENCES
)
sweep_days = st.lists(st.integers(0, DAYS), max_size=1)


@dataclass
class Made:
    """One generation as the rules have it."""

    content: int
    made_by: str
    state: str = "current"
    ended_at: datetime | None = None
    public: bool = True
    superseded_at: datetime | None = None
    data_release: str | None = None
    exposures: frozenset[str] = frozenset()

    @property
    def is_available(self) -> bool:
        return self.state in ("current", "superseded")

    def end(self, state: str, when: datetime) -> None:
        if self.is_available:
            self.state, self.ended_at = state, when


@dataclass
class VisitModel:
    """What the rules say of one visit: its generations by name, and the proposal about it."""

    number: int
    generations: dict[str, list[Made]] = field(default_factory=dict)
    proposed: bool = False
    verdict: str = ""
    published: set[str] = field(default_factory=set)

    @property
    def survey(self) -> Survey:
        return SURVEYS[self.number % len(SURVEYS)]

    @property
    def exposure(self) -> ExposureId:
        return ExposureId(VisitId(self.number + 1, 1, 1, 1, 1, 1), 1)

    def some_exposures(self, what: Happening) -> list[str]:
        """Return one or both exposures that a coadd is made from."""
        both = [str(ExposureId(self.exposure.visit, number)) for number in (1, 2)]
        return [both[:1], both[1:], both][what.chosen % 3]

    def names(self, *kinds: str, release: str = "p") -> list[str]:
        """Give names of products of the visit."""
        exposure = self.exposure
        sets = {
            "detector": DetectorFileSet(exposure, "WFI01", ELEMENT),
            "exposure": ExposureFileSet(exposure, ELEMENT),
            "skycell": SkycellFileSet.of_visit(
                exposure.visit, f"{self.number:03d}p65x50y50", ELEMENT, release
            ),
        }
        return [
            str(ProductName(sets[KIND_BY_NAME[kind].scope], KIND_BY_NAME[kind])) for kind in kinds
        ]

    def mosaics(self, release: str) -> list[str]:
        return self.names(
            "association", "coadd", "visit_catalog", "visit_segmentation", release=release
        )

    def available(self, names: list[str]) -> dict[str, Made]:
        """Give what can be read of some names; of each name it is one generation at most."""
        return {
            name: made
            for name in names
            for made in self.generations.get(name, ())
            if made.is_available
        }

    def make(
        self,
        names: list[str],
        content: int,
        made_by: str,
        when: datetime,
        data_release: str | None = None,
        exposures: Iterable[str] = (),
    ) -> None:
        """R6: reprocessed products overwrite; R13: a versioned name is given once.

        A lost product of a release is public again once restored, if the release is public.
        """
        for name in names:
            versioned = "_r0_" in name or "_r1_" in name
            public = not versioned or name.split("_")[1] in self.published
            made = Made(
                content, made_by, public=public, data_release=data_release,
                exposures=frozenset(exposures),
            )  # fmt: skip
            earlier = self.generations.setdefault(name, [])
            if versioned and any(one.state in ("current", "refused") for one in earlier):
                made.state, made.ended_at = "refused", when
            elif not versioned and earlier:
                earlier[-1].end("overwritten", when)
            earlier.append(made)

    def publish(self, release: str, when: datetime) -> dict[Transition, dict[str, Made]]:
        """R13: a release appears at once, and supersedes the prompt L3 and L4 there are.

        Of this visit it may have nothing: its skycell failed.
        """
        shown = {
            name: one
            for name in self.mosaics(release)
            for one in self.generations.get(name, ())
            if one.state == "current"
        }
        replaced = {
            name: one
            for name, one in self.available(self.mosaics("p")).items()
            if one.state == "current"
        }
        self.published.add(release)
        for one in shown.values():
            one.public = True
        for one in replaced.values():
            one.state, one.superseded_at = "superseded", when
        return {Transition.PUBLISHED: shown, Transition.SUPERSEDED: replaced}

    def sweep(self, when: datetime) -> int:
        """R13, R14: what was superseded long enough goes, L4 together with their L3.

        It stays where the releases have not added up all that it was made from.
        """
        prompt = self.available(self.mosaics("p"))
        (coadd,) = self.names("coadd")
        decisive = [prompt[coadd]] if coadd in prompt else list(prompt.values())
        since = [one.superseded_at for one in decisive if one.state == "superseded"]
        taken_over = {
            exposure
            for release in RELEASES
            for one in self.available(self.names("coadd", release=release)).values()
            if one.public
            for exposure in one.exposures
        }
        used = {exposure for one in prompt.values() for exposure in one.exposures}
        replaced = used <= taken_over
        if not since or not replaced or max(since) + PERIODS.of(self.survey) > when:
            return 0
        for one in prompt.values():
            one.end("removed", when)
        return len(prompt)


class Installation:
    """An installation and the model of all its visits."""

    def __init__(self, root: DataRoot) -> None:
        self.root = root
        self.visits = [VisitModel(number) for number in range(SEQUENCES)]
        self.waiting: list[CommitRecord] = []
        self.staged = [self._staged(content) for content in CONTENTS]

    def _staged(self, content: bytes) -> Staged:
        path = self.root.path / "scratch" / "content"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return Archive.of(self.root).stage(path)

    def happen(self, visit: VisitModel, what: Happening, when: datetime) -> None:
        """Let something happen to a visit, in the model and by a commit record."""
        record = _EVENTS[what.event](self, visit, what, when)
        if record is not None:
            self.waiting.append(record)

    def record(
        self,
        visit: VisitModel,
        step: Step,
        names: list[str],
        what: Happening,
        when: datetime,
        transitions: Mapping[Transition, Mapping[str, Made]] | None = None,
        data_release: str | None = None,
        exposures: Sequence[str] = (),
    ) -> CommitRecord:
        """Make the record of a step; the model does as the rules say."""
        staged = self.staged[what.content]
        mark = {} if data_release is None else {"data_release": data_release}
        changes = [
            ProductTransition(
                transition=transition,
                name=name,
                made_by=made.made_by,
                sha256=self.staged[made.content].sha256,
                reason="for the test",
                cause=what.release,
            )
            for transition, found in (transitions or {}).items()
            for name, made in found.items()
        ]
        record = CommitRecord(
            step=step,
            partition=str(visit.exposure),
            committed_at=when,
            products=tuple(
                ProductEntry(
                    name=name,
                    sha256=staged.sha256,
                    size=staged.size,
                    fingerprint=ANY_FINGERPRINT,
                    inputs=tuple(
                        ProductInput(name=f"{one}_wfi01_l0", sha256=staged.sha256)
                        for one in exposures
                    ),
                    metadata={"survey": visit.survey.value, "exposure_type": "WFI_IMAGE", **mark},
                    access=Role.OPERATIONS
                    if step is Step.RELEASE and what.release not in visit.published
                    else Role.PUBLIC,
                )
                for name in names
            ),
            transitions=tuple(changes),
        )
        visit.make(names, what.content, record.record_id, when, data_release, exposures)
        return record

    def commit(self) -> None:
        Journal(self.root).write_all(self.waiting)
        self.waiting = []

    def sweep(self, when: datetime) -> None:
        self.commit()
        report = sweep(self.root, clock=lambda: when, periods=PERIODS)
        assert report.products == sum(visit.sweep(when) for visit in self.visits)


def _format(at: Installation, visit: VisitModel, what: Happening, when: datetime) -> CommitRecord:
    names = visit.names("uncal", "guide_window", "face")
    return at.record(visit, Step.FORMATTING, names, what, when)


def _calibrate(
    at: Installation, visit: VisitModel, what: Happening, when: datetime
) -> CommitRecord:
    names = visit.names("cal", "supplement", "exposure_catalog", "exposure_segmentation")
    return at.record(visit, Step.EXPOSURE, names, what, when)


def _calibrate_for_release(
    at: Installation, visit: VisitModel, what: Happening, when: datetime
) -> CommitRecord:
    """R6, R7: L2 of a release have no version, they overwrite, and are marked."""
    names = visit.names("cal", "supplement", "exposure_catalog", "exposure_segmentation")
    return at.record(visit, Step.EXPOSURE, names, what, when, data_release=what.release)


def _calibrate_without_l4(
    at: Installation, visit: VisitModel, what: Happening, when: datetime
) -> CommitRecord:
    """R14: the L4 of an image that is made again go with it."""
    level4 = visit.available(visit.names("exposure_catalog", "exposure_segmentation"))
    record = at.record(
        visit, Step.EXPOSURE, visit.names("cal", "supplement"), what, when,
        {Transition.OVERWRITTEN: level4},
    )  # fmt: skip
    for made in level4.values():
        made.end("overwritten", when)
    return record


def _mosaic(at: Installation, visit: VisitModel, what: Happening, when: datetime) -> CommitRecord:
    return at.record(
        visit, Step.VISIT, visit.mosaics("p"), what, when, exposures=visit.some_exposures(what)
    )


def _run_release(
    at: Installation, visit: VisitModel, what: Happening, when: datetime
) -> CommitRecord:
    return at.record(
        visit, Step.RELEASE, visit.mosaics(what.release), what, when,
        exposures=visit.some_exposures(what),
    )  # fmt: skip


def _publish_release(
    at: Installation, visit: VisitModel, what: Happening, when: datetime
) -> CommitRecord:
    transitions = visit.publish(what.release, when)
    return at.record(visit, Step.RELEASE, [], what, when, transitions)


def _lose(
    at: Installation, visit: VisitModel, what: Happening, when: datetime
) -> CommitRecord | None:
    there = visit.available(sorted(visit.generations))
    if not there:
        return None
    name = sorted(there)[what.chosen % len(there)]
    lost = {name: there[name]}
    record = at.record(visit, Step.UPKEEP, [], what, when, {Transition.LOST: lost})
    lost[name].end("lost", when)
    return record


def _correct(
    at: Installation, visit: VisitModel, what: Happening, when: datetime
) -> CommitRecord | None:
    """What was never taken is withdrawn; products of releases stay (R13)."""
    wrong = {
        name: one
        for name, one in visit.available(sorted(visit.generations)).items()
        if "_r0_" not in name and "_r1_" not in name
    }
    record = at.record(visit, Step.UPKEEP, [], what, when, {Transition.WITHDRAWN: wrong})
    for made in wrong.values():
        made.end("withdrawn", when)
    return record


def _proposal_id(visit: VisitModel) -> str:
    return f"visit-{visit.number}"


def _propose(
    at: Installation, visit: VisitModel, what: Happening, when: datetime
) -> CommitRecord | None:
    if visit.proposed:
        return None
    visit.proposed = True
    proposal = Proposal(
        proposal_id=_proposal_id(visit),
        change=Change(cause=Cause.EPHEMERIS, value="definitive.oem"),
        author="somebody",
        reason="for the test",
        exposures=(str(visit.exposure),),
    )
    return CommitRecord(
        step=Step.UPKEEP, partition=str(visit.exposure), committed_at=when,
        statement=Statement.PROPOSAL, proposal=proposal,
    )  # fmt: skip


def _decide(verdict: Verdict):
    def decide(
        at: Installation, visit: VisitModel, what: Happening, when: datetime
    ) -> CommitRecord | None:
        """R15: a person decides, once; nothing is made by that."""
        if not visit.proposed:
            return None
        visit.verdict = visit.verdict or verdict.value
        decision = Decision(
            proposal_id=_proposal_id(visit), verdict=verdict, author="SOC", reason="for the test"
        )
        return CommitRecord(
            step=Step.UPKEEP, partition=str(visit.exposure), committed_at=when,
            statement=Statement.DECISION, decision=decision,
        )  # fmt: skip

    return decide


_EVENTS = {
    Event.FORMAT: _format,
    Event.CALIBRATE: _calibrate,
    Event.CALIBRATE_FOR_RELEASE: _calibrate_for_release,
    Event.CALIBRATE_WITHOUT_L4: _calibrate_without_l4,
    Event.MOSAIC: _mosaic,
    Event.RUN_RELEASE: _run_release,
    Event.PUBLISH_RELEASE: _publish_release,
    Event.LOSE: _lose,
    Event.CORRECT: _correct,
    Event.PROPOSE: _propose,
    Event.APPROVE: _decide(Verdict.APPROVED),
    Event.REJECT: _decide(Verdict.REJECTED),
}


def in_order(
    visits: list[list[Happening]], sweeps: list[int]
) -> Iterator[tuple[datetime, int | None, Happening | None]]:
    """Give what happens, by time; no two things happen at the same microsecond."""
    all_of_it = [
        (what.day, number, place, what)
        for number, sequence in enumerate(visits)
        for place, what in enumerate(sorted(sequence, key=lambda one: one.day))
    ]
    all_of_it += [(day, SEQUENCES, place, None) for place, day in enumerate(sweeps)]
    for tick, (day, number, _, what) in enumerate(sorted(all_of_it, key=lambda one: one[:3])):
        when = moment(86400 * day) + timedelta(microseconds=tick)
        yield when, None if what is None else number, what


def require_same(at: Installation) -> None:
    """Compare the archive's public side, and what operators see, with the model."""
    expected = [
        (name, number, one)
        for visit in at.visits
        for name, made in sorted(visit.generations.items())
        for number, one in enumerate(made, start=1)
    ]
    expected.sort(key=lambda row: row[:2])
    with Registry(at.root) as registry:
        found = registry.products.find(overwritten=True)
        proposals = {row["proposal_id"]: row["verdict"] for row in registry.decisions.proposals()}
    ended = found["ended_at"].astype(object).where(found["ended_at"].notna(), None)
    marked = found["data_release"].astype(object).where(found["data_release"].notna(), None)
    columns = ("name", "generation", "record_id", "state", "access")
    assert [*zip(*(found[column] for column in columns), ended, marked, strict=True)] == [
        (name, number, one.made_by, one.state, "public" if one.public else "operations",
         one.ended_at, one.data_release)
        for name, number, one in expected
    ]  # fmt: skip
    assert proposals == {
        _proposal_id(visit): visit.verdict or None for visit in at.visits if visit.proposed
    }
    public = {
        name: CONTENTS[one.content] for name, _, one in expected if one.is_available and one.public
    }
    assert public_content(at.root) == public
    with ArchiveReader(at.root, Role.PUBLIC) as reader:
        shown = reader.find()
        assert dict(zip(shown["name"], shown["sha256"], strict=True)) == {
            name: at.staged[one.content].sha256
            for name, _, one in expected
            if one.is_available and one.public
        }


def require_consistent(at: Installation) -> None:
    folded = registry_content(at.root)
    rebuild(at.root)
    assert registry_content(at.root) == folded
    last = {name: made[-1] for visit in at.visits for name, made in visit.generations.items()}
    lost = {name for name, one in last.items() if one.state == "lost"}
    findings = fsck(at.root, read_blobs=False)
    found = {finding.subject for finding in findings if finding.kind is FindingKind.LOST_PRODUCT}
    assert found == lost
    # an image that was made again without its L4, or next to what is lost
    others = {finding.kind for finding in findings}
    assert others <= {FindingKind.LOST_PRODUCT, FindingKind.PARTIAL_SET}


def keep_the_rules(visits: list[list[Happening]], sweeps: list[int]) -> None:
    place = Path(tempfile.mkdtemp())
    # what survives a power cut is not tested here
    with mock.patch.object(os, "fsync"), ExitStack() as stack:
        stack.callback(shutil.rmtree, place)
        at = Installation(DataRoot(place))
        for when, number, what in in_order(visits, sweeps):
            if number is None or what is None:
                at.sweep(when)
            else:
                at.happen(at.visits[number], what, when)
        at.sweep(moment(86400 * DAYS + 1))
        fold(at.root)
        require_same(at)
        require_consistent(at)


# a smaller example of hundreds of sequences would be searched for many minutes
_FEW = settings(
    max_examples=5,
    deadline=None,
    phases=set(Phase) - {Phase.shrink},
    suppress_health_check=[
        HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example,
    ],
)  # fmt: skip


@_FEW
@given(sequences, sweep_days)
def test_five_hundred_sequences_of_what_can_happen_keep_the_rules(visits, sweeps):
    keep_the_rules(visits, sweeps)


@pytest.mark.slow
@settings(_FEW, max_examples=50)
@given(sequences, sweep_days)
def test_five_thousand_sequences_keep_the_rules(visits, sweeps):
    keep_the_rules(visits, sweeps)
