"""One skycell through romancal's MosaicPipeline: what a worker does for a visit (R9, R10).

romancal is imported in the functions: the process that only hands out the work need not load it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asdf
import numpy as np
import numpy.typing as npt

from roman_assets.archive.durability import disk_space
from roman_assets.calibration.preview import try_previews
from roman_assets.errors import PlatformError
from roman_assets.products.kind import KIND_BY_NAME
from roman_assets.products.name import ProductName, SkycellFileSet
from roman_assets.products.pixel_scale import PixelScale
from roman_assets.publishing.provenance import crds_explained

if TYPE_CHECKING:
    from gwcs import WCS
    from romancal.skycell.skymap import SkyCells

_MADE_TOGETHER = ("association", "coadd", "visit_catalog", "visit_segmentation")
_VERTICES_PER_EDGE = 4
_MARGIN = 1.1
_OUTPUT_WCS = "output_wcs.asdf"


@dataclass(frozen=True)
class SkycellTask:
    """One skycell of a visit.

    Parameters
    ----------
    file_set
        Names its products.
    members
        L2 files under their official names, all in one directory of the task's own; the products
        are written beside them.
    pixel_scale
        The pixels of the coadd.
    """

    file_set: SkycellFileSet
    members: tuple[Path, ...]
    pixel_scale: PixelScale


@dataclass(frozen=True)
class MosaickedSkycell:
    """What was made of one skycell.

    Parameters
    ----------
    files
        By name of the product kind; empty where no member has a good pixel on the skycell.
    not_drawn
        Why there are no pictures of the coadd, empty otherwise.
    references
        Reference files romancal used, by kind; its mosaics have no place for them.
    quality
        By name of the product kind: ``covered_fraction`` (of the pixels), ``background`` (their
        median, MJy/sr) and ``source_count`` of the coadd, ``source_count`` of the catalogue.
    """

    files: Mapping[str, Path]
    references: Mapping[str, str] = field(default_factory=dict)
    quality: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    not_drawn: str = ""


def skycells_of(path: Path) -> tuple[str, ...]:
    """Return the names of the skycells that an L2 image overlaps, sorted; none without a WCS.

    Parameters
    ----------
    path
        An L2 file.

    Notes
    -----
    The result is that of `romancal.skycell.match.find_skycell_matches`, which takes degrees for
    radians in its search radius and therefore tests every skycell within a few thousand, 5 to 9 s
    for an image. Here the radius is right, and the exact test is the same.
    """
    from roman_datamodels import datamodels
    from romancal.skycell.skymap import SkyCells

    with crds_explained(path), datamodels.open(path) as model:
        wcs = model.meta.get("wcs")
        return () if wcs is None else tuple(sorted(SkyCells(overlapped_skycells(wcs)).names))


def overlapped_skycells(wcs: WCS) -> list[int]:
    """Return the indices, in the sky map, of the skycells that an image's outline intersects.

    Parameters
    ----------
    wcs
        From pixels to ICRS degrees, with a bounding box or pixel shape.
    """
    from romancal.skycell.skymap import SkyCells
    from spherical_geometry.polygon import SingleSphericalPolygon
    from spherical_geometry.vector import lonlat_to_vector, normalize_vector

    outline = SingleSphericalPolygon.from_wcs(wcs, steps=_VERTICES_PER_EDGE)
    vertices = normalize_vector(np.stack(lonlat_to_vector(*outline.to_lonlat()), axis=1))
    centre = normalize_vector(vertices.mean(axis=0))
    footprint = SingleSphericalPolygon(points=vertices, inside=centre)
    radius = _separation(centre, vertices).max()
    found = []
    for index in _regions_near(centre, radius):
        region, skycells = _region(index)
        if not footprint.intersects_poly(region.polygon):
            continue
        reach = _MARGIN * (radius + np.radians(SkyCells.length) / 2)
        near = skycells.indices[_separation(centre, skycells.vectorpoint_centers) < reach]
        found += [
            int(index)
            for index, polygon in zip(near, SkyCells(near).polygons, strict=True)
            if footprint.intersects_poly(polygon)
        ]
    return sorted(found)


def _separation(
    centre: npt.NDArray[np.float64], vectors: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return angles between unit vectors, rad, accurate for small ones; shape (n,)."""
    chords: npt.NDArray[np.float64] = np.linalg.norm(vectors - centre, axis=-1)
    return 2 * np.arcsin(np.clip(chords / 2, 0, 1))


def _regions_near(centre: npt.NDArray[np.float64], radius: float) -> list[int]:
    from romancal.skycell.skymap import SKYMAP
    from spherical_geometry.vector import lonlat_to_vector

    table = SKYMAP.model.projection_regions
    middle = np.stack(lonlat_to_vector(table["ra_tangent"], table["dec_tangent"]), axis=1)
    corners = np.stack(
        [
            np.stack(lonlat_to_vector(table[ra], table[dec]), axis=1)
            for ra in ("ra_min", "ra_max")
            for dec in ("dec_min", "dec_max")
        ]
    )
    extent = _separation(middle, corners).max(axis=0)
    near = _separation(centre, middle) < _MARGIN * (radius + extent)
    return [int(index) for index in np.flatnonzero(near)]


