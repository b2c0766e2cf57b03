"""Nights on which packets are lost, and come down a day later: who is made when, who is to blame.

Everything is real but the clock: a simulated telescope sends packets and romancal works on them.
Sensors decide with empty memories, as after a restart.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import dagster as dg
import numpy as np
import pandas as pd
import pytest
import roman_datamodels as rdm
from roman_datamodels.dqflags import pixel

from roman_assets.archive.file_archive import FileArchive
from roman_assets.calibration.exposure import calibrate_exposure
from roman_assets.data_root import DataRoot
from roman_assets.defs.exposure.landing_watch import LandingWatch
from roman_assets.defs.visit.visit_watch import VisitWatch
from roman_assets.formatting.formatting_step import format_exposure
from roman_assets.mosaic.visit import mosaic_visit
from roman_assets.products.deadline import Blame, ProductState, utc_now
from roman_assets.products.name import ProductName
from roman_assets.registry.registry import Registry
from roman_assets.registry.store.fold import fold
from roman_assets.simulation.telescope.downlink import Downlink, DownlinkDelivery, Loss
from roman_assets.simulation.telescope.observing import observe
from roman_assets.simulation.telescope.survey_plan import DEMO_REQUESTS, VisitPlan
from roman_assets_tests.support.own_crds_cache import own_crds_cache

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

DETECTORS = ("WFI01", "WFI02")
CHUNK, FACE, DETECTOR = 11, 12, 13
"""Programs: what is lost of their exposure."""
LOSSES = {CHUNK: Loss("WFI02", 3), FACE: Loss("FACE"), DETECTOR: Loss("WFI02")}
DAY = 26.0
"""Hours after which the rest comes down."""
MADE, FAILED = ProductState.MADE_IN_TIME, ProductState.FAILED


@dataclass
class Night:
    """An installation; hours count from the moment at which the packets were received."""

    root: DataRoot
    began: datetime
    visits: dict[int, str]

    def at(self, hour: float) -> datetime:
        return self.began + timedelta(hours=hour)

    def arrive(self, hour: float) -> None:
        """Let the files that came down since arrive at an hour."""
        moment = self.at(hour).timestamp()
        for path in self.root.landing.iterdir():
            if path.name[0] != "." and path.stat().st_mtime > self.at(0).timestamp():
                os.utime(path, (moment, moment))

    def work(self, hour: float) -> tuple[set[int], set[int]]:
        """Do what the sensors ask for; return the programs whose exposures and visits they name."""
        clock = self._clock(hour)
        watch = LandingWatch(self.root)
        watch.landing.scan()
        watch.look(self.at(hour))
        watch.record()
        with dg.DagsterInstance.ephemeral() as instance:
            exposures = [one.receipt.exposure for one in watch.wanted(instance, self.at(hour))]
            for exposure in exposures:
                format_exposure(self.root, exposure, routine=True, clock=clock)
                calibrate_exposure(self.root, exposure, routine=True, workers=1, clock=clock)
            fold(self.root)
            states = VisitWatch(self.root).wanted(instance, self.at(hour))
        visits = [state.manifest.visit for state in states]
        for visit in visits:
            mosaic_visit(self.root, visit, routine=True, workers=1, clock=clock)
        return {one.visit.program for one in exposures}, {visit.program for visit in visits}

    def _clock(self, hour: float):
        moments = (self.at(hour + seconds / 3600) for seconds in range(3600))
        return lambda: next(moments)

    def ledger(self, hour: float, program: int) -> pd.DataFrame:
        with Registry(self.root) as registry:
            return registry.deadlines.ledger(visit=self.visits[program], now=self.at(hour))

    def states(self, hour: float, program: int) -> dict[str, set[str]]:
        """Return the states of the newest products of an exposure, by who sent what they need."""
        found = self.ledger(hour, program)
        found = found[found["partition"].str.contains("_") & (found["state"] != "not expected")]
        newest = found.sort_values("generation").groupby("name", dropna=False).tail(1)
        of = newest["detector"].fillna("FACE")
        return {name: set(group["state"]) for name, group in newest.groupby(of)}

    def open(self, program: int, name: str) -> rdm.DataModel:
        official = ProductName.parse(f"{self.visits[program]}_0001_{name}")
        return rdm.open(FileArchive(self.root).path(official))


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Night]:
    root = DataRoot(tmp_path_factory.mktemp("night") / "data")
    with own_crds_cache():
        visits = {}
        for program, loss in LOSSES.items():
            plan = VisitPlan.from_requests(
                [replace(DEMO_REQUESTS[0], program=program, dither="NONE")],
                start=utc_now() - timedelta(hours=2),
                detectors=DETECTORS,
            )
            (exposure,) = observe(
                plan, root, delivery=DownlinkDelivery(losses=(loss,)), processes=1
            )
            visits[program] = str(exposure.visit)
        night = Night(root, utc_now(), visits)
        for path in root.landing.iterdir():
            os.utime(path, (night.began.timestamp(), night.began.timestamp()))
        yield night


def test_the_other_detectors_are_made_on_time(night: Night) -> None:
    assert night.work(0.1) == (set(), set()), "the others are awaited for ten minutes"
    assert night.work(0.2) == (set(LOSSES), {FACE}), "the visit that lost FACE has all its images"
    awaited = {ProductState.WAITING_FOR_DOWNLINK}
    for program in (CHUNK, DETECTOR):
        assert night.states(1, program) == {"WFI01": {MADE}, "FACE": {MADE}, "WFI02": awaited}
    assert night.states(1, FACE) == {"WFI01": {MADE}, "WFI02": {MADE}, "FACE": awaited}


def test_at_the_cut_off_what_is_there_is_made_and_the_rest_recorded_as_lost(night: Night) -> None:
    assert night.work(11.9) == (set(), set())
    assert night.work(12.1) == (set(LOSSES), {CHUNK, DETECTOR})
    assert night.work(12.2) == (set(), set()), "it is done once"
    assert night.states(13, CHUNK) == {"WFI01": {MADE}, "FACE": {MADE}, "WFI02": {MADE}}
    assert night.states(13, FACE) == {"WFI01": {MADE}, "WFI02": {MADE}, "FACE": {FAILED}}
    assert night.states(13, DETECTOR) == {"WFI01": {MADE}, "FACE": {MADE}, "WFI02": {FAILED}}


def test_lost_packets_are_blamed_on_the_downlink(night: Night) -> None:
    for program, sender in ((FACE, None), (DETECTOR, "WFI02")):
        found = night.ledger(70, program)
        failed = found[(found["state"] == FAILED) & found["level"].isin(["L1", "L2"])]
        assert set(failed["detector"].dropna()) == ({sender} if sender else set())
        assert set(failed["blame"]) == {Blame.DOWNLINK}
        clocks = {moment.to_pydatetime() - night.at(12) for moment in failed["started_at"]}
        assert all(abs(difference) < timedelta(seconds=1) for difference in clocks)


def test_the_visit_of_a_lost_detector_is_marked_partial(night: Night) -> None:
    with Registry(night.root) as registry:
        for program, missing in ((DETECTOR, ["wfi02"]), (CHUNK, []), (FACE, [])):
            names = registry.products.find(visit=night.visits[program], kind="coadd")["name"]
            made = registry.generations.current(names).values()
            assert made
            for coadd in made:
                lacking = coadd.metadata.get("missing", [])
                assert [name.split("_")[2] for name in lacking] == missing


def test_lost_pixels_of_one_resultant_cost_no_pixel_of_the_image(night: Night) -> None:
    with night.open(CHUNK, "wfi02_f158_uncal.asdf") as ramp:
        lost = np.array(ramp.resultantdq[2, 4:-4, 4:-4]) != 0
        assert ramp.meta.exposure.data_problem == "LOST_PACKETS"
    with night.open(CHUNK, "wfi02_f158_cal.asdf") as image:
        assert image.meta.exposure.data_problem == "LOST_PACKETS"
        bad = (np.array(image.dq) & pixel.DO_NOT_USE) != 0
    assert 0.2 < lost.mean() < 0.8
    assert bad[lost].mean() < 1.2 * bad[~lost].mean() + 0.01


def test_when_the_rest_arrives_a_day_later_everything_is_complete(night: Night) -> None:
    with night.open(CHUNK, "wfi02_f158_cal.asdf") as image:
        before, error = np.array(image.data), np.array(image.err)
    assert len(Downlink(night.root).release()) == len(LOSSES)
    night.arrive(DAY)
    assert night.work(DAY + 0.05) == (set(LOSSES), {CHUNK, DETECTOR})
    assert night.work(DAY + 0.3) == (set(), set())
    with Registry(night.root) as registry:
        assert registry.work.failures().empty
    for program in LOSSES:
        assert night.states(DAY + 1, program) == {
            "WFI01": {MADE}, "FACE": {MADE}, "WFI02": {MADE}
        }  # fmt: skip
        assert set(night.ledger(200, program)["state"]) <= {MADE, "not expected"}
    with night.open(CHUNK, "wfi02_f158_cal.asdf") as image:
        after, dq = np.array(image.data), np.array(image.dq)
        assert image.meta.exposure.data_problem is None
    good = (dq == 0) & np.isfinite(before) & np.isfinite(after)
    assert np.median(np.abs(after - before)[good] / error[good]) < 0.5
    assert not np.array_equal(before[good], after[good])


def test_nothing_that_was_complete_was_reprocessed(night: Night) -> None:
    with Registry(night.root) as registry:
        for program in (CHUNK, DETECTOR):
            names = registry.products.find(visit=night.visits[program], detector="WFI01")["name"]
            assert {one.generation for one in registry.generations.current(names).values()} == {1}
