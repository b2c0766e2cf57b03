from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import pytest

from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError
from roman_assets.products.kind import Step
from roman_assets.products.pixel_scale import PixelScale
from roman_assets.records.journal import Journal
from roman_assets.records.record import CommitRecord, Proposal, Verdict
from roman_assets.registry.store.fold import fold, rebuild
from roman_assets.reprocessing.change import (
    context_change,
    pixel_scale_change,
    software_change,
)
from roman_assets.reprocessing.impact import impact_of
from roman_assets.reprocessing.proposal import (
    ProposalState,
    approved_proposal,
    changes_since,
    decide,
    exposure_to_reprocess,
    progress,
    proposal_of,
    proposals,
    propose,
    require_as_approved,
    state_of,
)
from roman_assets.simulation.telescope.crds_mappings import CONTEXTS
from roman_assets.simulation.telescope.reference_delivery import deliver_reference
from roman_assets_tests.support.reprocessed_season import (
    Season,
    exposure_key,
    start_of,
    visit_key,
)
from roman_assets_tests.support.small_products import registry_content

TRUE = CONTEXTS[1]
DECIDED = datetime(2028, 1, 1, tzinfo=UTC)
LATER = datetime(2029, 1, 1, tzinfo=UTC)


@pytest.fixture
def season(tmp_path: Path, cache_of_three: Path) -> Season:
    season = Season(DataRoot(tmp_path / "data"))
    season.observe((1,), TRUE)
    return season


@pytest.fixture
def proposal(season: Season, cache_of_three: Path) -> Proposal:
    """Two exposures are to be made again for one detector's new reference."""
    new = deliver_reference(cache_of_three, "photom", "WFI02")
    impact = impact_of(season.root, context_change(season.root, new))
    return propose(season.root, impact, author="ana", reason="2 % of flux")


def test_a_visit_is_made_for_a_proposal_only_with_the_pixel_scale_that_was_approved(
    season: Season,
) -> None:
    root, settings = season.root, season.root.path / "coadds.toml"
    impact = impact_of(root, pixel_scale_change("skymap"))
    name = propose(root, impact, author="ana", reason="finer pixels").proposal_id
    with pytest.raises(BadInputError, match="the pixel scale in force is native"):
        decide(root, name, Verdict.APPROVED, author="ben", reason="go")
    settings.write_text('version = 1\nprompt_visit = "skymap"\n')
    decide(root, name, Verdict.APPROVED, author="ben", reason="go", clock=lambda: DECIDED)
    require_as_approved(root, name)
    settings.unlink()
    with pytest.raises(BadInputError, match="skymap was approved, native is in force"):
        require_as_approved(root, name)
    assert progress(root, proposal_of(root, name)).visits == {visit_key(1)}
    season.pixel_scale = PixelScale.SKYMAP
    season.mosaic(1, TRUE, at=LATER)
    fold(root)
    assert state_of(root, proposal_of(root, name)) is ProposalState.DONE


def test_who_decides_and_why_is_on_record_for_good(
    either_root: DataRoot, cache_of_three: Path
) -> None:
    root, season = either_root, Season(either_root)
    season.observe((1,), TRUE)
    new = deliver_reference(cache_of_three, "photom", "WFI02")
    impact = impact_of(root, context_change(root, new))
    proposal = propose(root, impact, author="ana", reason="2 % of flux")
    name = proposal.proposal_id
    assert state_of(root, proposal_of(root, name)) is ProposalState.OPEN
    decide(root, name, Verdict.REJECTED, author="ben", reason="wait for more")
    folded = registry_content(root)
    rebuild(root)
    assert registry_content(root) == folded
    (kept,) = proposals(root)
    assert kept.proposal == proposal
    assert kept.decision is not None
    assert (kept.decision.author, kept.decision.reason) == ("ben", "wait for more")
    assert state_of(root, kept) is ProposalState.REJECTED


@pytest.mark.parametrize("verdict", list(Verdict))
def test_a_decision_is_made_once(season: Season, proposal: Proposal, verdict: Verdict) -> None:
    decide(season.root, proposal.proposal_id, Verdict.REJECTED, author="ben", reason="no")
    with pytest.raises(BadInputError, match=r"ben rejected it on .*: no"):
        decide(season.root, proposal.proposal_id, verdict, author="cleo", reason="yes")


def test_of_two_who_decide_at_once_one_is_refused(season: Season, proposal: Proposal) -> None:
    def say(author: str) -> str:
        try:
            decide(season.root, proposal.proposal_id, Verdict.APPROVED, author=author, reason="yes")
        except BadInputError as error:
            return error.field
        return "done"

    with ThreadPoolExecutor(4) as threads:
        said = list(threads.map(say, ["ben", "cleo", "dan", "eve"]))
    assert sorted(said) == ["decision", "decision", "decision", "done"]


