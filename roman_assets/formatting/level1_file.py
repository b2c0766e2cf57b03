"""Checking L1 files that were formatted elsewhere, before anything of them is believed.

Such a file comes from outside, so nothing of a stated size is allocated and no object of an unknown
type is made before its text and its blocks were looked at. Then rad's schema decides, and then
whether file name, shapes, times and pointing fit each other.
"""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict

from roman_assets.archive.store import sha256_of
from roman_assets.errors import BadInputError
from roman_assets.formatting.asdf_guard import require_harmless
from roman_assets.products.kind import Step
from roman_assets.products.name import ProductName
from roman_assets.products.observation import ExposureId, ExposureType, OpticalElement, Survey
from roman_assets.registry.catalog.footprint import Footprint
from roman_assets.registry.catalog.header import Header, read_header

MOST_RESULTANTS = 256
LONGEST_SIDE = 4096
"""Pixels along a side of a detector, with the reference border."""

_YEARS = range(2000, 2100)
_CORRECT = "correct the file and deliver it again"
_OFFICIAL = "rPPPPPCCAAASSSOOOVVV_EEEE_wfiNN_f158_uncal.asdf"
_UNKNOWN = (None, "?", "", "None", -999999, -999999.0)
_NO_SKY = "-999999"


class Level1File(BaseModel):
    """What the platform must know of an L1 file that was formatted elsewhere.

    Parameters
    ----------
    name
        Official file name.
    sha256
        Of the file.
    survey, exposure_type, nexposures
        From its metadata; None in guide-window and FACE files, which do not say.
    start, stop
        Of the exposure, or of the guiding (UTC).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    sha256: str
    survey: Survey | None = None
    exposure_type: ExposureType | None = None
    nexposures: int | None = None
    start: AwareDatetime
    stop: AwareDatetime

    @property
    def product_name(self) -> ProductName:
        """The parsed name."""
        return ProductName.parse(self.name)

    @property
    def exposure(self) -> ExposureId:
        """The exposure it is of."""
        exposure = self.product_name.exposure
        assert exposure is not None
        return exposure

    @property
    def detector(self) -> str | None:
        """The detector, None for FACE."""
        return getattr(self.product_name.file_set, "detector", None)

    @property
    def optical_element(self) -> OpticalElement:
        """The optical element."""
        return self.product_name.file_set.optical_element

    @property
    def is_ramp(self) -> bool:
        """Whether it is the science ramp, which L2 is made from."""
        return self.product_name.kind.name == "uncal"


def read_level1(path: Path) -> Level1File:
    """Check an L1 file and return what it says.

    Parameters
    ----------
    path
        The file under its official name: ``_uncal.asdf``, ``_gw.asdf`` or ``_face.asdf``.

    Raises
    ------
    BadInputError
        If it cannot become a product; it names the field and the remedy.
    """
    name = _official_name(path)
    require_harmless(path)
    header = _header(path, name)
    _require_name(path, name, header.meta)
    _require_valid(path, name)
    checks = _Checks(path, name, header)
    return checks.ramp() if name.kind.name == "uncal" else checks.guiding()


def _official_name(path: Path) -> ProductName:
    try:
        name = ProductName.parse(path.name)
    except ValueError as error:
        raise BadInputError(
            path, "file name", "it is not an official product name",
            f"name an L1 file as the archive does: {_OFFICIAL}, or ending in _gw.asdf; "
            "a FACE file has no detector in its name",
        ) from error  # fmt: skip
    if name.kind.step is not Step.FORMATTING:
        raise BadInputError(
            path, "file name", f"{name.kind.name} is not formatted from packets: it is made here",
            "deliver L1 only: _uncal.asdf, _gw.asdf and _face.asdf",
        )  # fmt: skip
    return name


def _header(path: Path, name: ProductName) -> Header:
    try:
        return read_header(path, name)
    except BadInputError as error:
        raise BadInputError(path, error.field, error.reason, _CORRECT) from error


def _require_name(path: Path, name: ProductName, meta: Mapping[str, Any]) -> None:
    """Raise if the metadata contradict the file's name."""
    for field, stated in _said_by_name(name).items():
        found = meta.get(field)
        if str(found).upper() != str(stated).upper():
            said = "is missing" if field not in meta else f"is {reprlib.repr(found)}"
            raise BadInputError(
                path, f"meta.{field}", f"it {said}, the file's name says {stated!r}",
                "name the file as its metadata say, or correct the metadata, and deliver it again",
            )  # fmt: skip


