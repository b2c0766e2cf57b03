"""Products made again from their records, through the same pipelines that made them."""

from __future__ import annotations

from pathlib import Path

import pytest
from roman_datamodels import datamodels
from typer.testing import CliRunner, Result

from roman_assets.archive.file_archive import FileArchive
from roman_assets.cli import app
from roman_assets.data_root import DATA_ROOT_VARIABLE, DataRoot
from roman_assets.errors import BadInputError
from roman_assets.products.kind import Step
from roman_assets.products.name import ProductName
from roman_assets.publishing.step import Output, publish_step
from roman_assets.reader.content import first_difference
from roman_assets.records.journal import Journal
from roman_assets.records.record import ProductInput, fingerprint
from roman_assets.references.context import operational_context
from roman_assets.registry.registry import Registry
from roman_assets.reproduction import reproduce
from roman_assets.software import installed_software
from roman_assets_tests.support.observed_visit import Observed
from roman_assets_tests.support.small_products import cal, public_content, record_of, sha256


@pytest.fixture
def archive_is_untouched(observed):
    before = public_content(observed.root), Registry(observed.root).work.count_records()
    yield
    assert (public_content(observed.root), Registry(observed.root).work.count_records()) == before


def require_equal_sets(made, published, number: int, directory: Path) -> None:
    """Compare all that came out with one product: what was made together is found together."""
    names = {entry.name: entry for entry in published}
    assert len(names) == number
    for name in names:
        again = directory / name
        assert first_difference(made.path(name), again, ProductName.parse(name)) == ""
        assert again.stat().st_ino != made.path(name).stat().st_ino


@pytest.mark.parametrize("kind", ["uncal", "guide_window", "face"])
def test_l1_comes_out_the_same_from_the_retained_packets(
    kind, calibrated, archive_is_untouched, tmp_path
):
    observed = calibrated.observed
    name = next(iter(observed.current(exposure=str(observed.exposures[0]), kind=kind)))
    assert reproduce(observed.root, name, tmp_path).difference == ""


def test_the_four_products_of_a_detector_come_out_the_same(
    calibrated, archive_is_untouched, tmp_path
):
    made = [
        *calibrated.after_definitive_ephemeris.made,
        *calibrated.after_definitive_ephemeris.reused,
    ]
    supplement = next(entry for entry in made if "_wcs." in entry.name)
    found = reproduce(calibrated.observed.root, supplement.name, tmp_path)
    assert found.difference == ""
    require_equal_sets(calibrated.observed, made, 4, found.path.parent)


@pytest.mark.slow
def test_the_four_products_of_a_skycell_come_out_the_same(
    mosaicked, calibrated, archive_is_untouched, tmp_path
):
    file_set = mosaicked.made[0].name.rpartition("_")[0]
    made = [entry for entry in mosaicked.made if entry.name.startswith(file_set)]
    coadd = next(entry for entry in made if "_coadd." in entry.name)
    found = reproduce(calibrated.observed.root, coadd.name, tmp_path)
    assert found.difference == ""
    require_equal_sets(calibrated.observed, made, 6, found.path.parent)


