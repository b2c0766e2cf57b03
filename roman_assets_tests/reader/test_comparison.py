"""Generations of a product compared, when one overwrites the other and afterwards (R6)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.modeling.models import Shift
from roman_datamodels import datamodels
from typer.testing import CliRunner, Result

from roman_assets.archive.file_archive import FileArchive
from roman_assets.calibration.detector import compare_with_former
from roman_assets.calibration.exposure import calibrate_exposure
from roman_assets.cli import app
from roman_assets.data_root import DATA_ROOT_VARIABLE
from roman_assets.errors import BadInputError
from roman_assets.products.name import ProductName
from roman_assets.reader.archive_reader import ArchiveReader
from roman_assets.reader.product_comparison import GenerationChange, SourceChange, compare_files
from roman_assets.registry.registry import Registry
from roman_assets_tests.calibration.test_exposure import by_kind
from roman_assets_tests.support.observed_visit import Observed
from roman_assets_tests.support.small_products import damage


@pytest.fixture
def image(calibrated) -> Path:
    """An L2 image of the session."""
    return calibrated.observed.path(by_kind(calibrated.first.made)["cal"].name)


def altered(image: Path, directory: Path, alter) -> Path:
    path = directory / image.name
    with datamodels.open(image) as model:
        alter(model)
        model.save(path)
    return path


def compared(image: Path, directory: Path, alter):
    other = altered(image, directory, alter)
    return compare_files(image, other, ProductName.parse(image.name))


def test_a_file_is_no_different_from_itself(image):
    found = compare_files(image, image, ProductName.parse(image.name))
    assert found.pixels.compared > 200_000
    assert (found.pixels.changed, found.pixels.scatter, found.pixels.largest) == (0, 0, 0)
    assert (found.wcs.largest, found.zero_point) == (0, 0)


def test_pixels_are_compared_where_both_are_good(image, tmp_path):
    def alter(model) -> None:
        model.data = model.data + np.float32(0.25)
        good = (model.dq & 1 == 0) & np.isfinite(model.data)
        (y, *_), (x, *_) = np.nonzero(good)
        model.data[y, x] = 1e6
        model.dq[y, x] |= 1
        (y, *_), (x, *_) = np.nonzero(~good)
        model.data[y, x], model.dq[y, x] = 1e6, 0

    found = compared(image, tmp_path, alter).pixels
    assert (found.changed, found.gained, found.lost) == (1.0, 1, 1)
    assert found.median == pytest.approx(0.25, abs=1e-5)
    assert found.largest == pytest.approx(0.25, abs=1e-3)


def test_the_shift_of_the_wcs_is_told_on_the_sky(image, tmp_path):
    def alter(model) -> None:
        model.meta.wcs.insert_transform("detector", Shift(0.01) & Shift(0.0), after=True)

    found = compared(image, tmp_path, alter)
    assert found.pixels.changed == 0
    assert np.hypot(found.wcs.east, found.wcs.north) == pytest.approx(1.1, rel=0.1)
    assert found.wcs.largest == pytest.approx(1.1, rel=0.1)


def test_the_zero_point_is_told_in_magnitudes(image, tmp_path):
    def alter(model) -> None:
        model.meta.photometry.conversion_megajanskys *= 1.01

    assert compared(image, tmp_path, alter).zero_point == pytest.approx(-0.0108, abs=1e-4)


def catalog(path: Path, ra, dec, flux) -> Path:
    pq.write_table(pa.table({"ra": ra, "dec": dec, "segment_flux": flux}), path)
    return path


def test_sources_are_matched_with_their_nearest_across_zero_hours(tmp_path):
    before = catalog(
        tmp_path / "a.parquet",
        [359.999999, 0.5, 10.0, np.nan],
        [0.0, 60.0, 1.0, 1.0],
        [1.0, 2.0, 3.0, 4.0],
    )
    after = catalog(
        tmp_path / "b.parquet", [1e-6, 0.5, 20.0, 30.0], [0.0, 60.0, 1.0, 1.0], [2.0, 4.0, 1.0, 1.0]
    )
    found = SourceChange.of(before, after)
    assert (found.before, found.after, found.matched) == (3, 4, 2)
    assert found.brightness == pytest.approx(-2.5 * np.log10(2))
    assert found.east == pytest.approx(3.6, rel=0.01)


@pytest.mark.parametrize("empty", [True, False])
def test_catalogues_without_a_match_say_so(empty, tmp_path):
    before = catalog(tmp_path / "a.parquet", *([[], [], []] if empty else [[5.0], [5.0], [1.0]]))
    after = catalog(tmp_path / "b.parquet", [0.0], [0.0], [1.0])
    found = SourceChange.of(before, after)
    assert (found.matched, found.east, found.brightness) == (0, None, None)


@pytest.fixture
def made_again(calibrated, copy_of_observed) -> tuple[Observed, str]:
    """An installation where L2 of an exposure was made a second time, and the image's name."""
    exposure = copy_of_observed.exposures[0]
    made = by_kind(calibrate_exposure(copy_of_observed.root, exposure, force=True).made)
    return copy_of_observed, made["cal"].name


