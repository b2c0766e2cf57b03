"""One detector through romancal's ExposurePipeline: what a worker does for an exposure (R4, R5).

romancal is imported in the functions: the process that only hands out the work need not load it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC
from pathlib import Path
from typing import Any, Self

from roman_assets.archive.durability import disk_space
from roman_assets.calibration.preview import try_previews
from roman_assets.errors import BadInputError
from roman_assets.formatting.orbit_ephemeris import open_ephemeris
from roman_assets.products.kind import KIND_BY_NAME
from roman_assets.products.name import ProductName
from roman_assets.products.pointing import ALIGNED, ALIGNMENT_FAILED, PointingSource
from roman_assets.publishing.provenance import crds_explained, references_of
from roman_assets.reader.product_comparison import FileChange, compare_files

_MADE_WITH_CAL = ("cal", "supplement", "exposure_catalog", "exposure_segmentation")
_FORMAT_AGAIN = "format the exposure again from its packets, or deliver its L1 corrected"


@dataclass(frozen=True)
class DetectorTask:
    """One detector to calibrate.

    Parameters
    ----------
    uncal
        The L1 file under its official name, in a directory of its own; the products are written
        beside it.
    ephemeris
        The definitive orbit file (CCSDS OEM) that covers the exposure, if there is one.
    astrometric_catalog
        Reference positions for the alignment, None for romancal's own choice.
    before
        Files of the generation that will be overwritten, by name of the product kind, to be
        compared; empty where there is none.
    """

    uncal: Path
    ephemeris: Path | None = None
    astrometric_catalog: Path | None = None
    before: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class DetectorQuality:
    """How good an L2 image is, in the figures people ask for first.

    Parameters
    ----------
    alignment
        Status of romancal's tweakreg step.
    alignment_matches
        Sources matched with the astrometric reference catalogue.
    alignment_rms
        Scatter of the matched sources about it after the alignment, mas.
    source_count
        Sources in the single-band catalogue, None where none is made.
    bad_pixel_fraction
        Of the image, flagged ``DO_NOT_USE`` or without a value.
    background
        Median of the good pixels, DN/s.
    pointing
        What the WCS goes back to.
    alignment_uncertainty
        Expected error of the common pointing at the image, mas; None where none was computed.
    """

    alignment: str
    alignment_matches: int | None
    alignment_rms: float | None
    source_count: int | None
    bad_pixel_fraction: float
    background: float | None
    pointing: PointingSource
    alignment_uncertainty: float | None = None

    @classmethod
    def of(cls, image: Any, catalog: Any | None) -> Self:
        """Read the figures that romancal left in the L2 image and its catalogue."""
        fit = image.meta.get("wcs_fit_results") or {}
        rms = fit.get("rmse")
        background = float(image.meta.statistics.image_median)
        alignment = str(image.meta.cal_step.tweakreg)
        return cls(
            alignment=alignment,
            alignment_matches=fit.get("nmatches"),
            alignment_rms=None if rms is None else 1e3 * float(rms),
            source_count=None if catalog is None else len(catalog.source_catalog),
            bad_pixel_fraction=1.0 - float(image.meta.statistics.good_pixel_fraction),
            background=background if math.isfinite(background) else None,
            pointing=PointingSource.OWN if alignment == ALIGNED else PointingSource.PLANNED,
        )

    @property
    def is_unaligned(self) -> bool:
        """Whether romancal looked for stars to align the image with, in vain."""
        return self.alignment == ALIGNMENT_FAILED

    @property
    def needs_others(self) -> bool:
        """Whether its pointing depends on other images of the exposure."""
        return self.is_unaligned or self.pointing is PointingSource.COMMON

    def metadata_of(self, kind: str) -> dict[str, Any]:
        """Return the known figures that concern a product kind, as the registry keeps them."""
        figures = asdict(self) if kind == "cal" else {}
        if kind == "exposure_catalog":
            figures["source_count"] = self.source_count
        if kind == "supplement":
            figures["pointing"] = self.pointing
        return {name: value for name, value in figures.items() if value is not None}


@dataclass(frozen=True)
class CalibratedDetector:
    """What was made of one detector.

    Parameters
    ----------
    files
        By name of the product kind; L4 kinds only where romancal extracts sources.
    context
        CRDS pipeline context that romancal used.
    references
        Reference files it used, by kind.
    quality
        Of the L2 image.
    change
        What is different from the L2 image before, None if there is none to compare with.
    not_compared
        Why they could not be compared, empty otherwise.
    not_drawn
        Why there are no pictures of the L2 image, empty otherwise.
    """

    files: Mapping[str, Path]
    context: str
    references: Mapping[str, str]
    quality: DetectorQuality
    change: FileChange | None = None
    not_compared: str = ""
    not_drawn: str = ""


def calibrate_detector(task: DetectorTask) -> CalibratedDetector:
    """Make L2 with its pictures, the L1 supplement, the source catalogue and segmentation map.

    The working directory of the process becomes that of the L1 file, so that the products name
    each other by official file names and no path of this machine is written into them.

    Raises
    ------
    BadInputError
        If the L1 file cannot be used, or a reference file is missing.
    PassingFaultError
        If the disk is full.
    Exception
        Whatever a step of romancal raises.
    """
    from romancal.pipeline import ExposurePipeline

    os.chdir(task.uncal.parent)
    with disk_space(task.uncal.parent), crds_explained(task.uncal.name):
        require_usable(task.uncal)
        image, catalog, _ = ExposurePipeline.call(
            task.uncal.name,
            save_results=True,
            steps=_step_arguments(task),
            configure_log=False,
        )
        files = _written(task.uncal)
        if task.ephemeris is not None:
            _refine_ephemeris(files["supplement"], task.ephemeris)
        change, not_compared = compare_with_former(task.before, files)
        pictures = try_previews(
            image, ProductName.parse(files["cal"].name), task.uncal.parent.absolute()
        )
    return CalibratedDetector(
        files={**files, **pictures.files},
        context=str(image.meta.ref_file.crds.context),
        references=references_of(image),
        quality=DetectorQuality.of(image, catalog),
        change=change,
        not_compared=not_compared,
        not_drawn=pictures.failure,
    )


def compare_with_former(
    before: Mapping[str, Path], files: Mapping[str, Path]
) -> tuple[FileChange | None, str]:
    """Compare an image with the one that it overwrites; a failure is told and stops nothing.

    Parameters
    ----------
    before, files
        Files by name of the product kind, as in `DetectorTask` and `CalibratedDetector`.
    """
    if "cal" not in before:
        return None, ""
    kind = "exposure_catalog"
    catalogs = (before[kind], files[kind]) if kind in before and kind in files else None
    name = ProductName.parse(files["cal"].name)
    try:
        return compare_files(before["cal"], files["cal"], name, catalogs), ""
    except Exception as error:
        # the record is public: it names no directory of this machine
        text = str(error)
        for path in (*before.values(), *files.values()):
            text = text.replace(f"{path.parent}/", "")
        return None, f"{type(error).__name__}: {text}"


def _step_arguments(task: DetectorTask) -> dict[str, dict[str, Any]]:
    if task.astrometric_catalog is None:
        return {}
    # by a name of its own: tweakreg writes what it is told into the WCS
    catalog = task.uncal.with_name(task.astrometric_catalog.name)
    catalog.symlink_to(task.astrometric_catalog)
    return {"tweakreg": {"abs_refcat": catalog.name}}


def require_usable(uncal: Path) -> None:
    """Refuse an L1 file that romancal would fail on, or worse, not fail on.

    Raises
    ------
    BadInputError
        If it is not a valid L1 model, or its shape is not that of its reads and of the detector's
        references.
    """
    from asdf.exceptions import ValidationError
    from roman_datamodels import datamodels

    try:
        with datamodels.open(uncal) as model:
            _require_level1(uncal, model)
    except ValidationError as error:
        path = ".".join(str(part) for part in error.absolute_path) or "content"
        raise BadInputError(uncal.name, path, error.message, _FORMAT_AGAIN) from error
    except (OSError, ValueError, TypeError) as error:
        raise BadInputError(
            uncal.name, "file", f"not readable as ASDF: {error}", _FORMAT_AGAIN
        ) from error


def _require_level1(uncal: Path, model: Any) -> None:
    from roman_datamodels import datamodels

    if not isinstance(model, datamodels.ScienceRawModel):
        raise BadInputError(
            uncal.name, "roman", f"it holds a {type(model).__name__}", _FORMAT_AGAIN
        )
    reads = len(model.meta.exposure.read_pattern)
    expected = (reads, *_reference_shape(model))
    if model.data.shape != expected:
        raise BadInputError(
            uncal.name,
            "data",
            f"its shape is {model.data.shape}; {reads} resultants of this detector have the "
            f"shape {expected}",
            f"{_FORMAT_AGAIN}, or deliver references of its size",
        )


def _reference_shape(model: Any) -> tuple[int, ...]:
    import asdf
    import crds

    mask = crds.getreferences(
        model.get_crds_parameters(), reftypes=["mask"], observatory=model.crds_observatory
    )["mask"]
    with asdf.open(mask) as file:
        shape: tuple[int, ...] = file["roman"]["dq"].shape
    return shape


def _written(uncal: Path) -> dict[str, Path]:
    file_set = ProductName.parse(uncal.name).file_set
    paths = {
        kind: uncal.with_name(str(ProductName(file_set, KIND_BY_NAME[kind])))
        for kind in _MADE_WITH_CAL
    }
    return {kind: path for kind, path in paths.items() if path.is_file()}


def _refine_ephemeris(supplement: Path, orbit_file: Path) -> None:
    """Replace the ephemeris of L1 by the definitive one, for the same moment (R4)."""
    from astropy.time import Time
    from roman_datamodels import datamodels

    from roman_assets.formatting.orbit_ephemeris import ephemeris_metadata

    ephemeris = open_ephemeris(orbit_file)
    with datamodels.open(supplement) as model:
        moment = Time(model.meta.ephemeris.time, format="mjd", scale="utc").to_datetime(UTC)
        model.meta.ephemeris = ephemeris_metadata(ephemeris.state(moment), ephemeris.kind)
        refined = supplement.parent / "refined" / supplement.name
        refined.parent.mkdir(exist_ok=True)
        model.save(refined)
    refined.replace(supplement)
