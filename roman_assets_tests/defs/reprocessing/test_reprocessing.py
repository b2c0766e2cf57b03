from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, tzinfo

import dagster as dg
import pytest

from roman_assets.defs.lib.dagster_internals import BulkActionStatus
from roman_assets.defs.lib.in_progress import partitions_in_backfills
from roman_assets.defs.lib.partition_work import BAD_INPUT_TAG, CONTEXT_TAG, PROPOSAL_TAG
from roman_assets.defs.lib.resources import Installation
from roman_assets.defs.reprocessing import sensors as reprocessing
from roman_assets.defs.reprocessing.assets import (
    REPROCESSING_PROPOSALS,
    decide_proposal,
    proposals_markdown,
)
from roman_assets.errors import BadInputError
from roman_assets.products.kind import Step
from roman_assets.products.priority import PRIORITY_TAG, run_priority
from roman_assets.records.journal import Journal
from roman_assets.records.record import (
    WHOLE_ARCHIVE,
    Cause,
    Change,
    CommitRecord,
    Proposal,
    Statement,
    Verdict,
)
from roman_assets.registry.registry import Registry
from roman_assets.registry.store.fold import fold
from roman_assets.reprocessing.impact import Impact
from roman_assets.reprocessing.proposal import (
    decide,
    exposure_to_reprocess,
    proposal_of,
    proposals,
)
from roman_assets_tests.support.sky import VISIT, Sky, exposure_key

FIRST, SECOND = exposure_key(1), exposure_key(2)
ID = "a1b2c3"


@pytest.fixture
def observed(sky: Sky) -> Sky:
    """A visit of two exposures with its L3."""
    for key in (FIRST, SECOND):
        sky.process(key)
    sky.mosaic(VISIT, FIRST, SECOND)
    fold(sky.root)
    return sky


def put_proposal(
    sky: Sky,
    exposures: Iterable[str] = (FIRST, SECOND),
    cause: Cause = Cause.LEVEL0,
    value: str | None = None,
) -> None:
    chosen = tuple(exposures)
    change = Change(cause=cause, value=value or " ".join(chosen or [FIRST, SECOND]))
    with Registry(sky.root) as registry:
        products = registry.products.find(exposure=chosen)
        following = registry.products.find(visit=VISIT, step=Step.VISIT)
    impact = Impact(change, datetime.now(UTC), products, following, [], (), (), ())
    proposal = Proposal(
        proposal_id=ID,
        change=change,
        author="ana",
        reason="wrong gain |\nof WFI01",
        exposures=chosen,
        visits=(VISIT,),
        impact=impact.summary(),
    )
    Journal(sky.root).write(
        CommitRecord(
            step=Step.UPKEEP,
            partition=WHOLE_ARCHIVE,
            statement=Statement.PROPOSAL,
            proposal=proposal,
        )
    )
    fold(sky.root)


def approve(sky: Sky, verdict: Verdict = Verdict.APPROVED) -> None:
    decide(sky.root, ID, verdict, author="ben", reason="go", despite_changes=True)


def backfills(sky: Sky) -> list[dg.PartitionBackfill]:
    return list(sky.instance.get_backfills())


def all_look(sky: Sky) -> list[str | None]:
    requests = [*sky.look_at_landing(), *sky.look_at_proposals(), *sky.look_at_visits()]
    return [request.partition_key for request in requests]


def test_nothing_is_made_again_before_a_person_approved(observed: Sky) -> None:
    assert all_look(observed) == []
    put_proposal(observed)
    assert all_look(observed) == []
    approve(observed, Verdict.REJECTED)
    assert all_look(observed) == []
    assert backfills(observed) == []


