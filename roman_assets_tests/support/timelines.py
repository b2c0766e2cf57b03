"""Random timelines of visits, and what a person with a calendar would say of their products.

The recount looks at each hour by itself, asks what was going on in its middle, and adds up. It
shares nothing with the ledger but the rules of ``docs/deadlines.md``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from hypothesis import strategies as st

from roman_assets.products.deadline import Blame, ProductState
from roman_assets.products.kind import Step
from roman_assets.products.name import ProductName
from roman_assets.records.record import Outcome
from roman_assets_tests.support.facts import (
    DETECTORS,
    L1,
    L2,
    Facts,
    exposure_names,
    visit_names,
)

LATENCY = {"L1": 24, "L2": 48, "L3": 120, "L4": 168}
OF_RECEIPT = ("L1", "L2")
REFUSED = DETECTORS[1]


@dataclass(frozen=True)
class Try:
    """An attempt: hours it waits, hours it takes, what becomes of it.

    ``lost``: nobody knows; ``unfit``: its input had to be repaired, and was; ``bad``: and was not.
    """

    wait: int
    length: int
    fate: str


@dataclass(frozen=True)
class Attempted:
    """An attempt in its place on the calendar, as it looks at a moment."""

    start: int
    end: int
    fate: str
    now: int

    @property
    def published(self) -> bool:
        return self.fate == "ok" and self.end <= self.now

    @property
    def running(self) -> bool:
        return self.end > self.now or self.fate == "lost"

    @property
    def dead(self) -> bool:
        return self.fate in ("bad", "unfit") and self.end <= self.now


@dataclass(frozen=True)
class StepHistory:
    """What has happened in a step: its inputs' time and the attempts begun by now."""

    ready: int | None
    tries: tuple[Attempted, ...]

    @classmethod
    def of(cls, ready: int | None, tries: tuple[Try, ...], now: int) -> StepHistory:
        if ready is None or ready > now:
            return cls(None, ())
        begun: list[Attempted] = []
        moment = ready
        for one in tries:
            start = moment + one.wait
            if start > now:
                break
            moment = start + one.length
            begun.append(Attempted(start, moment, one.fate, now))
            if one.fate in ("ok", "bad"):
                break
        return cls(ready, tuple(begun))

    @property
    def made(self) -> int | None:
        return next((one.end for one in self.tries if one.published), None)

    @property
    def running(self) -> bool:
        return bool(self.tries) and self.tries[-1].running and self.made is None

    @property
    def dead(self) -> bool:
        return bool(self.tries) and self.tries[-1].dead

    def doing(self, moment: float) -> Blame | None:
        """Tell what is done at a moment, None once it is made or before its inputs are there."""
        if self.ready is None or moment < self.ready or (self.made or 1e9) <= moment:
            return None
        if not self.tries or moment < self.tries[0].start:
            return Blame.QUEUE
        last = self.tries[-1]
        if (last.published or last.running) and moment >= last.start:
            return Blame.COMPUTATION
        unusable = [number for number, one in enumerate(self.tries) if one.dead]
        if not unusable or moment < self.tries[unusable[0]].start:
            return Blame.RETRIES
        repaired = self.tries[unusable[-1] + 1 :]
        return Blame.RETRIES if repaired and moment >= repaired[0].start else Blame.INPUT


@dataclass(frozen=True)
class Exposure:
    """An exposure: hours at which its data arrive (None: never), and attempts at its steps."""

    packets: int | None
    ancillary: int
    l1: tuple[Try, ...]
    l2: tuple[Try, ...]
    refuses: bool


