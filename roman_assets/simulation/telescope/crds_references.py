"""The reference files that a simulated CRDS cache has, each with what it is for.

Parameter references set what the simulated sky or a window needs:

- ``tweakreg``: ``abs_refcat`` is the simulated sky's astrometric catalogue, in the cache.
  Matching is stricter (``abs_tolerance`` 0.3 arcsec, clipping at 2.5 sigma, ten times): in a
  window with two dozen stars, two or three false matches within the default 0.7 arcsec survive
  its clipping and bend the fit by 0.1 arcsec.
- ``resample``, ``outlier_detection``: ``weight_type`` is ``exptime``. The default, inverse
  variance per pixel, gives bright pixels of a star less weight than faint ones, which costs
  0.14 to 0.23 mag in the demo's coadds (docs/calibration.md).
- ``dark_decay``: skipped in windows, for which romancal has no read times; so is ``refpix``,
  through an ``N/A`` entry.

``matable`` and ``ipc`` are for romanisim (``romanisim-make-image --usecrds``); romancal reads
neither.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from roman_datamodels import datamodels

from roman_assets.products.observation import OpticalElement
from roman_assets.simulation.telescope import references, sky_references
from roman_assets.simulation.telescope.crds_ledger import REFERENCES, CacheLedger
from roman_assets.simulation.telescope.effective_psf import EpsfGrid, effective_psf
from roman_assets.simulation.telescope.response import DetectorResponse
from roman_assets.simulation.telescope.skymap import skymap

COADD_DETECTOR = "WFI02"
"""The detector in whose name romancal looks up the ePSF and aperture corrections of coadds."""
_EARLY_PHOTOM_SCALE = 0.98
_TWEAKREG_MATCHING = {"abs_tolerance": 0.3, "abs_sigma": 2.5, "abs_nclip": 10}
GALACTIC_POLES = {"north": 1, "south": -1}

Maker = Callable[[], Any]


@dataclass(frozen=True)
class PlannedReference:
    """One reference file to be: its kind, what it is for, and how it is made."""

    kind: str
    purpose: str
    make: Maker
    extension: str = "asdf"

    @property
    def key(self) -> str:
        """What the ledger knows the file by."""
        return f"{self.kind} {self.purpose}".rstrip()


def read_epsf(path: Path) -> EpsfGrid:
    """Read the ePSFs of a reference file."""
    with datamodels.open(path) as model:
        meta = model.meta
        return EpsfGrid(
            np.array(model.psf),
            tuple(float(x) for x in meta.pixel_x),
            tuple(float(y) for y in meta.pixel_y),
            tuple(int(waves) for waves in meta.defocus),
            int(meta.oversample),
        )


def cache_references(
    path: Path, ledger: CacheLedger, coverage: Mapping[str, frozenset[OpticalElement]]
) -> Iterator[PlannedReference]:
    """Yield every reference file that a cache of this coverage has."""
    window, seed = ledger.settings.window, ledger.settings.seed
    yield PlannedReference("darkdecaysignal", "", lambda: references.darkdecaysignal(window, seed))
    yield PlannedReference(
        "skycells",
        purpose_of_fields(ledger),
        lambda: sky_references.skycells(*skymap(ledger.fields)),
    )
    yield PlannedReference("matable", "", references.matable)
    for pole, sign in GALACTIC_POLES.items():
        yield PlannedReference("dustmap", pole, _bound(sky_references.dustmap, sign), "fits")
    yield from parameter_references(ledger)
    for detector, filters in sorted(coverage.items()):
        response = DetectorResponse(detector, window, seed)
        yield from _detector_references(response)
        for element in sorted(filters):
            yield from _flats(response, element)
    for detector, filters in shapes_of(coverage).items():
        for element in sorted(filters):
            yield _epsf(detector, element, window)
        yield _apcorr(path, ledger, detector, filters)


def shapes_of(
    coverage: Mapping[str, frozenset[OpticalElement]],
) -> dict[str, frozenset[OpticalElement]]:
    """Return the filters of each detector whose images of stars are needed: coadds need more."""
    everywhere = frozenset[OpticalElement]().union(*coverage.values())
    return dict(sorted(coverage.items())) | {COADD_DETECTOR: everywhere}


def purpose_of_fields(ledger: CacheLedger) -> str:
    """Return what the skycells of the cache are for."""
    return ";".join(f"{circle.ra},{circle.dec},{circle.radius}" for circle in ledger.fields)


def _detector_references(response: DetectorResponse) -> Iterator[PlannedReference]:
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
        "photom": sky_references.photom,
        "ipc": references.ipc,
    }
    if window is None:
        kinds["refpix"] = references.refpix
    for kind, make in kinds.items():
        yield PlannedReference(kind, detector, _bound(make, response))
    yield PlannedReference(
        "photom",
        f"{detector} early",
        lambda: sky_references.photom(response, scale=_EARLY_PHOTOM_SCALE),
    )
    yield PlannedReference(
        "distortion",
        detector,
        lambda: sky_references.distortion_reference(detector, OpticalElement.F158, window),
    )


def _flats(response: DetectorResponse, element: OpticalElement) -> Iterator[PlannedReference]:
    purpose = f"{response.detector} {element}"
    yield PlannedReference("flat", purpose, lambda: references.flat(response, element))
    yield PlannedReference(
        "flat", f"{purpose} early", lambda: references.ground_flat(response, element)
    )


def _epsf(detector: str, element: OpticalElement, window: int | None) -> PlannedReference:
    return PlannedReference(
        "epsf",
        f"{detector} {element}",
        lambda: sky_references.epsf(detector, element, effective_psf(detector, element, window)),
    )


def _apcorr(
    path: Path, ledger: CacheLedger, detector: str, filters: frozenset[OpticalElement]
) -> PlannedReference:
    def make() -> Any:
        grids = {
            element: read_epsf(path / REFERENCES / ledger.files[f"epsf {detector} {element}"])
            for element in filters
        }
        return sky_references.apcorr(detector, grids)

    return PlannedReference("apcorr", apcorr_purpose(detector, filters), make)


def apcorr_purpose(detector: str, filters: frozenset[OpticalElement]) -> str:
    """Return what the aperture corrections of a detector are for."""
    return f"{detector} {','.join(sorted(filters))}".rstrip()


def _bound(make: Callable[[Any], Any], argument: Any) -> Maker:
    return lambda: make(argument)


def tweakreg_parameters(catalog: str) -> PlannedReference:
    """Return the parameter reference of the astrometric fit."""
    return PlannedReference(
        "pars-tweakregstep",
        "",
        lambda: references.step_parameters(
            "romancal.step.TweakRegStep", abs_refcat=catalog, **_TWEAKREG_MATCHING
        ),
    )


def parameter_references(ledger: CacheLedger) -> Iterator[PlannedReference]:
    """Yield the parameter references of a cache."""
    yield tweakreg_parameters(ledger.location)
    for step in ("ResampleStep", "OutlierDetectionStep"):
        yield _step_parameters(step, weight_type="exptime")
    if ledger.settings.window is not None:
        yield _step_parameters("DarkDecayStep", skip=True)


def _step_parameters(step: str, **parameters: Any) -> PlannedReference:
    return PlannedReference(
        f"pars-{step.lower()}",
        "",
        lambda: references.step_parameters(f"romancal.step.{step}", **parameters),
    )
