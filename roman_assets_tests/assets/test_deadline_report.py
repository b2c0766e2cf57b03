from __future__ import annotations

from pathlib import Path

import dagster as dg

from roman_assets.assets.deadline_report import DEADLINE_REPORT, deadline_report
from roman_assets.data_root import DataRoot
from roman_assets.resources import Installation
from roman_assets_tests.registry.facts import Facts


def test_the_report_shows_how_deadlines_stand(tmp_path: Path) -> None:
    root = DataRoot(tmp_path / "data")
    facts = Facts(root)
    facts.receipt()
    facts.fold()
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            [deadline_report],
            instance=instance,
            resources={"installation": Installation(data_root=str(root.path))},
        )
        assert result.success
    (made,) = result.asset_materializations_for_node("deadline_report")
    assert made.asset_key == DEADLINE_REPORT
    assert "queued" in str(made.metadata["summary"].value)
    picture = str(made.metadata["picture"].value)
    assert picture.startswith("![deadlines](data:image/png;base64,")
    assert len(picture) < 150_000
    assert Path(str(made.metadata["page"].value)).is_file()