@dataclass(frozen=True)
class Visit:
    """A visit as seen at a moment."""

    name: str
    exposures: tuple[Exposure, ...]
    tries: tuple[Try, ...]
    now: int

    def partition(self, number: int) -> str:
        return f"{self.name}_{number + 1:04d}"

    def steps(self, exposure: Exposure) -> tuple[StepHistory, StepHistory]:
        received = _received(exposure, self.now)
        l1 = StepHistory.of(received, exposure.l1, self.now)
        return l1, StepHistory.of(l1.made, exposure.l2, self.now)

    @property
    def visit_step(self) -> StepHistory:
        """Its own step begins once each exposure is calibrated, lost or hopeless."""
        ends = []
        for exposure in self.exposures:
            l1, l2 = self.steps(exposure)
            if l1.dead or l2.dead or exposure.packets is None:
                continue
            ends.append(l2.made)
        if not ends or None in ends:
            return StepHistory(None, ())
        return StepHistory.of(max(end for end in ends if end is not None), self.tries, self.now)

    def write(self, facts: Facts) -> None:
        for number, exposure in enumerate(self.exposures):
            self._write_exposure(facts, self.partition(number), exposure)
        _write(facts, Step.VISIT, self.name, self.visit_step, visit_names(self.name), ())

    def _write_exposure(self, facts: Facts, partition: str, exposure: Exposure) -> None:
        packets, ancillary = exposure.packets, exposure.ancillary
        facts.receipt(
            partition,
            packets=packets if packets is not None and packets <= self.now else None,
            ancillary=ancillary if ancillary <= self.now else None,
            first_packet=0,
            recorded=self.now,
            nexposures=len(self.exposures),
        )
        l1, l2 = self.steps(exposure)
        detectors = DETECTORS[:1] if exposure.refuses else DETECTORS
        failed = (f"{partition}_{REFUSED.lower()}_f158",) if exposure.refuses else ()
        names = exposure_names(partition, L1, detectors)
        _write(facts, Step.FORMATTING, partition, l1, names, failed)
        _write(facts, Step.EXPOSURE, partition, l2, exposure_names(partition, L2, detectors), ())

    def recount(self) -> Iterator[tuple[str, str, dict[str, float] | None]]:
        """Go through all products: name (or visit and kind), state, hours by blame."""
        for number, exposure in enumerate(self.exposures):
            yield from self._recount_exposure(self.partition(number), exposure)
        yield from self._recount_visit()

    def _recount_exposure(
        self, partition: str, exposure: Exposure
    ) -> Iterator[tuple[str, str, dict[str, float] | None]]:
        l1, l2 = self.steps(exposure)
        received = _received(exposure, self.now)
        for name in exposure_names(partition, (*L1, *L2)):
            product = ProductName.parse(name)
            own, chain = (l1, (l1,)) if product.kind.step is Step.FORMATTING else (l2, (l1, l2))
            detector = getattr(product.file_set, "detector", None)
            hopeless = exposure.refuses and detector == REFUSED
            made = None if hopeless else own.made
            clock = product.kind.due_level
            start = received if clock in OF_RECEIPT else 0
            failed = made is None and (
                any(step.dead for step in chain) or (hopeless and l1.made is not None)
            )
            stage = self._stage(exposure, chain)
            state = self._state(start, clock, made, failed, stage)
            end = self.now if made is None else made
            known = not failed or any(step.dead for step in chain)
            yield name, state, self._hours(exposure, chain, start, end) if known else None

    def _stage(self, exposure: Exposure, chain: tuple[StepHistory, ...]) -> str:
        if exposure.packets is None or exposure.packets > self.now:
            return ProductState.WAITING_FOR_DOWNLINK
        if exposure.ancillary > self.now:
            return ProductState.WAITING_FOR_ANCILLARY
        running = any(step.running for step in chain)
        return ProductState.RUNNING if running else ProductState.QUEUED

    def _state(
        self, start: int | None, level: str, made: int | None, failed: bool, stage: str
    ) -> str:
        due = None if start is None else start + LATENCY[level]
        if made is not None:
            return ProductState.MADE_IN_TIME if made <= (due or 0) else ProductState.MADE_LATE
        if failed:
            return ProductState.FAILED
        return ProductState.OVERDUE if due is not None and self.now > due else stage

    def _hours(
        self, exposure: Exposure, chain: tuple[StepHistory, ...], start: int | None, end: int
    ) -> dict[str, float] | None:
        if start is None:
            return None
        return dict(Counter(self._blame(exposure, chain, hour + 0.5) for hour in range(start, end)))

    def _blame(self, exposure: Exposure, chain: tuple[StepHistory, ...], moment: float) -> str:
        if exposure.packets is None or moment < exposure.packets:
            return Blame.DOWNLINK
        if moment < exposure.ancillary:
            return Blame.ANCILLARY
        return next(doing for step in chain if (doing := step.doing(moment)) is not None)

    def _recount_visit(self) -> Iterator[tuple[str, str, dict[str, float] | None]]:
        own = self.visit_step
        histories = [(exposure, *self.steps(exposure)) for exposure in self.exposures]
        pending = [
            (exposure, l1, l2)
            for exposure, l1, l2 in histories
            if l2.made is None and not (l1.dead or l2.dead)
        ]
        failed = own.dead or (not pending and all(l2.made is None for _, _, l2 in histories))
        stages = [self._stage(exposure, (l1, l2)) for exposure, l1, l2 in pending]
        order = (
            ProductState.WAITING_FOR_DOWNLINK,
            ProductState.WAITING_FOR_ANCILLARY,
            ProductState.RUNNING,
        )
        stage = next((one for one in order if one in stages), ProductState.QUEUED)
        if own.running:
            stage = ProductState.RUNNING
        for name in visit_names(self.name):
            level = str(ProductName.parse(name).level)
            state = self._state(0, level, own.made, failed, stage)
            known = name if own.made is not None else f"{self.name} {_kind(name)}"
            yield known, state, self._visit_hours(own) if own.made is not None else None

    def _visit_hours(self, own: StepHistory) -> dict[str, float]:
        """Follow the exposure whose L2 came last; a lost one is awaited until the first attempt."""
        assert own.made is not None
        first = own.tries[0].start
        calibrated = [
            (l2.made, number, exposure, l1, l2)
            for number, exposure in enumerate(self.exposures)
            for l1, l2 in [self.steps(exposure)]
            if l2.made is not None
        ]
        *_, critical, l1, l2 = max(calibrated, key=lambda one: one[0])
        packets = max(1e9 if one.packets is None else one.packets for one in self.exposures)
        ancillary = max(one.ancillary for one in self.exposures)
        hours: Counter[str] = Counter()
        for hour in range(own.made):
            moment = hour + 0.5
            if moment < min(packets, first):
                hours[Blame.DOWNLINK] += 1
            elif moment < min(ancillary, first):
                hours[Blame.ANCILLARY] += 1
            else:
                hours[self._blame(critical, (l1, l2, own), moment)] += 1
        return dict(hours)


