"""The executed plan: what the simulated telescope reports to have done, with planned pointing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord

from roman_assets.formatting.executed_visit import (
    DetectorAperture,
    Dither,
    ExecutedExposure,
    ExecutedVisit,
    GuideStar,
    Pointing,
    Program,
)
from roman_assets.formatting.ma_table import MATable
from roman_assets.products.observation import ExposureId, Survey
from roman_assets.simulation.telescope import planned_exposure as plan
from roman_assets.simulation.telescope.detector_geometry import (
    active_pixels,
    array_pixels,
    detector_wcs,
    distortion,
    siaf_aperture,
)
from roman_assets.simulation.telescope.guiding import guiding
from roman_assets.simulation.telescope.multiaccum import MultiAccumTable
from roman_assets.simulation.telescope.planned_exposure import PlannedExposure
from roman_assets.simulation.telescope.survey_plan import DITHERS

PRD_VERSION = "PRDROMAN_SIMULATED"

_PROGRAMS: Mapping[Survey, tuple[str, str]] = {
    Survey.HLWAS: ("High-Latitude Wide-Area Survey", "CCS"),
    Survey.HLTDS: ("High-Latitude Time-Domain Survey", "CCS"),
    Survey.GBTDS: ("Galactic Bulge Time-Domain Survey", "CCS"),
    Survey.GAS: ("General Astrophysics Survey", "GAS"),
}
_BEFORE_FIRST_EXPOSURE = timedelta(seconds=30)


def ma_table_document(table: MultiAccumTable) -> MATable:
    """Return an MA table as the ground receives it."""
    return MATable(
        number=table.number,
        name=table.name,
        id=f"SCI{table.number:04d}",
        frame_time=table.frame_time,
        read_pattern=table.read_pattern,
    )


def executed_visit(
    exposures: Sequence[PlannedExposure],
    stars: Mapping[ExposureId, Mapping[str, GuideStar]],
    window: int | None,
) -> ExecutedVisit:
    """Report a visit as executed without a hitch.

    Parameters
    ----------
    exposures
        All exposures of the visit.
    stars
        Guide star by exposure and detector.
    window
        Active pixels along a side, None for whole detectors.
    """
    first = exposures[0]
    title, category = _PROGRAMS[first.survey]
    detectors = sorted({name for planned in exposures for name in planned.detectors})
    return ExecutedVisit(
        visit=first.exposure.visit,
        program=Program(
            title=title,
            investigator_name="Simulated Telescope",
            category=category,
            subcategory=first.survey.subcategory,
        ),
        exposure_type=first.exposure_type,
        optical_element=first.optical_element,
        nexposures=first.nexposures,
        start_time=first.start - _BEFORE_FIRST_EXPOSURE,
        internal_target=first.target == plan.INTERNAL_TARGET,
        prd_version=PRD_VERSION,
        dither=_dither(first.dither),
        apertures={name: detector_aperture(name, window) for name in detectors},
        exposures=tuple(
            ExecutedExposure(
                exposure=planned.exposure.exposure,
                start_time=planned.start,
                end_time=planned.end,
                ma_table_number=planned.ma_table_number,
                detectors=planned.detectors,
                pointing=telescope_pointing(planned.pointing),
                guiding=guiding(planned, stars[planned.exposure]),
            )
            for planned in exposures
        ),
    )


def _dither(name: str | None) -> Dither:
    if name is None:
        return Dither()
    offsets = tuple(value for offset in DITHERS[name] for value in offset)
    return Dither(primary_name=name, executed_pattern=offsets)


def telescope_pointing(pointing: plan.Pointing) -> Pointing:
    """Complete a pointing of WFI_CEN by that of the telescope's axes."""
    wcs = detector_wcs("WFI01", pointing.ra, pointing.dec, pointing.pa, None)
    to_sky = wcs.get_transform("v2v3vacorr", "world")
    axis, towards_v3 = (
        SkyCoord(*(float(angle) for angle in to_sky(0.0, v3)), unit="deg") for v3 in (0.0, 1.0)
    )
    return Pointing(
        target_aperture="WFI_CEN",
        target_ra=pointing.ra,
        target_dec=pointing.dec,
        ra_v1=float(axis.ra.deg),
        dec_v1=float(axis.dec.deg),
        pa_v3=float(axis.position_angle(towards_v3).to_value(u.deg)),
        pa_aperture=pointing.pa,
    )


def detector_aperture(detector: str, window: int | None) -> DetectorAperture:
    """Describe where the pixels of a detector, or of its window, lie."""
    aperture = siaf_aperture(detector)
    size, edge = array_pixels(window), active_pixels(window) - 0.5
    v2, v3 = distortion(detector, window)(
        np.array([-0.5, edge, edge, -0.5]), np.array([-0.5, -0.5, edge, edge])
    )
    return DetectorAperture(
        aperture_name=aperture.AperName,
        nrows=size,
        ncolumns=size,
        v2_ref=aperture.V2Ref,
        v3_ref=aperture.V3Ref,
        v3yangle=aperture.V3IdlYAngle,
        vparity=aperture.VIdlParity,
        v2_corners=tuple(v2.tolist()),
        v3_corners=tuple(v3.tolist()),
    )
