from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from roman_assets.access import ROLE_VARIABLE, Role
from roman_assets.cli import app
from roman_assets.data_root import DATA_ROOT_VARIABLE, DataRoot
from roman_assets.errors import BadInputError
from roman_assets.simulation.telescope.crds_mappings import CONTEXTS
from roman_assets.simulation.telescope.reference_delivery import deliver_reference
from roman_assets_tests.support import reprocessed_season as season
from roman_assets_tests.support.reprocessed_season import Season, detector_names, exposure_key


@pytest.fixture
def context(
    tmp_path: Path,
    cache_of_three: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    """A visit is made, and a new photometry of one of its detectors has come since."""
    root = DataRoot(tmp_path / "data")
    monkeypatch.setenv(DATA_ROOT_VARIABLE, str(root.path))
    monkeypatch.setenv(ROLE_VARIABLE, Role.OPERATIONS)
    # who decides here decides now, after it was observed
    monkeypatch.setattr(season, "START", datetime(2025, 1, 1, tzinfo=UTC))
    Season(root).observe((1,), CONTEXTS[1])
    return deliver_reference(cache_of_three, "photom", "WFI02")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_a_person_sees_the_impact_proposes_and_decides(context: str) -> None:
    expected = [name for number in (1, 2) for name in detector_names(exposure_key(1, number), 2)]
    assert run("impact", "--context", context, "--names").output.split() == sorted(expected)
    table = run("impact", "--context", context).output
    assert "8 (L1: 2, L2: 2, L4: 4)" in table
    assert "WFI02" in table
    proposed = run("propose", "--context", context, "--by", "ana", "--reason", "flux").output
    (proposal,) = json.loads(run("proposals", "--json").output)
    assert proposal["proposal_id"] in proposed
    assert (proposal["state"], proposal["author"]) == ("open", "ana")
    shown = run("proposals", proposal["proposal_id"]).output
    assert "What would change" in shown
    decided = run("approve", proposal["proposal_id"], "--by", "ben", "--reason", "go").output
    assert "approved by ben" in decided
    (proposal,) = json.loads(run("proposals", "--json").output)
    assert proposal["state"] == "approved"
    assert proposal["remaining"]["exposures"] == [exposure_key(1, 1), exposure_key(1, 2)]
    again = run("reject", proposal["proposal_id"], "--reason", "no")
    assert isinstance(again.exception, BadInputError)
    assert "ben approved it" in str(again.exception)


def test_wrong_arguments_say_what_to_give(context: str) -> None:
    assert "give one of --context" in run("impact").output
    both = run("impact", "--context", context, "--software", "romancal")
    assert "give one of --context" in both.output
    unknown = run("impact", "--context", "roman_0099.pmap").exception
    assert "the cache has no roman_0099.pmap" in str(unknown)
    assert "no such proposal" in str(run("approve", "nothing", "--reason", "go").exception)
    assert "nothing has been proposed" in run("proposals").output
