"""What the SSC knows of the sources of a field before it looks at their spectra.

Stars of the astrometric catalogue, and whatever direct images of the field show: the archive's
catalogues of L2 images through filters of the grism's and the prism's band.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import hpgeom
import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import Table
from numpy.typing import NDArray

from roman_assets.products.observation import OpticalElement
from roman_assets.reader.archive_reader import ArchiveReader
from roman_assets.records.record import ProductInput
from roman_assets.ssc.handover import HandedOverRelease

Values = NDArray[np.floating[Any]]

DIRECT_ELEMENTS = (
    OpticalElement.F158, OpticalElement.F129, OpticalElement.F106, OpticalElement.F146
)  # fmt: skip
"""Filters whose catalogues are used, the first one first."""
SAME_SOURCE = 0.2
"""Arcsec within which an entry of another catalogue is the same source."""
FAINTEST_SIGNAL = 5.0
"""Entries of direct images with less are left out."""
_BLENDED = 2.0
"""Rms sizes within which a source is within an extended entry."""
_MAGGIE = 3631e9
"""nJy."""
_IDENTITY_NSIDE = 2**22
_COLUMNS = ("ra", "dec", "flux", "semimajor", "semiminor", "angle")


@dataclass(frozen=True)
class SourceList:
    """Sources by number; stars of the astrometric catalogue come first.

    Parameters
    ----------
    ra, dec
        ICRS, degrees.
    flux
        Maggies in a direct image, NaN without one.
    semimajor, semiminor, angle
        Rms sizes without the PSF, arcsec, 0 for point sources; degrees east of north.
    inputs
        The catalogues of direct images.
    """

    ra: Values
    dec: Values
    flux: Values
    semimajor: Values
    semiminor: Values
    angle: Values
    inputs: tuple[ProductInput, ...] = ()

    @property
    def identity(self) -> NDArray[np.int64]:
        """Numbers by which sources go in products: cells of HEALPix, nested, of 0.05 arcsec.

        So a source has the same number in all exposures whose catalogues place it alike.
        """
        return np.atleast_1d(hpgeom.angle_to_pixel(_IDENTITY_NSIDE, self.ra, self.dec))

    def __len__(self) -> int:
        return len(self.ra)

    @classmethod
    def of_stars(cls, ra: Values, dec: Values) -> Self:
        """Return a list of point sources of which nothing else is known."""
        zeros = np.zeros(len(ra))
        return cls(
            np.asarray(ra, dtype=float), np.asarray(dec, dtype=float), np.full(len(ra), np.nan),
            zeros, zeros, zeros,
        )  # fmt: skip

    def joined(self, catalog: Table) -> Self:
        """Add what a catalogue of a direct image has.

        Sources that are in the list already get its flux if they have none. An extended entry with
        one of them within it is that source and its neighbours together, and left out.

        Parameters
        ----------
        catalog
            ``ra``, ``dec``, ``flux``, ``semimajor``, ``semiminor`` and ``angle``, as here.
        """
        new = {name: np.asarray(catalog[name], dtype=float) for name in _COLUMNS}
        own = {name: np.array(getattr(self, name)) for name in _COLUMNS}
        wanted = np.ones(len(catalog), dtype=bool)
        if len(self) and len(catalog):
            nearest, separation, _ = SkyCoord(
                new["ra"], new["dec"], unit="deg"
            ).match_to_catalog_sky(SkyCoord(own["ra"], own["dec"], unit="deg"))
            distance = separation.to_value(u.arcsec)
            fresh = (distance < SAME_SOURCE) & np.isnan(own["flux"][nearest])
            own["flux"][nearest[fresh]] = new["flux"][fresh]
            wanted = distance > np.maximum(SAME_SOURCE, _BLENDED * new["semimajor"])
        merged = {name: np.concatenate([own[name], new[name][wanted]]) for name in _COLUMNS}
        return type(self)(**merged, inputs=self.inputs)

    def size_along(self, angle: float) -> Values:
        """Return rms sizes (arcsec) along a direction on the sky, degrees east of north."""
        turn = np.radians(self.angle - angle)
        size: Values = np.hypot(self.semimajor * np.cos(turn), self.semiminor * np.sin(turn))
        return size


def sources_of_field(
    archive: ArchiveReader,
    stars: Table,
    circles: Sequence[tuple[float, float, float]],
    release: HandedOverRelease | None = None,
) -> SourceList:
    """Put the sources together that may have spectra in some images.

    Parameters
    ----------
    archive
        Where catalogues of direct images are.
    stars
        The astrometric catalogue, ``RA`` and ``DEC`` in degrees.
    circles
        Parts of the sky (ra, dec, radius in degrees) that shine into the images.
    release
        The data release whose direct images alone are used, None for any.
    """
    sources = SourceList.of_stars(stars["RA"], stars["DEC"])
    inputs = []
    for row in _direct_catalogs(archive, circles):
        if release is not None and not _belongs(row, release):
            continue
        sources = sources.joined(_entries(Table.read(archive.path(row["name"]))))
        inputs.append(ProductInput(name=row["name"], sha256=row["sha256"]))
    return replace(sources, inputs=tuple(inputs))


def _direct_catalogs(
    archive: ArchiveReader, circles: Iterable[tuple[float, float, float]]
) -> list[dict[str, Any]]:
    """Return rows of the catalogues, each once, in an order independent of the circles."""
    found: dict[str, dict[str, Any]] = {}
    for circle in circles:
        rows = archive.find(
            kind="exposure_catalog", optical_element=list(DIRECT_ELEMENTS), cone=circle
        )
        found |= {row["name"]: row for row in rows.to_dict("records") if row["path"] is not None}
    order = {str(element): place for place, element in enumerate(DIRECT_ELEMENTS)}
    return sorted(
        found.values(), key=lambda row: (order[str(row["optical_element"]).upper()], row["name"])
    )


def _belongs(row: Mapping[str, Any], release: HandedOverRelease) -> bool:
    return row["exposure"] in release.exposures and row["context"] == release.context


def _entries(catalog: Table) -> Table:
    """Return the entries of a catalogue of romancal that are sources beyond doubt."""
    columns: dict[str, Values] = {
        name: np.ma.filled(np.ma.asarray(catalog[name], dtype=float), np.nan)
        for name in (
            "ra_psf", "dec_psf", "ra_centroid_win", "dec_centroid_win", "kron_flux",
            "kron_flux_err", "semimajor", "semiminor", "orientation_sky",
        )
    }  # fmt: skip
    signal = columns["kron_flux"] / columns["kron_flux_err"]
    good = np.all([np.isfinite(values) for values in columns.values()], axis=0)
    good &= signal > FAINTEST_SIGNAL
    extended = np.asarray(catalog["is_extended"], dtype=bool)
    points = good & ~extended
    table = Table({
        "ra": np.where(extended, columns["ra_centroid_win"], columns["ra_psf"]),
        "dec": np.where(extended, columns["dec_centroid_win"], columns["dec_psf"]),
        "flux": columns["kron_flux"] / _MAGGIE,
        "angle": columns["orientation_sky"],
    })  # fmt: skip
    for name in ("semimajor", "semiminor"):
        psf = float(np.median(columns[name][points])) if points.any() else 0.0
        sharpened = np.sqrt(np.clip(columns[name] ** 2 - psf**2, 0, None))
        table[name] = np.where(extended, sharpened, 0.0)
    return table[good]