def test_a_decision_waits_for_nobody_while_others_commit(
    season: Season, proposal: Proposal
) -> None:
    """Between its look under the lock and its own record, others commit without the lock."""
    done = threading.Event()

    def commit() -> None:
        while not done.wait(0.02):
            Journal(season.root).write(
                CommitRecord(step=Step.EXPOSURE, partition=exposure_key(1, 1))
            )

    committing = threading.Thread(target=commit, daemon=True)
    deciding = threading.Thread(
        target=lambda: decide(
            season.root, proposal.proposal_id, Verdict.REJECTED, author="ben", reason="no"
        ),
        daemon=True,
    )
    committing.start()
    deciding.start()
    deciding.join(120)
    done.set()
    committing.join()
    assert not deciding.is_alive()


def test_only_what_a_person_approved_may_be_carried_out(season: Season, proposal: Proposal) -> None:
    root, name = season.root, proposal.proposal_id
    with pytest.raises(BadInputError, match="not approved"):
        approved_proposal(root, name)
    decide(root, name, Verdict.APPROVED, author="ben", reason="yes")
    assert approved_proposal(root, name).proposal.exposures == (
        exposure_key(1, 1),
        exposure_key(1, 2),
    )
    with pytest.raises(BadInputError, match="no such proposal"):
        approved_proposal(root, "other")


def test_a_situation_that_changed_since_is_said(
    season: Season, proposal: Proposal, cache_of_three: Path
) -> None:
    root, name = season.root, proposal.proposal_id
    assert changes_since(root, proposal) == []
    season.observe((2,), TRUE)
    newer = deliver_reference(cache_of_three, "gain", "WFI01")
    changes = "; ".join(changes_since(root, proposal))
    assert newer in changes
    assert f"2 exposures more are affected ({exposure_key(2, 1)}" in changes
    with pytest.raises(BadInputError, match="changed since"):
        decide(root, name, Verdict.APPROVED, author="ben", reason="yes")
    assert proposal_of(root, name).decision is None
    decide(root, name, Verdict.APPROVED, author="ben", reason="yes", despite_changes=True)
    assert proposal_of(root, name).is_approved


def test_progress_is_what_is_still_to_be_made(season: Season, proposal: Proposal) -> None:
    root, name = season.root, proposal.proposal_id
    new = proposal.change.value
    yes = {"author": "ben", "reason": "yes"}
    decide(root, name, Verdict.APPROVED, **yes, clock=lambda: DECIDED)
    found = progress(root, proposal_of(root, name))
    assert found.exposures == {exposure_key(1, 1), exposure_key(1, 2)}
    assert found.visits == {visit_key(1)}
    season.calibrate(1, 1, new, detectors=(2,), at=LATER)
    season.calibrate(1, 2, new, detectors=(2,), at=LATER)
    found = progress(root, proposals(root)[0])
    assert (found.exposures, found.visits) == (frozenset(), {visit_key(1)})
    season.mosaic(1, new, at=LATER)
    assert state_of(root, proposals(root)[0]) is ProposalState.DONE


def test_a_proposal_that_is_done_stays_so_whatever_comes_later(
    season: Season, proposal: Proposal, cache_of_three: Path
) -> None:
    root, name = season.root, proposal.proposal_id
    yes = {"author": "ben", "reason": "yes"}
    decide(root, name, Verdict.APPROVED, **yes, clock=lambda: DECIDED)
    newer = deliver_reference(cache_of_three, "photom", "WFI02")
    for number in (1, 2):
        season.calibrate(1, number, newer, detectors=(2,), at=LATER)
        assert not exposure_to_reprocess(root, name, exposure_key(1, number)).file_sets
    season.mosaic(1, newer, at=LATER)
    assert state_of(root, proposals(root)[0]) is ProposalState.DONE


def test_only_the_l1_that_is_affected_is_formatted_again(season: Season) -> None:
    root, key = season.root, exposure_key(1, 1)
    season.software = {"rad": "1.0.0"}  # as L1 has it, which romancal does not make
    season.format(1, 1, at=start_of(3, 1))
    fold(root)
    installed = f"romancal={metadata.version('romancal')}"
    impact = impact_of(root, software_change(installed))
    proposed = propose(root, impact, author="ana", reason="better fits")
    yes = {"author": "ben", "reason": "yes"}
    decide(root, proposed.proposal_id, Verdict.APPROVED, **yes, clock=lambda: DECIDED)
    work = exposure_to_reprocess(root, proposed.proposal_id, key)
    assert not work.format_again
    assert len(work.file_sets or ()) == 3


def test_nothing_is_proposed_that_changes_nothing_or_has_no_reason(
    season: Season, proposal: Proposal
) -> None:
    root = season.root
    nothing = impact_of(root, context_change(root, TRUE))
    with pytest.raises(BadInputError, match="nothing would change"):
        propose(root, nothing, author="ana", reason="why not")
    something = impact_of(root, proposal.change)
    with pytest.raises(BadInputError, match="reason"):
        propose(root, something, author="ana", reason=" ")
    with pytest.raises(BadInputError, match="author"):
        decide(root, proposal.proposal_id, Verdict.REJECTED, author="", reason="no")
    assert len(proposals(root)) == 1
