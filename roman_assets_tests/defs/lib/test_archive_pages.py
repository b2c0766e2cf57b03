"""Dagster's UI leads to the pages of the archive service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from roman_assets.defs.lib.materialization_metadata import StepReport, materialized
from roman_assets.defs.lib.specs import asset_key
from roman_assets.products.kind import KIND_BY_NAME, Step
from roman_assets.registry.registry import Registry
from roman_assets.settings.service_settings import SERVICE_VARIABLE
from roman_assets_tests.support.small_archive import CAL, small_archive


def metadata_of_image(path: Path) -> dict[str, Any]:
    root = small_archive(path)
    (entry,) = Registry(root).generations.current([CAL]).values()
    report = StepReport({"cal": [entry]}, frozenset(), 0, pd.DataFrame(columns=["kind", "made"]))
    made = materialized(root, Step.EXPOSURE, report)
    return dict(made[asset_key(Step.EXPOSURE, KIND_BY_NAME["cal"])].metadata)


def test_a_materialization_leads_to_the_pages_of_its_products(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SERVICE_VARIABLE, "http://127.0.0.1:8765/")
    pages = metadata_of_image(tmp_path)["archive_pages"].value
    assert pages == f"- [{CAL}](http://127.0.0.1:8765/products/{CAL})"


def test_the_address_in_the_settings_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SERVICE_VARIABLE, "http://127.0.0.1:8765")
    (tmp_path / "service.toml").write_text('version = 1\nurl = "https://archive.example/wfi"\n')
    pages = metadata_of_image(tmp_path)["archive_pages"].value
    assert f"(https://archive.example/wfi/products/{CAL})" in pages


def test_without_a_service_there_are_no_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(SERVICE_VARIABLE, raising=False)
    assert "archive_pages" not in metadata_of_image(tmp_path)
