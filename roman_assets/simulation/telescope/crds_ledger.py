"""What a simulated CRDS cache holds: its settings, and reference files by what they are for."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from roman_assets.archive.durability import write_durably
from roman_assets.errors import BadInputError
from roman_assets.simulation.telescope.scene import SkyCircle

LEDGER = Path("config", "roman", "observatory.json")
REFERENCES = Path("references", "roman", "wfi")


@dataclass(frozen=True)
class CacheSettings:
    """What holds for a cache as a whole.

    Parameters
    ----------
    window
        Active pixels along a side of every detector, None for whole detectors.
    seed
        Seed of the simulated instrument and sky.
    """

    window: int | None
    seed: int


@dataclass
class CacheLedger:
    """What a cache holds: reference files by what they are for. Kept beside CRDS's own files."""

    settings: CacheSettings
    fields: list[SkyCircle] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    location: str = ""

    @classmethod
    def read(cls, path: Path) -> CacheLedger:
        """Read the ledger of a cache; raises `BadInputError` if it is not readable."""
        try:
            content = json.loads((path / LEDGER).read_bytes())
            return cls(
                CacheSettings(**content["settings"]),
                [SkyCircle(**circle) for circle in content["fields"]],
                dict(content["files"]),
                content["location"],
            )
        except (ValueError, KeyError, TypeError) as error:
            raise BadInputError(
                path / LEDGER, "content", f"not readable ({error!r})", "build the cache anew"
            ) from error

    def write(self, path: Path) -> None:
        """Replace the ledger of a cache."""
        content = {
            "settings": asdict(self.settings),
            "fields": [asdict(circle) for circle in self.fields],
            "files": self.files,
            "location": self.location,
        }
        write_durably(path / LEDGER, json.dumps(content, indent=1, sort_keys=True).encode())


def existing_ledger(path: Path) -> CacheLedger:
    """Read the ledger of a cache; raises `BadInputError` if there is none."""
    if not (path / LEDGER).is_file():
        raise BadInputError(path, str(LEDGER), "no cache of the simulated instrument", "build one")
    return CacheLedger.read(path)


def open_ledger(path: Path, settings: CacheSettings) -> CacheLedger:
    """Read the ledger of a cache, or begin one; raises `BadInputError` for other settings."""
    if not (path / LEDGER).is_file():
        return CacheLedger(settings)
    ledger = CacheLedger.read(path)
    for name, value in asdict(settings).items():
        present = getattr(ledger.settings, name)
        if present != value:
            raise BadInputError(
                path,
                name,
                f"the cache was made with {name} {present}, not {value}",
                "use another data root for other settings",
            )
    ledger.files = {
        key: name for key, name in ledger.files.items() if (path / REFERENCES / name).is_file()
    }
    return ledger
