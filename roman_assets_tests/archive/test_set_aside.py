from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from roman_assets.archive.set_aside import SetAside
from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError, PassingFaultError
from roman_assets_tests.support.other_user import another_user, as_root, open_directory


@pytest.fixture
def root(tmp_path):
    return DataRoot(tmp_path / "data")


@pytest.fixture
def bad_file(tmp_path):
    path = tmp_path / "contact.l0"
    path.write_bytes(b"noise")
    return path


def error_of(path) -> BadInputError:
    return BadInputError(path, "packets", "no packet in it", "send it again")


def test_a_file_set_aside_is_gone_and_its_case_tells_why(root, bad_file):
    path = SetAside(root).add(bad_file, error_of(bad_file))
    (case,) = SetAside(root).list()
    assert not bad_file.exists()
    assert case.path == path
    assert case.content is not None
    assert case.content.read_bytes() == b"noise"
    assert (case.source, case.field) == (str(bad_file), "packets")
    assert (case.reason, case.remedy) == ("no packet in it", "send it again")


def test_a_copy_leaves_the_file(root, bad_file):
    SetAside(root).add(bad_file, error_of(bad_file), move=False)
    assert bad_file.read_bytes() == b"noise"
    assert SetAside(root).list()[0].content.read_bytes() == b"noise"


def test_bytes_can_be_set_aside(root):
    SetAside(root).add(b"noise", error_of("downlink/contact.l0"))
    case = SetAside(root).list()[0]
    assert case.content.name == "contact.l0"
    assert case.content.read_bytes() == b"noise"


def test_an_earlier_case_is_never_overwritten(root, bad_file):
    for content in (b"one", b"two", b"three"):
        bad_file.write_bytes(content)
        SetAside(root).add(bad_file, error_of(bad_file))
    contents = [case.content.read_bytes() for case in SetAside(root).list()]
    assert contents == [b"one", b"two", b"three"]


def test_only_the_operator_can_read_what_is_set_aside(root, bad_file):
    case = SetAside(root).add(bad_file, error_of(bad_file))
    assert root.set_aside.stat().st_mode & 0o077 == 0
    assert case.stat().st_mode & 0o077 == 0


def test_a_file_of_another_file_system_is_moved_too(root, bad_file, monkeypatch):
    rename = Path.rename

    def across(self, target):
        if self == bad_file:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", across)
    SetAside(root).add(bad_file, error_of(bad_file))
    assert not bad_file.exists()
    assert SetAside(root).list()[0].content.read_bytes() == b"noise"


def test_a_crash_before_the_file_is_taken_leaves_it_where_it_was(root, bad_file, monkeypatch):
    rename = Path.rename

    def crash(self, target):
        if self == bad_file:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", crash)
    with pytest.raises(KeyboardInterrupt):
        SetAside(root).add(bad_file, error_of(bad_file))
    monkeypatch.undo()
    assert bad_file.read_bytes() == b"noise"
    assert SetAside(root).list()[0].content is None
    SetAside(root).add(bad_file, error_of(bad_file))
    assert SetAside(root).list()[1].content.read_bytes() == b"noise"


def test_a_full_disk_is_a_passing_fault_and_takes_nothing_away(root, bad_file, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("roman_assets.archive.set_aside.write_durably", full)
    with pytest.raises(PassingFaultError, match="full"):
        SetAside(root).add(bad_file, error_of(bad_file))
    assert bad_file.exists()


def test_what_is_gone_cannot_be_set_aside(root, tmp_path):
    with pytest.raises(FileNotFoundError):
        SetAside(root).add(tmp_path / "gone.l0", error_of("gone.l0"))
    assert SetAside(root).list() == ()


@pytest.mark.parametrize("move", [True, False])
@pytest.mark.parametrize(
    "name",
    ["x" * 251 + ".l0", "\u00e4" * 125 + ".oem", os.fsdecode(b"\xff.l0"), "case.json", "a\nb"],
)
def test_a_file_of_any_name_is_set_aside_with_its_suffix_and_its_reason(root, tmp_path, name, move):
    path = tmp_path / name
    path.write_bytes(b"noise")
    SetAside(root).add(path, error_of(path), move=move)
    (case,) = SetAside(root).list()
    assert case.content.read_bytes() == b"noise"
    assert case.content.suffix == path.suffix
    assert case.reason == "no packet in it"
    assert str(case).encode()
    assert path.exists() is not move


def test_a_link_is_set_aside_as_a_link_even_if_it_leads_nowhere(root, tmp_path):
    link = tmp_path / "loop.l0"
    link.symlink_to(link)
    SetAside(root).add(link, error_of(link))
    (case,) = SetAside(root).list()
    assert (case.path / "loop.l0").is_symlink()
    assert not os.path.lexists(link)


@as_root
@pytest.mark.parametrize("same_file_system", [True, False])
def test_what_may_not_be_taken_away_is_not_copied_either(monkeypatch, same_file_system):
    rename = Path.rename

    def across(self, target):
        if not same_file_system and self.name == "contact.l0":
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", across)
    with open_directory() as place:
        for directory, mode in ((place / "foreign", 0o755), (place / "sticky", 0o1777)):
            directory.mkdir()
            directory.chmod(mode)
            (directory / "contact.l0").write_bytes(b"noise")
        (place / "data").mkdir(mode=0o777)
        (place / "data").chmod(0o777)
        root = DataRoot(place / "data")
        with another_user():
            for path in (place / "foreign/contact.l0", place / "sticky/contact.l0"):
                with pytest.raises(PermissionError):
                    SetAside(root).add(path, error_of(path))
            assert SetAside(root).list() == ()
            assert not list(SetAside(root).leftovers())


def test_a_case_that_is_withdrawn_meanwhile_is_not_listed(root, bad_file, monkeypatch):
    case = SetAside(root).add(bad_file, error_of(bad_file))
    monkeypatch.setattr(Path, "glob", lambda *_: iter([case]))
    monkeypatch.setattr(Path, "is_dir", lambda path: not shutil.rmtree(path, True))
    assert SetAside(root).list() == ()
