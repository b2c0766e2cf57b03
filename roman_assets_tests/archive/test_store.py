"""What both archives promise: on a file system and in an object store."""

import threading
from pathlib import Path

import pytest

from roman_assets.archive.store import Archive, Blob, sha256_of
from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError
from roman_assets.products.kind import KINDS, Level
from roman_assets.products.name import ProductName
from roman_assets_tests.support.small_products import VISIT, association, cal, exposure, sha256

LARGE = 20 << 20
"""More than an upload in one piece."""


@pytest.fixture
def archive(either_root):
    return Archive.of(either_root)


@pytest.fixture
def staged(tmp_path, archive):
    def stage(content: bytes) -> str:
        return archive.stage(written(tmp_path / "new", content)).sha256

    return stage


def written(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def shown(archive: Archive) -> dict[str, bytes]:
    return {
        key.name: archive.path(ProductName.parse(key.name)).read_bytes()
        for key in archive.public_keys()
    }


@pytest.mark.parametrize("content", [b"photons", b"", bytes(range(256)) * (LARGE // 256)])
def test_a_staged_file_is_found_by_its_hash_and_cannot_be_written(tmp_path, archive, content):
    staged = archive.stage(written(tmp_path / "a", content))
    assert (staged.sha256, staged.size) == (sha256(content), len(content))
    assert archive.has_blob(staged.sha256, staged.size)
    assert not archive.has_blob(staged.sha256, staged.size + 1)
    assert archive.content_hash(staged.sha256) == staged.sha256
    assert archive.local(staged.sha256).read_bytes() == content
    assert archive.local(staged.sha256).stat().st_mode & 0o222 == 0
    assert not (tmp_path / "a").exists()


def test_a_staged_file_is_not_public(archive, staged):
    staged(b"photons")
    assert not shown(archive)


def test_staging_the_same_content_twice_keeps_one_blob(tmp_path, archive):
    first = archive.stage(written(tmp_path / "a", b"photons"))
    again = archive.stage(written(tmp_path / "b", b"photons"))
    assert again == first
    assert again.staged_at is None
    (blob,) = archive.blobs()
    assert blob == Blob(first.sha256, 7, blob.staged_at)
    assert not list(archive.leftovers())


def test_only_regular_files_are_staged(tmp_path, archive):
    (tmp_path / "link").symlink_to(written(tmp_path / "a", b"photons"))
    for path in (tmp_path / "link", tmp_path, tmp_path / "absent"):
        with pytest.raises(BadInputError, match="not a regular file"):
            archive.stage(path)


def test_a_blob_that_another_process_might_publish_is_not_withdrawn(tmp_path, archive):
    first = archive.stage(written(tmp_path / "b", b"ours"))
    again = archive.stage(written(tmp_path / "c", b"ours"))
    assert not archive.withdraw(again)
    assert not archive.withdraw(first)
    assert archive.has_blob(first.sha256, first.size)


def test_a_blob_is_removed_by_who_looked_after_it_was_staged_only(archive, staged):
    photons = staged(b"photons")
    (blob,) = archive.blobs()
    assert not archive.remove_blob_staged_at(photons, blob.staged_at - 1)
    assert archive.remove_blob_staged_at(photons, blob.staged_at)
    assert not archive.remove_blob_staged_at(photons, blob.staged_at)
    assert not list(archive.blobs())
    with pytest.raises(FileNotFoundError):
        archive.local(photons)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_kind_lies_in_the_tree_of_its_level(tmp_path, kind):
    stem = {
        "detector": f"{exposure()}_wfi01_f158",
        "exposure": f"{exposure()}_f158",
        "skycell": "r00010_p_v01001001001001_270p65x49y70_f158",
        "group_detector": "r00010_p_v01001001001001_wfi01_f146",
        "group": "r00010_p_v01001001001001_f146",
    }[kind.scope]
    name = f"{stem}_{kind.suffix}.{kind.extension}"
    archive = Archive.of(DataRoot(tmp_path))
    location = archive.location(ProductName.parse(name))
    assert location == f"{tmp_path}/archive/public/{kind.level}/00010/{VISIT}/{name}"


def test_the_supplement_lies_with_level_1_and_nothing_lies_with_level_0():
    supplement = ProductName.parse(f"{exposure()}_wfi01_f158_wcs.asdf")
    assert Archive.public_key(supplement).parts[0] == "L1"
    assert {level.value for level in Level} == {"L1", "L2", "L3", "L4"}


def test_a_coadd_of_more_than_a_visit_lies_under_its_grouping():
    name = "r00010_r1_full_270p65x49y70_f158_coadd.asdf"
    key = Archive.public_key(ProductName.parse(name))
    assert str(key) == f"L3/00010/full/{name}"


def test_a_name_shows_the_newest_content_and_nothing_else_is_left(archive, staged):
    name = ProductName.parse(cal())
    for content in (b"one", b"two", b"two"):
        assert archive.show({name: staged(content)}) == {}
        assert shown(archive) == {cal(): content}
        assert archive.path(name).name == cal()
    assert archive.is_public(name)
    assert archive.shows(name, sha256(b"two"))
    assert not archive.shows(name, sha256(b"one"))
    assert not list(archive.leftovers())


def test_names_that_differ_from_what_they_should_show_are_told(archive, staged):
    first, second = ProductName.parse(cal(1)), ProductName.parse(cal(2))
    one, two = staged(b"one"), staged(b"two")
    archive.show({first: one})
    assert archive.differing({first: one, second: two}) == {second: two}
    assert archive.differing({first: two}) == {first: two}


def test_a_name_cannot_show_content_that_is_not_there(archive, staged):
    first, second = ProductName.parse(cal(1)), ProductName.parse(cal(2))
    unshown = archive.show({first: sha256(b"never staged"), second: staged(b"two")})
    assert unshown == {first: "its blob is missing"}
    assert shown(archive) == {cal(2): b"two"}


def test_asking_for_a_product_that_is_not_there_names_it(archive):
    with pytest.raises(FileNotFoundError, match=association()):
        archive.path(ProductName.parse(association()))


def test_a_name_taken_away_leaves_its_blob(archive, staged):
    name = ProductName.parse(cal())
    one = staged(b"one")
    archive.show({name: one})
    assert archive.unlink(name)
    assert not archive.unlink(name)
    assert not archive.is_public(name)
    assert archive.local(one).read_bytes() == b"one"


def test_what_a_run_has_laid_out_stays_when_the_archive_loses_it(tmp_path, archive, staged):
    one = staged(b"one")
    place = tmp_path / "laid_out.asdf"
    archive.lay_out(one, place)
    assert place.read_bytes() == b"one"
    assert sha256_of(place) == one
    with pytest.raises(FileNotFoundError):
        archive.lay_out(sha256(b"never staged"), tmp_path / "other.asdf")


def test_a_lost_blob_comes_back_from_the_public_name_if_that_has_the_content(archive, staged):
    name = ProductName.parse(cal())
    one = staged(b"one")
    archive.show({name: one})
    (blob,) = archive.blobs()
    archive.remove_blob_staged_at(one, blob.staged_at)
    assert not archive.restore_blob(name, sha256(b"two"), mend=True)
    assert archive.restore_blob(name, one, mend=False)
    assert not list(archive.blobs())
    assert archive.restore_blob(name, one, mend=True)
    assert archive.content_hash(one) == one


def test_readers_see_old_or_new_content_whole_while_a_product_is_overwritten(new_root, tmp_path):
    name = ProductName.parse(cal())
    writer, reader = Archive.of(new_root("writer")), Archive.of(new_root("reader"))
    contents = {letter: letter.encode() * 300_000 for letter in "abcdefgh"}
    hashes = [
        writer.stage(written(tmp_path / letter, content)).sha256
        for letter, content in contents.items()
    ]
    writer.show({name: hashes[0]})
    seen: list[bytes] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.append(reader.path(name).read_bytes())

    thread = threading.Thread(target=read)
    thread.start()
    for one in hashes[1:] * 3:
        writer.show({name: one})
    done.set()
    thread.join()
    assert seen
    assert set(seen) <= set(contents.values())
    assert reader.path(name).read_bytes() == contents["h"]
