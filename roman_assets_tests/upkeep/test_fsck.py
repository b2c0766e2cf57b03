import subprocess
from datetime import timedelta

import pytest

from roman_assets.archive.file_archive import FileArchive
from roman_assets.archive.set_aside import SetAside
from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError
from roman_assets.products.kind import Step
from roman_assets.products.name import ProductName
from roman_assets.publishing.step import publish_step
from roman_assets.records.journal import Journal
from roman_assets.records.record import ProductInput, WorkFailure
from roman_assets.registry.registry import Registry
from roman_assets.registry.search.finding import Finding, FindingKind
from roman_assets.registry.store.fold import fold
from roman_assets.registry.store.snapshot import SNAPSHOT, TIERS
from roman_assets.upkeep.fsck import fsck
from roman_assets_tests.support.small_products import (
    cal,
    change_tier,
    exposure,
    moment,
    output,
    public_content,
    publish_skycells,
    record_of,
    sha256,
    skycell_set,
    staged_entry,
    tiers,
)

NOW = timedelta(0)


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    """An installation with two products, one of them overwritten once."""
    root = DataRoot(tmp_path_factory.mktemp("data"))
    for number, contents in enumerate(({cal(1): b"first", cal(2): b"second"}, {cal(1): b"third"})):
        Journal(root).write(record_of(root, contents, committed_at=moment(number)))
        fold(root)
    return root


@pytest.fixture
def root(healthy, tmp_path):
    """A copy of it, with its hard links, to be harmed."""
    subprocess.run(["cp", "-a", f"{healthy.path}/.", tmp_path], check=True)
    return DataRoot(tmp_path)


def kinds(findings):
    return [finding.kind for finding in findings]


def public(root, name):
    return FileArchive(root).public_path(ProductName.parse(name))


def blob(root, name):
    return FileArchive(root).blob(Registry(root).generations.current([name])[name].sha256)


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


def test_a_product_whose_bytes_are_lost_is_on_record_as_lost_until_it_is_made_again(root):
    blob(root, cal(1)).unlink()
    public(root, cal(1)).unlink()
    assert kinds(fsck(root)) == [FindingKind.MISSING_BLOB]
    assert kinds(fsck(root, mend=True)) == [FindingKind.MISSING_BLOB, FindingKind.LOST_PRODUCT]
    assert Registry(root).generations.current([cal(1)]) == {}
    (finding,) = fsck(root)
    assert (finding.kind, finding.subject) == (FindingKind.LOST_PRODUCT, cal(1))
    assert "step exposure of r0001001001001001001_0001" in finding.detail
    assert "run the step of the product again" in finding.remedy
    Journal(root).write(record_of(root, {cal(1): b"third"}))
    fold(root)
    assert fsck(root) == []
    assert public_content(root) == {cal(1): b"third", cal(2): b"second"}


def test_a_lost_product_of_a_data_release_can_be_published_again(root):
    publish_skycells(root, {1: "first"}, release="r0")
    name = skycell_set(1, "r0")[1]
    blob(root, name).unlink()
    public(root, name).unlink()
    fsck(root, mend=True)
    lost = output(root, name, "first again")
    publish_step(root, step=Step.VISIT, partition="x", outputs=[lost])
    assert fsck(root) == []
    assert b"first again" in public_content(root)[name]


def test_a_changed_blob_is_set_aside_and_no_longer_shown(root):
    path = blob(root, cal(1))
    path.chmod(0o644)
    path.write_bytes(b"thirt")
    assert fsck(root, read_blobs=False) == []
    assert kinds(fsck(root)) == [FindingKind.WRONG_BLOB]
    fsck(root, mend=True)
    assert public_content(root) == {cal(2): b"second"}
    assert set(Registry(root).products.find()["name"]) == {cal(2)}
    (case,) = SetAside(root).list()
    assert case.content is not None
    assert case.content.read_bytes() == b"thirt"
    Journal(root).write(record_of(root, {cal(1): b"third"}))
    fold(root)
    assert fsck(root) == []
    assert public_content(root) == {cal(1): b"third", cal(2): b"second"}


def test_products_that_share_a_damaged_blob_are_all_found_and_no_longer_shown(root):
    Journal(root).write(record_of(root, {cal(3): b"third"}))
    fold(root)
    path = blob(root, cal(1))
    path.chmod(0o644)
    path.write_bytes(b"thirt")
    found = fsck(root, mend=True)
    assert {one.subject for one in found} == {cal(1), cal(3)}
    assert public_content(root) == {cal(2): b"second"}
    assert len(SetAside(root).list()) == 1


def test_a_blob_that_was_cut_short_is_found_without_reading_any(root):
    path = blob(root, cal(1))
    path.chmod(0o644)
    path.write_bytes(b"thi")
    assert kinds(fsck(root, read_blobs=False)) == [FindingKind.WRONG_BLOB]


