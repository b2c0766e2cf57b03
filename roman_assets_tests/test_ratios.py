"""Benchmarks show what a ratio was before, so that a loss is seen."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

PROJECT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def ratios() -> ModuleType:
    source = PROJECT / "benchmarks" / "usage" / "ratios.py"
    spec = importlib.util.spec_from_file_location("ratios_of_benchmarks", source)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_a_ratio_is_printed_below_its_earlier_values_and_a_loss_is_named(
    ratios: ModuleType, tmp_path: Path
) -> None:
    table = tmp_path / "ratios.csv"
    table.write_text("ratio,date,commit,value\nspeed,2026-11-01,abc,2.0\nother,2026-11-02,d,9\n")
    assert ratios.lines("speed", 1.5, table) == [
        "  2026-11-01 abc: 2.000",
        "  lower than 2.000 of 2026-11-01",
        "ratio speed: 1.500 (alternative / ours, higher is better)",
    ]
    assert ratios.lines("speed", 2.5, table)[-2] == "  2026-11-01 abc: 2.000"
    assert len(ratios.lines("new", 1.0, table)) == 1


def test_the_table_has_what_the_page_of_figures_states(ratios: ModuleType) -> None:
    newest = {one.ratio: one.value for one in ratios.history()}
    page = (PROJECT / "docs" / "performance.md").read_text()
    stated = dict(re.findall(r"^ratio (\w+): ([\d.]+)", page, re.MULTILINE))
    assert stated
    missing = {
        name: float(value) for name, value in stated.items() if newest.get(name) != float(value)
    }
    assert not missing, "add these to benchmarks/ratios.csv, with the day and the commit"


def test_every_benchmark_prints_its_ratios_with_their_history() -> None:
    for script in (PROJECT / "benchmarks").rglob("*.py"):
        assert script.name == "ratios.py" or 'f"ratio ' not in script.read_text(), script
