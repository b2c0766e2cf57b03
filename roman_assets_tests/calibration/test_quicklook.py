import io

import numpy as np
import pytest
from PIL import Image
from roman_datamodels import datamodels

from roman_assets.calibration.quicklook import draw, quicklook, quicklooks
from roman_assets.errors import BadInputError


def _picture(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as image:
        assert image.format == "PNG"
        return np.asarray(image)


@pytest.fixture
def sky():
    return np.random.default_rng(5).normal(1.0, 0.1, (600, 500)).astype(np.float32)


def test_the_picture_is_small_and_keeps_the_image_proportions(sky):
    assert _picture(draw(sky)).shape == (200, 166)
    assert max(_picture(draw(sky, size=64)).shape) <= 64


def test_small_images_are_not_blown_up(sky):
    assert _picture(draw(sky[:40, :30])).shape == (40, 30)


def test_a_star_is_brighter_than_the_sky_and_at_its_place_with_the_first_row_below(sky):
    image = sky[:200, :200]
    image[20:23, 150:153] += 50.0
    picture = _picture(draw(image))
    row, column = np.unravel_index(picture.argmax(), picture.shape)
    assert abs(row - (199 - 21)) <= 2
    assert abs(column - 151) <= 2
    assert picture[row, column] > 1.5 * np.median(picture)


def test_the_sky_looks_the_same_whatever_the_flux_scale(sky):
    assert (
        np.abs(_picture(draw(sky)).astype(int) - _picture(draw(sky * 1e-4)).astype(int)).max() <= 1
    )


def test_the_margin_without_data_is_cut_away(sky):
    coadd = np.full((1500, 1500), np.nan, np.float32)
    coadd[700:900, 300:400] = sky[:200, :100]
    assert _picture(draw(coadd)).shape == (200, 100)


def test_pixels_without_data_are_told_from_dark_sky(sky):
    image = sky[:100, :100]
    image[40:60, 40:60] = np.nan
    picture = _picture(draw(image))
    hole = picture[45:55, 45:55]
    assert np.ptp(hole) == 0
    assert hole[0, 0] < np.delete(picture, slice(39, 61), axis=0).min()


@pytest.mark.parametrize("value", [np.nan, 0.0, 3.0])
def test_an_image_without_contrast_is_drawn_all_the_same(value):
    assert np.ptp(_picture(draw(np.full((300, 300), value, np.float32)))) == 0


def test_a_level_2_file_is_drawn(tmp_path, sky):
    model = datamodels.ImageModel.create_fake_data(shape=(128, 96))
    model.data[:] = sky[:128, :96]
    path = tmp_path / "image_cal.asdf"
    model.save(path)
    np.testing.assert_array_equal(_picture(quicklook(path)), _picture(draw(sky[:128, :96])))


def test_a_file_without_an_image_is_refused_with_its_name(tmp_path):
    path = tmp_path / "ramp_uncal.asdf"
    datamodels.ScienceRawModel.create_fake_data(shape=(2, 8, 8)).save(path)
    with pytest.raises(BadInputError, match="ramp_uncal"):
        quicklook(path)
    text = tmp_path / "notes_cal.asdf"
    text.write_text("no asdf")
    with pytest.raises(BadInputError, match="notes_cal"):
        quicklook(text)


def test_several_files_are_drawn_in_their_order_as_one_by_one(tmp_path, sky):
    paths = [tmp_path / f"{number}_cal.asdf" for number in range(4)]
    for number, path in enumerate(paths):
        model = datamodels.ImageModel.create_fake_data(shape=(32, 24))
        model.data[:] = sky[number * 32 : number * 32 + 32, :24]
        model.save(path)
    assert quicklooks(paths, 16, workers=2) == [quicklook(path, 16) for path in paths]
    assert quicklooks([]) == []
    with pytest.raises(BadInputError, match="absent_cal"):
        quicklooks([paths[0], tmp_path / "absent_cal.asdf"])
