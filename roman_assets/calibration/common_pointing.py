"""The common pointing of an exposure, for images with too few stars to be aligned alone (R4).

The focal plane is rigid. So the images of an exposure that romancal aligned determine where the
telescope pointed: a rotation from the telescope's frame (V2, V3) to the sky. An image that could
not be aligned takes this rotation, unless it would not be known well enough at its place.

The images that were aligned enter through their supplements (``_wcs``), which hold both the
distortion and the aligned WCS. romancal is imported in the functions, as in `detector`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from roman_assets.archive.durability import disk_space
from roman_assets.calibration.detector import CalibratedDetector, compare_with_former
from roman_assets.products.pointing import ALIGNED, PointingSource
from roman_assets.publishing.provenance import crds_explained

LARGEST_UNCERTAINTY_MAS = 5.0
"""An image keeps the planned pointing where the common one is less certain than this."""

_SMALLEST_SCATTER_MAS = 0.5
"""Positions of stars are taken to scatter by this at least, however well a few of them fit."""

_GRID = 5
"""Number of points along each side that represent an image."""

_OWN_STARS = {
    "abs_minobj": 1,
    "abs_fitgeometry": "shift",
    "abs_use2dhist": False,
    "abs_searchrad": 0.3,
    "abs_tolerance": 0.1,
    "abs_separation": 0.5,
    "abs_nclip": 0,
}
"""Settings of tweakreg that compare single stars with the astrometric catalogue: the pointing is
right within some mas by then, so only close pairs are the same star."""

_MAS = np.deg2rad(1e-3 / 3600)

Array = NDArray[np.float64]


@dataclass(frozen=True)
class AlignedImage:
    """An image that romancal aligned, as its supplement describes it.

    Parameters
    ----------
    name
        Of the supplement.
    telescope
        Points of the image in the telescope's frame, arcsec: shape (n, 2), V2 and V3.
    sky
        The same points as unit vectors (ICRS), by the aligned WCS: shape (n, 3).
    reference
        V2 and V3 of the aperture's reference point, arcsec: shape (2,).
    aberration
        Scale of the velocity aberration.
    stars
        Number of stars that it was aligned with.
    scatter
        Rms of their positions after the fit, mas.
    """

    name: str
    telescope: Array
    sky: Array
    reference: Array
    aberration: float
    stars: int
    scatter: float

    @classmethod
    def read(cls, supplement: Path) -> Self:
        """Read a supplement (`WfiWcsModel`)."""
        from roman_datamodels import datamodels

        with datamodels.open(supplement) as model:
            wcs, info, fit = model.wcs_l2, model.meta.wcsinfo, model.meta.wcs_fit_results
            x, y = _grid(wcs)
            return cls(
                name=supplement.name,
                telescope=_telescope(wcs, x, y),
                sky=_vectors(*wcs(x, y)),
                reference=np.array([info.v2_ref, info.v3_ref], dtype=float),
                aberration=float(model.meta.velocity_aberration.scale_factor or 1.0),
                stars=int(fit["nmatches"]),
                scatter=max(1e3 * float(fit["rmse"]), _SMALLEST_SCATTER_MAS),
            )

    @property
    def weight(self) -> float:
        """Of each of its points: all of them together count as its stars, per mas²."""
        return 2 * self.stars / (self.scatter**2 * len(self.sky))


@dataclass(frozen=True)
class CommonPointing:
    """The rotation from the telescope's frame to the sky that fits the aligned images best.

    Parameters
    ----------
    rotation
        From the telescope's frame to the sky: shape (3, 3).
    centre
        V2 and V3 that the velocity aberration leaves in place, arcsec: shape (2,).
    aberration
        Scale of the velocity aberration.
    covariance
        Of the rotation vector, mas²: shape (3, 3).
    residuals
        Mean displacement of each aligned image from this rotation, by name, mas.
    """

    rotation: Array
    centre: Array
    aberration: float
    covariance: Array
    residuals: Mapping[str, float]

    @classmethod
    def of(cls, images: Sequence[AlignedImage]) -> Self:
        """Fit the rotation to at least one image.

        The result does not depend on the order of the images. If they contradict each other by
        more than their scatter, the covariance grows accordingly.
        """
        from scipy.spatial.transform import Rotation

        ordered = sorted(images, key=lambda image: image.name)
        centre = np.mean([image.reference for image in ordered], axis=0)
        aberration = float(np.mean([image.aberration for image in ordered]))
        telescope = [_directions(image.telescope, centre, aberration) for image in ordered]
        weights = [np.full(len(image.sky), image.weight) for image in ordered]
        sky = np.concatenate([image.sky for image in ordered])
        found, _ = Rotation.align_vectors(sky, np.concatenate(telescope), np.concatenate(weights))
        rotation = found.as_matrix()
        shifts = {
            image.name: np.mean(image.sky - points @ rotation.T, axis=0) / _MAS
            for image, points in zip(ordered, telescope, strict=True)
        }
        information = sum(
            weight[:, None, None] * (np.eye(3) - vectors[:, :, None] * vectors[:, None, :])
            for weight, vectors in [(np.concatenate(weights), sky)]
        ).sum(axis=0)
        return cls(
            rotation,
            centre,
            aberration,
            np.linalg.inv(information) * _excess(ordered, shifts),
            {name: float(np.linalg.norm(shift)) for name, shift in shifts.items()},
        )

    def sky(self, telescope: Array) -> Array:
        """Return the unit vectors (ICRS), shape (n, 3), of points in the telescope's frame."""
        pointed: Array = _directions(telescope, self.centre, self.aberration) @ self.rotation.T
        return pointed

    def uncertainty(self, telescope: Array) -> float:
        """Return the rms error (mas) expected at points of the telescope's frame."""
        sky = self.sky(telescope)
        along = np.einsum("ni,ij,nj->n", sky, self.covariance, sky)
        return float(np.sqrt(np.mean(np.trace(self.covariance) - along)))


