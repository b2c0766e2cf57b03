from datetime import timedelta

import pytest

from roman_assets.archive.file_archive import FileArchive
from roman_assets.archive.set_aside import SetAside
from roman_assets.data_root import DataRoot
from roman_assets.products.name import ProductName
from roman_assets.registry.fold import DATABASE, fold
from roman_assets.registry.fsck import FindingKind, fsck
from roman_assets.registry.journal import Journal
from roman_assets.registry.registry import Registry
from roman_assets.registry.schema import open_database
from roman_assets_tests.registry.installation import (
    cal,
    moment,
    public_content,
    record_of,
    staged_entry,
)

NOW = timedelta(0)


@pytest.fixture
def root(tmp_path):
    """An installation with two products, one of them overwritten once."""
    root = DataRoot(tmp_path)
    for number, contents in enumerate(({cal(1): b"first", cal(2): b"second"}, {cal(1): b"third"})):
        Journal(root).write(record_of(root, contents, committed_at=moment(number)))
        fold(root)
    return root


def kinds(findings):
    return [finding.kind for finding in findings]


def public(root, name):
    return FileArchive(root).public_path(ProductName.parse(name))


def blob(root, name):
    return FileArchive(root).blob(Registry(root).current([name])[name].sha256)


def replace(path, content):
    path.unlink()
    path.write_bytes(content)


def test_a_healthy_installation_has_no_findings(root):
    assert fsck(root) == []
    assert fsck(DataRoot(root.path / "empty")) == []


def test_looking_changes_nothing(root):
    public(root, cal(1)).unlink()
    blob(root, cal(2)).unlink()
    before = sorted(path for path in root.path.rglob("*"))
    assert len(fsck(root, grace=NOW)) == 3
    assert sorted(path for path in root.path.rglob("*")) == before


def remove_public_name(root):
    public(root, cal(1)).unlink()


def forge_public_file(root):
    replace(public(root, cal(1)), b"forged")


def copy_public_file(root):
    replace(public(root, cal(1)), b"third")


def link_public_name_elsewhere(root):
    public(root, cal(1)).unlink()
    public(root, cal(1)).symlink_to("/etc/hostname")


@pytest.mark.parametrize(
    "harm",
    [remove_public_name, forge_public_file, copy_public_file, link_public_name_elsewhere],
)
def test_a_public_name_that_differs_from_the_records_is_found_and_mended(root, harm):
    harm(root)
    assert kinds(fsck(root)) == [FindingKind.WRONG_PUBLIC_NAME]
    assert all(finding.mended for finding in fsck(root, mend=True))
    assert fsck(root) == []
    assert public_content(root) == {cal(1): b"third", cal(2): b"second"}


def test_a_public_file_without_a_product_is_found_and_removed(root):
    (root.public / "L2" / "stranger.asdf").write_bytes(b"?")
    assert kinds(fsck(root)) == [FindingKind.UNKNOWN_PUBLIC_NAME]
    fsck(root, mend=True)
    assert fsck(root) == []


def test_a_lost_blob_is_restored_from_the_public_file(root):
    blob(root, cal(1)).unlink()
    assert kinds(fsck(root)) == [FindingKind.MISSING_BLOB]
    assert all(finding.mended for finding in fsck(root, mend=True))
    assert fsck(root) == []


def test_a_product_whose_bytes_are_lost_stays_a_finding_with_its_remedy(root):
    blob(root, cal(1)).unlink()
    public(root, cal(1)).unlink()
    for mend in (True, False):
        (finding,) = fsck(root, mend=mend)
        assert finding.kind == FindingKind.MISSING_BLOB
        assert "makes the product again" in finding.detail
        assert not finding.mended


def test_a_changed_blob_is_set_aside_and_no_longer_shown(root):
    path = blob(root, cal(1))
    path.chmod(0o644)
    path.write_bytes(b"thirt")
    assert fsck(root, read_blobs=False) == []
    assert kinds(fsck(root)) == [FindingKind.WRONG_BLOB]
    fsck(root, mend=True)
    assert public_content(root) == {cal(2): b"second"}
    (case,) = SetAside(root).list()
    assert case.content is not None
    assert case.content.read_bytes() == b"thirt"
    Journal(root).write(record_of(root, {cal(1): b"third"}))
    fold(root)
    assert fsck(root) == []
    assert public_content(root) == {cal(1): b"third", cal(2): b"second"}


def test_blobs_without_a_current_product_go_after_the_grace_period_only(root):
    staged_entry(root, cal(3), b"never committed")
    assert fsck(root) == []
    assert kinds(fsck(root, grace=NOW)) == [FindingKind.ORPHAN_BLOB] * 2
    assert all(finding.mended for finding in fsck(root, mend=True, grace=NOW))
    assert fsck(root, grace=NOW) == []
    assert len(list(FileArchive(root).blobs())) == 2
    assert public_content(root) == {cal(1): b"third", cal(2): b"second"}


def test_the_blob_of_a_product_that_is_not_folded_yet_is_kept(root):
    Journal(root).write(record_of(root, {cal(3): b"waiting"}))
    assert FindingKind.ORPHAN_BLOB not in kinds(
        finding for finding in fsck(root, grace=NOW) if "waiting" in finding.detail
    )
    fsck(root, mend=True, grace=NOW)
    assert public_content(root)[cal(3)] == b"waiting"


def test_leftovers_of_dead_writers_go_after_the_grace_period_only(root):
    Journal(root).prepare(record_of(root, {}))
    (root.staging / "half").write_bytes(b"half a file")
    assert fsck(root) == []
    assert kinds(fsck(root, mend=True, grace=NOW)).count(FindingKind.LEFTOVER) == 2
    assert fsck(root, grace=NOW) == []


def test_a_damaged_record_is_found_and_set_aside(root):
    Journal(root).write(record_of(root, {cal(3): b"a"}))
    (path,) = Journal(root).pending_paths()
    path.write_bytes(b"damaged")
    (segment, *_) = Journal(root).segments()
    segment.write_bytes(b"damaged\n" + segment.read_bytes())
    assert kinds(fsck(root)) == [FindingKind.DAMAGED_RECORD] * 2
    assert kinds(fsck(root, mend=True)) == [FindingKind.DAMAGED_RECORD] * 2
    assert fsck(root) == []
    assert len(SetAside(root).list()) == 2


@pytest.mark.parametrize(
    "harm", ["delete from records", "insert into records (record_id) values ('stranger')"]
)
def test_a_registry_that_differs_from_the_records_is_found_and_rebuilt(root, harm):
    connection = open_database(root.registry / DATABASE)
    connection.execute(harm)
    connection.close()
    assert set(kinds(fsck(root))) == {FindingKind.WRONG_REGISTRY}
    fsck(root, mend=True)
    assert fsck(root) == []
    assert len(Registry(root).find()) == 2
