"""What the grism and prism pipeline makes of an exposure, and of a visit."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import asdf
import numpy as np
import pandas as pd
from astropy.table import Table

from roman_assets import __version__
from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError
from roman_assets.products.kind import KIND_BY_NAME
from roman_assets.products.name import DetectorFileSet, GroupFileSet, ProductName
from roman_assets.products.observation import ExposureId, VisitId
from roman_assets.reader.archive_reader import ArchiveReader
from roman_assets.records.record import ProductInput
from roman_assets.references.context import astrometric_catalog
from roman_assets.simulation.ssc.dispersion import dispersion_of
from roman_assets.simulation.ssc.draft import DeliveryDraft, write_table
from roman_assets.simulation.ssc.images import as_input, handed_over, visit_of
from roman_assets.simulation.ssc.source_list import SourceList, sources_of_field
from roman_assets.simulation.ssc.spectra import PIXEL_SCALE, Extraction, Spectrum, combined, extract
from roman_assets.simulation.ssc.spectral_image import SpectralImage, read_spectral_image
from roman_assets.ssc.handover import HandoverManifest

FLUX_UNIT, WAVELENGTH_UNIT = "W m**(-2) nm**(-1)", "nm"
_UNITS = {
    "wavelength": WAVELENGTH_UNIT, "flux": FLUX_UNIT, "flux_error": FLUX_UNIT, "ra": "deg",
    "dec": "deg", "semimajor": "arcsec", "x": "pix", "y": "pix", "wavelength_min": WAVELENGTH_UNIT,
    "wavelength_max": WAVELENGTH_UNIT, "median_flux": FLUX_UNIT,
}  # fmt: skip
CONTAMINATED = 0.1
"""Part of the light in a source's aperture that is of others from which on reports count it."""
LEAST_SIGNAL = 3.0
"""Spectra whose median row is less above its noise are located, and not delivered."""


def extract_all(
    root: DataRoot, manifest: HandoverManifest, archive: ArchiveReader
) -> tuple[SourceList, list[tuple[Extraction, ProductInput]]]:
    """Extract the spectra of all images of a manifest.

    Returns
    -------
    SourceList, list
        The sources, and what each image gave.

    Raises
    ------
    BadInputError
        If nobody says where sources are.
    """
    path = astrometric_catalog(root)
    if path is None:
        raise BadInputError(
            root.crds, "astrometric catalogue", "there is none: where are the sources?",
            "put one into the CRDS cache (docs/calibration.md)",
        )  # fmt: skip
    images = [read_spectral_image(handed_over(archive, image)) for image in manifest.images]
    circles = [_circle(image) for image in images]
    sources = sources_of_field(archive, Table.read(path), circles, manifest.release)
    inputs = [as_input(image) for image in manifest.images]
    return sources, [
        (extract(image, sources), stated) for image, stated in zip(images, inputs, strict=True)
    ]


def _circle(image: SpectralImage) -> tuple[float, float, float]:
    """Return a circle (ra, dec, radius, degrees) with all that shines into an image."""
    height, width = image.data.shape
    ra, dec = image.wcs((width - 1) / 2, (height - 1) / 2)
    order = float(np.ptp(image.dispersion.offset))
    return float(ra), float(dec), (np.hypot(width, height) / 2 + order) * PIXEL_SCALE / 3600


def deliver_exposure(
    root: DataRoot, manifest: HandoverManifest, archive: ArchiveReader, directory: Path
) -> None:
    """Make what is made of an exposure, detector by detector."""
    exposure = ExposureId.parse(manifest.partition)
    sources, extractions = extract_all(root, manifest, archive)
    first = extractions[0][0]
    draft = DeliveryDraft(directory, _common(manifest, exposure.visit, extractions))
    for extraction, image in extractions:
        file_set = DetectorFileSet(exposure, extraction.image.detector, manifest.optical_element)
        own = {**_of_exposure(exposure.visit, extraction), **_wavelengths(first)}
        made_from = [image, *sources.inputs]
        _write_location_table(draft, file_set, extraction, sources, made_from, own)
        _write_decontaminated(draft, file_set, extraction, sources, made_from, own)
        _write_spectra(draft, file_set, extraction, sources, made_from, own)
        _write_quality(draft, file_set, extraction, sources, made_from, own)
    draft.finish()


