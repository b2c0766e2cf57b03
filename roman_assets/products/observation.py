"""Observations: programs, visits, exposures, detectors and what stood in the beam."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property, total_ordering
from typing import Self

_VISIT_FIELDS = (
    ("program", 5),
    ("execution_plan", 2),
    ("pass_", 3),
    ("segment", 3),
    ("observation", 3),
    ("visit", 3),
)
_VISIT_PATTERN = re.compile(r"r(\d{5})(\d{2})(\d{3})(\d{3})(\d{3})(\d{3})", re.ASCII)
_EXPOSURE_PATTERN = re.compile(r"(r\d{19})_(\d{4})", re.ASCII)

DETECTORS: tuple[str, ...] = tuple(f"WFI{number:02d}" for number in range(1, 19))
"""The 18 detectors by rad's names (``meta.instrument.detector``)."""


class Survey(StrEnum):
    """The surveys the specification names; all other science programs are GAS."""

    HLWAS = "HLWAS"
    HLTDS = "HLTDS"
    GBTDS = "GBTDS"
    GAS = "GAS"

    @classmethod
    def from_subcategory(cls, subcategory: str) -> Survey:
        """Return the survey of rad's ``meta.program.subcategory``."""
        return _SURVEY_OF_SUBCATEGORY.get(subcategory, cls.GAS)

    @property
    def subcategory(self) -> str:
        """The ``meta.program.subcategory`` that marks this survey (``OR`` for GAS)."""
        return _SUBCATEGORY_OF_SURVEY[self]


_SUBCATEGORY_OF_SURVEY = {
    Survey.HLWAS: "HLWA",
    Survey.HLTDS: "HLTD",
    Survey.GBTDS: "GBTD",
    Survey.GAS: "OR",
}
_SURVEY_OF_SUBCATEGORY = {code: survey for survey, code in _SUBCATEGORY_OF_SURVEY.items()}


class OpticalElement(StrEnum):
    """Positions of the element wheel (``meta.instrument.optical_element``)."""

    F062 = "F062"
    F087 = "F087"
    F106 = "F106"
    F129 = "F129"
    F146 = "F146"
    F158 = "F158"
    F184 = "F184"
    F213 = "F213"
    GRISM = "GRISM"
    PRISM = "PRISM"
    DARK = "DARK"


class ExposureType(StrEnum):
    """Exposure types (``meta.exposure.type``) the pipelines tell apart."""

    WFI_IMAGE = "WFI_IMAGE"
    WFI_SPECTRAL = "WFI_SPECTRAL"
    WFI_IM_DARK = "WFI_IM_DARK"
    WFI_SP_DARK = "WFI_SP_DARK"
    WFI_FLAT = "WFI_FLAT"
    WFI_LOLO = "WFI_LOLO"
    WFI_WFSC = "WFI_WFSC"


@total_ordering
@dataclass(frozen=True)
class VisitId:
    """The smallest schedulable unit: exposures of one optical element.

    Parameters
    ----------
    program, execution_plan, pass_, segment, observation, visit
        The numbers of ``PPPPPCCAAASSSOOOVVV``.

    Raises
    ------
    ValueError
        If a number does not fit its digits.
    """

    program: int
    execution_plan: int
    pass_: int
    segment: int
    observation: int
    visit: int

    def __post_init__(self) -> None:
        for name, digits in _VISIT_FIELDS:
            value = getattr(self, name)
            if not 0 <= value < 10**digits:
                raise ValueError(f"{name.rstrip('_')} {value} does not fit {digits} digits")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``rPPPPPCCAAASSSOOOVVV``; raises `ValueError` for anything else."""
        match = _VISIT_PATTERN.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is not a visit: expected r and 19 digits")
        return cls(*(int(group) for group in match.groups()))

    @cached_property
    def digits(self) -> str:
        """The 19 digits, as in rad's ``meta.observation.visit_id``."""
        return "".join(f"{getattr(self, name):0{digits}d}" for name, digits in _VISIT_FIELDS)

    @property
    def grouping(self) -> str:
        """The visit within its program, as skycell products name it: ``vCCAAASSSOOOVVV``."""
        return f"v{self.digits[5:]}"

    def __str__(self) -> str:
        return f"r{self.digits}"

    def __lt__(self, other: VisitId) -> bool:
        return self.digits < other.digits


@total_ordering
@dataclass(frozen=True)
class ExposureId:
    """One pointing of all 18 detectors.

    Parameters
    ----------
    visit
        The visit it belongs to.
    exposure
        Its number within the visit, from 1.
    """

    visit: VisitId
    exposure: int

    def __post_init__(self) -> None:
        if not 1 <= self.exposure <= 9999:
            raise ValueError(f"exposure {self.exposure} is not between 1 and 9999")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``rPPPPPCCAAASSSOOOVVV_EEEE``; raises `ValueError` for anything else."""
        match = _EXPOSURE_PATTERN.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is not an exposure: expected r, 19 digits, _ and 4 digits")
        return cls(VisitId.parse(match[1]), int(match[2]))

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        """Worked out once: exposures are keys of many look-ups."""
        return hash((self.visit, self.exposure))

    def __str__(self) -> str:
        return f"{self.visit}_{self.exposure:04d}"

    def __lt__(self, other: ExposureId) -> bool:
        return str(self) < str(other)
