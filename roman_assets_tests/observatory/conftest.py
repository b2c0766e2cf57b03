import shutil

import pytest
from crds.core import utils

from roman_assets.calibration.context import SERVERLESS_URL
from roman_assets.observatory.crds_cache import build_crds_cache
from roman_assets.observatory.scene import SkyCircle
from roman_assets.products.observation import OpticalElement

SEED = 5
FIELD = SkyCircle(270.0, 66.0, 0.5)


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """A cache of one detector and one filter at window size."""
    path = tmp_path_factory.mktemp("crds")
    build_crds_cache(
        path,
        detectors=["WFI02"],
        optical_elements=[OpticalElement.F158],
        seed=SEED,
        sky_fields=[FIELD],
    )
    return path


@pytest.fixture(scope="session")
def _small_cache(tmp_path_factory):
    path = tmp_path_factory.mktemp("small") / "crds"
    build_small(path)
    return path


@pytest.fixture
def small_cache(_small_cache, tmp_path):
    """A cache of a small window without filters, to be changed at will."""
    path = tmp_path / "crds"
    shutil.copytree(_small_cache, path)
    build_small(path)
    return path


def build_small(path, **changes):
    options = {
        "detectors": ["WFI01"],
        "optical_elements": [OpticalElement.DARK],
        "window": 64,
        "seed": SEED,
        "sky_fields": [SkyCircle(270.0, 66.0, 0.02)],
    }
    return build_crds_cache(path, **(options | changes))


@pytest.fixture
def use_cache(monkeypatch):
    """Point CRDS at a cache for the duration of a test."""

    def point(path):
        monkeypatch.setenv("CRDS_PATH", str(path))
        monkeypatch.setenv("CRDS_SERVER_URL", SERVERLESS_URL)
        monkeypatch.setenv("CRDS_OBSERVATORY", "roman")
        monkeypatch.setenv("CRDS_READONLY_CACHE", "1")
        # set first, so that what a test puts there is taken away afterwards
        monkeypatch.setenv("CRDS_CONTEXT", "")
        monkeypatch.delenv("CRDS_CONTEXT")
        utils.clear_function_caches()
        return path

    yield point
    utils.clear_function_caches()
