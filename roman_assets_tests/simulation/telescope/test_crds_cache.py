import json
import multiprocessing
import shutil
import time
from datetime import UTC, datetime

import asdf
import numpy as np
import pytest
from crds.core.rmap import Mapping
from roman_datamodels import datamodels
from romancal.pipeline import ExposurePipeline

from roman_assets.errors import BadInputError
from roman_assets.products.observation import ExposureType, OpticalElement
from roman_assets.references.context import ASTROMETRIC_CATALOG, best_references
from roman_assets.simulation.telescope.crds_cache import (
    cache_settings,
    set_operational_context,
    stored_epsf,
)
from roman_assets.simulation.telescope.crds_ledger import CacheSettings
from roman_assets.simulation.telescope.crds_mappings import CONTEXTS
from roman_assets.simulation.telescope.effective_psf import effective_psf
from roman_assets.simulation.telescope.scene import SkyCircle
from roman_assets_tests.support.small_crds_cache import SEED, build_small

START = datetime(2027, 6, 1, tzinfo=UTC)
processes = multiprocessing.get_context("fork")


def _build_elsewhere(path):
    """Build in another process that counts the files it makes."""
    count = processes.Value("i", 0)

    def progress(name, done, total):
        count.value = done + 1

    process = processes.Process(target=build_small, args=(path,), kwargs={"progress": progress})
    process.start()
    return process, count


def _references(path):
    return sorted((path / "references/roman/wfi").iterdir())


def _arrays(path):
    """What the references of a cache hold, leaving out dates and paths."""
    contents = {}
    for file in _references(path):
        if file.suffix != ".asdf":
            continue
        with asdf.open(file, memmap=False, lazy_load=False) as tree:
            content = tree.tree.get("roman", {})
            contents[file.name] = {
                key: np.array(value) for key, value in content.items() if hasattr(value, "shape")
            }
    return contents


def _mappings(path):
    return {file.name: file.read_bytes() for file in (path / "mappings/roman").iterdir()}


def test_every_reference_is_valid(cache):
    opened = 0
    for file in _references(cache):
        if file.suffix == ".asdf" and "_pars-" not in file.name:
            with datamodels.open(file) as model:
                model.validate()
                opened += 1
    assert opened > 15


def test_every_mapping_passes_crdss_own_checks(cache, use_cache):
    use_cache(cache)
    for file in (cache / "mappings/roman").iterdir():
        Mapping.from_file(str(file)) if file.suffix == ".rmap" else None
        text = file.read_text()
        assert "sha1sum" in text
    for context in CONTEXTS:
        assert best_references(
            "WFI02", OpticalElement.F158, ExposureType.WFI_IMAGE, START, context=context
        )


def test_a_damaged_mapping_is_noticed(small_cache, use_cache):
    use_cache(small_cache)
    mapping = small_cache / "mappings/roman/roman_wfi_gain_0001.rmap"
    mapping.write_text(mapping.read_text().replace("gain_0001.asdf", "gain_0009.asdf"))
    with pytest.raises(BadInputError, match="sha1sum"):
        best_references("WFI01", OpticalElement.DARK, ExposureType.WFI_IM_DARK, START)


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("exposure_type", ExposureType)
def test_romancal_finds_all_it_asks_for(cache, use_cache, exposure_type, context):
    use_cache(cache)
    asked = {"epsf"} | {
        kind for step in ExposurePipeline.step_defs.values() for kind in step.reference_file_types
    }
    for element in (OpticalElement.F158, *list(OpticalElement)[-3:]):
        found = best_references(
            "WFI02", element, exposure_type, START, context=context, kinds=asked
        )
        assert set(found) == asked
        for name in found.values():
            assert name == "N/A" or (cache / "references/roman/wfi" / name).is_file()


def test_a_second_build_changes_nothing(small_cache):
    before = {file: file.stat().st_mtime_ns for file in small_cache.rglob("*") if file.is_file()}
    assert build_small(small_cache) == ()
    changed = {
        file.name for file, modified in before.items() if file.stat().st_mtime_ns != modified
    }
    # the ledger of the build itself may be written again
    assert changed <= {"observatory.json"}


