"""The conditions of a search as options, the same for every command that searches."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from roman_assets.products.kind import KIND_BY_NAME, Level
from roman_assets.products.lifecycle import Quality
from roman_assets.products.observation import (
    DETECTORS,
    ExposureType,
    OpticalElement,
    Survey,
)

if TYPE_CHECKING:
    import pandas as pd

    from roman_assets.reader.archive_reader import ArchiveReader

_PANEL = "Which products"
_TIMES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S.%f"]


def _option(*names: str, **about: Any) -> Any:
    return typer.Option(*names, rich_help_panel=_PANEL, **about)


def _one_of(known: Any, what: str) -> Callable[[str | None], str | None]:
    spelling = {str(value).upper(): str(value) for value in known}

    def check(value: str | None) -> str | None:
        if value is not None and value.upper() not in spelling:
            raise typer.BadParameter(
                f"{value!r} is not a known {what}: {', '.join(spelling.values())}"
            )
        return None if value is None else spelling[value.upper()]

    return check


def _corners(text: str | None) -> str | None:
    return None if text is None else f"POLYGON ICRS {text.replace(',', ' ')}"


@dataclass(frozen=True)
class Search:
    """What products to take; all conditions must hold."""

    exposure: Annotated[str | None, _option(help="Such as r0000101001001001001_0001.")] = None
    visit: Annotated[str | None, _option(help="Such as r0000101001001001001.")] = None
    program: Annotated[int | None, _option(min=0, max=99999, help="Program number.")] = None
    survey: Annotated[Survey | None, _option(case_sensitive=False)] = None
    optical_element: Annotated[OpticalElement | None, _option("--filter", case_sensitive=False)] = (
        None
    )
    level: Annotated[Level | None, _option(case_sensitive=False)] = None
    kind: Annotated[
        str | None,
        _option(
            metavar="KIND",
            callback=_one_of(KIND_BY_NAME, "kind"),
            help=f"One of {', '.join(KIND_BY_NAME)}.",
        ),
    ] = None
    exposure_type: Annotated[ExposureType | None, _option(case_sensitive=False)] = None
    detector: Annotated[
        str | None,
        _option(metavar="WFInn", callback=_one_of(DETECTORS, "detector"), help="WFI01 to WFI18."),
    ] = None
    skycell: Annotated[str | None, _option(help="Such as 270p65x49y70.")] = None
    release: Annotated[
        str | None, _option(help="p for prompt products, r0, r1, ... for data releases.")
    ] = None
    quality: Annotated[
        Quality | None, _option(case_sensitive=False, help="As a person graded them.")
    ] = None
    after: Annotated[
        datetime | None, _option(formats=_TIMES, help="Exposed at this time or later, UTC.")
    ] = None
    before: Annotated[
        datetime | None, _option(formats=_TIMES, help="Exposed at this time or before, UTC.")
    ] = None
    position: Annotated[
        tuple[float, float] | None,
        _option(metavar="RA DEC", help="Products around here; ICRS, degrees."),
    ] = None
    radius: Annotated[float, _option(min=0, help="Of that search, degrees.")] = 0.1
    polygon: Annotated[
        str | None,
        _option(
            metavar="'RA DEC RA DEC RA DEC ...'",
            callback=_corners,
            help="Products that meet this convex polygon; ICRS, degrees.",
        ),
    ] = None
    overwritten: Annotated[
        bool, _option("--overwritten", help="Past generations too; they can only be cited.")
    ] = False
    limit: Annotated[int | None, _option(min=1, help="At most so many, of the newest.")] = None

    @property
    def is_everything(self) -> bool:
        """Whether there is no condition."""
        return self == Search()

    def find(
        self,
        reader: ArchiveReader,
        *,
        names: list[str] | None = None,
        pattern: str | None = None,
    ) -> pd.DataFrame:
        """Search an archive; a value that cannot be is an error of usage."""
        try:
            return reader.find(
                name=names,
                pattern=pattern,
                exposure=self.exposure,
                visit=self.visit,
                program=self.program,
                survey=self.survey,
                level=self.level,
                kind=self.kind,
                optical_element=self.optical_element,
                exposure_type=self.exposure_type,
                detector=self.detector,
                skycell=self.skycell,
                release=self.release,
                quality=self.quality,
                after=self.after and self.after.replace(tzinfo=UTC),
                before=self.before and self.before.replace(tzinfo=UTC),
                cone=(*self.position, self.radius) if self.position else None,
                polygon=self.polygon,
                overwritten=self.overwritten,
                limit=self.limit,
            )
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error


def searching(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of `Search` to a command, as its argument ``search``."""
    hints = get_type_hints(Search, include_extras=True)
    names = [field.name for field in fields(Search)]
    options = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=hints[field.name],
        )
        for field in fields(Search)
    ]
    own = inspect.signature(command, eval_str=True)

    @functools.wraps(command)
    def with_search(**given: Any) -> None:
        search = Search(**{name: given.pop(name) for name in names})
        command(search=search, **given)

    kept = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in own.parameters.values()
        if parameter.name != "search"
    ]
    with_search.__signature__ = own.replace(  # type: ignore[attr-defined]
        parameters=[*kept, *options]
    )
    return with_search