@lru_cache(maxsize=8)
def _region(index: int) -> tuple[Any, SkyCells]:
    from romancal.skycell.skymap import ProjectionRegion

    region = ProjectionRegion(index)
    return region, region.skycells


def write_association(task: SkycellTask) -> Path:
    """Write the association of a skycell, as romancal's ``skycell_asn`` writes it.

    Members are listed by their official names only. Its WCS information is that of the skycell in
    the sky map, whatever the pixel scale of the coadd.

    Returns
    -------
    pathlib.Path
        The file, under its official name.
    """
    from romancal.associations.asn_from_list import asn_from_list
    from romancal.skycell.skymap import SkyCells

    file_set = task.file_set
    association = asn_from_list(
        [member.name for member in task.members], product_name=str(file_set)
    )
    association["asn_type"] = "image"
    association["program"] = f"{file_set.program:05d}"
    association["data_release_id"] = file_set.release
    association["target"] = file_set.skycell
    (association["skycell_wcs_info"],) = SkyCells.from_names([file_set.skycell]).wcs_infos
    _, text = association.dump()
    path = task.members[0].with_name(_file_name(file_set, "association"))
    path.write_text(text)
    return path


def skycell_wcs(skycell: str, pixel_scale: PixelScale) -> WCS:
    """Return the WCS of a coadd on a skycell.

    Parameters
    ----------
    skycell
        Name in the sky map.
    pixel_scale
        Of the coadd; its pixels consist of whole pixels of the sky map.

    Returns
    -------
    gwcs.WCS
        From pixels to ICRS degrees, with shape and bounding box; it covers the whole skycell.

    Raises
    ------
    PlatformError
        If the skycell does not consist of whole pixels of this scale.
    """
    from romancal.resample._l3_wcs import l3wcsinfo_to_wcs
    from romancal.skycell.skymap import SkyCells

    cells = SkyCells.from_names([skycell])
    (own,), binning = cells.wcs, pixel_scale.skymap_pixels
    if any(length % binning for length in cells.pixel_shape):
        raise PlatformError(
            f"{skycell}: its {cells.pixel_shape} pixels cannot be joined {binning} by {binning}. "
            f"Remedy: use the scale {PixelScale.SKYMAP}"
        )
    tangent = own.forward_transform
    nx, ny = (length // binning for length in cells.pixel_shape)
    x_ref, y_ref = ((place + 0.5) / binning - 0.5 for place in tangent.crpix.value)
    wcs = l3wcsinfo_to_wcs(
        {
            "x_ref": x_ref,
            "y_ref": y_ref,
            "pixel_scale_ref": tangent.cdelt.value[0] * binning,
            "ra_ref": tangent.crval.value[0],
            "dec_ref": tangent.crval.value[1],
            "rotation_matrix": tangent.pc.value,
        },
        bounding_box=((-0.5, nx - 0.5), (-0.5, ny - 0.5)),
    )
    wcs.pixel_shape = (nx, ny)
    return wcs


def mosaic_skycell(task: SkycellTask) -> MosaickedSkycell:
    """Make the coadd of a visit on one skycell, its association, catalogue and segmentation map.

    Raises
    ------
    PassingFaultError
        If the disk is full.
    Exception
        Whatever a step of romancal raises.
    """
    from romancal.pipeline import MosaicPipeline

    directory = task.members[0].parent
    os.chdir(directory)
    with disk_space(directory), crds_explained(str(task.file_set)):
        association = write_association(task)
        asdf.AsdfFile({"wcs": skycell_wcs(task.file_set.skycell, task.pixel_scale)}).write_to(
            directory / _OUTPUT_WCS
        )
        coadd, catalog, _ = MosaicPipeline.call(
            association.name,
            save_results=True,
            configure_log=False,
            steps={"resample": {"output_wcs": _OUTPUT_WCS}},
        )
    covered = np.isfinite(coadd.data) & (coadd.weight > 0)
    if not covered.any():
        return MosaickedSkycell(files={})
    source_count = len(catalog.source_catalog)
    with disk_space(directory):
        pictures = try_previews(coadd, ProductName(task.file_set, KIND_BY_NAME["coadd"]), directory)
    files = {kind: directory / _file_name(task.file_set, kind) for kind in _MADE_TOGETHER}
    return MosaickedSkycell(
        files={**files, **pictures.files},
        not_drawn=pictures.failure,
        references=_references(coadd),
        quality={
            "coadd": {
                "source_count": source_count,
                "covered_fraction": float(covered.mean()),
                "background": float(np.median(coadd.data[covered])),
            },
            "visit_catalog": {"source_count": source_count},
        },
    )


def _references(coadd: Any) -> dict[str, str]:
    from romancal.skycell.skymap import SKYMAP
    from romancal.source_catalog import SourceCatalogStep
    from stpipe import crds_client

    parameters, observatory = SourceCatalogStep._get_crds_parameters(coadd)
    found = crds_client.get_multiple_reference_paths(
        parameters, [*SourceCatalogStep.reference_file_types, "epsf"], observatory
    )
    return {kind: Path(path).name for kind, path in found.items() if path != "N/A"} | {
        "skycells": Path(SKYMAP.path).name
    }


def _file_name(file_set: SkycellFileSet, kind: str) -> str:
    return str(ProductName(file_set, KIND_BY_NAME[kind]))
