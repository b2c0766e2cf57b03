"""The settings that name the stand-in as the SSC's command."""

from __future__ import annotations

import json
import sys

from roman_assets.archive.durability import write_durably
from roman_assets.data_root import DataRoot
from roman_assets.ssc.command import FILE_NAME, Mode

_COMMAND = [sys.executable, "-m", "roman_assets.simulation.ssc"]


def take_the_place_of_the_ssc(root: DataRoot) -> None:
    """Write ``ssc.toml`` with a row for each mode; a file that is there stays as it is."""
    path = root.path / FILE_NAME
    if path.exists():
        return
    rows = [f'[[command]]\nmode = "{mode}"\nrun = {json.dumps(_COMMAND)}\n' for mode in Mode]
    root.path.mkdir(parents=True, exist_ok=True)
    write_durably(path, "\n".join(["version = 1\n", *rows]).encode())
