"""The mappings of a simulated CRDS cache: which reference file serves which image, by context."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import crds.roman
from crds.core import utils as crds_utils
from crds.core.rmap import Mapping as CrdsMapping

from roman_assets.archive.durability import write_durably
from roman_assets.products.observation import DETECTORS, ExposureType, OpticalElement
from roman_assets.simulation.telescope.crds_ledger import CacheLedger
from roman_assets.simulation.telescope.crds_references import (
    GALACTIC_POLES,
    apcorr_purpose,
    parameter_references,
    purpose_of_fields,
    shapes_of,
)
from roman_assets.simulation.telescope.response import imaging

CONTEXTS = ("roman_0001.pmap", "roman_0002.pmap")
"""The contexts of every cache, oldest first."""
SERVER_CONFIG = Path("config", "roman", "server_config")
MAPPINGS = Path("mappings", "roman")
_USE_AFTER = "2020-01-01 00:00:00"
_NONE = "N/A"
_ANY_TYPE = "|".join(ExposureType)
_ANY_DETECTOR = "|".join(DETECTORS)
_ANY_ELEMENT = "|".join(OpticalElement)
_NO_FILTER = "|".join(element for element in OpticalElement if not imaging(element))

_UNLISTED_KINDS = ("pars-mosaicpipeline",)
"""Kinds that romancal asks for although CRDS does not know them."""
_EARLY = frozenset({"flat", "photom"})
"""Kinds of which the first context has files of its own."""


def write_mappings(
    path: Path, ledger: CacheLedger, coverage: Mapping[str, frozenset[OpticalElement]]
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
    ledger: CacheLedger, coverage: Mapping[str, frozenset[OpticalElement]], *, early: bool
) -> dict[str, dict[tuple[str, ...], str]]:
    """Return for each kind the file of each combination of its matching parameters."""
    files = ledger.files
    chosen: dict[str, dict[tuple[str, ...], str]] = {
        "darkdecaysignal": {(): files["darkdecaysignal"]},
        "matable": {(): files["matable"]},
        "skycells": {(): files[f"skycells {purpose_of_fields(ledger)}"]},
    }
    chosen["dustmap"] = {(pole,): files[f"dustmap {pole}"] for pole in GALACTIC_POLES}
    for reference in parameter_references(ledger):
        by_detector = reference.kind == "pars-outlierdetectionstep"
        match: tuple[str, ...] = (_ANY_TYPE, _ANY_DETECTOR) if by_detector else (_ANY_TYPE,)
        chosen[reference.kind] = {match: files[reference.key]}
    for detector, filters in sorted(coverage.items()):
        rows = _detector_selections(files, detector, filters, early=early)
        for kind, match, name in rows:
            chosen.setdefault(kind, {})[match] = name
    for detector, filters in shapes_of(coverage).items():
        apcorr = apcorr_purpose(detector, filters)
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


def write_server_config(path: Path, context: str) -> None:
    """Declare a context operational, as the CRDS server would."""
    content = {
        "observatory": "roman",
        "operational_context": context,
        "latest_context": context,
        "bad_files_list": [],
        "force_remote_mode": False,
        "last_synced": _USE_AFTER,
    }
    write_durably(path / SERVER_CONFIG, f"{content!r}\n".encode())