def test_later_builds_add_and_keep(small_cache, use_cache):
    before = set(_references(small_cache))
    contents = {file: file.read_bytes() for file in before}
    added = build_small(small_cache, detectors=["WFI18"])
    assert {name.split("_")[2] for name in added} >= {"gain", "mask", "dark", "distortion"}
    assert all(file.read_bytes() == contents[file] for file in before)
    use_cache(small_cache)
    for detector in ("WFI01", "WFI18"):
        assert best_references(
            detector, OpticalElement.DARK, ExposureType.WFI_IM_DARK, START, kinds=["gain"]
        )


def test_a_new_field_adds_its_skycells_and_its_stars(small_cache, use_cache):
    use_cache(small_cache)
    stars = (small_cache / ASTROMETRIC_CATALOG).stat().st_size
    added = build_small(small_cache, sky_fields=[SkyCircle(10.0, -30.0, 0.03)])
    assert [name.split("_")[2] for name in added] == ["skycells"]
    assert (small_cache / ASTROMETRIC_CATALOG).stat().st_size > stars
    with datamodels.open(small_cache / "references/roman/wfi" / added[0]) as model:
        names = set(model.skycells["name"])
    assert any(name.startswith("270p6") for name in names)
    assert any(name[3] == "m" for name in names)
    chosen = best_references(
        "WFI01", OpticalElement.DARK, ExposureType.WFI_IM_DARK, START, kinds=["skycells"]
    )
    assert chosen["skycells"] == added[0]


@pytest.mark.parametrize(("name", "value"), [("window", 128), ("window", None), ("seed", 6)])
def test_settings_are_not_mixed_within_a_cache(small_cache, name, value):
    with pytest.raises(BadInputError, match=f"{name} .*not {value}"):
        build_small(small_cache, **{name: value})
    assert cache_settings(small_cache) == CacheSettings(64, SEED)


def test_an_unknown_detector_is_refused(small_cache):
    with pytest.raises(BadInputError, match="WFI19"):
        build_small(small_cache, detectors=["WFI19"])


def test_a_place_without_a_cache_is_told(tmp_path):
    with pytest.raises(BadInputError, match="build one"):
        cache_settings(tmp_path)


def test_the_same_seed_gives_the_same_references(small_cache, tmp_path):
    build_small(tmp_path / "again")
    ours, theirs = _arrays(small_cache), _arrays(tmp_path / "again")
    assert ours.keys() == theirs.keys()
    for name, arrays in ours.items():
        for key, array in arrays.items():
            np.testing.assert_array_equal(array, theirs[name][key], err_msg=name)


def test_a_killed_build_is_completed_by_the_next(small_cache, tmp_path):
    path = tmp_path / "killed"
    process, count = _build_elsewhere(path)
    while count.value < 8:
        time.sleep(0.002)
    process.kill()
    process.join()
    assert not (path / "config/roman/server_config").exists()
    assert build_small(path)
    assert _mappings(path) == _mappings(small_cache)
    assert [file.name for file in _references(path)] == [
        file.name for file in _references(small_cache)
    ]
    ours, theirs = _arrays(path), _arrays(small_cache)
    assert all(
        np.array_equal(ours[name][key], theirs[name][key])
        for name in theirs
        for key in theirs[name]
    )


def test_what_a_killed_build_was_writing_is_removed(small_cache):
    leftovers = [
        small_cache / "references/roman/wfi" / name
        for name in (".roman_wfi_gain_0001.asdf.0123.tmp.asdf", ".asdf_tmp0123")
    ]
    for leftover in leftovers:
        leftover.write_bytes(b"half")
    build_small(small_cache)
    assert not any(leftover.exists() for leftover in leftovers)


def test_two_builds_at_once_make_one_cache(small_cache, tmp_path):
    path = tmp_path / "shared"
    builds = [_build_elsewhere(path) for _ in range(2)]
    for process, _ in builds:
        process.join()
    assert [process.exitcode for process, _ in builds] == [0, 0]
    assert sorted(count.value for _, count in builds) == [0, len(_references(small_cache))]
    assert _mappings(path) == _mappings(small_cache)


