"""A CRDS cache of the simulated instrument, for use without a CRDS server.

A cache holds reference files for some detectors and optical elements, at one window size, and
the mappings of two contexts:

``roman_0001.pmap``
    As if known before launch: flats without the pixels' own response, and photometric
    conversions 2 % too small.
``roman_0002.pmap``
    The truth of the simulated instrument; the operational context, unless told otherwise.

Parameter references set what the simulated sky or a window needs:

- ``tweakreg``: ``abs_refcat`` is the simulated sky's astrometric catalogue, in the cache.
  Matching is stricter (``abs_tolerance`` 0.3 arcsec, clipping at 2.5 sigma, ten times): in a
  window with two dozen stars, two or three false matches within the default 0.7 arcsec survive
  its clipping and bend the fit by 0.1 arcsec.
- ``resample``, ``outlier_detection``: ``weight_type`` is ``exptime``. The default, inverse
  variance per pixel, gives bright pixels of a star less weight than faint ones, which costs
  some 0.09 mag in coadds.
- ``dark_decay``: skipped in windows, for which romancal has no read times; so is ``refpix``,
  through an ``N/A`` entry.

``matable`` and ``ipc`` are for romanisim (``romanisim-make-image --usecrds``); romancal reads
neither.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import crds.roman
import numpy as np
from astropy.io import fits
from astropy.table import Table
from crds.core import utils as crds_utils
from crds.core.rmap import Mapping as CrdsMapping
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
from roman_assets.products.observation import DETECTORS, ExposureType, OpticalElement
from roman_assets.references.context import ASTROMETRIC_CATALOG
from roman_assets.simulation.telescope import references
from roman_assets.simulation.telescope.detector_geometry import active_pixels
from roman_assets.simulation.telescope.effective_psf import EpsfGrid, effective_psf
from roman_assets.simulation.telescope.response import DetectorResponse, imaging
from roman_assets.simulation.telescope.scene import Scene, SkyCircle
from roman_assets.simulation.telescope.skymap import skymap

COADD_DETECTOR = "WFI02"
"""The detector in whose name romancal looks up the ePSF and aperture corrections of coadds."""

CONTEXTS = ("roman_0001.pmap", "roman_0002.pmap")
"""The contexts of every cache, oldest first."""

DEFAULT_WINDOW = 512
DEFAULT_FIELDS = (SkyCircle(270.0, 66.0, 0.6),)
"""The part of the simulated sky with real stars in it."""

_EARLY_PHOTOM_SCALE = 0.98
_TWEAKREG_MATCHING = {"abs_tolerance": 0.3, "abs_sigma": 2.5, "abs_nclip": 10}
_LEDGER = Path("config", "roman", "observatory.json")
_SERVER_CONFIG = Path("config", "roman", "server_config")
MAPPINGS = Path("mappings", "roman")
REFERENCES = Path("references", "roman", "wfi")
_USE_AFTER = "2020-01-01 00:00:00"
_NONE = "N/A"
_ANY_TYPE = "|".join(ExposureType)
_ANY_DETECTOR = "|".join(DETECTORS)
_ANY_ELEMENT = "|".join(OpticalElement)
_NO_FILTER = "|".join(element for element in OpticalElement if not imaging(element))

_UNLISTED_KINDS = ("pars-mosaicpipeline",)
"""Kinds that romancal asks for although CRDS does not know them."""
_GALACTIC_POLES = {"north": 1, "south": -1}

Maker = Callable[[], Any]


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
class _Ledger:
    """What a cache holds: reference files by what they are for. Kept beside CRDS's own files."""

    settings: CacheSettings
    fields: list[SkyCircle] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    location: str = ""

    @classmethod
    def read(cls, path: Path) -> _Ledger:
        try:
            content = json.loads((path / _LEDGER).read_bytes())
            return cls(
                CacheSettings(**content["settings"]),
                [SkyCircle(**circle) for circle in content["fields"]],
                dict(content["files"]),
                content["location"],
            )
        except (ValueError, KeyError, TypeError) as error:
            raise BadInputError(
                path / _LEDGER, "content", f"not readable ({error!r})", "build the cache anew"
            ) from error

    def write(self, path: Path) -> None:
        content = {
            "settings": asdict(self.settings),
            "fields": [asdict(circle) for circle in self.fields],
            "files": self.files,
            "location": self.location,
        }
        write_durably(path / _LEDGER, json.dumps(content, indent=1, sort_keys=True).encode())


