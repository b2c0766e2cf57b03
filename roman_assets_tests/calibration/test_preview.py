"""Previews and thumbnails of L2 and L3: the mission's pictures, which follow their image."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from roman_datamodels import datamodels

from roman_assets.archive.file_archive import FileArchive
from roman_assets.calibration import preview
from roman_assets.calibration.preview import downsample, draw_previews, try_previews
from roman_assets.data_root import DataRoot
from roman_assets.products.kind import KIND_BY_NAME, Step, expected_kinds, pictures_of
from roman_assets.products.name import ProductName
from roman_assets.products.observation import ExposureType, Survey
from roman_assets.publishing.step import Output, publish_step
from roman_assets.registry.registry import Registry
from roman_assets.upkeep.fsck import fsck
from roman_assets_tests.support.small_products import ANY_FINGERPRINT, cal, exposure

NAME = ProductName.parse(cal())
CAL = KIND_BY_NAME["cal"]


def image_of(data: np.ndarray, err: float = 0.1):
    image = datamodels.ImageModel.create_fake_data(shape=data.shape)
    image.data = data.astype(np.float32)
    image.err = np.full(data.shape, err, np.float16)
    return image


@pytest.fixture
def sky():
    return np.random.default_rng(5).normal(1.0, 0.1, (310, 300))


def test_an_image_gets_a_preview_and_a_thumbnail_under_official_names(tmp_path, sky):
    drawn = draw_previews(image_of(sky), NAME, tmp_path)
    stem = cal().removesuffix("_cal.asdf")
    assert {path.name for path in drawn.values()} == {f"{stem}_preview.png", f"{stem}_thumb.png"}
    sizes = {}
    for kind, path in drawn.items():
        with Image.open(path) as picture:
            assert picture.format == "PNG"
            sizes[kind] = max(picture.size)
    assert 300 < sizes["cal_preview"] <= 1080
    assert 100 < sizes["cal_thumbnail"] <= 300


def test_the_pictures_are_averaged_down_as_stpreview_does(tmp_path, sky):
    from stpreview.downsample import downsample_asdf_to

    image = image_of(sky)
    image.err[40:60, 40:60] = 0
    image.data[:10] = np.nan
    image.save(tmp_path / cal())
    theirs = downsample_asdf_to(tmp_path / cal(), (100, 100))
    np.testing.assert_array_equal(downsample(image, (100, 100)), theirs)


@pytest.mark.parametrize("value", [np.nan, 0.0, 3.0])
def test_an_image_without_contrast_or_pixels_is_drawn_all_the_same(tmp_path, value):
    assert len(draw_previews(image_of(np.full((64, 64), value)), NAME, tmp_path)) == 2
    assert len(draw_previews(image_of(np.full((64, 64), value), err=0), NAME, tmp_path)) == 2


def test_an_image_that_cannot_be_drawn_is_told_of_and_nothing_else(tmp_path, sky, monkeypatch):
    def broken(*_: object) -> None:
        raise ValueError("no colours left")

    monkeypatch.setattr(preview, "downsample", broken)
    drawing = try_previews(image_of(sky), NAME, tmp_path)
    assert not drawing.files
    assert "no colours left" in drawing.failure


def test_no_exposure_or_visit_waits_for_pictures():
    for survey in Survey:
        for exposure_type in ExposureType:
            assert not [kind for kind in expected_kinds(survey, exposure_type) if kind.picture]


def publish(root: DataRoot, directory, *, content: float, with_pictures: bool = True) -> None:
    image = image_of(np.full((32, 32), content))
    directory.mkdir()
    files = {CAL: directory / cal()}
    image.save(files[CAL])
    if with_pictures:
        drawn = draw_previews(image, NAME, directory)
        files |= {kind: drawn[kind.name] for kind in pictures_of(CAL)}
    publish_step(
        root,
        step=Step.EXPOSURE,
        partition=exposure(),
        outputs=[
            Output(ProductName(NAME.file_set, kind), path, ANY_FINGERPRINT)
            for kind, path in files.items()
        ],
    )


def test_pictures_are_archived_registered_and_go_with_their_image(tmp_path):
    root = DataRoot(tmp_path / "data")
    publish(root, tmp_path / "first", content=1.0)
    found = Registry(root).products.find(exposure=exposure())
    assert set(found["kind"]) == {"cal", "cal_preview", "cal_thumbnail"}
    assert set(found["level"]) == {"L2"}
    archive = FileArchive(root)
    pictures = [ProductName(NAME.file_set, kind) for kind in pictures_of(CAL)]
    assert all(archive.is_public(name) for name in pictures)
    publish(root, tmp_path / "second", content=2.0, with_pictures=False)
    assert set(Registry(root).products.find(exposure=exposure())["kind"]) == {"cal"}
    assert not any(archive.is_public(name) for name in pictures)
    assert not [one for one in fsck(root) if "_preview" in str(one)]
