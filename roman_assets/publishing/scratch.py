"""Working directories of runs, gone when the run is, however it ended."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from roman_assets.archive.durability import disk_space, locked, private_directory
from roman_assets.data_root import DataRoot


@contextmanager
def scratch_directory(root: DataRoot, partition: str) -> Iterator[Path]:
    """Return an empty directory of one's own, and remove it at the end.

    What killed runs left behind is removed first: a directory in use is locked by its run, and
    the kernel frees that lock when the run dies.

    Parameters
    ----------
    root
        The installation.
    partition
        Exposure or visit, for people who look.

    Raises
    ------
    PassingFaultError
        If the disk is full.
    """
    with disk_space(root.scratch):
        private_directory(root.scratch)
        # without this lock a new directory could be taken for an abandoned one
        with locked(root.scratch):
            _remove_abandoned(root.scratch)
            directory = Path(tempfile.mkdtemp(prefix=f"{partition}.", dir=root.scratch))
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(descriptor)


def _remove_abandoned(scratch: Path) -> None:
    for directory in scratch.iterdir():
        if directory.is_dir() and _is_abandoned(directory):
            shutil.rmtree(directory, ignore_errors=True)


def _is_abandoned(directory: Path) -> bool:
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        return True
    finally:
        os.close(descriptor)
