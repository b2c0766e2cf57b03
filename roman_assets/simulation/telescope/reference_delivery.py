"""A new reference file arrives in the cache, and with it a new context, as from the CRDS server.

The new mappings are derived from the newest ones by CRDS's own means; what was there stays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from crds.core import rmap
from crds.core import utils as crds_utils
from roman_datamodels import datamodels

from roman_assets.archive.durability import disk_space, locked, write_durably
from roman_assets.errors import BadInputError
from roman_assets.products.observation import OpticalElement
from roman_assets.references.context import known_contexts
from roman_assets.simulation.telescope.crds_cache import set_operational_context
from roman_assets.simulation.telescope.crds_ledger import REFERENCES
from roman_assets.simulation.telescope.crds_mappings import MAPPINGS

_INSTRUMENT = "WFI"
FIRST_DATE = datetime(2020, 1, 1, tzinfo=UTC)
"""Before all exposures."""


def deliver_reference(
    path: Path,
    kind: str,
    detector: str,
    *,
    optical_element: OpticalElement | None = None,
    use_after: datetime = FIRST_DATE,
    change: Callable[[Any], None] | None = None,
    operational: bool = True,
) -> str:
    """Add another reference file of one detector to a cache, and a context that names it.

    Parameters
    ----------
    path
        The cache; ``CRDS_PATH`` has to name it.
    kind
        Such as ``photom``.
    detector
        ``WFI01`` to ``WFI18``.
    optical_element
        For kinds that are chosen by it.
    use_after
        The file is for exposures from this moment on, UTC.
    change
        What is different: is given the model of the newest file of that detector, and changes it.
        None for a copy of it under a new name.
    operational
        Whether the new context becomes the operational one.

    Returns
    -------
    str
        The new context.

    Raises
    ------
    BadInputError
        If the cache has no such reference to begin with.
    """
    with disk_space(path), locked(path / MAPPINGS.parent.parent / "config" / "roman"):
        latest = known_contexts()[-1]
        context = rmap.load_mapping(latest)
        instrument = context.get_imap(_INSTRUMENT)
        rules = instrument.get_rmap(kind)
        header = _header(rules, detector, optical_element, use_after)
        old = rules.get_best_ref(header)
        if not (path / REFERENCES / old).is_file():
            raise BadInputError(latest, kind, f"none for {detector}: {old}", "build it first")
        name = _next_name(path / REFERENCES, f"roman_wfi_{kind}_*{Path(old).suffix}")
        _write_reference(path / REFERENCES / old, path / REFERENCES / name, change)
        rules_name = _write_mapping(path, rules.insert(header, name), f"roman_wfi_{kind}_*.rmap")
        instrument.selector[kind] = rules_name
        instrument_name = _write_mapping(path, instrument, "roman_wfi_????.imap")
        context.selector[_INSTRUMENT] = instrument_name
        new = _write_mapping(path, context, "roman_????.pmap")
    crds_utils.clear_function_caches()
    if operational:
        set_operational_context(path, new)
    return new


def rescaled(scale: float) -> Callable[[Any], None]:
    """Return what changes the flux of all that a ``photom`` reference calibrates.

    Parameters
    ----------
    scale
        Factor on ``photmjsr``.
    """

    def change(model: Any) -> None:
        for entry in model.phot_table.values():
            if entry["photmjsr"] is not None:
                entry["photmjsr"] *= scale

    return change


def _header(
    rules: Any, detector: str, optical_element: OpticalElement | None, use_after: datetime
) -> dict[str, str]:
    known: Mapping[str, str] = {
        "ROMAN.META.INSTRUMENT.DETECTOR": detector,
        "ROMAN.META.INSTRUMENT.OPTICAL_ELEMENT": str(optical_element),
        "ROMAN.META.EXPOSURE.START_TIME": f"{use_after.astimezone(UTC):%Y-%m-%d %H:%M:%S}",
    }
    return {parameter: known[parameter] for parameter in rules.get_required_parkeys()}


def _write_reference(old: Path, new: Path, change: Callable[[Any], None] | None) -> None:
    if change is None:
        write_durably(new, old.read_bytes())
        return
    with datamodels.open(old) as model:
        changed = model.copy()
        change(changed)
        changed.save(new)


def _write_mapping(path: Path, mapping: Any, pattern: str) -> str:
    name = _next_name(path / MAPPINGS, pattern)
    mapping.header["derived_from"] = mapping.basename
    mapping.header["name"] = name
    mapping.write(path / MAPPINGS / name)
    return name


def _next_name(directory: Path, pattern: str) -> str:
    """Return the next name after those that match a pattern, which differ by their four digits."""
    newest = max(directory.glob(pattern)).name
    stem, _, suffix = newest.rpartition(".")
    return f"{stem[:-4]}{int(stem[-4:]) + 1:04d}.{suffix}"
