"""Where light of which wavelength falls, and how many electrons it makes: grism and prism.

From the dispersions at the field's centre and the effective areas that the mission publishes.
Spectra lie along columns of the detector, the central wavelength where the direct image would be.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
from astropy import constants
from astropy.table import Table
from numpy.typing import NDArray

from roman_assets.products.observation import OpticalElement

Values = NDArray[np.floating[Any]]

_TABLES = {OpticalElement.GRISM: "grism", OpticalElement.PRISM: "prism"}
CENTRAL_WAVELENGTH = {OpticalElement.GRISM: 1465.0, OpticalElement.PRISM: 1275.0}
"""nm; as published. Place of the direct image, as far as it is published."""
_FAINTEST_RESPONSE = 0.2
"""Wavelengths at which the area is less than this part of its maximum are not calibrated."""
_BLUR_ROWS = 2
_ROWS_BEYOND = 8
_HC = (constants.h * constants.c).si.value
_H = constants.h.si.value
_JANSKY_OF_MAGGIE = 3631e-26


@dataclass(frozen=True)
class Dispersion:
    """The first order of a disperser on one detector.

    Parameters
    ----------
    offset
        Rows from the direct image, ascending.
    wavelength
        There, nm.
    area
        Effective area there, m².
    published
        First and last wavelength (nm) for which the dispersion is published; the next few rows
        are extrapolated, for what light falls there.
    """

    offset: Values
    wavelength: Values
    area: Values
    published: tuple[float, float]

    @property
    def reference(self) -> float:
        """The wavelength at the place of the direct image, nm."""
        return float(np.interp(0.0, self.offset, self.wavelength))

    def wavelength_at(self, offset: Values) -> Values:
        """Return the wavelength (nm) at rows from the direct image, NaN beyond the order."""
        return np.interp(offset, self.offset, self.wavelength, left=np.nan, right=np.nan)

    def nanometres_per_pixel(self, offset: Values) -> Values:
        """Return the dispersion (nm) of a row, signed."""
        found: Values = self.wavelength_at(offset + 0.5) - self.wavelength_at(offset - 0.5)
        return found

    def area_at(self, offset: Values) -> Values:
        """Return the effective area (m²), 0 beyond the order."""
        return np.interp(offset, self.offset, self.area, left=0.0, right=0.0)

    def calibrated(self, offset: Values) -> NDArray[np.bool_]:
        """Whether rows have a wavelength, and enough response as far as a line is blurred."""
        around = np.add.outer(np.arange(-_BLUR_ROWS, _BLUR_ROWS + 1), offset)
        wavelength, (first, last) = self.wavelength_at(around), self.published
        enough = self.area_at(around) > _FAINTEST_RESPONSE * self.area.max()
        known: NDArray[np.bool_] = enough & (wavelength >= first) & (wavelength <= last)
        return np.asarray(known.all(axis=0))

    def electrons_per_maggie(self, offset: Values) -> Values:
        """Return e/s in a row of a source of AB magnitude 0 at all wavelengths."""
        wavelength, step = self.wavelength_at(offset), np.abs(self.nanometres_per_pixel(offset))
        rate = _JANSKY_OF_MAGGIE * self.area_at(offset) * step / (_H * wavelength)
        seen: Values = np.nan_to_num(rate)
        return seen

    def flux_per_electron(self, offset: Values) -> Values:
        """Return W m⁻² nm⁻¹ of a source that makes one e/s in a row."""
        wavelength, step = self.wavelength_at(offset), np.abs(self.nanometres_per_pixel(offset))
        with np.errstate(divide="ignore", invalid="ignore"):
            energy: Values = _HC / (wavelength * 1e-9) / (self.area_at(offset) * step)
        return energy


@cache
def dispersion_of(element: OpticalElement, detector: str) -> Dispersion:
    """Return the dispersion of a grism or prism on a detector."""
    from romanisim.models.bandpass import read_gsfc_effarea, roman2galsim_bandpass

    name = _TABLES[element]
    path = resources.files("roman_technical_information") / (
        f"data/WideFieldInstrument/Spectroscopy/Dispersion/WFI_{name}_dispersion.ecsv"
    )
    table = Table.read(str(path), format="ascii.ecsv")
    published = np.asarray(table[f"{name[0]}_mean_lam"], dtype=float)
    beyond = np.arange(1.0, _ROWS_BEYOND + 1)
    per_pixel = np.asarray(table[f"{name[0]}_dispersion"], dtype=float)
    below, above = beyond[::-1] * per_pixel[0], beyond * per_pixel[-1]
    wavelength = np.concatenate([published[0] - below, published, published[-1] + above])
    per_pixel = np.pad(per_pixel, _ROWS_BEYOND, mode="edge")
    offset = np.cumsum(np.gradient(wavelength) / per_pixel)
    offset -= np.interp(CENTRAL_WAVELENGTH[element], wavelength, offset)
    areas = read_gsfc_effarea(int(detector[3:]))
    microns = np.asarray(areas["Wave"], dtype=float)
    area = np.interp(wavelength, microns * 1e3, np.asarray(areas[roman2galsim_bandpass[element]]))
    return Dispersion(offset, wavelength, area, (float(published[0]), float(published[-1])))