def _said_by_name(name: ProductName) -> dict[str, object]:
    file_set, kind = name.file_set, name.kind.name
    said: dict[str, object] = {"filename": str(name)}
    if kind == "face":
        return said | {"optical_element": file_set.optical_element}
    detector = getattr(file_set, "detector", None)
    said |= {
        "instrument.detector": detector,
        "instrument.optical_element": file_set.optical_element,
    }
    exposure = name.exposure
    if kind == "uncal" and exposure is not None:
        visit = exposure.visit
        said |= {
            "observation.visit_id": visit.digits,
            "observation.program": visit.program,
            "observation.execution_plan": visit.execution_plan,
            "observation.pass": visit.pass_,
            "observation.segment": visit.segment,
            "observation.observation": visit.observation,
            "observation.visit": visit.visit,
            "observation.exposure": exposure.exposure,
        }
    return said


def _require_valid(path: Path, name: ProductName) -> None:
    """Raise if the file is not what rad's schema says; no array is loaded."""
    from asdf.exceptions import ValidationError
    from roman_datamodels import datamodels

    wanted = getattr(datamodels, str(name.kind.datamodel))
    try:
        with datamodels.open(path) as model:
            model.validate()
            found = type(model)
    except ValidationError as error:
        place = ".".join(str(part) for part in error.absolute_path if part != "roman")
        raise BadInputError(
            path, place or "roman", f"not valid by rad: {error.message[:500]}",
            f"fill it as rad's schema of {name.kind.datamodel} says, and deliver the file again",
        ) from error  # fmt: skip
    except Exception as error:  # the libraries raise almost anything on damaged files
        reason = str(error).partition("\n")[0] or repr(error)
        raise BadInputError(path, "roman", f"it cannot be opened: {reason}", _CORRECT) from error
    if found is not wanted:
        raise BadInputError(
            path, "roman", f"it holds a {found.__name__}, not a {wanted.__name__}", _CORRECT
        )


