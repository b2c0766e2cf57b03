from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from roman_assets.formatting.listing import SETTLED_AFTER_S, DirectoryListing

INDEX = 1


def put(path: Path, content: str = "new") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}")
    draft.write_text(content)
    draft.rename(path)


def settle(*directories: Path) -> None:
    """Let the last changes lie a while back."""
    then = time.time() - 10 * SETTLED_AFTER_S
    for directory in directories:
        os.utime(directory, (then, then))


def look(listing: DirectoryListing) -> tuple[set[str], set[str]]:
    """Give what is there and what is gone, and note that all is in the index."""
    changes = listing.look(INDEX)
    for name in changes.present:
        listing.confirm(name)
    return set(changes.present), set(changes.gone)


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The directories that are listed from here on."""
    told: list[str] = []
    scandir = os.scandir

    def told_scandir(path: Path) -> object:
        told.append(Path(path).name)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", told_scandir)
    return told


def test_files_are_found_in_directories_of_any_depth_but_hidden_ones(tmp_path: Path) -> None:
    for name in ("a.l0", "day/b.l0", "day/contact/c.l0", ".draft/d.l0", "day/.draft/e.l0"):
        put(tmp_path / name)
    listing = DirectoryListing(tmp_path)
    assert look(listing) == ({"a.l0", "day/b.l0", "day/contact/c.l0"}, set())
    assert look(listing) == (set(), set())


def test_only_directories_that_have_changed_are_listed(tmp_path: Path, listed: list[str]) -> None:
    for name in ("old/a.l0", "older/b.l0"):
        put(tmp_path / name)
    settle(tmp_path, tmp_path / "old", tmp_path / "older")
    listing = DirectoryListing(tmp_path)
    look(listing)
    look(listing)
    listed.clear()
    put(tmp_path / "old/c.l0")
    assert look(listing) == ({"old/c.l0"}, set())
    assert listed == ["old"]


def test_a_directory_that_has_just_changed_is_listed_again(tmp_path: Path) -> None:
    put(tmp_path / "day/a.l0")
    listing = DirectoryListing(tmp_path)
    look(listing)
    before = (tmp_path / "day").stat()
    put(tmp_path / "day/b.l0")
    # two changes within one tick of the file system's clock
    os.utime(tmp_path / "day", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert look(listing) == ({"day/b.l0"}, set())


def test_a_file_that_was_not_taken_in_is_found_again(tmp_path: Path) -> None:
    put(tmp_path / "day/a.l0")
    settle(tmp_path, tmp_path / "day")
    listing = DirectoryListing(tmp_path)
    assert set(listing.look(INDEX).present) == {"day/a.l0"}
    assert look(listing) == ({"day/a.l0"}, set())


def test_files_removed_or_replaced_are_told_with_their_directories(tmp_path: Path) -> None:
    for name in ("day/a.l0", "day/b.l0", "night/c.l0", "night/deep/d.l0"):
        put(tmp_path / name)
    listing = DirectoryListing(tmp_path)
    look(listing)
    (tmp_path / "day/a.l0").unlink()
    put(tmp_path / "day/b.l0", "another")
    assert look(listing) == ({"day/b.l0"}, {"day/a.l0"})
    (tmp_path / "night").rename(tmp_path / "day/night")
    assert look(listing) == (
        {"day/night/c.l0", "day/night/deep/d.l0"},
        {"night/c.l0", "night/deep/d.l0"},
    )


def test_with_another_index_everything_is_asked_for(tmp_path: Path) -> None:
    put(tmp_path / "day/a.l0")
    settle(tmp_path, tmp_path / "day")
    listing = DirectoryListing(tmp_path)
    look(listing)
    changes = listing.look(INDEX + 1)
    assert changes.everything
    assert set(changes.present) == {"day/a.l0"}