def run(observed: Observed, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Result:
    monkeypatch.setenv(DATA_ROOT_VARIABLE, str(observed.root.path))
    return CliRunner().invoke(app, ["reproduce", *arguments])


def test_a_product_that_is_not_what_its_record_makes_is_told_with_the_place(
    copy_of_observed, monkeypatch, tmp_path
):
    observed = copy_of_observed
    (entry,) = observed.current(exposure=str(observed.exposures[0]), kind="guide_window").values()
    altered = tmp_path / entry.name
    with datamodels.open(observed.path(entry.name)) as model:
        model.meta.guide_window_id = "another"
        model.save(altered)
    publish_step(
        observed.root,
        step=Step.FORMATTING,
        partition=str(observed.exposures[0]),
        outputs=[
            Output(entry.product_name, altered, "1" * 64, entry.inputs, software=entry.software)
        ],
    )
    result = run(observed, monkeypatch, entry.name, "--to", str(tmp_path / "kept"))
    assert result.exit_code == 1
    assert f"{entry.name} generation 2: it differs: roman.meta.guide_window_id" in result.output
    assert (tmp_path / "kept" / entry.name).is_file()
    assert run(observed, monkeypatch, entry.name, "--generation", "1").exit_code == 0


def test_packets_that_were_replaced_are_refused(copy_of_observed, tmp_path):
    observed = copy_of_observed
    (entry,) = observed.current(exposure=str(observed.exposures[0]), kind="face").values()
    packets, orbit = entry.inputs
    other = ProductInput(name=packets.name, sha256="7" * 64)
    record = record_of(
        observed.root, {entry.name: b"x"}, inputs=(other, orbit), software=entry.software
    )
    Journal(observed.root).write(record)
    with pytest.raises(BadInputError, match=f"{'7' * 64}.*were replaced"):
        reproduce(observed.root, entry.name, tmp_path)


IMAGE = cal()
RAMP = ProductInput(name=IMAGE.replace("_cal", "_uncal"), sha256=sha256(b"ramp"))


def recorded(root: DataRoot, **fields) -> None:
    """Put on record that an image was made, so or otherwise, from a ramp."""
    about = {
        "inputs": (RAMP,),
        "context": operational_context(),
        "software": installed_software(Step.EXPOSURE),
        **fields,
    }
    mark = fingerprint(
        Step.EXPOSURE,
        about["inputs"],
        about["context"],
        about["software"],
        astrometric_catalog=None,
    )
    Journal(root).write(record_of(root, {IMAGE: b"image"}, fingerprint=mark, **about))


@pytest.fixture
def root(calibrated, tmp_path):
    return DataRoot(tmp_path / "data")


def refusal(root: DataRoot, tmp_path: Path) -> BadInputError:
    directory = tmp_path / "scratch"
    directory.mkdir()
    with pytest.raises(BadInputError) as caught:
        reproduce(root, IMAGE, directory)
    return caught.value


def test_other_software_is_refused_naming_both_versions_and_the_remedy(root, tmp_path):
    recorded(root, software=installed_software(Step.EXPOSURE) | {"romancal": "0.0.1"})
    error = refusal(root, tmp_path)
    assert "romancal 0.0.1" in error.reason
    assert f"romancal {installed_software(Step.EXPOSURE)['romancal']}" in error.reason
    assert "pip install" in error.remedy
    assert "romancal==0.0.1" in error.remedy


def test_a_context_that_the_cache_does_not_have_is_refused(root, tmp_path):
    recorded(root, context="roman_9999.pmap")
    error = refusal(root, tmp_path)
    assert "roman_9999.pmap" in error.reason
    assert operational_context() in error.reason


def test_other_settings_are_refused(root, tmp_path):
    Journal(root).write(
        record_of(
            root,
            {IMAGE: b"image"},
            inputs=(RAMP,),
            context=operational_context(),
            software=installed_software(Step.EXPOSURE),
        )
    )
    assert refusal(root, tmp_path).field == "fingerprint"


def test_an_input_that_is_gone_is_named(root, tmp_path, monkeypatch):
    monkeypatch.setattr("roman_assets.reproduction.astrometric_catalog", lambda root: None)
    recorded(root)
    error = refusal(root, tmp_path)
    assert RAMP.name in error.reason
    assert RAMP.sha256 in error.reason


def test_without_the_published_file_it_is_made_and_not_compared(
    copy_of_observed, monkeypatch, tmp_path
):
    observed = copy_of_observed
    (entry,) = observed.current(exposure=str(observed.exposures[0]), kind="face").values()
    FileArchive(observed.root).local(entry.sha256).unlink()
    result = run(observed, monkeypatch, entry.name, "--to", str(tmp_path))
    assert result.exit_code == 0
    assert "not compared: its file is gone" in result.output
    assert (tmp_path / entry.name).is_file()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nonsense"], "there never was such a product"),
        ([IMAGE, "--generation", "7"], "there never was such a product"),
    ],
)
def test_what_never_was_is_refused(arguments, told, observed, monkeypatch):
    result = run(observed, monkeypatch, *arguments)
    assert result.exit_code != 0
    assert told in str(result.exception)