def _excess(images: Sequence[AlignedImage], shifts: Mapping[str, Array]) -> float:
    """Return by how much the images contradict each other: reduced chi squared, at least 1."""
    freedom = 2 * len(images) - 3
    if freedom <= 0:
        return 1.0
    squares = sum(
        2 * image.stars * float(np.sum(shifts[image.name] ** 2)) / image.scatter**2
        for image in images
    )
    return max(1.0, squares / freedom)


@dataclass(frozen=True)
class CommonPointingTask:
    """An image that romancal could not align, and those of its exposure that it could.

    Parameters
    ----------
    made
        The image and what was made with it; its files are changed in place.
    aligned
        Supplements of the aligned images.
    astrometric_catalog
        As in `DetectorTask`.
    before
        As in `DetectorTask`.
    """

    made: CalibratedDetector
    aligned: tuple[Path, ...]
    astrometric_catalog: Path | None = None
    before: Mapping[str, Path] = field(default_factory=dict)


def point_like_the_others(task: CommonPointingTask) -> CalibratedDetector:
    """Return an image, its supplement and its catalogue the common pointing of the exposure.

    The image keeps its planned pointing if there is no aligned image, or if the common pointing is
    too uncertain at its place.

    Raises
    ------
    PassingFaultError
        If the disk is full.
    """
    from roman_datamodels import datamodels

    if not task.aligned:
        return task.made
    files = task.made.files
    cal = files["cal"]
    os.chdir(cal.parent)
    common = CommonPointing.of([AlignedImage.read(path) for path in task.aligned])
    with disk_space(cal.parent), crds_explained(cal.name), datamodels.open(cal) as image:
        x, y = _grid(image.meta.wcs)
        telescope = _telescope(image.meta.wcs, x, y)
        uncertainty = common.uncertainty(telescope)
        quality = replace(task.made.quality, alignment_uncertainty=uncertainty)
        if uncertainty > LARGEST_UNCERTAINTY_MAS:
            return replace(task.made, quality=quality)
        image.meta.wcs = _corrected(image, x, y, common.sky(telescope), task.aligned[0])
        stars, rms = _own_stars(image, files.get("exposure_catalog"), task.astrometric_catalog)
        _record(image, common, uncertainty, stars, rms)
        _rewrite(image, files)
    change, not_compared = compare_with_former(task.before, files)
    return replace(
        task.made,
        quality=replace(
            quality,
            alignment=ALIGNED,
            pointing=PointingSource.COMMON,
            alignment_matches=stars,
            alignment_rms=rms,
        ),
        change=change,
        not_compared=not_compared,
    )


def _corrected(image: Any, x: Array, y: Array, sky: Array, aligned: Path) -> Any:
    """Return the WCS of an image, corrected as tweakreg does it so that points lie where given."""
    from roman_datamodels import datamodels
    from tweakwcs import RomanWCSCorrector

    info = image.meta.wcsinfo
    corrector = RomanWCSCorrector(
        image.meta.wcs,
        {"v2_ref": info.v2_ref, "v3_ref": info.v3_ref, "roll_ref": info.roll_ref},
    )
    before = np.column_stack([*corrector.det_to_tanp(x, y), np.ones_like(x)])
    after = np.column_stack(corrector.world_to_tanp(*_angles(sky)))
    affine = np.linalg.lstsq(before, after, rcond=None)[0]
    corrector.set_correction(matrix=affine[:2].T, shift=affine[2])
    with datamodels.open(aligned) as other:
        corrector.wcs.name = other.wcs_l2.name
    return corrector.wcs


