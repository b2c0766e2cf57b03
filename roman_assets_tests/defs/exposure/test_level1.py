"""Who asks for L1 decides whether it is made again (R3, R8)."""

from __future__ import annotations

import dagster as dg
import pytest
import roman_datamodels as rdm
from typer.testing import CliRunner

from roman_assets.archive.file_archive import FileArchive
from roman_assets.cli import app
from roman_assets.data_root import DATA_ROOT_VARIABLE, DataRoot
from roman_assets.defs.exposure.assets import level1
from roman_assets.defs.exposure.landing_watch import LandingWatch
from roman_assets.defs.lib.partitions import exposure_partitions
from roman_assets.defs.lib.resources import Installation
from roman_assets.products.deadline import utc_now
from roman_assets.products.name import ProductName
from roman_assets.registry.registry import Registry
from roman_assets_tests.formatting.test_step import with_definitive_ephemeris
from roman_assets_tests.support.telemetry_samples import EXPOSURE, write_oem

NAME = f"{EXPOSURE}_wfi01_f158_uncal.asdf"


@pytest.fixture
def root(tmp_path):
    """An installation with L1 of the predicted ephemeris, where the definitive one is in."""
    root = DataRoot(tmp_path / "data")
    with_definitive_ephemeris(root, write_oem(tmp_path / "orbit.oem").read_text(), tmp_path)
    return root


def materialize(root: DataRoot, tags: dict[str, str]) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(exposure_partitions.name, [str(EXPOSURE)])
        dg.materialize(
            [level1],
            instance=instance,
            partition_key=str(EXPOSURE),
            resources={"installation": Installation(data_root=str(root.path))},
            tags=tags,
        )


def ephemeris_of(root: DataRoot) -> tuple[int, str]:
    (made,) = Registry(root).generations.current([NAME]).values()
    with rdm.open(FileArchive(root).path(ProductName.parse(NAME))) as model:
        return made.generation, model.meta.ephemeris.type


def test_no_sensor_asks_for_l1_when_the_definitive_ephemeris_arrives(root):
    watch = LandingWatch(root)
    watch.look(utc_now())
    with dg.DagsterInstance.ephemeral() as instance:
        wanted = watch.wanted(instance, utc_now())
    # L2 is wanted: it was not made yet
    (state,) = wanted
    assert all(state.made.has(name, one) for name, one in state.receipt.senders.items())
    materialize(root, {"dagster/sensor_name": "landing_sensor"})
    assert ephemeris_of(root) == (1, "PREDICTED")


def test_who_materializes_the_partition_gets_l1_with_the_definitive_ephemeris(root):
    materialize(root, {})
    assert ephemeris_of(root) == (2, "DEFINITIVE")


def test_an_operator_is_told_why_l1_would_be_made_again_and_how_to_propose_it(root, monkeypatch):
    monkeypatch.setenv(DATA_ROOT_VARIABLE, str(root.path))
    listed = CliRunner().invoke(app, ["formatting", str(EXPOSURE)])
    assert listed.exit_code == 0, listed.output
    assert "the definitive ephemeris" in listed.output
    assert f"roman-assets propose --exposure {EXPOSURE}" in listed.output
    assert ephemeris_of(root) == (1, "PREDICTED")
    materialize(root, {})
    again = CliRunner().invoke(app, ["formatting", str(EXPOSURE)])
    assert "nothing would be different" in again.output
    assert "propose" not in again.output


@pytest.mark.parametrize("text", ["nonsense", "r0000101001001001001"])
def test_what_is_no_exposure_is_refused(text):
    result = CliRunner().invoke(app, ["formatting", text])
    assert result.exit_code == 2
