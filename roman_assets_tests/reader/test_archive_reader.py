from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import astropy.units as u
import pandas as pd
import pytest
from astropy.coordinates import SkyCoord
from astropy.time import Time
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import roman_assets
from roman_assets.access import Role
from roman_assets.archive.file_archive import FileArchive
from roman_assets.data_root import DATA_ROOT_VARIABLE, DataRoot
from roman_assets.errors import AccessDeniedError, BadInputError, PlatformError
from roman_assets.products.kind import Step
from roman_assets.products.lifecycle import Transition
from roman_assets.products.name import ProductName
from roman_assets.reader import archive_reader
from roman_assets.reader.archive_reader import ArchiveReader, open_archive
from roman_assets.registry.catalog.schema import search_columns
from roman_assets.registry.registry import Registry
from roman_assets.registry.store.fold import fold
from roman_assets_tests.support.other_user import another_user, as_root, open_directory
from roman_assets_tests.support.small_archive import (
    CAL,
    CAT,
    COADD,
    COADD_CAT,
    PACKETS,
    UNCAL,
    publish,
    small_archive,
)
from roman_assets_tests.support.small_products import (
    VISIT,
    association,
    change_of,
    exposure,
    moment,
    sha256,
)
from roman_assets_tests.support.strategies import names as official_names

MOSAIC = {association(), COADD, COADD_CAT}
ALL = {UNCAL, CAL, CAT, association(), COADD, COADD_CAT}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> ArchiveReader:
    """An archive that is only read."""
    return open_archive(small_archive(tmp_path_factory.mktemp("shared") / "data").path)


@pytest.fixture
def root(shared: ArchiveReader, tmp_path: Path) -> DataRoot:
    """An installation to be changed at will."""
    shutil.copytree(shared._root.path, tmp_path / "data")
    return DataRoot(tmp_path / "data")


@pytest.fixture(autouse=True)
def no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_reader, "PAUSES", (0.0, 0.01))


def names(found: pd.DataFrame) -> set[str]:
    return set(found["name"])


def test_an_archive_is_opened_by_path_by_url_and_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = small_archive(tmp_path / "data with %")
    monkeypatch.setenv(DATA_ROOT_VARIABLE, str(root.path))
    for location in (root.path, str(root.path), root.path.as_uri(), None):
        with roman_assets.open_archive(location) as archive:
            assert names(archive.find()) == ALL
            assert archive.role is Role.PUBLIC


@pytest.mark.parametrize(
    "location", ["http://host/data", "ftp://x", "file://host/data", "/nowhere"]
)
def test_what_is_no_archive_is_refused_with_the_remedy(location: str) -> None:
    with pytest.raises(BadInputError, match="Remedy"):
        open_archive(location)


def test_a_role_that_is_none_is_refused(root: DataRoot) -> None:
    with pytest.raises(BadInputError, match="use public or operations"):
        open_archive(root.path, role="admin")


def test_products_come_with_their_footprints_and_public_paths(shared: ArchiveReader) -> None:
    found = shared.find()
    assert tuple(found.columns) == (*search_columns(Role.PUBLIC), "path")
    assert all(Path(path).name == name for path, name in zip(found.path, found.name, strict=True))
    assert all(Path(path).is_file() for path in found["path"])
    assert found["footprint"].notna().all()
    past = shared.find(name=CAL, overwritten=True)
    assert list(past["state"]) == ["overwritten", "current"]
    assert past["path"].isna().tolist() == [True, False]


@pytest.mark.parametrize(
    ("search", "expected"),
    [
        ({"exposure": exposure()}, {UNCAL, CAL, CAT}),
        ({"visit": VISIT, "level": ["L3", "l4"]}, {CAT, *MOSAIC}),
        ({"survey": "hlwas", "kind": "cal"}, {CAL}),
        ({"optical_element": "f158", "detector": "wfi01"}, {UNCAL, CAL, CAT}),
        ({"detector": "WFI02"}, set()),
        ({"program": 10, "release": "p", "skycell": "270p65x01y50"}, MOSAIC),
        ({"pattern": "*_cat.parquet"}, {CAT, COADD_CAT}),
        ({"after": moment(100)}, ALL),
        ({"after": "2023-11-14T22:15:01", "before": "2023-11-15"}, set()),
        ({"before": Time(moment(-1))}, set()),
        ({"after": datetime(2023, 11, 14)}, ALL),
        ({"cone": (270.15, 66.0, 0.05), "kind": "cal"}, {CAL}),
        ({"cone": (SkyCoord(270.15, 66.0, unit="deg"), 3 * u.arcmin), "kind": "cal"}, {CAL}),
        ({"cone": (270.15, 66.0, 0.01)}, set()),
        ({"polygon": [(270, 66), (271, 66), (271, 67)], "kind": "coadd"}, {COADD}),
        ({"polygon": SkyCoord([270, 271, 271], [66, 66, 67], unit="deg"), "kind": "cal"}, {CAL}),
        ({"polygon": "POLYGON ICRS 280 66 281 66 281 67"}, set()),
        ({"level": "L2", "exposure_type": "wfi_image", "limit": 1}, {CAL}),
    ],
)  # fmt: skip
def test_products_are_found_by_each_condition(
    shared: ArchiveReader, search: dict[str, Any], expected: set[str]
) -> None:
    assert names(shared.find(**search)) == expected


