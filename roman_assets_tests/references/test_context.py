import os
from datetime import UTC, datetime

import pytest
from astropy.table import Table

from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError
from roman_assets.products.observation import ExposureType, OpticalElement
from roman_assets.references.context import (
    SERVERLESS_URL,
    astrometric_catalog,
    best_references,
    configure_crds,
    known_contexts,
    operational_context,
    require_context,
    use_context,
)
from roman_assets.simulation.telescope.crds_cache import set_operational_context
from roman_assets.simulation.telescope.crds_mappings import CONTEXTS

START = datetime(2027, 6, 1, tzinfo=UTC)
VARIABLES = ("CRDS_PATH", "CRDS_OBSERVATORY", "CRDS_SERVER_URL", "CRDS_READONLY_CACHE")


@pytest.fixture
def bare_environment(monkeypatch):
    for name in VARIABLES:
        # set first, so that what a test puts there is taken away afterwards
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return monkeypatch


def test_a_fresh_environment_uses_the_installations_cache_alone(bare_environment, tmp_path):
    configure_crds(DataRoot(tmp_path))
    assert os.environ["CRDS_PATH"] == str(tmp_path / "crds")
    assert os.environ["CRDS_OBSERVATORY"] == "roman"
    assert os.environ["CRDS_SERVER_URL"] == SERVERLESS_URL
    assert os.environ["CRDS_READONLY_CACHE"] == "1"


def test_what_the_operator_set_stays(bare_environment, tmp_path):
    bare_environment.setenv("CRDS_PATH", "/somewhere")
    bare_environment.setenv("CRDS_SERVER_URL", "https://crds.example")
    configure_crds(DataRoot(tmp_path))
    assert os.environ["CRDS_PATH"] == "/somewhere"
    assert os.environ["CRDS_SERVER_URL"] == "https://crds.example"
    # with a server CRDS has to write what it gets
    assert "CRDS_READONLY_CACHE" not in os.environ


def test_the_newest_context_is_operational(small_cache, use_cache):
    use_cache(small_cache)
    assert operational_context() == CONTEXTS[-1]
    assert known_contexts() == CONTEXTS


def test_a_new_operational_context_is_seen_at_once(small_cache, use_cache):
    use_cache(small_cache)
    assert operational_context() == CONTEXTS[1]
    set_operational_context(small_cache, CONTEXTS[0])
    assert operational_context() == CONTEXTS[0]


def test_a_named_context_wins(small_cache, use_cache):
    use_cache(small_cache)
    use_context(CONTEXTS[0])
    assert operational_context() == CONTEXTS[0]


def test_romancal_follows_the_context_in_use(small_cache, use_cache):
    from stpipe import crds_client

    use_cache(small_cache)
    names = []
    for context in CONTEXTS:
        use_context(context)
        header = {
            "roman.meta.instrument.name": "WFI",
            "roman.meta.instrument.detector": "WFI01",
            "roman.meta.exposure.start_time": "2027-06-01 00:00:00",
        }
        names.append(crds_client.get_reference_file(header, "photom", "roman"))
        assert crds_client.get_context_used("roman") == context
    assert len(set(names)) == len(CONTEXTS)


@pytest.mark.parametrize("name", ["latest", "jwst_0001.pmap", "roman_1.pmap", ""])
def test_only_contexts_can_be_used(name):
    with pytest.raises(BadInputError, match="not a context"):
        use_context(name)


def test_a_context_that_is_fixed_beforehand_is_one_that_the_cache_has(small_cache, use_cache):
    use_cache(small_cache)
    assert require_context(CONTEXTS[0]) == CONTEXTS[0]
    with pytest.raises(BadInputError, match=rf"no roman_0009\.pmap; it has {CONTEXTS[0]}"):
        require_context("roman_0009.pmap")
    with pytest.raises(BadInputError, match="not a context"):
        require_context("latest")


def test_a_missing_cache_is_an_error_that_can_be_caught(use_cache, tmp_path):
    use_cache(tmp_path / "nothing")
    with pytest.raises(BadInputError, match="server_config"):
        operational_context()


def test_references_of_an_exposure_are_named(small_cache, use_cache):
    use_cache(small_cache)
    found = best_references("WFI01", OpticalElement.DARK, ExposureType.WFI_IM_DARK, START)
    assert found["gain"] == "roman_wfi_gain_0001.asdf"
    assert found["flat"] == "N/A"
    assert found["refpix"] == "N/A"


def test_a_filter_the_cache_lacks_is_told(small_cache, use_cache):
    use_cache(small_cache)
    with pytest.raises(BadInputError, match="F213"):
        best_references(
            "WFI01", OpticalElement.F213, ExposureType.WFI_IMAGE, START, kinds=["flat", "gain"]
        )


def test_a_context_the_cache_lacks_is_told(small_cache, use_cache):
    use_cache(small_cache)
    with pytest.raises(BadInputError, match=r"roman_0009\.pmap"):
        best_references(
            "WFI01",
            OpticalElement.DARK,
            ExposureType.WFI_IM_DARK,
            START,
            context="roman_0009.pmap",
        )


def test_the_astrometric_catalogue_lies_in_the_cache(small_cache, use_cache, tmp_path):
    use_cache(small_cache)
    path = astrometric_catalog(DataRoot(tmp_path))
    assert path is not None
    assert path.is_relative_to(small_cache)
    assert {"RA", "DEC"} <= set(Table.read(path).colnames)


def test_a_cache_without_a_catalogue_leaves_the_choice_to_romancal(bare_environment, tmp_path):
    assert astrometric_catalog(DataRoot(tmp_path)) is None
