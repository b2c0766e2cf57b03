from __future__ import annotations

from pathlib import Path

import dagster as dg

from roman_assets.data_root import DataRoot
from roman_assets.deadlines.deadline_page import report_html
from roman_assets.deadlines.deadline_statistics import DeadlineStatistics
from roman_assets.defs.deadlines.assets import DEADLINE_REPORT, deadline_report
from roman_assets.defs.lib.resources import Installation
from roman_assets.products.kind import Step
from roman_assets.registry.registry import Registry
from roman_assets_tests.support.facts import L1, Facts, at, exposure_names
from roman_assets_tests.support.small_products import exposure


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


def test_the_page_lists_what_is_late_and_what_was_to_blame(tmp_path: Path) -> None:
    root = DataRoot(tmp_path / "data")
    facts = Facts(root)
    facts.receipt()
    partition = exposure()
    names = exposure_names(partition, L1)
    facts.published(Step.FORMATTING, partition, names, start=40, end=41)
    facts.attempt(Step.EXPOSURE, partition, start=45)
    facts.fold()
    with Registry(root) as registry:
        statistics = DeadlineStatistics.of(registry.deadlines.groups(now=at(100)), at(100))
    rows = report_html(statistics, b"").split("<tr")
    (uncal,) = (row for row in rows if "<td>uncal<" in row)
    assert all(f"<td>{cell}<" in uncal for cell in ("made late", partition, "-16.0", "queue"))
    (cal,) = (row for row in rows if "<td>cal<" in row)
    assert all(f"<td>{cell}<" in cal for cell in ("overdue, running", "-51.0", "computation"))
    assert statistics.missed_by_blame().to_dict() == {
        "computation": {"L1": 2, "L2": 2}, "queue": {"L1": 5, "L2": 0},
    }  # fmt: skip