def diff(observed: Observed, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Result:
    monkeypatch.setenv(DATA_ROOT_VARIABLE, str(observed.root.path))
    return CliRunner().invoke(app, ["diff", *arguments])


def test_what_an_overwriting_changed_is_told_before_and_after_the_old_file_is_gone(
    made_again, monkeypatch, tmp_path
):
    observed, name = made_again
    old, new = Registry(observed.root).generations.of([name])[name]
    kept = GenerationChange.of_record(new)
    assert (kept.overwrote, kept.sha256, kept.not_compared) == (old.record_id, old.sha256, "")
    assert kept.files.pixels.changed == 0
    assert kept.files.sources.matched == kept.files.sources.before == kept.files.sources.after > 10
    assert (kept.context, kept.software, kept.references) == (None, {}, {})
    history = ArchiveReader(observed.root).history(name)
    assert [bool(change) for change in history["change"]] == [True, False]
    picture = tmp_path / "change.png"
    there = diff(observed, monkeypatch, name, "--picture", str(picture))
    assert there.exit_code == 0, there.output
    assert "0 % of" in there.output
    assert picture.read_bytes().startswith(b"\x89PNG")
    found = json.loads(diff(observed, monkeypatch, name, "--json").stdout)["change"]
    FileArchive(observed.root).local(old.sha256).unlink()
    gone = json.loads(diff(observed, monkeypatch, name, "--json").stdout)["change"]
    assert gone == found == kept.model_dump(mode="json")
    assert diff(observed, monkeypatch, name, "--picture", str(picture)).exit_code != 0
    told = CliRunner().invoke(app, ["history", name])
    assert "files pixels compared" in told.output


@pytest.mark.slow
def test_a_comparison_that_fails_is_told_and_keeps_nothing_from_being_published(
    calibrated, copy_of_observed, monkeypatch
):
    root, exposure = copy_of_observed.root, copy_of_observed.exposures[0]
    (old,) = copy_of_observed.current(exposure=str(exposure), kind="cal").values()
    damage(FileArchive(root).local(old.sha256), b"rubbish")
    result = calibrate_exposure(root, exposure, force=True)
    assert not result.failures
    new = Registry(root).generations.of([old.name])[old.name][-1]
    assert "not readable as ASDF" in GenerationChange.of_record(new).not_compared
    told = diff(copy_of_observed, monkeypatch, old.name)
    assert isinstance(told.exception, BadInputError)
    assert "roman-assets fsck" in str(told.exception)


def test_an_old_file_that_cannot_be_read_is_told_with_the_error(image, tmp_path):
    rubbish = tmp_path / image.name
    rubbish.write_bytes(b"rubbish")
    change, told = compare_with_former({"cal": rubbish}, {"cal": image})
    assert change is None
    assert told.startswith("BadInputError")
    assert str(tmp_path) not in told
    change, told = compare_with_former({"cal": tmp_path / "gone"}, {"cal": image})
    assert change is None
    assert "gone" in told
    assert str(tmp_path) not in told


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["r0000101001001001001_0009_wfi02_f158_cal.asdf"], "there never was such a product"),
        (["{name}"], "there is no generation 0"),
        (["{name}", "--generation", "7"], "there is no generation 7"),
    ],
)
def test_generations_that_never_were_are_refused(
    arguments, reason, observed, calibrated, monkeypatch
):
    name = by_kind(calibrated.second.made)["cal"].name
    result = diff(observed, monkeypatch, *(text.format(name=name) for text in arguments))
    assert isinstance(result.exception, BadInputError)
    assert reason in str(result.exception)
