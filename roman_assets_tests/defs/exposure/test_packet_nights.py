"""Nights with lost packets as the sensors, the ledger and the archive see them.

Packets, formatting, sensors and ledger are real; L2 and L3 are registered without computing them.
`test_lost_packets` computes them.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from roman_assets.defs.exposure.landing_watch import LandingWatch
from roman_assets.defs.visit.visit_state import VisitState
from roman_assets.defs.visit.visit_watch import VisitWatch
from roman_assets.formatting.formatting_step import format_exposure
from roman_assets.products.deadline import Blame, ProductState, utc_now
from roman_assets.products.kind import Step
from roman_assets.publishing.provenance import as_input
from roman_assets.records.journal import Journal
from roman_assets.registry.registry import Registry
from roman_assets.registry.store.fold import fold
from roman_assets.simulation.telescope.downlink import Downlink
from roman_assets_tests.formatting.test_lost_packets import (
    TWO,
    Loses,
    Night,
    all_of_face,
    chunk_of_a_resultant,
    whole_detector,
)
from roman_assets_tests.support.facts import L2, exposure_names, visit_names
from roman_assets_tests.support.small_products import record_of
from roman_assets_tests.support.telemetry_samples import EXPOSURE, executed_visit

MADE, FAILED = ProductState.MADE_IN_TIME, ProductState.FAILED
AWAITED = ProductState.WAITING_FOR_DOWNLINK


class SensedNight(Night):
    """A night on which the sensors decide what is made, each time with an empty memory."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        Downlink(self.root).send_document(executed_visit(detectors=TWO, revision=2, nexposures=1))
        self.began = utc_now()

    def work(self, hours: float) -> tuple[bool, bool]:
        """Do what the sensors ask for; return whether it was an exposure, and a visit."""
        now = self.began + timedelta(hours=hours)
        clock = self._clock(now)
        watch = LandingWatch(self.root)
        watch.landing.scan()
        watch.look(now)
        watch.record()
        with dg.DagsterInstance.ephemeral() as instance:
            exposures = watch.wanted(instance, now)
            if exposures:
                format_exposure(self.root, EXPOSURE, routine=True, clock=clock)
                self._calibrate(clock)
            fold(self.root)
            visits = VisitWatch(self.root).wanted(instance, now)
        for state in visits:
            self._mosaic(state, clock)
        return bool(exposures), bool(visits)

    def _clock(self, now: datetime) -> Callable[[], datetime]:
        moments = (now + timedelta(seconds=second) for second in range(1000))
        return lambda: next(moments)

    def _calibrate(self, clock: Callable[[], datetime]) -> None:
        with Registry(self.root) as registry:
            ramps = registry.generations.current(registry.products.find(kind="uncal")["name"])
            images = registry.generations.current(registry.products.find(kind="cal")["name"])
        used = {item for image in images.values() for item in image.inputs}
        for ramp in ramps.values():
            if as_input(ramp) in used:
                continue
            detector = ramp.product_name.file_set.detector
            names = exposure_names(str(EXPOSURE), L2, [detector])
            self._commit(
                Step.EXPOSURE, str(EXPOSURE), dict.fromkeys(names, ramp.sha256.encode()), clock,
                inputs=(as_input(ramp),),
                metadata={
                    key: ramp.metadata[key] for key in ("survey", "exposure_type", "nexposures")
                },
            )  # fmt: skip

    def _mosaic(self, state: VisitState, clock: Callable[[], datetime]) -> None:
        manifest = state.manifest
        self._commit(
            Step.VISIT, str(manifest.visit),
            dict.fromkeys(visit_names(str(manifest.visit)), manifest.digest.encode()), clock,
            inputs=manifest.members,
            metadata={"missing": list(manifest.missing)} if manifest.missing else {},
        )  # fmt: skip

    def _commit(self, step: Step, partition: str, contents, clock, **about) -> None:
        Journal(self.root).write(
            record_of(
                self.root, contents, step=step, partition=partition, committed_at=clock(), **about
            )
        )
        fold(self.root)

    def states(self, hours: float) -> dict[str, set[str]]:
        """Return the states of the newest products of the exposure, by sender."""
        found = self.ledger(hours)
        found = found[(found["partition"] == str(EXPOSURE)) & (found["state"] != "not expected")]
        newest = found.sort_values("generation").groupby("name").tail(1)
        of = newest["detector"].fillna("FACE")
        return {name: set(group["state"]) for name, group in newest.groupby(of)}

    def ledger(self, hours: float):
        with Registry(self.root) as registry:
            return registry.deadlines.ledger(now=self.began + timedelta(hours=hours))

    def missing_of_coadds(self) -> set[tuple[str, ...]]:
        with Registry(self.root) as registry:
            coadds = registry.generations.current(registry.products.find(kind="coadd")["name"])
        return {tuple(one.metadata.get("missing", ())) for one in coadds.values()}


LOSSES: dict[str, tuple[Loses, str, bool]] = {
    "a chunk": (chunk_of_a_resultant, "WFI02", True),
    "FACE": (all_of_face, "FACE", False),
    "a detector": (whole_detector, "WFI02", False),
}
"""What is lost, whose it is, and whether anything is made of the rest."""


@pytest.mark.parametrize("lost", LOSSES)
def test_a_night_with_lost_packets_ends_complete_when_they_come_down(
    lost: str, tmp_path: Path
) -> None:
    loses, sender, in_part = LOSSES[lost]
    night = SensedNight(tmp_path)
    night.lose(loses)
    everyone = {"WFI01": {MADE}, "WFI02": {MADE}, "FACE": {MADE}}
    of_image = sender != "FACE"

    assert night.work(0.1) == (False, False), "the others are awaited for ten minutes"
    assert night.work(0.3) == (True, not of_image)
    assert night.states(1) == everyone | {sender: {AWAITED}}
    assert night.work(11.9) == (False, False)

    assert night.work(12.1) == (True, of_image)
    assert night.work(12.2) == (False, False)
    assert night.states(13) == everyone | ({} if in_part else {sender: {FAILED}})
    wanted = {(f"{EXPOSURE}_wfi02_f158",)} if lost == "a detector" else {()}
    assert night.missing_of_coadds() == wanted
    late = night.ledger(70)
    late = late[late["state"] == FAILED]
    assert len(late) == (0 if in_part else 1 if sender == "FACE" else 2 + 4)
    of_receipt = late[late["level"].isin(["L1", "L2"])]
    assert set(of_receipt["blame"]) <= {Blame.DOWNLINK}
    cut_off = night.began + timedelta(hours=12)
    assert all(abs(start - cut_off) < timedelta(minutes=1) for start in of_receipt["started_at"])

    night.began = utc_now()
    night.deliver_rest(loses)
    assert night.work(0.01) == (True, of_image)
    assert night.work(0.5) == (False, False)
    assert night.states(1) == everyone
    assert night.missing_of_coadds() == {()}
    with Registry(night.root) as registry:
        assert registry.work.failures().empty
        names = registry.products.find(detector="WFI01")["name"]
        assert {one.generation for one in registry.generations.current(names).values()} == {1}
