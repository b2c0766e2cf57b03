"""The demo as a new user runs it (``make test-slow``)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from roman_assets.archive.file_archive import FileArchive
from roman_assets.data_root import DATA_ROOT_VARIABLE, DataRoot
from roman_assets.products.deadline import ProductState
from roman_assets.products.kind import KINDS
from roman_assets.products.name import ProductName
from roman_assets.registry.registry import Registry
from roman_assets.simulation.telescope.scene import SourceKind
from roman_assets.simulation.telescope.truth import (
    APERTURE,
    PSF,
    Measurement,
    Residuals,
    compare_catalog,
    read_catalog,
    read_truth,
    star_residuals,
)
from roman_assets.upkeep.fsck import fsck

LIMIT_MMAG: dict[str, tuple[Measurement, float]] = {
    "exposure_catalog": (PSF, 5.0),
    "visit_catalog": (APERTURE, 10.0),
}
ALL_SURVEYS = {"HLWAS", "HLTDS", "GBTDS"}


def run_demo(root: DataRoot) -> str:
    program = str(Path(sys.executable).with_name("roman-assets"))
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CRDS_", "DAGSTER_"))
    }
    environment[DATA_ROOT_VARIABLE] = str(root.path)
    done = subprocess.run([program, "demo"], env=environment, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_the_demo_makes_what_it_promises_twice(tmp_path: Path) -> None:
    root = DataRoot(tmp_path / "data")
    for number in (1, 2):
        told = run_demo(root)
        assert re.search(r"Made in \d+ s", told)
        for kind in ("microlensing_light_curve_catalog", "spec_individual_1d"):
            assert kind in told
        registry = Registry(root)
        levels = registry.products.counts(by=("survey", "level"))
        made = {(row.survey, row.level) for row in levels.itertuples()}
        assert {survey for survey, level in made if level == "L3"} == ALL_SURVEYS
        assert {survey for survey, level in made if level == "L2"} == ALL_SURVEYS
        for kind in KINDS:
            assert kind.name in set(registry.products.find()["kind"]), kind
        assert set(registry.products.find()["generation"]) == {1}
        assert registry.products.find(kind="cal")["exposure"].nunique() == 6 * number
        assert registry.products.find(kind="coadd")["visit"].nunique() == 2 * number
        states = set(registry.deadlines.groups()["state"])
        assert states - {ProductState.QUEUED} == {
            ProductState.MADE_IN_TIME, ProductState.NOT_EXPECTED,
        }  # fmt: skip
    assert registry.work.failures().empty
    assert not fsck(root)
    _require_accuracy(root, registry)


def _require_accuracy(root: DataRoot, registry: Registry) -> None:
    """Check fluxes over all catalogues of a kind and filter: a single one has some ten stars."""
    for kind, (measurement, limit) in LIMIT_MMAG.items():
        fluxes: dict[str, list[NDArray[np.float64]]] = {}
        for name in map(ProductName.parse, registry.products.find(kind=kind)["name"]):
            assert name.visit is not None
            truth = read_truth(root, name.visit)
            element = name.file_set.optical_element
            sources = read_catalog(FileArchive(root).path(name))
            stars = star_residuals(sources, truth, element, measurement=measurement)
            fluxes.setdefault(element, []).append(stars)
            if kind == "exposure_catalog":
                gaia = compare_catalog(
                    sources, truth, element, kinds={SourceKind.GAIA}, magnitudes=(16.0, 20.8)
                )
                assert gaia.n >= 2
                assert gaia.position_rms_mas < 2.0, name
        for element, found in fluxes.items():
            pooled = Residuals.of(np.concatenate(found, axis=1))
            assert pooled.n >= 20, (kind, element)
            assert pooled.median_flux_error_mmag < limit, (kind, element)
