"""Report in Markdown how two locks of dependencies differ.

Usage: ``python .ci/lock_changes.py FORMER PRESENT``
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from packaging.version import Version

_PIN = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)(?:\[[^]]*])?==(?P<version>[^\s;\\]+)")
_SIZES = ("major", "minor", "micro")


def pins(lock: str) -> dict[str, Version]:
    """Return the pinned version of each distribution of a lock."""
    found = (_PIN.match(line) for line in lock.splitlines())
    return {pin["name"].lower(): Version(pin["version"]) for pin in found if pin}


def change(former: Version | None, present: Version | None) -> str:
    """Return what happened to a distribution: ``added``, ``removed`` or the size of the step."""
    if former is None:
        return "added"
    if present is None:
        return "removed"
    sizes = (size for size in _SIZES if getattr(former, size) != getattr(present, size))
    return ("downgrade, " if present < former else "") + next(sizes, "rebuild")


def changes(
    former: Mapping[str, Version], present: Mapping[str, Version]
) -> Iterator[tuple[str, str, str, str]]:
    """Return name, former version, present version and kind of each change, by name."""
    for name in sorted(former.keys() | present.keys()):
        before, after = former.get(name), present.get(name)
        if before != after:
            yield name, str(before or ""), str(after or ""), change(before, after)


def report(former: str, present: str) -> str:
    """Return the report on two locks as a table in Markdown."""
    rows = list(changes(pins(former), pins(present)))
    if not rows:
        return "Every version is the same as before."
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"| distribution | from | to | change |\n|---|---|---|---|\n{table}"


if __name__ == "__main__":
    former_path, present_path = sys.argv[1:]
    sys.stdout.write(f"{report(Path(former_path).read_text(), Path(present_path).read_text())}\n")