def test_a_moved_cache_is_right_again_after_a_build(small_cache, tmp_path):
    moved = tmp_path / "elsewhere"
    shutil.move(small_cache, moved)
    assert [name.split("_")[2] for name in build_small(moved)] == ["pars-tweakregstep"]
    (parameters,) = moved.glob("references/roman/wfi/*pars-tweakregstep*")
    with asdf.open(parameters) as file:
        assert file["parameters"]["abs_refcat"] == str(moved / ASTROMETRIC_CATALOG)


def test_a_lost_reference_is_made_again(small_cache):
    (small_cache / "references/roman/wfi/roman_wfi_gain_0001.asdf").unlink()
    assert [name.split("_")[2] for name in build_small(small_cache)] == ["gain"]


def test_an_unreadable_ledger_is_told(small_cache):
    ledger = small_cache / "config/roman/observatory.json"
    ledger.write_text(json.dumps({"settings": {}}))
    with pytest.raises(BadInputError, match=r"observatory\.json"):
        build_small(small_cache)


def test_only_contexts_of_the_cache_become_operational(small_cache):
    with pytest.raises(BadInputError, match=r"roman_0007\.pmap"):
        set_operational_context(small_cache, "roman_0007.pmap")


def test_a_build_keeps_the_operational_context(small_cache):
    set_operational_context(small_cache, CONTEXTS[0])
    build_small(small_cache)
    assert CONTEXTS[0] in (small_cache / "config/roman/server_config").read_text()


def test_contexts_differ_in_flats_and_photometry_alone(cache, use_cache):
    use_cache(cache)
    early, late = (
        best_references(
            "WFI02", OpticalElement.F158, ExposureType.WFI_IMAGE, START, context=context
        )
        for context in CONTEXTS
    )
    assert {kind for kind in late if early[kind] != late[kind]} == {"flat", "photom"}
    place = cache / "references/roman/wfi"
    with (
        datamodels.open(place / early["photom"]) as old,
        datamodels.open(place / late["photom"]) as new,
    ):
        ratio = old.phot_table["F158"]["photmjsr"] / new.phot_table["F158"]["photmjsr"]
    assert ratio == pytest.approx(0.98)
    with (
        datamodels.open(place / early["flat"]) as old,
        datamodels.open(place / late["flat"]) as new,
    ):
        alive = np.array(new.data) > 0
        assert np.std(np.array(old.data)[alive] / np.array(new.data)[alive]) > 0.005


def test_coadds_find_what_they_ask_for_whatever_the_detectors(tmp_path, use_cache):
    path = use_cache(tmp_path / "crds")
    build_small(path, detectors=["WFI09"], optical_elements=[OpticalElement.F158])
    for context in CONTEXTS:
        found = best_references(
            "WFI02",
            OpticalElement.F158,
            ExposureType.WFI_IMAGE,
            START,
            context=context,
            kinds=["epsf", "apcorr"],
        )
        with datamodels.open(path / "references/roman/wfi" / found["apcorr"]) as model:
            assert model.data.F158.ee_radii is not None
    build_small(path, detectors=["WFI02"], optical_elements=[OpticalElement.F158])
    assert best_references(
        "WFI02", OpticalElement.F158, ExposureType.WFI_IMAGE, START, kinds=["flat", "epsf"]
    )


def test_stored_epsfs_are_those_that_were_computed(cache):
    stored = stored_epsf(cache, "WFI02", OpticalElement.F158)
    computed = effective_psf("WFI02", OpticalElement.F158, 512)
    np.testing.assert_array_equal(stored.stamps, computed.stamps)
    assert (stored.pixel_x, stored.pixel_y) == (computed.pixel_x, computed.pixel_y)
    with pytest.raises(BadInputError, match="F106"):
        stored_epsf(cache, "WFI02", OpticalElement.F106)