def deliver_visit(
    root: DataRoot, manifest: HandoverManifest, archive: ArchiveReader, directory: Path
) -> None:
    """Make what is made of a visit: combined spectra, their catalogue and its quality."""
    visit = visit_of(manifest)
    sources, extractions = extract_all(root, manifest, archive)
    draft = DeliveryDraft(directory, _common(manifest, visit, extractions))
    first = extractions[0][0]
    inputs = [*(image for _, image in extractions), *sources.inputs]
    group = GroupFileSet(
        visit.program, manifest.release_id, visit.grouping, manifest.optical_element
    )
    spectra = _combined_table(sources, extractions)
    name = _name("spec_combined_1d", group)
    write_table(draft.path(name), spectra, _UNITS)
    combined_1d = draft.add(name, inputs, _wavelengths(first))
    catalog = (
        spectra.assign(signal=spectra["flux"] / spectra["flux_error"])
        .groupby("source_id", as_index=False)
        .agg(
            ra=("ra", "first"), dec=("dec", "first"), signal_to_noise=("signal", "median"),
            median_flux=("flux", "median"), wavelength_min=("wavelength", "min"),
            wavelength_max=("wavelength", "max"), points=("wavelength", "size"),
        )
    )  # fmt: skip
    name = _name("spec_catalog", group)
    write_table(draft.path(name), catalog, _UNITS)
    numbers = {"catalog_id": visit.visit, "file_number": 1}
    stated = draft.add(name, [combined_1d, *inputs], numbers)
    name = _name("spec_catalog_dqa", group)
    quality = {
        "sources": len(catalog),
        "images": len(extractions),
        "median_signal_to_noise": float(catalog["signal_to_noise"].median())
        if len(catalog)
        else None,
    }
    draft.path(name).write_text(json.dumps(quality, indent=2))
    draft.add(name, [stated], numbers)
    draft.finish()


def _combined_table(
    sources: SourceList, extractions: Sequence[tuple[Extraction, ProductInput]]
) -> pd.DataFrame:
    by_source: dict[int, list[Spectrum]] = {}
    for extraction, _ in extractions:
        for spectrum in _good(extraction):
            by_source.setdefault(spectrum.number, []).append(spectrum)
    image = extractions[0][0].image
    dispersion = dispersion_of(image.element, image.detector)
    steps = np.arange(np.ceil(dispersion.offset[0]), dispersion.offset[-1])
    grid = dispersion.wavelength_at(steps)
    tables = []
    for number, spectra in sorted(by_source.items()):
        flux, error = combined(spectra, grid)
        seen = np.isfinite(flux)
        tables.append(
            pd.DataFrame({
                "source_id": sources.identity[number], "ra": sources.ra[number],
                "dec": sources.dec[number],
                "wavelength": grid[seen], "flux": flux[seen], "flux_error": error[seen],
            })
        )  # fmt: skip
    columns = ["source_id", "ra", "dec", "wavelength", "flux", "flux_error"]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)


def _contamination(spectrum: Spectrum) -> float:
    return float(np.median(spectrum.contamination[spectrum.usable]))


def _good(extraction: Extraction) -> list[Spectrum]:
    return [one for one in extraction.spectra if one.signal_to_noise > LEAST_SIGNAL]


def _write_location_table(
    draft: DeliveryDraft, file_set: DetectorFileSet, extraction: Extraction, sources: SourceList,
    made_from: Sequence[ProductInput], own: Mapping[str, Any],
) -> None:  # fmt: skip
    rows = [
        {
            "source_id": int(sources.identity[one.number]),
            "ra": float(sources.ra[one.number]),
            "dec": float(sources.dec[one.number]),
            "x": one.x,
            "y": one.y,
            "semimajor": float(sources.semimajor[one.number]),
            "row_min": int(np.flatnonzero(one.usable)[0]),
            "row_max": int(np.flatnonzero(one.usable)[-1]),
            "wavelength_min": float(one.wavelength[one.usable].min()),
            "wavelength_max": float(one.wavelength[one.usable].max()),
            "contamination": _contamination(one),
        }
        for one in extraction.spectra
    ]
    name = _name("spec_location_table", file_set)
    write_table(draft.path(name), pd.DataFrame(rows), _UNITS)
    located = {
        "dither": extraction.image.meta["exposure"], "detector": extraction.image.detector,
        "num_src": len(rows), "optical_model": "roman-technical-information, field centre",
        "v3yangle": extraction.image.meta["v3yangle"],
    }  # fmt: skip
    draft.add(name, made_from, {**own, **located})