@pytest.mark.parametrize(
    "search",
    [
        {"level": "L0"}, {"survey": "HST"}, {"kind": "raw"}, {"optical_element": "F999"},
        {"detector": "WFI19"}, {"exposure_type": "x"}, {"exposure": "x"}, {"visit": "../r1"},
        {"name": f"{exposure()}_wfi01_l0"}, {"name": "../landing/contact.l0"}, {"after": "soon"},
        {"polygon": [(0, 0), (1, 1)]}, {"cone": (0, 100, 1)},
    ],
)  # fmt: skip
def test_what_no_product_can_have_is_refused(shared: ArchiveReader, search: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        shared.find(**search)


def test_a_file_is_given_by_name_and_by_row_and_verified_on_demand(shared: ArchiveReader) -> None:
    row = shared.find(name=CAL).iloc[0]
    for product in (CAL, ProductName.parse(CAL), row, row.to_dict()):
        assert shared.path(product, verify=True).read_bytes() == b"image 2"
    assert shared.open(association()) == {"asn_type": "image"}


def test_a_generation_that_was_overwritten_is_not_given_for_the_one_that_was_found(
    root: DataRoot,
) -> None:
    archive = open_archive(root.path)
    found = archive.find(name=COADD).iloc[0]
    kept = archive.path(found).open("rb")
    publish(root, {COADD: b"new coadd"}, 9)
    fold(root)
    with pytest.raises(BadInputError, match="a later one took its place"):
        archive.path(found)
    assert archive.path(COADD).read_bytes() == b"new coadd"
    with kept:
        assert kept.read() == b"coadd"


def test_what_is_not_there_any_more_is_told_from_what_never_was(root: DataRoot) -> None:
    archive = open_archive(root.path)
    with pytest.raises(BadInputError, match="no such product"):
        archive.path(CAL.replace("_0001_", "_0002_"))
    FileArchive(root).unlink(ProductName.parse(CAL))
    with pytest.raises(BadInputError, match=r"its file is missing.*history"):
        archive.path(CAL)


def test_a_product_for_operations_only_is_opened_by_them_and_unknown_to_the_public(
    root: DataRoot,
) -> None:
    name = association(7)
    publish(root, {name: b'{"asn_type": "test"}'}, 9, access=Role.OPERATIONS)
    fold(root)
    public = open_archive(root.path)
    assert names(public.find(overwritten=True)) == ALL
    for ask in _askers(public, root.path):
        with pytest.raises(BadInputError, match="no such product"):
            ask(name)
    operations = open_archive(root.path, "operations")
    row = operations.find(name=name).iloc[0]
    assert pd.isna(row["path"])
    assert operations.open(row, verify=True) == {"asn_type": "test"}


def test_what_a_release_superseded_is_given_until_it_is_removed_and_then_cited(
    root: DataRoot,
) -> None:
    archive = open_archive(root.path)
    made = archive.history(COADD).iloc[0]
    for second, transition in enumerate((Transition.SUPERSEDED, Transition.REMOVED), start=10):
        (entry,) = Registry(root).generations.of([COADD])[COADD]
        change = change_of(entry, entry.record_id, transition)
        publish(root, {}, second, step=Step.UPKEEP, transitions=(change,))
        fold(root)
        if transition is Transition.SUPERSEDED:
            row = archive.find(name=COADD).iloc[0]
            assert (row["state"], archive.path(row).read_bytes()) == ("superseded", b"coadd")
    assert archive.find(name=COADD).empty
    with pytest.raises(BadInputError, match=r"generation 1 is removed.*history"):
        archive.open(COADD)
    cited = archive.history(COADD).iloc[0]
    assert (cited["state"], cited["ended_at"]) == ("removed", moment(11))
    same = [field for field in made.index if field not in ("state", "ended_at")]
    assert cited[same].equals(made[same])
    assert archive.provenance(COADD).origins == (PACKETS,)


def test_a_copy_is_whole_verified_and_ones_own(root: DataRoot, tmp_path: Path) -> None:
    archive = open_archive(root.path)
    copy = archive.copy(CAL, tmp_path)
    assert copy == tmp_path / CAL
    copy.write_bytes(b"mine")
    assert archive.path(CAL).read_bytes() == b"image 2"
    public = archive.path(COADD)
    public.unlink()
    public.write_bytes(b"planted")
    with pytest.raises(BadInputError, match=f"{sha256(b'planted')}.*{sha256(b'coadd')}.*fsck"):
        archive.copy(COADD, tmp_path)
    with pytest.raises(BadInputError, match="sha256"):
        archive.open(COADD, verify=True)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [CAL]


def test_content_that_is_a_moment_ahead_of_the_registry_is_waited_for(
    root: DataRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = open_archive(root.path)
    monkeypatch.setattr(archive_reader, "PAUSES", (0.0, 1.0))
    publish(root, {CAL: b"image 3"}, 9)
    public = archive.path(CAL)
    public.unlink()
    public.write_bytes(b"image 3")
    monkeypatch.setattr(archive_reader.time, "sleep", lambda pause: pause and fold(root))
    assert archive.copy(CAL, tmp_path).read_bytes() == b"image 3"


TRICKS = [
    "../../registry/registry.duckdb",
    "..",
    "/etc/passwd",
    "",
    ".",
    f"../{CAL}",
    f"./{CAL}",
    f"L2/{CAL}",
    f"{CAL}/",
    f"{CAL}/..",
    f"{CAL}\n",
    f"{CAL}\0",
    f"{CAL}\0.asdf",
    f" {CAL}",
    CAL.upper(),
    CAL.replace("_", "%5F"),
    CAL.replace("0", "\N{ARABIC-INDIC DIGIT ZERO}"),
    CAL.replace("0", "\N{FULLWIDTH DIGIT ZERO}"),
    CAL.replace("a", "\N{CYRILLIC SMALL LETTER A}"),
    CAL.replace("_", "\N{FULLWIDTH LOW LINE}"),
    CAL.replace(".asdf", "\N{ONE DOT LEADER}asdf"),
    f"\N{RIGHT-TO-LEFT OVERRIDE}{CAL}",
    f"%2e%2e%2f{CAL}",
    f"..%2f..%2flanding%2f{CAL}",
    f"file:///{CAL}",
    f"{CAL}?",
    "*",
    "r" + "0" * 5000 + "_cal.asdf",
    f"{exposure()}_wfi01_l0",
    f"{exposure()}_wfi01_f158_l0.asdf",
    "contact.l0",
    sha256(b"image 2"),
    f"blobs/{sha256(b'image 2')}",
    "; drop table products",
]


@pytest.mark.parametrize("name", TRICKS, ids=range(len(TRICKS)))
@pytest.mark.parametrize("role", list(Role))
def test_a_name_that_is_not_official_reaches_nothing(
    shared: ArchiveReader, tmp_path: Path, name: str, role: Role
) -> None:
    archive = ArchiveReader(shared._root, role)
    for ask in _askers(archive, tmp_path):
        for product in (name, {"name": name, "sha256": sha256(b"image 2")}):
            with pytest.raises(BadInputError, match="not an official product name"):
                ask(product)
    assert list(tmp_path.iterdir()) == []


def _askers(archive: ArchiveReader, directory: Path) -> tuple[Callable[[Any], object], ...]:
    return (
        archive.path, archive.open, archive.history, archive.provenance,
        lambda product: archive.copy(product, directory),
    )  # fmt: skip


@pytest.mark.parametrize("name", [None, 5, b"x.asdf", ["a"], float("nan")])
def test_what_is_not_even_text_is_refused(shared: ArchiveReader, name: object) -> None:
    with pytest.raises(BadInputError, match="not an official product name"):
        shared.path({"name": name})


@given(st.one_of(st.text(), official_names.map(str), st.sampled_from(TRICKS)))
@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_is_asked_for_nothing_but_public_products_is_given(
    shared: ArchiveReader, name: str
) -> None:
    with suppress(PlatformError):
        path = shared.path(name)
        assert path.relative_to(shared._root.public).name == name
        assert name in ALL


def test_a_link_planted_in_the_public_tree_is_not_followed(root: DataRoot) -> None:
    landing = root.landing
    landing.mkdir()
    (landing / "contact.l0").write_bytes(b"packets")
    archive = open_archive(root.path)
    public = archive.path(CAL)

    public.unlink()
    public.symlink_to(landing / "contact.l0")
    _refused(archive, CAL)

    public.unlink()
    public.symlink_to(FileArchive(root).blob(sha256(b"coadd")))
    _refused(archive, CAL)

    tree = public.parent
    tree.rename(landing / "moved")
    (landing / "moved" / CAL).unlink()
    (landing / "moved" / CAL).write_bytes(b"packets")
    tree.symlink_to(landing / "moved")
    _refused(archive, CAL)

    level = archive.path(COADD).parent.parent.parent
    level.rename(landing / "level")
    level.symlink_to(landing / "level")
    _refused(archive, COADD)


def _refused(archive: ArchiveReader, name: str) -> None:
    with pytest.raises(AccessDeniedError, match=r"out of the public tree.*fsck --mend"):
        archive.open(name)


@pytest.mark.parametrize("kind", ["directory", "fifo", "dangling"])
def test_a_public_name_that_is_no_file_is_refused_at_once(root: DataRoot, kind: str) -> None:
    archive = open_archive(root.path)
    public = archive.path(COADD)
    public.unlink()
    if kind == "directory":
        public.mkdir()
    elif kind == "fifo":
        os.mkfifo(public)
    else:
        public.symlink_to(root.path / "nothing")
    with pytest.raises(BadInputError, match="its file is missing"):
        archive.open(COADD)


def test_a_public_tree_behind_a_link_of_the_operator_is_read(
    root: DataRoot, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(root.path)
    assert open_archive(tmp_path / "link").path(COADD, verify=True).read_bytes() == b"coadd"


@as_root
def test_another_user_reads_the_archive_as_the_public_and_nothing_as_operations() -> None:
    with open_directory() as directory:
        root = small_archive(directory / "data")
        _read_as_another_user(ArchiveReader(root), ArchiveReader(root, Role.OPERATIONS))


def _read_as_another_user(archive: ArchiveReader, operations: ArchiveReader) -> None:
    with another_user():
        assert names(archive.find()) == ALL
        assert archive.path(CAL, verify=True).read_bytes() == b"image 2"
        assert archive.provenance(COADD).origins == (PACKETS,)
        for ask in (operations.find, lambda: operations.path(CAL), operations.names):
            with pytest.raises(AccessDeniedError, match="not for you to read"):
                list(ask())  # type: ignore[operator]


def test_the_history_holds_every_generation_and_what_it_can_be_cited_by(
    shared: ArchiveReader,
) -> None:
    history = shared.history(CAL)
    assert list(history["generation"]) == [1, 2]
    assert list(history["state"]) == ["overwritten", "current"]
    assert list(history["sha256"]) == [sha256(b"image 1"), sha256(b"image 2")]
    assert list(history["context"]) == ["roman_0001.pmap", "roman_0002.pmap"]
    assert history["inputs"][0] == [{"name": UNCAL, "sha256": sha256(b"ramp")}]
    assert list(history["committed_at"]) == [moment(1), moment(3)]
    with pytest.raises(BadInputError, match="no such product"):
        shared.history(CAL.replace("wfi01", "wfi07"))


def test_the_provenance_of_a_coadd_leads_by_the_overwritten_image_to_the_packets(
    shared: ArchiveReader,
) -> None:
    graph = shared.provenance(COADD)
    frame = graph.to_frame()
    edges = set(zip(frame["source"], frame["relation"], frame["product"], strict=True))
    assert edges == {
        (PACKETS.name, "input", UNCAL),
        (UNCAL, "input", CAL),
        (CAL, "input", COADD),
        (COADD, "follows", association()),
        (COADD, "follows", COADD_CAT),
    }
    (image,) = frame[frame["product"] == COADD].to_dict("records")
    assert image["source_sha256"] == sha256(b"image 1")
    assert graph.products[graph.sources(graph.subject)[0].source].state == "overwritten"
    assert graph.origins == (PACKETS,)


def test_the_provenance_of_a_ramp_leads_down_to_the_last_catalogue(shared: ArchiveReader) -> None:
    frame = shared.provenance(UNCAL).to_frame()
    made = set(zip(frame["product"], frame["generation"], strict=True))
    assert made == {
        (UNCAL, 1), (CAL, 1), (CAL, 2), (CAT, 1), (CAT, 2), (COADD, 1), (COADD_CAT, 1),
        (association(), 1),
    }  # fmt: skip


def test_each_generation_has_a_provenance_of_its_own(shared: ArchiveReader) -> None:
    first = shared.provenance(CAL, generation=1).to_frame()
    second = shared.provenance(CAL).to_frame()
    assert COADD in set(first["product"])
    assert set(second["product"]) == {UNCAL, CAL, CAT}
    row = shared.find(name=CAL, overwritten=True).iloc[0]
    assert shared.provenance(row).to_frame().equals(first)
    with pytest.raises(BadInputError, match="no generation 3"):
        shared.provenance(CAL, generation=3)


def test_an_empty_installation_has_nothing_and_says_no_error(tmp_path: Path) -> None:
    archive = open_archive(tmp_path)
    assert archive.find().empty
    assert list(archive.names()) == []
    with pytest.raises(BadInputError, match="no such product"):
        archive.open(CAL)