def test_an_approved_proposal_becomes_one_backfill_after_all_else(observed: Sky) -> None:
    put_proposal(observed)
    approve(observed)
    for _ in range(3):  # each look is without a cursor
        assert all_look(observed) == []
    (backfill,) = backfills(observed)
    assert backfill.backfill_id == ID
    assert backfill.tags[PROPOSAL_TAG] == ID
    far = datetime.now(UTC) + timedelta(days=365 * 50)
    assert int(backfill.tags[PRIORITY_TAG]) < run_priority(far)
    assert "ben" in (backfill.description or "")
    assert partitions_in_backfills(observed.instance) == {FIRST, SECOND}
    assert set(observed.instance.get_dynamic_partitions("exposure")) == {FIRST, SECOND}


class MinutesLater:
    """A clock that is fast."""

    def __init__(self, minutes: float) -> None:
        self._ahead = timedelta(minutes=minutes)

    def now(self, zone: tzinfo) -> datetime:
        return datetime.now(zone) + self._ahead


def test_what_failed_for_a_passing_fault_is_launched_again_and_bad_input_is_not(
    observed: Sky, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_proposal(observed)
    approve(observed)
    all_look(observed)
    (first,) = backfills(observed)
    for key, tags in ((FIRST, {}), (SECOND, {BAD_INPUT_TAG: "no header"})):
        tags |= {"dagster/backfill": ID, "dagster/partition": key}
        failure = dg.DagsterRunStatus.FAILURE
        observed.instance.add_run(dg.DagsterRun(job_name="any", status=failure, tags=tags))
    observed.instance.update_backfill(
        first.with_status(BulkActionStatus.COMPLETED_FAILED).with_end_timestamp(
            datetime.now(UTC).timestamp()
        )
    )
    observed.look_at_proposals()
    assert len(backfills(observed)) == 1
    monkeypatch.setattr(reprocessing, "datetime", MinutesLater(3))
    for _ in range(2):
        observed.look_at_proposals()
    assert {one.backfill_id for one in backfills(observed)} == {ID, f"{ID}_2"}
    assert partitions_in_backfills(observed.instance) == {FIRST}


def test_a_visit_of_a_proposal_that_failed_for_a_passing_fault_is_asked_for_again(
    observed: Sky, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_proposal(observed, exposures=())
    approve(observed)
    (first,) = observed.look_at_proposals()
    observed.end_runs(dg.DagsterEventType.RUN_FAILURE)
    assert observed.look_at_proposals() == []
    monkeypatch.setattr(reprocessing, "datetime", MinutesLater(3))
    (second,) = observed.look_at_proposals()
    assert second.run_key != first.run_key
    observed.end_runs(dg.DagsterEventType.RUN_CANCELED)
    monkeypatch.setattr(reprocessing, "datetime", MinutesLater(1000))
    assert observed.look_at_proposals() == []


def test_the_visit_is_made_once_after_all_its_exposures(observed: Sky) -> None:
    put_proposal(observed)
    approve(observed)
    all_look(observed)
    observed.process(FIRST, "again")
    assert observed.look_at_visits() == []
    observed.process(SECOND, "again")
    assert observed.look_at_visits() == []
    (backfill,) = backfills(observed)
    observed.instance.update_backfill(backfill.with_status(BulkActionStatus.COMPLETED_SUCCESS))
    (request,) = observed.look_at_visits()
    assert request.partition_key == VISIT
    assert request.tags[PROPOSAL_TAG] == ID
    assert int(request.tags[PRIORITY_TAG]) < 0
    assert observed.look_at_visits() == []


def test_the_visits_of_a_context_are_made_with_it(observed: Sky, monkeypatch) -> None:
    put_proposal(observed, cause=Cause.CONTEXT, value="roman_0003.pmap")
    approve(observed)
    observed.process(FIRST, "again")
    (request,) = observed.look_at_visits()
    assert request.tags[CONTEXT_TAG] == "roman_0003.pmap"
    observed.end_runs()
    observed.mosaic(VISIT, FIRST, SECOND)
    observed.process(FIRST, "later")
    (request,) = observed.look_at_visits()
    assert PROPOSAL_TAG not in request.tags
    assert CONTEXT_TAG not in request.tags


def test_a_prompt_delivery_overtakes_the_backfill_that_has_its_exposure(observed: Sky) -> None:
    put_proposal(observed)
    approve(observed)
    observed.look_at_proposals()
    observed.receive(FIRST, "repaired")
    (request,) = observed.look_at_landing()
    (backfill,) = backfills(observed)
    assert int(request.tags[PRIORITY_TAG]) > int(backfill.tags[PRIORITY_TAG])


def test_a_visit_of_which_only_coadds_change_is_asked_for_once(observed: Sky) -> None:
    put_proposal(observed, exposures=())
    approve(observed)
    (request,) = observed.look_at_proposals()
    assert request.partition_key == VISIT
    assert int(request.tags[PRIORITY_TAG]) < 0
    observed.end_runs()
    assert observed.look_at_proposals() == []


def test_a_done_proposal_is_not_launched_by_another_dagster(observed: Sky) -> None:
    put_proposal(observed)
    approve(observed)
    observed.process(FIRST, "again")
    observed.process(SECOND, "again")
    observed.mosaic(VISIT, FIRST, SECOND)
    assert observed.look_at_proposals() == []
    assert backfills(observed) == []


def test_the_proposals_are_shown_with_how_far_they_are(observed: Sky) -> None:
    def shown() -> str:
        event = observed.instance.get_latest_materialization_event(REPROCESSING_PROPOSALS)
        assert event is not None
        assert event.asset_materialization is not None
        return str(event.asset_materialization.metadata["proposals_and_impact"].value)

    observed.look_at_proposals()
    assert observed.instance.get_latest_materialization_event(REPROCESSING_PROPOSALS) is None
    put_proposal(observed)
    approve(observed)
    observed.look_at_proposals()
    assert "0 of 2" in shown()
    observed.process(FIRST, "again")
    observed.look_at_proposals()
    assert "1 of 2" in shown()
    assert "approved by ben: go" in shown()
    assert "| ana: wrong gain \\| of WFI01 |" in shown()


def test_the_ui_decides_once(observed: Sky) -> None:
    put_proposal(observed)

    def launch() -> dg.ExecuteInProcessResult:
        return decide_proposal.execute_in_process(
            run_config={
                "ops": {
                    "put_decision_on_record": {
                        "config": {
                            "proposal": ID,
                            "verdict": "APPROVED",
                            "by": "ben",
                            "reason": "go",
                            "despite_changes": True,
                        }
                    }
                }
            },
            resources={"installation": Installation(data_root=str(observed.root.path))},
            instance=observed.instance,
            raise_on_error=False,
        )

    assert launch().success
    decided = proposal_of(observed.root, ID).decision
    assert decided is not None
    assert (decided.author, decided.verdict) == ("ben", Verdict.APPROVED)
    again = launch()
    assert not again.success
    (failure,) = [event for event in again.all_events if event.is_step_failure]
    assert "ben approved it" in str(failure.step_failure_data.user_failure_data)


def test_a_run_of_a_proposal_without_approval_is_refused(observed: Sky) -> None:
    put_proposal(observed)
    with pytest.raises(BadInputError, match="not approved"):
        exposure_to_reprocess(observed.root, ID, FIRST)
    approve(observed)
    work = exposure_to_reprocess(observed.root, ID, FIRST)
    assert work.format_again
    assert work.format_same
    observed.process(FIRST, "again")
    fold(observed.root)
    assert not exposure_to_reprocess(observed.root, ID, FIRST).format_again


def test_software_that_was_not_approved_makes_nothing_again(observed: Sky) -> None:
    put_proposal(observed, cause=Cause.SOFTWARE, value="romancal=99.0")
    approve(observed)
    with pytest.raises(BadInputError, match=r"99\.0 was approved"):
        exposure_to_reprocess(observed.root, ID, FIRST)


def test_an_open_proposal_tells_how_to_decide(observed: Sky) -> None:
    put_proposal(observed)
    text = proposals_markdown([(one, None) for one in proposals(observed.root)])
    assert f"proposal: {ID}" in text
    assert "verdict: APPROVED" in text