@dataclass(frozen=True)
class _Reference:
    """One reference file to be: its kind, what it is for, and how it is made."""

    kind: str
    purpose: str
    make: Maker
    extension: str = "asdf"

    @property
    def key(self) -> str:
        return f"{self.kind} {self.purpose}".rstrip()


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
        for directory in (MAPPINGS, REFERENCES, _LEDGER.parent, ASTROMETRIC_CATALOG.parent):
            make_directory(path / directory)
        with locked(path / _LEDGER.parent):
            ledger = _open_ledger(path, settings)
            _remove_leftovers(path / REFERENCES)
            _cover_fields(path, ledger, tuple(sky_fields))
            coverage = _coverage(ledger)
            for detector in wanted:
                coverage[detector] = coverage.get(detector, frozenset()) | filters
            added = _make_references(path, ledger, coverage, progress)
            _write_mappings(path, ledger, coverage)
            if not (path / _SERVER_CONFIG).is_file():
                _write_server_config(path, CONTEXTS[-1])
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
    with disk_space(path), locked(path / _LEDGER.parent):
        _write_server_config(path, context)
    crds_utils.clear_function_caches()


def cache_settings(path: Path) -> CacheSettings:
    """Return the settings of a cache that `build_crds_cache` made.

    Raises
    ------
    BadInputError
        If there is none at that place.
    """
    return _existing_ledger(path).settings


def stored_epsf(path: Path, detector: str, element: OpticalElement) -> EpsfGrid:
    """Return the ePSFs that a cache holds; computing them takes far longer.

    Raises
    ------
    BadInputError
        If the cache does not have them.
    """
    name = _existing_ledger(path).files.get(f"epsf {detector} {element}")
    if name is None:
        raise BadInputError(path, "epsf", f"none for {detector} {element}", "add both to the cache")
    return _read_epsf(path / REFERENCES / name)


def _read_epsf(path: Path) -> EpsfGrid:
    with datamodels.open(path) as model:
        meta = model.meta
        return EpsfGrid(
            np.array(model.psf),
            tuple(float(x) for x in meta.pixel_x),
            tuple(float(y) for y in meta.pixel_y),
            tuple(int(waves) for waves in meta.defocus),
            int(meta.oversample),
        )


def _known_detectors(detectors: Iterable[str]) -> tuple[str, ...]:
    wanted = tuple(detectors)
    unknown = sorted(set(wanted) - set(DETECTORS))
    if unknown:
        raise BadInputError(
            "CRDS cache", "detectors", f"unknown: {', '.join(unknown)}", "use WFI01 to WFI18"
        )
    return wanted


def _existing_ledger(path: Path) -> _Ledger:
    if not (path / _LEDGER).is_file():
        raise BadInputError(path, str(_LEDGER), "no cache of the simulated instrument", "build one")
    return _Ledger.read(path)


def _open_ledger(path: Path, settings: CacheSettings) -> _Ledger:
    if not (path / _LEDGER).is_file():
        return _Ledger(settings)
    ledger = _Ledger.read(path)
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


def _remove_leftovers(directory: Path) -> None:
    """Delete what an interrupted build was writing; the lock is held, so nobody still does."""
    for leftover in directory.glob(".*"):
        leftover.unlink()


def _cover_fields(path: Path, ledger: _Ledger, fields: Sequence[SkyCircle]) -> None:
    catalog = path / ASTROMETRIC_CATALOG
    lacking = [circle for circle in fields if circle not in ledger.fields]
    if not lacking and catalog.is_file():
        return
    ledger.fields = [*ledger.fields, *dict.fromkeys(lacking)]
    stars = Scene(ledger.settings.seed).reference_stars(ledger.fields)
    content = io.BytesIO()
    Table(stars).write(content, format="fits")
    write_durably(catalog, content.getvalue())