def _write_decontaminated(
    draft: DeliveryDraft, file_set: DetectorFileSet, extraction: Extraction, sources: SourceList,
    made_from: Sequence[ProductInput], own: Mapping[str, Any],
) -> None:  # fmt: skip
    name = _name("spec_decontam_2d", file_set)
    spectra = []
    for one in _good(extraction):
        data, error, first_column = extraction.decontaminated(one)
        spectra.append({
            "source_id": int(sources.identity[one.number]), "first_column": first_column,
            "data": data.astype(np.float32), "error": error.astype(np.float32),
            "wavelength": one.wavelength, "unit": "electron / s",
        })  # fmt: skip
    tree = {"roman": {"meta": {"filename": str(name)}, "spectra": spectra}}
    asdf.AsdfFile(tree).write_to(draft.path(name))
    draft.add(name, made_from, own)


def _write_spectra(
    draft: DeliveryDraft, file_set: DetectorFileSet, extraction: Extraction, sources: SourceList,
    made_from: Sequence[ProductInput], own: Mapping[str, Any],
) -> None:  # fmt: skip
    tables = [
        pd.DataFrame({
            "source_id": int(sources.identity[one.number]), "ra": float(sources.ra[one.number]),
            "dec": float(sources.dec[one.number]),
            "row": np.flatnonzero(one.usable), "wavelength": one.wavelength[one.usable],
            "flux": one.flux[one.usable], "flux_error": one.error[one.usable],
            "contamination": one.contamination[one.usable],
        })
        for one in _good(extraction)
    ]  # fmt: skip
    columns = ["source_id", "ra", "dec", "row", "wavelength", "flux", "flux_error", "contamination"]
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)
    name = _name("spec_individual_1d", file_set)
    write_table(draft.path(name), table, _UNITS)
    draft.add(name, made_from, own)


def _write_quality(
    draft: DeliveryDraft, file_set: DetectorFileSet, extraction: Extraction, sources: SourceList,
    made_from: Sequence[ProductInput], own: Mapping[str, Any],
) -> None:  # fmt: skip
    name = _name("spec_dqa_2d", file_set)
    quality = {
        "sources": len(extraction.spectra), "delivered": len(_good(extraction)),
        "shift_pixels": list(extraction.shift),
        "sources_of_direct_images": int(np.isfinite(sources.flux).sum()),
        "profile": asdict(extraction.profile),
        "contaminated": sum(_contamination(one) > CONTAMINATED for one in extraction.spectra),
        "median_background_electrons": float(np.median(extraction.background)),
    }  # fmt: skip
    draft.path(name).write_text(json.dumps(quality, indent=2))
    draft.add(name, made_from, own)


def _name(kind: str, file_set: DetectorFileSet | GroupFileSet) -> ProductName:
    return ProductName(file_set, KIND_BY_NAME[kind])


def _common(
    manifest: HandoverManifest, visit: VisitId,
    extractions: Sequence[tuple[Extraction, ProductInput]],
) -> dict[str, Any]:  # fmt: skip
    images = [extraction.image for extraction, _ in extractions]
    middle = (np.array(images[0].data.shape[::-1]) - 1) / 2
    ra, dec = (float(angle) for angle in images[0].wcs(*middle))
    return {
        "program": visit.program, "program_complete": False,
        "data_release_id": manifest.release_id[:3],
        "optical_element": manifest.optical_element.lower(),
        "s_region": images[0].meta["s_region"],
        "visit_start_time_mjd": min(image.meta["start_mjd"] for image in images),
        "visit_end_time_mjd": max(image.meta["end_mjd"] for image in images),
        "wcs_field_center_ra": ra, "wcs_field_center_dec": dec, "cdp_ctx": 1,
        "version_g2dp_software": f"roman-assets {__version__}",
        "g2dp_run_id": manifest.digest[:12],
    }  # fmt: skip


def _of_exposure(visit: VisitId, extraction: Extraction) -> dict[str, Any]:
    return {
        "segment": visit.segment, "visit": visit.visit, "observation_id": visit.digits,
        "exptime": extraction.image.meta["exposure_time"],
    }  # fmt: skip


def _wavelengths(extraction: Extraction) -> dict[str, Any]:
    dispersion = extraction.image.dispersion
    calibrated = dispersion.wavelength[dispersion.calibrated(dispersion.offset)]
    span = str([round(float(calibrated.min()), 1), round(float(calibrated.max()), 1)])
    return {
        "wl_contamination_range": span, "wl_reference": dispersion.reference,
        "wl_snr_global_range": span, "unit_flux": FLUX_UNIT, "unit_wl": WAVELENGTH_UNIT,
        "phot_filter_cut_off": "F158",
    }  # fmt: skip