@dataclass(frozen=True)
class _Checks:
    """The checks of a file whose metadata are valid one by one."""

    path: Path
    name: ProductName
    header: Header

    def ramp(self) -> Level1File:
        self._shapes()
        start, stop = self._span("exposure.start_time", "exposure.end_time")
        self._pointing()
        return Level1File(
            name=str(self.name),
            sha256=sha256_of(self.path),
            survey=self._survey(),
            exposure_type=self._one_of(ExposureType, "exposure.type"),
            nexposures=self._nexposures(),
            start=start,
            stop=stop,
        )

    def guiding(self) -> Level1File:
        start, stop = self._span("t_start", "t_stop")
        return Level1File(name=str(self.name), sha256=sha256_of(self.path), start=start, stop=stop)

    def _shapes(self) -> None:
        pattern, shape = self._known("exposure.read_pattern"), self.header.shape
        if not isinstance(pattern, list) or not 1 <= len(pattern) <= MOST_RESULTANTS:
            raise self._fault(
                "exposure.read_pattern", f"it is not a list of 1 to {MOST_RESULTANTS} resultants"
            )
        reads = [read for reads in pattern for read in (reads if isinstance(reads, list) else [-1])]
        if not all(pattern) or not all(
            isinstance(read, int) and 1 <= read <= 65535 for read in reads
        ):
            raise self._fault(
                "exposure.read_pattern", "each resultant has the numbers of its reads"
            )
        if reads != sorted(set(reads)):
            raise self._fault("exposure.read_pattern", "the reads are not in ascending order")
        stated = self.header.meta.get("exposure.nresultants", len(pattern))
        if stated != len(pattern):
            raise self._fault(
                "exposure.nresultants", f"it is {stated}, the read pattern has {len(pattern)}"
            )
        if len(shape) != 3 or shape[0] != len(pattern):
            raise self._fault(
                "data", f"its shape is {shape}; the read pattern announces {len(pattern)} "
                "resultants of rows and columns",
            )  # fmt: skip
        rows, columns = shape[1:]
        if rows != columns or not 1 <= rows <= LONGEST_SIDE:
            raise self._fault(
                "data", f"its shape is {shape}; a detector has {LONGEST_SIDE}x{LONGEST_SIDE} "
                "pixels with the reference border, a window of one fewer, and as many rows as "
                "columns",
            )  # fmt: skip

    def _span(self, first: str, last: str) -> tuple[datetime, datetime]:
        start, stop = self._moment(first), self._moment(last)
        if stop <= start:
            raise self._fault(last, f"{stop.isoformat()} is not after {first} {start.isoformat()}")
        return start, stop

    def _moment(self, field: str) -> datetime:
        from astropy.time import Time

        value = self._known(field)
        try:
            if isinstance(value, Mapping):
                time = Time(value["value"], scale=value.get("scale", "utc"), format=value["format"])
            else:
                time = Time(str(value), scale="utc")
            moment: datetime = time.utc.to_datetime(UTC)
            year = moment.year
        except Exception as error:  # astropy raises almost anything
            raise self._fault(field, f"{reprlib.repr(value)} is not a time: {error}") from error
        if year not in _YEARS:
            raise self._fault(
                field, f"{moment.isoformat()} is not between {_YEARS[0]} and {_YEARS[-1] + 1}"
            )
        return moment

    def _pointing(self) -> None:
        """Raise if romancal could not give the image a WCS."""
        for field, low, high in _WCSINFO:
            value = self._known(f"wcsinfo.{field}")
            if (
                not isinstance(value, int | float)
                or not math.isfinite(value)
                or not low <= value <= high
            ):
                raise self._fault(
                    f"wcsinfo.{field}", f"{reprlib.repr(value)} is not between {low} and {high}"
                )
        region = self.header.meta.get("wcsinfo.s_region")
        if region in _UNKNOWN or _NO_SKY in str(region):
            return
        try:
            Footprint.of_product(str(region))
        except ValueError as error:
            raise self._fault("wcsinfo.s_region", str(error)) from error

    def _survey(self) -> Survey:
        category = self._known("program.subcategory")
        if not re.fullmatch(r"[A-Za-z0-9_\-]{1,15}", str(category)):
            raise self._fault("program.subcategory", f"{reprlib.repr(category)} names no survey")
        return Survey.from_subcategory(str(category))

    def _nexposures(self) -> int:
        number, exposure = self._known("visit.nexposures"), self.name.exposure
        assert exposure is not None
        if not isinstance(number, int) or not exposure.exposure <= number <= 9999:
            raise self._fault(
                "visit.nexposures",
                f"{reprlib.repr(number)} exposures are planned and this is number "
                f"{exposure.exposure} of its visit",
            )
        return number

    def _one_of(self, values: Callable[[str], ExposureType], field: str) -> ExposureType:
        value = self._known(field)
        try:
            return values(str(value))
        except ValueError as error:
            raise self._fault(field, str(error)) from error

    def _known(self, field: str) -> Any:
        value = self.header.meta.get(field)
        if value in _UNKNOWN:
            raise BadInputError(
                self.path, f"meta.{field}",
                "it is missing" if field not in self.header.meta
                else f"{value!r} says that it is not known",
                _REMEDIES.get(field, "fill it and deliver the file again"),
            )  # fmt: skip
        return value

    def _fault(self, field: str, reason: str) -> BadInputError:
        field = field if field == "data" else f"meta.{field}"
        return BadInputError(self.path, field, reason, _CORRECT)


_WCSINFO = (
    ("ra_ref", 0.0, 360.0),
    ("dec_ref", -90.0, 90.0),
    ("roll_ref", -360.0, 360.0),
    ("v2_ref", -3600.0, 3600.0),
    ("v3_ref", -3600.0, 3600.0),
    ("v3yangle", -360.0, 360.0),
    ("vparity", -1, 1),
)
"""What romancal makes the WCS from, and its limits: degrees, arcseconds for V2 and V3."""

_REMEDIES = {
    "visit.nexposures": "say how many exposures the visit has, as L3 is made when all are in; for "
    "romanisim with `--meta visit.nexposures=1`",
    "program.subcategory": "name the survey: HLWA, HLTD or GBTD; anything else is GAS; for "
    "romanisim with `--meta program.subcategory=HLWA`",
}
