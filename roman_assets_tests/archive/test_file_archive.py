import mmap
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from roman_assets.archive.durability import locked, mount_point
from roman_assets.archive.file_archive import FileArchive
from roman_assets.archive.store import sha256_of
from roman_assets.data_root import DataRoot
from roman_assets.errors import PassingFaultError
from roman_assets.products.name import ProductName
from roman_assets_tests.support.small_products import cal, sha256


@pytest.fixture
def root(tmp_path):
    return DataRoot(tmp_path / "data")


@pytest.fixture
def archive(root):
    return FileArchive(root)


def written(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def files_below(path: Path) -> list[Path]:
    return [found for found in path.rglob("*") if found.is_file()]


def test_a_staged_file_is_found_by_its_hash_and_cannot_be_written(tmp_path, archive):
    staged = archive.stage(written(tmp_path / "a", b"photons"))
    blob = archive.blob(staged.sha256)
    assert (staged.sha256, staged.size) == (sha256(b"photons"), 7)
    assert blob.read_bytes() == b"photons"
    assert blob.stat().st_mode & 0o777 == 0o444
    assert not (tmp_path / "a").exists()


def test_a_file_of_another_file_system_is_copied_and_gone(tmp_path, root, archive):
    elsewhere = Path("/dev/shm")
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system at /dev/shm")
    source = elsewhere / f"roman_assets_{os.getpid()}"
    source.write_bytes(b"far photons")
    staged = archive.stage(source)
    assert archive.blob(staged.sha256).read_bytes() == b"far photons"
    assert not source.exists()
    assert not files_below(root.staging)


def test_a_blob_cannot_be_changed_through_another_link_of_the_staged_file(tmp_path, archive):
    source = written(tmp_path / "a", b"photons")
    (tmp_path / "b").hardlink_to(source)
    staged = archive.stage(source)
    (tmp_path / "b").write_bytes(b"forgery")
    assert archive.blob(staged.sha256).read_bytes() == b"photons"


def test_a_withdrawn_blob_is_gone_unless_it_was_there_before_or_staged_again(tmp_path, archive):
    mine = archive.stage(written(tmp_path / "a", b"mine"))
    assert archive.withdraw(mine)
    assert not archive.has_blob(mine.sha256, mine.size)

    first = archive.stage(written(tmp_path / "b", b"ours"))
    again = archive.stage(written(tmp_path / "c", b"ours"))
    assert not archive.withdraw(again)
    assert not archive.withdraw(first)
    assert archive.has_blob(first.sha256, first.size)


def test_a_reader_keeps_the_bytes_it_mapped_while_the_product_is_overwritten(tmp_path, archive):
    name = ProductName.parse(cal())
    archive.show({name: archive.stage(written(tmp_path / "a", b"old" * 5000)).sha256})
    with archive.path(name).open("rb") as stream:
        mapped = mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ)
    archive.show({name: archive.stage(written(tmp_path / "b", b"new")).sha256})
    assert mapped[:] == b"old" * 5000
    assert archive.path(name).read_bytes() == b"new"


def test_a_name_shows_whole_content_between_any_two_steps_of_an_overwrite(tmp_path, archive):
    name = ProductName.parse(cal())
    old, new = (
        archive.stage(written(tmp_path / "a", content)).sha256 for content in (b"old", b"new")
    )
    archive.show({name: old})
    path = archive.path(name)
    seen = []

    with before_each_file_operation(lambda: seen.append(path.read_bytes())):
        archive.show({name: new})

    assert set(seen) == {b"old", b"new"}


@contextmanager
def before_each_file_operation(look):
    """Call a function before every link, rename or removal of a file in the block."""
    active = True

    def hook(event, _):
        nonlocal active
        if active and event in {"os.link", "os.rename", "os.remove"}:
            active = False
            look()
            active = True

    sys.addaudithook(hook)
    try:
        yield
    finally:
        active = False


def test_the_lock_is_free_after_its_holder_was_killed(tmp_path):
    lock = tmp_path / "lock"
    holder = subprocess.Popen(
        ["python3", "-c", _HOLD, str(lock)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    holder.kill()
    holder.wait()
    with locked(lock):
        pass


_HOLD = """
import fcntl, sys, time
stream = open(sys.argv[1], "w")
fcntl.flock(stream, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of 256 KiB."""
    path = tmp_path / "tiny"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(path)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("mounting a tmpfs needs privileges")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def test_a_full_disk_is_named_with_its_remedy_and_nothing_is_left(tmp_path, tiny_disk):
    root = DataRoot(tiny_disk)
    source = written(tmp_path / "big", os.urandom(1 << 20))
    with pytest.raises(PassingFaultError) as fault:
        FileArchive(root).stage(source)
    assert str(tiny_disk) in str(fault.value)
    assert "free space" in str(fault.value)
    assert source.stat().st_size == 1 << 20
    assert not files_below(tiny_disk)


def test_the_mount_point_of_a_path_that_is_not_there_yet_is_found(tiny_disk):
    assert mount_point(tiny_disk / "not" / "yet") == tiny_disk


def test_the_hash_is_that_of_the_bytes(tmp_path):
    assert sha256_of(written(tmp_path / "a", b"photons")) == sha256(b"photons")
