"""A CRDS cache of the simulated instrument, for use without a CRDS server.

A cache holds reference files for some detectors and optical elements, at one window size, and
the mappings of two contexts:

``roman_0001.pmap``
    As if known before launch: flats without the pixels' own response, and photometric
    conversions 2 % too small.
``roman_0002.pmap``
    The truth of the simulated instrument; the operational context, unless told otherwise.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from astropy.io import fits
from astropy.table import Table
from crds.core import utils as crds_utils
from roman_datamodels import datamodels

from roman_assets.archive.durability import (
    disk_space,
    fsync_directory,
    fsync_file,
    locked,
    make_directory,
    temporary_name,
    write_durably,
)
from roman_assets.errors import BadInputError
from roman_assets.products.observation import DETECTORS, OpticalElement
from roman_assets.references.context import ASTROMETRIC_CATALOG
from roman_assets.simulation.telescope.crds_ledger import (
    LEDGER,
    REFERENCES,
    CacheLedger,
    CacheSettings,
    existing_ledger,
    open_ledger,
)
from roman_assets.simulation.telescope.crds_mappings import (
    CONTEXTS,
    MAPPINGS,
    SERVER_CONFIG,
    write_mappings,
    write_server_config,
)
from roman_assets.simulation.telescope.crds_references import (
    PlannedReference,
    cache_references,
    read_epsf,
    tweakreg_parameters,
)
from roman_assets.simulation.telescope.detector_geometry import active_pixels
from roman_assets.simulation.telescope.effective_psf import EpsfGrid
from roman_assets.simulation.telescope.response import imaging
from roman_assets.simulation.telescope.scene import Scene, SkyCircle

DEFAULT_WINDOW = 512
DEFAULT_FIELDS = (SkyCircle(270.0, 66.0, 0.6),)
"""The part of the simulated sky with real stars in it."""


def build_crds_cache(
    path: Path,
    *,
    detectors: Iterable[str] = DETECTORS,
    optical_elements: Iterable[OpticalElement] = tuple(OpticalElement),
    window: int | None = DEFAULT_WINDOW,
    seed: int = 0,
    sky_fields: Iterable[SkyCircle] = DEFAULT_FIELDS,
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[str, ...]:
    """Make a cache, or add to it what is missing.

    Safe to run again after any interruption, and in several processes at once: one of them
    works, the others wait and then find little left to do. Processes that use the cache
    meanwhile see the old mappings or the new ones, whole; files they know stay.

    Parameters
    ----------
    path
        The directory that ``CRDS_PATH`` names.
    detectors
        Detectors to have references for.
    optical_elements
        Elements to have references for; GRISM, PRISM and DARK need none of their own and are
        always there.
    window
        Active pixels along a side (even), None for whole detectors.
    seed
        Seed of the simulated instrument and sky.
    sky_fields
        Parts of the sky to have skycells and astrometric stars for.
    progress
        Called before each reference file with its name, how many are done, and how many there
        are to do.

    Returns
    -------
    tuple of str
        Names of the reference files that were added.

    Raises
    ------
    BadInputError
        If the cache was made with another window or seed, or a detector is unknown.
    PassingFaultError
        If the disk is full.
    """
    wanted = _known_detectors(detectors)
    filters = {element for element in map(OpticalElement, optical_elements) if imaging(element)}
    settings = CacheSettings(window, seed)
    active_pixels(window)
    with disk_space(path):
        for directory in (MAPPINGS, REFERENCES, LEDGER.parent, ASTROMETRIC_CATALOG.parent):
            make_directory(path / directory)
        with locked(path / LEDGER.parent):
            ledger = open_ledger(path, settings)
            _remove_leftovers(path / REFERENCES)
            _cover_fields(path, ledger, tuple(sky_fields))
            coverage = _coverage(ledger)
            for detector in wanted:
                coverage[detector] = coverage.get(detector, frozenset()) | filters
            added = _make_references(path, ledger, coverage, progress)
            write_mappings(path, ledger, coverage)
            if not (path / SERVER_CONFIG).is_file():
                write_server_config(path, CONTEXTS[-1])
    crds_utils.clear_function_caches()
    return added


def set_operational_context(path: Path, context: str) -> None:
    """Declare a context of the cache operational, as the CRDS server would.

    Raises
    ------
    BadInputError
        If the cache has no such context.
    """
    if not (path / MAPPINGS / context).is_file():
        raise BadInputError(
            path, "context", f"{context} is not in the cache", "choose one that is there"
        )
    with disk_space(path), locked(path / LEDGER.parent):
        write_server_config(path, context)
    crds_utils.clear_function_caches()


def cache_settings(path: Path) -> CacheSettings:
    """Return the settings of a cache that `build_crds_cache` made.

    Raises
    ------
    BadInputError
        If there is none at that place.
    """
    return existing_ledger(path).settings


def stored_epsf(path: Path, detector: str, element: OpticalElement) -> EpsfGrid:
    """Return the ePSFs that a cache holds; computing them takes far longer.

    Raises
    ------
    BadInputError
        If the cache does not have them.
    """
    name = existing_ledger(path).files.get(f"epsf {detector} {element}")
    if name is None:
        raise BadInputError(path, "epsf", f"none for {detector} {element}", "add both to the cache")
    return read_epsf(path / REFERENCES / name)


def _known_detectors(detectors: Iterable[str]) -> tuple[str, ...]:
    wanted = tuple(detectors)
    unknown = sorted(set(wanted) - set(DETECTORS))
    if unknown:
        raise BadInputError(
            "CRDS cache", "detectors", f"unknown: {', '.join(unknown)}", "use WFI01 to WFI18"
        )
    return wanted


def _remove_leftovers(directory: Path) -> None:
    """Delete what an interrupted build was writing; the lock is held, so nobody still does."""
    for leftover in directory.glob(".*"):
        leftover.unlink()


def _cover_fields(path: Path, ledger: CacheLedger, fields: Sequence[SkyCircle]) -> None:
    catalog = path / ASTROMETRIC_CATALOG
    lacking = [circle for circle in fields if circle not in ledger.fields]
    if not lacking and catalog.is_file():
        return
    ledger.fields = [*ledger.fields, *dict.fromkeys(lacking)]
    stars = Scene(ledger.settings.seed).reference_stars(ledger.fields)
    content = io.BytesIO()
    Table(stars).write(content, format="fits")
    write_durably(catalog, content.getvalue())


def _coverage(ledger: CacheLedger) -> dict[str, frozenset[OpticalElement]]:
    """Return the filters of each detector that the cache has flats for."""
    coverage: dict[str, frozenset[OpticalElement]] = {}
    for key in ledger.files:
        kind, *purpose = key.split()
        if kind == "gain":
            coverage.setdefault(purpose[0], frozenset())
        if kind == "flat":
            detector, element = purpose[:2]
            coverage[detector] = coverage.get(detector, frozenset()) | {OpticalElement(element)}
    return coverage


def _make_references(
    path: Path,
    ledger: CacheLedger,
    coverage: Mapping[str, frozenset[OpticalElement]],
    progress: Callable[[str, int, int], None] | None,
) -> tuple[str, ...]:
    catalog = str((path / ASTROMETRIC_CATALOG).absolute())
    if ledger.location != catalog:
        # the parameter reference of tweakreg holds the catalogue's absolute path
        if former := ledger.files.pop(tweakreg_parameters(catalog).key, None):
            (path / REFERENCES / former).unlink(missing_ok=True)
        ledger.location = catalog
    lacking = [
        reference
        for reference in cache_references(path, ledger, coverage)
        if reference.key not in ledger.files
    ]
    added = []
    for done, reference in enumerate(lacking):
        if progress is not None:
            progress(reference.key, done, len(lacking))
        name = _free_name(path, reference)
        _save(reference.make(), path / REFERENCES / name)
        ledger.files[reference.key] = name
        ledger.write(path)
        added.append(name)
    ledger.write(path)
    return tuple(added)


def _free_name(path: Path, reference: PlannedReference) -> str:
    pattern = re.compile(rf"roman_wfi_{reference.kind}_(\d+)\.")
    names = (file.name for file in (path / REFERENCES).iterdir())
    taken = [int(found[1]) for found in map(pattern.match, names) if found]
    serial = max(taken, default=0) + 1
    return f"roman_wfi_{reference.kind}_{serial:04d}.{reference.extension}"


def _save(model: Any, path: Path) -> None:
    # roman_datamodels takes the format from the suffix
    temporary = temporary_name(path).with_suffix(f".tmp{path.suffix}")
    try:
        if isinstance(model, datamodels.DataModel):
            model.save(temporary)
        elif isinstance(model, fits.HDUList):
            model.writeto(temporary)
        else:
            model.write_to(temporary)
        fsync_file(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_directory(path.parent)
