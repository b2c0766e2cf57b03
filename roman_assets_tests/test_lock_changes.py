from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / ".ci" / "lock_changes.py"

FORMER = """\
astropy==8.0.2 \\
    --hash=sha256:00
    # via roman-assets (pyproject.toml)
colorama==0.4.6 ; sys_platform == 'win32' \\
    --hash=sha256:00
gwcs==1.0.3 \\
moto[server]==5.1.0 \\
numpy==2.4.1 \\
oem==0.4.5 \\
"""
PRESENT = """\
astropy==8.1.0 \\
gwcs==2.0.0 \\
moto[server]==5.1.1 \\
numpy==2.4.0 \\
oem==0.4.5 \\
towncrier==26.9.0 \\
"""


def report(tmp_path: Path, former: str, present: str) -> str:
    locks = tmp_path / "former.lock", tmp_path / "present.lock"
    for lock, text in zip(locks, (former, present), strict=True):
        lock.write_text(text)
    command = [sys.executable, str(SCRIPT), *map(str, locks)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_an_update_of_dependencies_reports_every_change_and_nothing_else(tmp_path: Path) -> None:
    assert report(tmp_path, FORMER, PRESENT).splitlines()[2:] == [
        "| astropy | 8.0.2 | 8.1.0 | minor |",
        "| colorama | 0.4.6 |  | removed |",
        "| gwcs | 1.0.3 | 2.0.0 | major |",
        "| moto | 5.1.0 | 5.1.1 | micro |",
        "| numpy | 2.4.1 | 2.4.0 | downgrade, micro |",
        "| towncrier |  | 26.9.0 | added |",
    ]


def test_an_update_without_effect_says_so(tmp_path: Path) -> None:
    assert report(tmp_path, FORMER, FORMER) == "Every version is the same as before.\n"
