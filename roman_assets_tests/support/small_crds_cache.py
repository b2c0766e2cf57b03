"""CRDS caches of a small window without filters, and the environment in which CRDS finds one."""

import shutil

import pytest
from crds.core import utils

from roman_assets.products.observation import OpticalElement
from roman_assets.references.context import SERVERLESS_URL
from roman_assets.simulation.telescope.crds_cache import build_crds_cache
from roman_assets.simulation.telescope.scene import SkyCircle

SEED = 5
DETECTORS = ("WFI01", "WFI02", "WFI03")


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


@pytest.fixture(scope="session")
def _cache_of_three(tmp_path_factory):
    path = tmp_path_factory.mktemp("three") / "crds"
    build_small(path, detectors=DETECTORS)
    return path


@pytest.fixture
def cache_of_three(_cache_of_three, tmp_path, use_cache):
    """A cache of three detectors at a small window, in use, to be changed at will."""
    path = tmp_path / "three"
    shutil.copytree(_cache_of_three, path)
    return use_cache(path)
