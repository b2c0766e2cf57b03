"""An installation with places and metadata: three detectors of two programs, and a coadd."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from roman_assets.data_root import DataRoot
from roman_assets.products.kind import Step
from roman_assets.registry.store.fold import fold
from roman_assets_tests.support.small_archive import publish
from roman_assets_tests.support.small_products import archived, moment

VISIT, OTHER_VISIT = "r0001001001001001001", "r0002001001001001001"
FIRST = f"{VISIT}_0001_wfi01_f158"
SECOND = f"{VISIT}_0001_wfi02_f158"
OTHER = f"{OTHER_VISIT}_0001_wfi01_f106"
SKYCELL = "r00010_p_v01001001001001_270p65x01y50_f158"
FILE_SETS = (FIRST, SECOND, OTHER, SKYCELL)


def square(ra: float, dec: float, half: float = 0.06) -> dict[str, Any]:
    """Return the facts of a footprint around a place."""
    low, high = dec - half, dec + half
    corners = f"{ra - half} {low} {ra + half} {low} {ra + half} {high} {ra - half} {high}"
    return {"ra": ra, "dec": dec, "radius": half * 1.5, "footprint": f"POLYGON ICRS {corners}"}


def facts(ra: float, dec: float, start: int, survey: str = "HLWAS") -> dict[str, Any]:
    """Return what a product says of itself."""
    times = {"start_time": moment(start).isoformat(), "end_time": moment(start + 100).isoformat()}
    return {
        "survey": survey, "exposure_type": "WFI_IMAGE", "nexposures": 1, "exposure_time": 139.5,
        "naxis1": 4088, "naxis2": 4088, **times, **square(ra, dec),
    }  # fmt: skip


def add_detector(
    root: DataRoot, file_set: str, ra: float, dec: float, start: int, **about: Any
) -> None:
    """Publish L1, L2 and L4 of a detector."""
    values = {
        "exposure.type": "WFI_IMAGE",
        "program.title": "A 50% survey",
        "statistics.image_median": ra,
    }
    exposure = "_".join(file_set.split("_")[:2])
    common = {"metadata": facts(ra, dec, start, **about), "partition": exposure}
    ramp = archived("wfi_science_raw", {"program.title": "raw"})
    publish(
        root, {f"{file_set}_uncal.asdf": f"ramp {file_set}".encode()}, start,
        step=Step.FORMATTING, **common, **ramp,
    )  # fmt: skip
    publish(
        root,
        {f"{file_set}_cal.asdf": f"image {file_set}".encode()},
        start + 1, context="roman_0001.pmap", **common, **archived("wfi_image", values),
    )  # fmt: skip
    publish(root, {f"{file_set}_cat.parquet": f"sources {file_set}".encode()}, start + 2, **common)


def sky_archive(path: Path) -> DataRoot:
    """Return a new installation."""
    root = DataRoot(path)
    add_detector(root, FIRST, 270.0, 66.0, 0)
    add_detector(root, SECOND, 270.5, 66.0, 1000)
    add_detector(root, OTHER, 10.0, -40.0, 2000, survey="HLTDS")
    coadd = archived("wfi_mosaic", {"wcsinfo.skycell_name": "270p65x01y50"})
    publish(
        root, {f"{SKYCELL}_coadd.asdf": b"coadd"}, 3000, step=Step.VISIT, partition=VISIT,
        metadata=facts(270.0, 66.0, 0), **coadd,
    )  # fmt: skip
    fold(root)
    return root
