"""What each optical element lets through, and how sharp its images are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from roman_assets.products.observation import OpticalElement


@dataclass(frozen=True)
class Bandpass:
    """The light of one optical element.

    Parameters
    ----------
    shortest, longest
        Limits of the band, µm.
    resolving_power
        Lowest and highest resolving power of a disperser over two pixels, None for a filter.
    psf_fwhm
        Full width at half maximum of the point-spread function, arcsec, None for a disperser.
    """

    shortest: float
    longest: float
    resolving_power: tuple[float, float] | None = None
    psf_fwhm: float | None = None


_GRISM_POWER_PER_MICROMETRE = 461.0

BANDPASSES: Mapping[OpticalElement, Bandpass] = {
    OpticalElement.F062: Bandpass(0.483, 0.759, psf_fwhm=0.058),
    OpticalElement.F087: Bandpass(0.761, 0.981, psf_fwhm=0.074),
    OpticalElement.F106: Bandpass(0.933, 1.197, psf_fwhm=0.088),
    OpticalElement.F129: Bandpass(1.126, 1.450, psf_fwhm=0.106),
    OpticalElement.F146: Bandpass(0.926, 1.997, psf_fwhm=0.106),
    OpticalElement.F158: Bandpass(1.384, 1.780, psf_fwhm=0.128),
    OpticalElement.F184: Bandpass(1.680, 2.000, psf_fwhm=0.147),
    OpticalElement.F213: Bandpass(1.959, 2.307, psf_fwhm=0.169),
    OpticalElement.GRISM: Bandpass(
        1.0,
        1.93,
        (_GRISM_POWER_PER_MICROMETRE * 1.0, _GRISM_POWER_PER_MICROMETRE * 1.93),
    ),
    OpticalElement.PRISM: Bandpass(0.75, 1.80, (80.0, 180.0)),
}
"""By element; the dark one lets nothing through.

From the Roman technical information that the mission publishes (release 1.5): filters, where the
effective area of version 8 (2024-03-01) passes half of its maximum, mean of the 18 detectors;
dispersers and point-spread functions (mean of detectors 1 and 18), as tabulated on 2024-06-03.
"""