def test_an_input_that_nobody_knows_is_found(root):
    known = ProductInput(name=cal(1), sha256=sha256(b"first"))
    outside = [
        ProductInput(name=name, sha256=sha256(b"?"))
        for name in (f"{exposure()}_wfi01_l0", "a_b.oem")
    ]
    Journal(root).write(record_of(root, {cal(3): b"a"}, inputs=(known, *outside)))
    fold(root)
    assert fsck(root) == []
    for number, unknown in enumerate(
        (
            ProductInput(name=cal(9), sha256=sha256(b"first")),
            ProductInput(name=cal(1), sha256=sha256(b"never")),
            ProductInput(name="notes.txt", sha256=sha256(b"?")),
        ),
        start=4,
    ):
        Journal(root).write(record_of(root, {cal(number): b"a"}, inputs=(known, unknown)))
    fold(root)
    for mend in (True, False):
        found = fsck(root, mend=mend)
        assert kinds(found) == [FindingKind.DANGLING_INPUT] * 3
        assert [one.subject for one in found] == [cal(4), cal(5), cal(6)]
        assert cal(9) in found[0].detail
        assert "reprocess the product" in found[0].remedy


IMAGING = {"survey": "HLWAS", "exposure_type": "WFI_IMAGE"}
SPECTRA = {"survey": "HLWAS", "exposure_type": "WFI_SPECTRAL"}
BULGE = {"survey": "GBTDS", "exposure_type": "WFI_IMAGE"}
SETS = [
    ("cal cat segm wcs", IMAGING, None),
    ("cal cat wcs", IMAGING, "exposure_segmentation"),
    ("cal wcs", SPECTRA, None),
    ("cal wcs", BULGE, None),
    ("cal", BULGE, "supplement"),
    ("cat", {}, "cal"),
    ("asn coadd cat segm", IMAGING, None),
    ("asn coadd cat", IMAGING, "visit_segmentation"),
    ("coadd", {}, "association"),
    ("asn", {}, "coadd"),
]
"""What there is of a file set, what is known of it, and the kind that lacks."""

_EXTENSIONS = {"asn": "json", "cat": "parquet"}


def names_of_set(number, suffixes):
    of_skycell = "asn" in suffixes or "coadd" in suffixes
    release = "r1" if number % 2 else "p"
    whole = skycell_set(number, release)[0] if of_skycell else cal(3, number + 1)
    stem = whole.rpartition("_")[0]
    return [f"{stem}_{one}.{_EXTENSIONS.get(one, 'asdf')}" for one in suffixes.split()]


def test_a_file_set_that_lacks_a_kind_its_step_makes_is_found_with_its_failure(root):
    expected = {}
    for number, (suffixes, metadata, missing) in enumerate(SETS):
        names = names_of_set(number, suffixes)
        file_set, step = names[0].rpartition("_")[0], ProductName.parse(names[0]).kind.step
        for of_step, message in ((step, "no stars"), (Step.FORMATTING, "of another step")):
            made = {name: name.encode() for name in names} if of_step is step else {}
            failure = WorkFailure(file_set=file_set, error="E", message=message)
            fields = {"step": of_step, "metadata": metadata, "failures": (failure,)}
            Journal(root).write(record_of(root, made, **fields))
        if missing is not None:
            expected[file_set] = missing
    fold(root)
    found = fsck(root)
    assert set(kinds(found)) == {FindingKind.PARTIAL_SET}
    assert {finding.subject for finding in found} == expected.keys()
    for finding in found:
        assert f"but no {expected[finding.subject]} (step" in finding.detail
        assert "no stars" in finding.detail


@pytest.mark.parametrize("directory", ["registry", "public_registry"])
@pytest.mark.parametrize("kept", [0, 10, 5000])
def test_a_damaged_registry_is_found_and_made_again(root, directory, kept):
    (tier,) = tiers(root)
    path = getattr(root, directory) / (f"{TIERS}/{tier.name}" if kept == 5000 else SNAPSHOT)
    replace(path, path.read_bytes()[:kept])
    assert kinds(fsck(root)) == [FindingKind.DAMAGED_REGISTRY]
    assert all(finding.mended for finding in fsck(root, mend=True))
    assert fsck(root) == []
    assert len(Registry(root).products.find()) == 2


@pytest.mark.parametrize("damaged", [b"", b"{", b"[]", b'{"when": 3}', None])
def test_a_damaged_case_is_told_among_the_others_found_and_mended(root, damaged):
    aside = SetAside(root)
    harmed, whole = (
        aside.add(text, BadInputError("a.l0", "packets", "noise", "send it again"))
        for text in (b"1", b"2")
    )
    statement = harmed / "case.json"
    statement.unlink() if damaged is None else replace(statement, damaged)
    first, second = aside.list()
    assert (first.path, first.content, first.is_damaged) == (harmed, harmed / "a.l0", True)
    assert (second.path, second.reason, second.is_damaged) == (whole, "noise", False)
    assert kinds(fsck(root)) == [FindingKind.DAMAGED_CASE]
    assert all(finding.mended for finding in fsck(root, mend=True))
    assert fsck(root) == []
    assert aside.list()[0].content == harmed / "a.l0"
    assert "cannot be read" in aside.list()[0].reason


def test_every_finding_has_a_remedy():
    for kind in FindingKind:
        assert Finding(kind, "x", "y").remedy
        assert not Finding(kind, "x", "y", mended=True).remedy


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
    (root.set_aside / ".draft").mkdir(parents=True)
    (root.set_aside / ".draft" / "case.json").write_bytes(b"{}")
    assert fsck(root) == []
    assert kinds(fsck(root, mend=True, grace=NOW)).count(FindingKind.LEFTOVER) == 3
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
    change_tier(root, harm)
    assert set(kinds(fsck(root))) == {FindingKind.WRONG_REGISTRY}
    fsck(root, mend=True)
    assert fsck(root) == []
    assert len(Registry(root).products.find()) == 2
