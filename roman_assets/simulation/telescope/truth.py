"""The truth against the catalogues: how well positions and fluxes come back.

Only isolated, unsaturated stars are compared: their errors are those of calibration, alignment
and noise, not of blending.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import Table
from gwcs import WCS
from numpy.typing import NDArray

from roman_assets.archive.durability import (
    disk_space,
    make_directory,
    private_directory,
    write_durably,
)
from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError
from roman_assets.products.observation import OpticalElement, VisitId
from roman_assets.simulation.telescope.scene import SourceKind

NANOJANSKY_PER_MAGGIE = 3631e9

STARS = frozenset({SourceKind.GAIA, SourceKind.STAR, SourceKind.BULGE})

MATCH_RADIUS = 0.15
"""Arcsec within which a catalogue source is a star of the truth table."""

_APERTURE_COLUMN = re.compile(r"aper(\d{2})_flux")

CROWDING: tuple[tuple[float, float], ...] = ((1.5, 0.01), (2.5, 0.1), (6.0, 10.0))
"""Pairs (arcsec, flux over the star's): a source so near and so bright spoils isolation.

romancal does not deblend by default, so two stars that share a segment are one source to it.
"""


@dataclass(frozen=True)
class Measurement:
    """The columns of a source catalogue to compare.

    Parameters
    ----------
    flux
        Flux of a source, nJy.
    ra, dec
        Position, ICRS degrees.
    x, y
        The same in pixels.
    flags
        What is wrong with a source's measurement, 0 if nothing is; None if there is no such column.
    """

    flux: str
    ra: str
    dec: str
    x: str
    y: str
    flags: str | None = None


PSF = Measurement("psf_flux", "ra_psf", "dec_psf", "x_psf", "y_psf", "psf_flags")
"""PSF photometry: fluxes of L2, and positions at all levels.

Flagged are stars that the edge of the image cuts, say. In coadds romancal fits an azimuthally
averaged PSF to 5x5 pixels, weighted by the noise of each. The undersampled pixels of few exposures
still show, and where they are bright they count less. So the fluxes come out some hundredths of a
magnitude low (docs/calibration.md).
"""

APERTURE = Measurement(
    "aper04_flux", "ra_centroid_win", "dec_centroid_win", "x_centroid_win", "y_centroid_win"
)
"""Fluxes within 0.4 arcsec over the enclosed energy that the catalogue states, and windowed
centroids.

The best fluxes of coadds. The coma of the optics draws the centroids some milliarcseconds away.
"""


@dataclass(frozen=True)
class Residuals:
    """How a catalogue differs from the truth.

    Parameters
    ----------
    position_rms_mas
        Root mean square of the distances on the sky, mas.
    position_offset_mas
        Length of the mean displacement, mas.
    median_flux_error_mmag
        Median of the absolute differences in magnitude, mmag.
    flux_bias_mmag
        Median of the signed differences, catalogue minus truth, mmag.
    n
        Stars compared.
    """

    position_rms_mas: float
    position_offset_mas: float
    median_flux_error_mmag: float
    flux_bias_mmag: float
    n: int

    @classmethod
    def of(cls, stars: NDArray[np.float64]) -> Residuals:
        """Sum up the residuals of single stars, as `star_residuals` gives them."""
        if stars.shape[1] == 0:
            return cls(np.nan, np.nan, np.nan, np.nan, 0)
        displacement, magnitude = stars[:2], stars[2]
        return cls(
            position_rms_mas=float(np.sqrt(np.mean(np.sum(displacement**2, axis=0)))),
            position_offset_mas=float(np.hypot(*displacement.mean(axis=1))),
            median_flux_error_mmag=float(np.median(np.abs(magnitude))),
            flux_bias_mmag=float(np.median(magnitude)),
            n=stars.shape[1],
        )


def truth_path(root: DataRoot, visit: VisitId) -> Path:
    """Return the place of the truth table of a visit."""
    return root.observatory / "truth" / f"{visit}.ecsv"


def write_truth(root: DataRoot, visit: VisitId, table: Table) -> None:
    """Keep the truth of a visit: all sources that its detectors got light from.

    Raises
    ------
    PassingFaultError
        If the disk is full.
    """
    path = truth_path(root, visit)
    text = StringIO()
    table.write(text, format="ascii.ecsv")
    with disk_space(root.observatory):
        private_directory(root.observatory)
        make_directory(path.parent)
        write_durably(path, text.getvalue().encode())


def read_truth(root: DataRoot, visit: VisitId) -> Table:
    """Read the truth table of a visit.

    Returns
    -------
    Table
        As from `roman_assets.simulation.telescope.scene.Scene.sources`; ``meta`` holds ``seed``,
        ``window`` and the ``true_pointing`` (``ra``, ``dec``, ``pa``, degrees) by exposure.

    Raises
    ------
    BadInputError
        If the visit was not observed by the simulated telescope of this installation.
    """
    path = truth_path(root, visit)
    if not path.is_file():
        raise BadInputError(path, "visit", f"no truth is known of {visit}", "simulate it first")
    return Table.read(path, format="ascii.ecsv")


def read_catalog(path: Path) -> Table:
    """Read a source catalogue file (``_cat.parquet``).

    Returns
    -------
    Table
        Its rows; ``meta`` has what `compare_catalog` needs of the catalogue's own metadata, which
        romancal writes into the file as text.
    """
    table = Table.read(path, format="parquet")
    written = pyarrow.parquet.read_schema(path).metadata
    table.meta = {
        "aperture_radii": {
            "circle_arcsec": _numbers(written, "source_catalog.aperture_radii.circle_arcsec")
        },
        "ee_fractions": _numbers(written, "source_catalog.ee_fractions"),
    }
    return table


def _numbers(written: Mapping[bytes, bytes], key: str) -> NDArray[np.float64]:
    return np.array(written[key.encode()].decode().strip("[]").split(), dtype=float)


def compare_catalog(
    catalog: Table, truth: Table, element: OpticalElement, **options: Any
) -> Residuals:
    """Compare the photometry and astrometry of a source catalogue with the truth.

    Parameters
    ----------
    catalog, truth, element, **options
        As in `star_residuals`.

    Returns
    -------
    Residuals
        NaN where ``n`` is 0.
    """
    return Residuals.of(star_residuals(catalog, truth, element, **options))


def star_residuals(
    catalog: Table,
    truth: Table,
    element: OpticalElement,
    *,
    measurement: Measurement = PSF,
    wcs: WCS | None = None,
    kinds: Collection[SourceKind] = STARS,
    magnitudes: tuple[float, float] = (18.5, 20.5),
) -> NDArray[np.float64]:
    """Compare the stars of a source catalogue with the truth, one by one.

    Parameters
    ----------
    catalog
        Table of `ImageSourceCatalogModel` or `MosaicSourceCatalogModel`, with its ``meta``.
    truth
        As from `roman_assets.simulation.telescope.scene.Scene.sources`.
    element
        The filter of the catalogue.
    measurement
        Which of the catalogue's measurements to compare.
    wcs
        Positions are then those of the measured pixels through it.
    kinds
        Which sources of the truth to compare.
    magnitudes
        Brightest and faintest AB magnitude to compare. At the default no star saturates in 140 s
        through the narrower filters, and noise is a few thousandths.

    Returns
    -------
    numpy.ndarray
        Shape (3, n): displacements to the east and north (mas) and difference in magnitude (mmag),
        catalogue minus truth.
    """
    flux = np.asarray(truth[str(element)], dtype=float)
    wanted = np.isin(truth["kind"], [str(kind) for kind in kinds])
    wanted &= (flux <= 10 ** (-0.4 * magnitudes[0])) & (flux >= 10 ** (-0.4 * magnitudes[1]))
    place = SkyCoord(truth["ra"], truth["dec"], unit="deg")
    wanted &= _isolated(place, flux)
    stars = np.flatnonzero(wanted)
    found = _positions(catalog, measurement, wcs)
    if len(stars) == 0 or len(found) == 0:
        return np.empty((3, 0))
    index, distance, _ = place[stars].match_to_catalog_sky(found)
    near = distance < MATCH_RADIUS * u.arcsec
    measured = _fluxes(catalog, measurement)[index]
    good = near & (measured > 0)
    if measurement.flags is not None:
        good &= np.asarray(catalog[measurement.flags])[index] == 0
    east, north = place[stars[good]].spherical_offsets_to(found[index[good]])
    magnitude = -2.5e3 * np.log10(measured[good] / (flux[stars[good]] * NANOJANSKY_PER_MAGGIE))
    return np.stack([east.to_value(u.mas), north.to_value(u.mas), magnitude])


def _fluxes(catalog: Table, measurement: Measurement) -> NDArray[np.float64]:
    """Return total fluxes, nJy, shape (n,)."""
    fluxes = np.asarray(catalog[measurement.flux], dtype=float)
    aperture = _APERTURE_COLUMN.fullmatch(measurement.flux)
    if aperture is None:
        return fluxes
    radii = np.asarray(catalog.meta["aperture_radii"]["circle_arcsec"])
    place = int(np.argmin(np.abs(radii - int(aperture[1]) / 10)))
    corrected: NDArray[np.float64] = fluxes / float(catalog.meta["ee_fractions"][place])
    return corrected


def _positions(catalog: Table, measurement: Measurement, wcs: WCS | None) -> SkyCoord:
    if wcs is not None:
        ra, dec = wcs(
            *(np.asarray(catalog[name], dtype=float) for name in (measurement.x, measurement.y)),
            with_bounding_box=False,
        )
    else:
        ra, dec = (
            np.asarray(catalog[name], dtype=float) for name in (measurement.ra, measurement.dec)
        )
    usable = np.isfinite(ra) & np.isfinite(dec)
    # Rows must stay aligned with the catalogue: unusable ones go where no star is.
    return SkyCoord(np.where(usable, ra, 0.0), np.where(usable, dec, -90.0), unit="deg")


def _isolated(place: SkyCoord, flux: NDArray[np.float64]) -> NDArray[np.bool_]:
    isolated = np.ones(len(flux), dtype=bool)
    for radius, share in CROWDING:
        star, other, _, _ = place.search_around_sky(place, radius * u.arcsec)
        spoiled = (star != other) & (flux[other] > share * flux[star])
        isolated[star[spoiled]] = False
    return isolated
