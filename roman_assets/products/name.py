"""The grammar of official file names.

Never trust ``meta.product_type``: the kind of a product is what its name says.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from roman_assets.products.kind import (
    GROUP_SCOPES,
    KIND_BY_NAME,
    KINDS,
    Level,
    ProductKind,
    Scope,
    followers_of,
)
from roman_assets.products.observation import DETECTORS, ExposureId, OpticalElement, VisitId

PROMPT_RELEASE = "p"

_ELEMENT = "|".join(element.lower() for element in OpticalElement)
_DETECTOR = "|".join(detector.lower() for detector in DETECTORS)
_SKYCELL = r"\d{3}[pm]\d{2}x\d{2}y\d{2}"
GROUPING = r"v\d{14}|d\d{8}|p\d{5}|full|user"
"""What exposures a product adds up: a visit, a segment, a pass, a whole program, or others."""

_GROUP = rf"r(?P<program>\d{{5}})_(?P<release>p|r\d+)_(?P<grouping>{GROUPING})"
_ENDING = r"_(?P<suffix>[a-z][a-z0-9]*)\.(?P<extension>[a-z]+)"
NAME_PATTERNS = {
    Scope.DETECTOR: re.compile(
        rf"(?P<exposure>r\d{{19}}_\d{{4}})_(?P<detector>{_DETECTOR})_(?P<element>{_ELEMENT}){_ENDING}",
        re.ASCII,
    ),
    Scope.EXPOSURE: re.compile(
        rf"(?P<exposure>r\d{{19}}_\d{{4}})_(?P<element>{_ELEMENT}){_ENDING}",
        re.ASCII,
    ),
    Scope.SKYCELL: re.compile(
        rf"{_GROUP}_(?P<skycell>{_SKYCELL})_(?P<element>{_ELEMENT}){_ENDING}", re.ASCII
    ),
    Scope.GROUP_DETECTOR: re.compile(
        rf"{_GROUP}_(?P<detector>{_DETECTOR})_(?P<element>{_ELEMENT}){_ENDING}", re.ASCII
    ),
    Scope.GROUP: re.compile(rf"{_GROUP}_(?P<element>{_ELEMENT}){_ENDING}", re.ASCII),
}
"""The grammar by scope, in the syntax that Python and RE2 (hence DuckDB) share."""

EXTERNAL_INPUT = re.compile(r"r\d{19}_\d{4}_(?:(?:wfi\d\d|face)_l0|l1)|.+\.oem", re.ASCII)
"""Inputs that are not products: L0 of a detector or of FACE, delivered L1, and ephemerides."""


def level0_name(exposure: ExposureId, sender: str) -> str:
    """Return the name of what a detector, or FACE, sent down of an exposure."""
    return f"{exposure}_{sender.lower()}_l0"


_KIND_BY_SHAPE = {(kind.scope, kind.suffix, kind.extension): kind for kind in KINDS}


@dataclass(frozen=True)
class DetectorFileSet:
    """The products of one detector in one exposure: they share this name up to the suffix."""

    exposure: ExposureId
    detector: str
    optical_element: OpticalElement

    scope = Scope.DETECTOR

    def __post_init__(self) -> None:
        _require_detector(self.detector)

    def __str__(self) -> str:
        return f"{self.exposure}_{self.detector.lower()}_{self.optical_element.lower()}"


@dataclass(frozen=True)
class ExposureFileSet:
    """The products of one exposure as a whole."""

    exposure: ExposureId
    optical_element: OpticalElement

    scope = Scope.EXPOSURE

    def __str__(self) -> str:
        return f"{self.exposure}_{self.optical_element.lower()}"


@dataclass(frozen=True)
class GroupedFileSet:
    """The products of one group of exposures: what all such file sets have.

    Parameters
    ----------
    program
        Program number.
    release
        ``p`` for prompt, ``r0``, ``r1``, ... for data releases.
    grouping
        ``vCCAAASSSOOOVVV`` for a visit; also ``d...``, ``p...``, ``full``, ``user``.
    """

    program: int
    release: str
    grouping: str

    def __post_init__(self) -> None:
        if not 0 <= self.program < 10**5:
            raise ValueError(f"program {self.program} does not fit 5 digits")
        _require_match("release", self.release, r"p|r\d+")
        _require_match("grouping", self.grouping, GROUPING)

    @property
    def visit(self) -> VisitId | None:
        """The visit, when the grouping is one."""
        if not self.grouping.startswith("v"):
            return None
        return VisitId.parse(f"r{self.program:05d}{self.grouping[1:]}")

    def __str__(self) -> str:
        return f"r{self.program:05d}_{self.release}_{self.grouping}"


@dataclass(frozen=True)
class SkycellFileSet(GroupedFileSet):
    """The products of one group of exposures on one skycell.

    Parameters
    ----------
    skycell
        Name on the sky map, such as ``270p65x49y70``.
    optical_element
        The filter.
    """

    skycell: str
    optical_element: OpticalElement

    scope = Scope.SKYCELL

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_match("skycell", self.skycell, _SKYCELL)

    @classmethod
    def of_visit(
        cls, visit: VisitId, skycell: str, element: OpticalElement, release: str = PROMPT_RELEASE
    ) -> SkycellFileSet:
        """Return the file set of a visit on a skycell."""
        return cls(visit.program, release, visit.grouping, skycell, element)

    def __str__(self) -> str:
        return f"{super().__str__()}_{self.skycell}_{self.optical_element.lower()}"


@dataclass(frozen=True)
class GroupDetectorFileSet(GroupedFileSet):
    """The products of one detector in one group of exposures."""

    detector: str
    optical_element: OpticalElement

    scope = Scope.GROUP_DETECTOR

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_detector(self.detector)

    def __str__(self) -> str:
        return f"{super().__str__()}_{self.detector.lower()}_{self.optical_element.lower()}"


@dataclass(frozen=True)
class GroupFileSet(GroupedFileSet):
    """The products of one group of exposures as a whole."""

    optical_element: OpticalElement

    scope = Scope.GROUP

    def __str__(self) -> str:
        return f"{super().__str__()}_{self.optical_element.lower()}"


def _require_match(field: str, value: str, pattern: str) -> None:
    if re.fullmatch(pattern, value, re.ASCII) is None:
        raise ValueError(f"{field} {value!r} does not match {pattern}")


def _require_detector(detector: str) -> None:
    if detector not in DETECTORS:
        raise ValueError(f"{detector!r} is not a detector: expected WFI01 to WFI18")


FileSet = DetectorFileSet | ExposureFileSet | SkycellFileSet | GroupDetectorFileSet | GroupFileSet


@dataclass(frozen=True)
class ProductName:
    """An official file name: a file set and a kind.

    Raises
    ------
    ValueError
        If the kind's scope is not that of the file set.
    """

    file_set: FileSet
    kind: ProductKind

    def __post_init__(self) -> None:
        if self.kind.scope is not self.file_set.scope:
            raise ValueError(
                f"{self.kind.name} covers a {self.kind.scope}, not a {self.file_set.scope}"
            )

    @classmethod
    def parse(cls, text: str) -> ProductName:
        """Read an official file name.

        Raises
        ------
        ValueError
            If the text is not the file name of a kind in the table.
        """
        for scope, pattern in NAME_PATTERNS.items():
            match = pattern.fullmatch(text)
            if match is None:
                continue
            kind = _KIND_BY_SHAPE.get((scope, match["suffix"], match["extension"]))
            if kind is not None:
                return cls(_file_set(scope, match), kind)
        raise ValueError(f"{text!r} is not an official product name")

    @property
    def exposure(self) -> ExposureId | None:
        """The exposure, for products of one."""
        return None if isinstance(self.file_set, GroupedFileSet) else self.file_set.exposure

    @property
    def visit(self) -> VisitId | None:
        """The visit, for products of an exposure or of a visit."""
        if isinstance(self.file_set, GroupedFileSet):
            return self.file_set.visit
        return self.file_set.exposure.visit

    @property
    def level(self) -> Level:
        """The level it counts and is archived as."""
        return self.kind.level

    @property
    def leader(self) -> ProductName | None:
        """The product with which it is overwritten and removed, if there is one (R14)."""
        follows = self.kind.follows
        return None if follows is None else ProductName(self.file_set, KIND_BY_NAME[follows])

    @property
    def followers(self) -> tuple[ProductName, ...]:
        """The products that are overwritten and removed together with it (R14)."""
        return tuple(ProductName(self.file_set, kind) for kind in followers_of(self.kind))

    def __str__(self) -> str:
        return f"{self.file_set}_{self.kind.suffix}.{self.kind.extension}"


def parse_file_set(text: str) -> FileSet:
    """Read the name of a file set: an official file name up to the suffix.

    Raises
    ------
    ValueError
        If no product can have that name.
    """
    for scope in Scope:
        kind = next(kind for kind in KINDS if kind.scope is scope)
        try:
            return ProductName.parse(f"{text}_{kind.suffix}.{kind.extension}").file_set
        except ValueError:
            continue
    raise ValueError(f"{text!r} is not the name of a file set")


def products_of(file_set: FileSet) -> tuple[ProductName, ...]:
    """Return every product that can be in a file set."""
    return tuple(ProductName(file_set, kind) for kind in KINDS if kind.scope is file_set.scope)


def _file_set(scope: Scope, match: re.Match[str]) -> FileSet:
    element = OpticalElement(match["element"].upper())
    if scope in GROUP_SCOPES:
        group = (int(match["program"]), match["release"], match["grouping"])
        if scope is Scope.SKYCELL:
            return SkycellFileSet(*group, match["skycell"], element)
        if scope is Scope.GROUP_DETECTOR:
            return GroupDetectorFileSet(*group, match["detector"].upper(), element)
        return GroupFileSet(*group, element)
    exposure = _exposure(match["exposure"])
    if scope is Scope.EXPOSURE:
        return ExposureFileSet(exposure, element)
    return DetectorFileSet(exposure, match["detector"].upper(), element)


@functools.lru_cache(maxsize=1024)
def _exposure(text: str) -> ExposureId:
    """Read an exposure; dozens of names in a row share one."""
    return ExposureId.parse(text)