def _received(exposure: Exposure, now: int) -> int | None:
    if exposure.packets is None:
        return None
    received = max(exposure.packets, exposure.ancillary)
    return received if received <= now else None


def _kind(name: str) -> str:
    return ProductName.parse(name).kind.name


def _write(
    facts: Facts, step: Step, partition: str, history: StepHistory, names: list[str],
    failed: tuple[str, ...],
) -> None:  # fmt: skip
    fates = {
        "fault": Outcome.PASSING_FAULT, "bad": Outcome.BAD_INPUT, "unfit": Outcome.BAD_INPUT,
        "ok": Outcome.FINISHED,
    }  # fmt: skip
    for one in history.tries:
        published = one.published
        facts.attempt(
            step,
            partition,
            start=one.start,
            end=None if one.running else one.end,
            outcome=fates.get(one.fate, Outcome.RUNNING),
            names=names if published else (),
            failed=failed if published else (),
        )


_LENGTHS = st.integers(1, 40)
_TRIES = st.builds(
    lambda failing, last: (*failing, last),
    st.lists(
        st.builds(Try, _LENGTHS, _LENGTHS, st.sampled_from(["fault", "lost", "unfit"])), max_size=3
    ),
    st.builds(Try, _LENGTHS, _LENGTHS, st.sampled_from(["ok", "ok", "ok", "bad"])),
)
_EXPOSURES = st.builds(
    Exposure,
    packets=st.one_of(st.integers(0, 200), st.integers(0, 20), st.none()),
    ancillary=st.integers(0, 60),
    l1=_TRIES,
    l2=_TRIES,
    refuses=st.booleans(),
)


@st.composite
def visits(draw: st.DrawFn) -> list[Visit]:
    """Some visits, all seen at the same moment."""
    now = draw(st.integers(1, 400))
    return [
        Visit(
            f"r{number:05d}01001001001001",
            tuple(draw(st.lists(_EXPOSURES, min_size=1, max_size=2))),
            draw(_TRIES),
            now,
        )
        for number in range(1, draw(st.integers(8, 16)) + 1)
    ]