def _coverage(ledger: _Ledger) -> dict[str, frozenset[OpticalElement]]:
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
    ledger: _Ledger,
    coverage: Mapping[str, frozenset[OpticalElement]],
    progress: Callable[[str, int, int], None] | None,
) -> tuple[str, ...]:
    catalog = str((path / ASTROMETRIC_CATALOG).absolute())
    if ledger.location != catalog:
        # the parameter reference of tweakreg holds the catalogue's absolute path
        if former := ledger.files.pop(_tweakreg_parameters(catalog).key, None):
            (path / REFERENCES / former).unlink(missing_ok=True)
        ledger.location = catalog
    lacking = [
        reference
        for reference in _references(path, ledger, coverage)
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


def _free_name(path: Path, reference: _Reference) -> str:
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


def _references(
    path: Path, ledger: _Ledger, coverage: Mapping[str, frozenset[OpticalElement]]
) -> Iterator[_Reference]:
    """Yield every reference file that a cache of this coverage has."""
    window, seed = ledger.settings.window, ledger.settings.seed
    yield _Reference("darkdecaysignal", "", lambda: references.darkdecaysignal(window, seed))
    yield _Reference(
        "skycells",
        _purpose_of_fields(ledger),
        lambda: references.skycells(*skymap(ledger.fields)),
    )
    yield _Reference("matable", "", references.matable)
    for pole, sign in _GALACTIC_POLES.items():
        yield _Reference("dustmap", pole, _bound(references.dustmap, sign), "fits")
    yield from _parameter_references(ledger)
    for detector, filters in sorted(coverage.items()):
        response = DetectorResponse(detector, window, seed)
        yield from _detector_references(response)
        for element in sorted(filters):
            yield from _flats(response, element)
    for detector, filters in _shapes(coverage).items():
        for element in sorted(filters):
            yield _epsf(detector, element, window)
        yield _apcorr(path, ledger, detector, filters)


def _shapes(
    coverage: Mapping[str, frozenset[OpticalElement]],
) -> dict[str, frozenset[OpticalElement]]:
    """Return the filters of each detector whose images of stars are needed: coadds need more."""
    everywhere = frozenset[OpticalElement]().union(*coverage.values())
    return dict(sorted(coverage.items())) | {COADD_DETECTOR: everywhere}


def _purpose_of_fields(ledger: _Ledger) -> str:
    return ";".join(f"{circle.ra},{circle.dec},{circle.radius}" for circle in ledger.fields)


def _detector_references(response: DetectorResponse) -> Iterator[_Reference]:
    detector, window = response.detector, response.window
    kinds: dict[str, Callable[[DetectorResponse], Any]] = {
        "mask": references.mask,
        "saturation": references.saturation,
        "gain": references.gain,
        "readnoise": references.readnoise,
        "dark": references.dark,
        "linearity": references.linearity,
        "inverselinearity": references.inverselinearity,
        "integralnonlinearity": references.integralnonlinearity,
        "photom": references.photom,
        "ipc": references.ipc,
    }
    if window is None:
        kinds["refpix"] = references.refpix
    for kind, make in kinds.items():
        yield _Reference(kind, detector, _bound(make, response))
    yield _Reference(
        "photom",
        f"{detector} early",
        lambda: references.photom(response, scale=_EARLY_PHOTOM_SCALE),
    )
    yield _Reference(
        "distortion",
        detector,
        lambda: references.distortion_reference(detector, OpticalElement.F158, window),
    )


def _flats(response: DetectorResponse, element: OpticalElement) -> Iterator[_Reference]:
    purpose = f"{response.detector} {element}"
    yield _Reference("flat", purpose, lambda: references.flat(response, element))
    yield _Reference("flat", f"{purpose} early", lambda: references.ground_flat(response, element))


def _epsf(detector: str, element: OpticalElement, window: int | None) -> _Reference:
    return _Reference(
        "epsf",
        f"{detector} {element}",
        lambda: references.epsf(detector, element, effective_psf(detector, element, window)),
    )


def _apcorr(
    path: Path, ledger: _Ledger, detector: str, filters: frozenset[OpticalElement]
) -> _Reference:
    def make() -> Any:
        grids = {
            element: _read_epsf(path / REFERENCES / ledger.files[f"epsf {detector} {element}"])
            for element in filters
        }
        return references.apcorr(detector, grids)

    return _Reference("apcorr", _apcorr_purpose(detector, filters), make)


def _apcorr_purpose(detector: str, filters: frozenset[OpticalElement]) -> str:
    return f"{detector} {','.join(sorted(filters))}".rstrip()


def _bound(make: Callable[[Any], Any], argument: Any) -> Maker:
    return lambda: make(argument)


def _tweakreg_parameters(catalog: str) -> _Reference:
    return _Reference(
        "pars-tweakregstep",
        "",
        lambda: references.step_parameters(
            "romancal.step.TweakRegStep", abs_refcat=catalog, **_TWEAKREG_MATCHING
        ),
    )


def _parameter_references(ledger: _Ledger) -> Iterator[_Reference]:
    yield _tweakreg_parameters(ledger.location)
    for step in ("ResampleStep", "OutlierDetectionStep"):
        yield _step_parameters(step, weight_type="exptime")
    if ledger.settings.window is not None:
        yield _step_parameters("DarkDecayStep", skip=True)


def _step_parameters(step: str, **parameters: Any) -> _Reference:
    return _Reference(
        f"pars-{step.lower()}",
        "",
        lambda: references.step_parameters(f"romancal.step.{step}", **parameters),
    )


_EARLY = frozenset({"flat", "photom"})
"""Kinds of which the first context has files of its own."""


def _write_mappings(
    path: Path, ledger: _Ledger, coverage: Mapping[str, frozenset[OpticalElement]]
) -> None:
    """Write the mappings of both contexts from the bottom up, so each names what exists."""
    for number, context in enumerate(CONTEXTS, start=1):
        early = context != CONTEXTS[-1]
        names = {}
        for kind, selections in _selections(ledger, coverage, early=early).items():
            serial = 1 if early or kind not in _EARLY else 2
            names[kind] = f"roman_wfi_{kind}_{serial:04d}.rmap"
            if serial == number or kind not in _EARLY:
                header = _rmap_header(kind, names[kind])
                _write_mapping(path, header, "Match", _select(selections, header["parkey"]))
        instrument = f"roman_wfi_{number:04d}.imap"
        # a kind that a context does not name at all is an error in every log
        kinds = dict.fromkeys((*crds.roman.FILEKINDS, *_UNLISTED_KINDS), _NONE) | names
        _write_mapping(path, _context_header("INSTRUMENT", instrument, ("REFTYPE",)), "", kinds)
        header = _context_header("PIPELINE", context, ("ROMAN.META.INSTRUMENT.NAME",))
        _write_mapping(path, header, "", {"WFI": instrument})


def _selections(
    ledger: _Ledger, coverage: Mapping[str, frozenset[OpticalElement]], *, early: bool
) -> dict[str, dict[tuple[str, ...], str]]:
    """Return for each kind the file of each combination of its matching parameters."""
    files = ledger.files
    chosen: dict[str, dict[tuple[str, ...], str]] = {
        "darkdecaysignal": {(): files["darkdecaysignal"]},
        "matable": {(): files["matable"]},
        "skycells": {(): files[f"skycells {_purpose_of_fields(ledger)}"]},
    }
    chosen["dustmap"] = {(pole,): files[f"dustmap {pole}"] for pole in _GALACTIC_POLES}
    for reference in _parameter_references(ledger):
        by_detector = reference.kind == "pars-outlierdetectionstep"
        match: tuple[str, ...] = (_ANY_TYPE, _ANY_DETECTOR) if by_detector else (_ANY_TYPE,)
        chosen[reference.kind] = {match: files[reference.key]}
    for detector, filters in sorted(coverage.items()):
        rows = _detector_selections(files, detector, filters, early=early)
        for kind, match, name in rows:
            chosen.setdefault(kind, {})[match] = name
    for detector, filters in _shapes(coverage).items():
        apcorr = _apcorr_purpose(detector, filters)
        chosen.setdefault("apcorr", {})[(detector,)] = files[f"apcorr {apcorr}"]
        epsf = chosen.setdefault("epsf", {})
        for element in sorted(filters):
            epsf[detector, str(element)] = files[f"epsf {detector} {element}"]
        epsf[detector, _NO_FILTER] = _NONE
    return chosen


def _detector_selections(
    files: Mapping[str, str],
    detector: str,
    filters: frozenset[OpticalElement],
    *,
    early: bool,
) -> Iterator[tuple[str, tuple[str, ...], str]]:
    suffix = " early" if early else ""
    for kind in (
        "mask", "saturation", "gain", "linearity", "inverselinearity", "integralnonlinearity",
    ):  # fmt: skip
        yield kind, (detector,), files[f"{kind} {detector}"]
    yield "ipc", (detector,), files[f"ipc {detector}"]
    yield "photom", (detector,), files[f"photom {detector}{suffix}"]
    yield "refpix", (detector,), files.get(f"refpix {detector}", _NONE)
    for kind in ("dark", "readnoise"):
        yield kind, (detector, _ANY_TYPE), files[f"{kind} {detector}"]
    yield "distortion", (detector, _ANY_ELEMENT), files[f"distortion {detector}"]
    for element in sorted(filters):
        yield "flat", (detector, str(element)), files[f"flat {detector} {element}{suffix}"]
    yield "flat", (detector, _NO_FILTER), _NONE


def _select(
    selections: Mapping[tuple[str, ...], str], parkey: tuple[tuple[str, ...], ...]
) -> dict[tuple[str, ...], Any]:
    """Add the date after which a file is to be used, where the kind is matched by date."""
    dated = len(parkey) > 1
    return {
        match: {_USE_AFTER: name} if dated and name != _NONE else name
        for match, name in selections.items()
    }


def _rmap_header(kind: str, name: str) -> dict[str, Any]:
    specification = Path(crds.roman.__file__).parent / "specs" / f"wfi_{kind}.rmap"
    known = CrdsMapping.from_file(str(specification), ignore_checksum=True)
    return {
        "derived_from": "generated",
        "filekind": kind.upper(),
        "instrument": "WFI",
        "mapping": "REFERENCE",
        "name": name,
        "observatory": "ROMAN",
        "parkey": known.parkey,
    }


def _context_header(mapping: str, name: str, parkey: tuple[str, ...]) -> dict[str, Any]:
    header = {
        "derived_from": "generated",
        "mapping": mapping,
        "name": name,
        "observatory": "ROMAN",
        "parkey": parkey,
    }
    return header if mapping == "PIPELINE" else header | {"instrument": "WFI"}


def _write_mapping(
    path: Path, header: Mapping[str, Any], selector: str, content: Mapping[Any, Any]
) -> None:
    lines = "".join(
        f"    {key!r} : {_selected(value)},\n" for key, value in sorted(content.items())
    )
    body = (
        f"selector = {selector + '(' if selector else ''}{{\n{lines}}}{')' if selector else ''}\n"
    )

    def text(checksum: str) -> str:
        rows = sorted((dict(header) | {"sha1sum": checksum}).items())
        listed = "".join(f"    {key!r} : {value!r},\n" for key, value in rows)
        return f"header = {{\n{listed}}}\n\n{body}"

    # the checksum is that of the text without its own line
    covered = "".join(row for row in text("").splitlines(True) if "sha1sum" not in row)
    complete = text(crds_utils.str_checksum(covered)).encode()
    target = path / MAPPINGS / str(header["name"])
    if not target.is_file() or target.read_bytes() != complete:
        write_durably(target, complete)


def _selected(value: Any) -> str:
    return f"UseAfter({value!r})" if isinstance(value, dict) else repr(value)


def _write_server_config(path: Path, context: str) -> None:
    content = {
        "observatory": "roman",
        "operational_context": context,
        "latest_context": context,
        "bad_files_list": [],
        "force_remote_mode": False,
        "last_synced": _USE_AFTER,
    }
    write_durably(path / _SERVER_CONFIG, f"{content!r}\n".encode())