def _own_stars(
    image: Any, catalog: Path | None, astrometric_catalog: Path | None
) -> tuple[int, float | None]:
    """Compare the stars of an image with the astrometric catalogue: their number, rms in mas."""
    from romancal.tweakreg import TweakRegStep

    if catalog is None:
        return 0, None
    probe = image.copy()
    probe.meta.source_catalog = {"tweakreg_catalog_name": catalog.name}
    settings = dict(_OWN_STARS)
    if astrometric_catalog is not None:
        settings["abs_refcat"] = astrometric_catalog.name
    TweakRegStep.call(probe, configure_log=False, **settings)
    fit = probe.meta.wcs_fit_results
    if "SUCCESS" not in fit["status"]:
        return 0, None
    return int(fit["nmatches"]), 1e3 * float(np.hypot(fit["rmse"], np.hypot(*fit["shift"])))


def _record(
    image: Any, common: CommonPointing, uncertainty: float, stars: int, rms: float | None
) -> None:
    """State in an image where its pointing is from; lengths in arcsec, as tweakreg writes them."""
    from romancal.assign_wcs.assign_wcs import add_s_region

    image.meta.cal_step.tweakreg = ALIGNED
    image.meta.wcs_fit_results = {
        "status": f"SUCCESS: pointing of {len(common.residuals)} other images of the exposure",
        "n_detector": len(common.residuals),
        "images": list(common.residuals),
        "residuals": [1e-3 * residual for residual in common.residuals.values()],
        "uncertainty": 1e-3 * uncertainty,
        "nmatches": stars,
        **({} if rms is None else {"rmse": 1e-3 * rms}),
    }
    add_s_region(image)


def _rewrite(image: Any, files: Mapping[str, Path]) -> None:
    """Write an image with its new WCS, its supplement and the positions in its catalogue."""
    from roman_datamodels import datamodels

    place = files["cal"].parent / "pointed"
    place.mkdir(exist_ok=True)
    image.save(place / files["cal"].name)
    fresh = datamodels.WfiWcsModel.from_model_with_wcs(image)
    with datamodels.open(files["supplement"]) as supplement:
        supplement.wcs_l2, supplement.wcs_l1 = fresh.wcs_l2, fresh.wcs_l1
        for section in ("wcsinfo", "wcs_fit_results"):
            supplement.meta[section] = fresh.meta[section]
        supplement.save(place / files["supplement"].name)
    if catalog := files.get("exposure_catalog"):
        _rewrite_catalog(catalog, place / catalog.name, image.meta.wcs)
    for written in place.iterdir():
        written.replace(files["cal"].with_name(written.name))


def _rewrite_catalog(source: Path, target: Path, wcs: Any) -> None:
    """Write a catalogue with the positions that a WCS gives; nothing else changes."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from astropy.table import Table
    from romancal.tweakreg import TweakRegStep

    rows = pq.read_table(source)
    numbers = [column.name for column in rows.schema if pa.types.is_floating(column.type)]
    positions = Table({name: rows[name].to_numpy() for name in numbers})
    TweakRegStep()._update_catalog_coordinates(positions, wcs)
    for place, column in enumerate(rows.schema):
        if column.name in numbers:
            values = pa.array(np.asarray(positions[column.name]), column.type)
            rows = rows.set_column(place, column, values)
    pq.write_table(rows, target)


def _grid(wcs: Any) -> tuple[Array, Array]:
    """Return x and y of points all over an image."""
    (left, right), (bottom, top) = wcs.bounding_box[0], wcs.bounding_box[1]
    x, y = np.meshgrid(np.linspace(left, right, _GRID), np.linspace(bottom, top, _GRID))
    return x.ravel(), y.ravel()


def _telescope(wcs: Any, x: Array, y: Array) -> Array:
    to_telescope = wcs.get_transform("detector", "v2v3")
    return np.column_stack(to_telescope(x, y, with_bounding_box=False))


def _directions(telescope: Array, centre: Array, aberration: float) -> Array:
    """Return unit vectors in the telescope's frame, corrected for velocity aberration."""
    v2, v3 = (centre + aberration * (telescope - centre)).T / 3600
    return _vectors(v2, v3)


def _vectors(longitude: Array, latitude: Array) -> Array:
    """Return the unit vectors, shape (n, 3), of angles in degrees."""
    along, up = np.deg2rad(longitude), np.deg2rad(latitude)
    return np.column_stack([np.cos(up) * np.cos(along), np.cos(up) * np.sin(along), np.sin(up)])


def _angles(vectors: Array) -> tuple[Array, Array]:
    """Return right ascension (0 to 360) and declination of unit vectors, degrees."""
    x, y, z = vectors.T
    return np.rad2deg(np.arctan2(y, x)) % 360, np.rad2deg(np.arctan2(z, np.hypot(x, y)))
