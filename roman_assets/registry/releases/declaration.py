"""The file that declares a data release (R7).

It is a TOML file that its authors keep under version control, wherever they like::

    version = 1
    release = "r0"                     # each survey counts its own
    survey = "HLWAS"
    after = 2027-01-01T00:00:00Z       # visits that begin in this range
    before = 2027-07-01T00:00:00Z
    context = "roman_0002.pmap"        # of CRDS, for all of it
    romancal = "1.1.0"
    groupings = ["visit", "pass"]      # what is added up: also "daily" and "full"
    ssc_groupings = ["visit"]          # what the SSC delivers (R12); [] without its products

    [pixel_scales]                     # of those that are not on the sky map's own pixels
    visit = "native"

When a release is begun, the registry takes the file over. From then on that text counts, on every
machine, and never changes.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from roman_assets.errors import BadInputError
from roman_assets.products.observation import Survey
from roman_assets.products.pixel_scale import PixelScale
from roman_assets.products.release_id import RELEASE, Grouping
from roman_assets.references.context import require_context
from roman_assets.software import installed_version

VERSION = 1


class ReleaseDeclaration(BaseModel):
    """What a data release is.

    Parameters
    ----------
    version
        Of the format of the file.
    release
        ``r0``, ``r1``, ...
    survey
        Whose L2 are reprocessed, and no other survey's.
    after, before
        Visits belong to it whose first exposure begins in this range, the end excluded.
    context
        The CRDS pipeline context of all of it.
    romancal
        The version of romancal that makes all of it.
    groupings
        What the SOC adds up.
    ssc_groupings
        What the SSC delivers products of, by default visits; empty for a release without them.
    pixel_scales
        The pixels of the coadds of some groupings; those of the others are the sky map's.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1]
    release: str = Field(pattern=f"^{RELEASE.pattern}$")
    survey: Survey
    after: AwareDatetime
    before: AwareDatetime
    context: str = Field(pattern=r"^roman_\d{4}\.pmap$")
    romancal: str = Field(min_length=1)
    groupings: tuple[Grouping, ...] = Field(min_length=1)
    ssc_groupings: tuple[Grouping, ...] = (Grouping.VISIT,)
    pixel_scales: Mapping[Grouping, PixelScale] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _has_range_and_distinct_groupings(self) -> Self:
        if self.after >= self.before:
            raise ValueError(f"before ({self.before}) is not later than after ({self.after})")
        for field in ("groupings", "ssc_groupings"):
            named = getattr(self, field)
            if len(set(named)) != len(named):
                raise ValueError(f"{field} names one twice")
        if unused := self.pixel_scales.keys() - set(self.groupings):
            raise ValueError(f"pixel_scales has {min(unused)}, which groupings does not name")
        return self

    def __str__(self) -> str:
        return f"{self.release} of {self.survey}"

    def pixel_scale(self, grouping: Grouping) -> PixelScale:
        """Return the pixel scale of the coadds of a grouping."""
        return self.pixel_scales.get(grouping, PixelScale.SKYMAP)

    def require_installed(self, source: object) -> None:
        """Refuse to work with anything but what is declared.

        Parameters
        ----------
        source
            The file, for the message.

        Raises
        ------
        BadInputError
            If another version of romancal is installed, or CRDS does not have the context.
        """
        installed = installed_version("romancal")
        if installed != self.romancal:
            raise BadInputError(
                source,
                "romancal",
                f"{self} is to be made with {self.romancal}, and {installed} is installed",
                f"run it where romancal {self.romancal} is installed, or declare another release",
            )
        try:
            require_context(self.context)
        except BadInputError as error:
            raise BadInputError(source, "context", error.reason, error.remedy) from error


def read_declaration(path: Path) -> tuple[ReleaseDeclaration, str]:
    """Read a declaration; give it with the text of its file.

    Raises
    ------
    BadInputError
        Naming the field.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(
            path, "file", f"not readable: {error}", "name the file that declares the release"
        ) from error
    return parse_declaration(path, text), text


def parse_declaration(source: object, text: str) -> ReleaseDeclaration:
    """Read the text of a declaration.

    Raises
    ------
    BadInputError
        Naming the field.
    """
    try:
        return ReleaseDeclaration.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise _unusable(source, "file", f"no TOML: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "range, groupings"
        found = "" if first["type"] == "missing" else f" (found {first['input']!r})"
        reason = first["msg"] + (found if first["loc"] else "")
        raise _unusable(source, field, reason) from error


def declaration_hash(text: str) -> str:
    """Return the sha256 by which records name a declaration."""
    return hashlib.sha256(text.encode()).hexdigest()


def _unusable(source: object, field: str, reason: str) -> BadInputError:
    return BadInputError(
        source,
        field,
        reason,
        f"write version = {VERSION}, release, survey, after, before, context, romancal, "
        "groupings and perhaps pixel_scales as docs/reprocessing.md shows",
    )
