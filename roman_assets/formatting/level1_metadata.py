"""Metadata that all L1 files share (R2, R3).

Everything rad's schemas require is filled. What is not known at this stage is said so: calibration
software and references are ``N/A`` until L2 is made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from types import SimpleNamespace
from typing import Any

from astropy.time import Time
from romancal.assign_wcs.assign_wcs import v23tosky

from roman_assets.build import build
from roman_assets.formatting.executed_visit import ExecutedExposure, ExecutedVisit
from roman_assets.formatting.ma_table import MATable
from roman_assets.formatting.orbit_ephemeris import EphemerisKind, SpacecraftState
from roman_assets.products.kind import KIND_BY_NAME
from roman_assets.products.name import DetectorFileSet, ExposureFileSet, ProductName
from roman_assets.products.observation import ExposureId

NOT_YET = "N/A"


@dataclass(frozen=True)
class Observation:
    """All that is known of an exposure beside its telemetry.

    Parameters
    ----------
    exposure
        Which one.
    visit, executed
        The executed visit and the exposure in it.
    ma_table
        As executed, that is cut to the resultants sent down.
    state
        Of the observatory in the middle of the exposure.
    ephemeris_kind
        From which kind of ephemeris that is (R3).
    """

    exposure: ExposureId
    visit: ExecutedVisit
    executed: ExecutedExposure
    ma_table: MATable
    state: SpacecraftState
    ephemeris_kind: EphemerisKind

    def file_set(self, detector: str) -> DetectorFileSet:
        """Return the file set of a detector."""
        return DetectorFileSet(self.exposure, detector, self.visit.optical_element)

    def name(self, kind: str, detector: str | None = None) -> ProductName:
        """Return the official name of an L1 product of this exposure, by kind."""
        file_set = (
            ExposureFileSet(self.exposure, self.visit.optical_element)
            if detector is None
            else self.file_set(detector)
        )
        return ProductName(file_set, KIND_BY_NAME[kind])

    @property
    def guide_window_id(self) -> str:
        """The visit and the guide star acquisition, 20 digits."""
        return f"{self.exposure.visit.digits}{self.executed.guiding.acquisition_number}"

    @cached_property
    def telescope_to_sky(self) -> Callable[[Any, Any], tuple[Any, Any]]:
        """The planned attitude: (V2, V3) in arcsec to ICRS in degrees."""
        pointing = self.executed.pointing
        attitude = SimpleNamespace(
            v2_ref=0.0,
            v3_ref=0.0,
            ra_ref=pointing.ra_v1,
            dec_ref=pointing.dec_v1,
            roll_ref=pointing.pa_v3,
        )
        transform: Callable[[Any, Any], tuple[Any, Any]] = v23tosky(
            SimpleNamespace(meta=SimpleNamespace(wcsinfo=attitude))
        )
        return transform


def basic_metadata(name: ProductName, observation: Observation) -> dict[str, Any]:
    """Return the members of rad's ``basic`` schema."""
    return {
        "filename": str(name),
        "file_date": Time.now(),
        "product_type": name.kind.suffix,
        "calibration_software_name": "RomanCAL",
        "calibration_software_version": NOT_YET,
        "prd_version": observation.visit.prd_version,
        "sdf_software_version": build().version,
        "origin": "STSCI/SOC",
        "telescope": "ROMAN",
    }


def instrument_metadata(observation: Observation, detector: str) -> dict[str, str]:
    """Return ``meta.instrument`` of a detector."""
    return {
        "name": "WFI",
        "detector": detector,
        "optical_element": str(observation.visit.optical_element),
    }


def fill_metadata(model: Any, meta: Mapping[str, Any]) -> None:
    """Set all metadata; the minimal model leaves out members the schema does not name."""
    for name, value in meta.items():
        model.meta[name] = value


def utc_time(moment: datetime) -> Time:
    """Return a moment as rad keeps it: UTC, written in ISO format."""
    time = Time(moment, scale="utc")
    time.format = "isot"
    return time
