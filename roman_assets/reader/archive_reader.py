"""The archive as a scientist meets it: find products, open them, learn where they came from."""

from __future__ import annotations

import shutil
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import unquote, urlsplit

import numpy as np
import pandas as pd
from astropy.config import get_cache_dir
from astropy.coordinates import Angle, SkyCoord
from astropy.time import Time

from roman_assets.access import Role
from roman_assets.archive.durability import disk_space, temporary_name
from roman_assets.archive.store import Archive, sha256_of
from roman_assets.data_root import DataRoot
from roman_assets.errors import AccessDeniedError, BadInputError
from roman_assets.products.kind import KIND_BY_NAME, Level
from roman_assets.products.lifecycle import AVAILABLE, Quality
from roman_assets.products.name import ProductName
from roman_assets.products.observation import (
    DETECTORS,
    ExposureId,
    ExposureType,
    OpticalElement,
    Survey,
    VisitId,
)
from roman_assets.reader.download_list import PATH
from roman_assets.reader.lineage import Provenance, trace
from roman_assets.reader.product_comparison import GenerationChange
from roman_assets.reader.product_file import open_product_file
from roman_assets.registry.registry import Registry
from roman_assets.registry.search.area import Cone, Polygon
from roman_assets.registry.search.condition import OneOrMore
from roman_assets.registry.search.generations import RegisteredProduct

Product = str | ProductName | Mapping[str, Any] | pd.Series
"""A product by its official name, or as a row of a search result."""
Moment: TypeAlias = datetime | str | Time

_SEE_NAMES = "see `find` or `roman-assets ls` for the products there are"


def open_archive(
    location: str | Path | None = None, role: Role | str = Role.PUBLIC
) -> ArchiveReader:
    """Open an archive for reading, from a notebook or a program.

    Parameters
    ----------
    location
        The data root of an installation, as a path or a ``file://`` URL, or its object store,
        ``s3://bucket/prefix`` (with the usual ``AWS_*`` variables; ``AWS_SKIP_SIGNATURE=true``
        where the public may read without credentials). By default ``ROMAN_ASSETS_DATA`` and
        ``ROMAN_ASSETS_ARCHIVE``, else ``data`` in the working directory.
    role
        ``"public"`` for general users, ``"operations"`` for operators (see `roman_assets.access`).

    Raises
    ------
    BadInputError
        If there is no archive at that place, or the location or role is invalid.
    """
    root = _data_root(location)
    try:
        role = Role(role)
    except ValueError as error:
        raise BadInputError(
            "open_archive", "role", f"{role!r} is not a role", f"use {' or '.join(Role)}"
        ) from error
    if root.object_store is None and not root.path.is_dir():
        raise BadInputError(
            root.path, "location", "there is no such directory", "name an installation's data root"
        )
    return ArchiveReader(root, role)


class ArchiveReader:
    """The products of one installation and what is known of them, for reading.

    Parameters
    ----------
    root
        The installation.
    role
        For whom it reads: the public role uses the public tree and the public registry alone.
    registry
        The registry of this installation and role, if it is open already.
    """

    def __init__(
        self, root: DataRoot, role: Role = Role.PUBLIC, registry: Registry | None = None
    ) -> None:
        self._archive = Archive.of(root)
        self._registry = Registry(root, role) if registry is None else registry
        self._root = root
        self.role = role

    def __repr__(self) -> str:
        return f"<archive at {self._root.path}, role {self.role}>"

    def __enter__(self) -> ArchiveReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the registry; a later call opens it again."""
        self._registry.close()

    def find(
        self,
        *,
        name: OneOrMore = None,
        pattern: OneOrMore = None,
        exposure: OneOrMore = None,
        visit: OneOrMore = None,
        program: int | Iterable[int] | None = None,
        survey: OneOrMore = None,
        level: OneOrMore = None,
        kind: OneOrMore = None,
        optical_element: OneOrMore = None,
        exposure_type: OneOrMore = None,
        detector: OneOrMore = None,
        skycell: OneOrMore = None,
        release: OneOrMore = None,
        quality: OneOrMore = None,
        after: Moment | None = None,
        before: Moment | None = None,
        cone: Cone | tuple[SkyCoord, Any] | None = None,
        polygon: Polygon | SkyCoord | None = None,
        overwritten: bool = False,
        limit: int | None = None,
    ) -> pd.DataFrame:
        """Search products; all conditions must hold, a list means any of its values.

        Parameters
        ----------
        name, exposure, visit
            Official names, such as ``r0000101001001001001_0001`` for an exposure.
        pattern
            Official names with ``*``, ``?`` and ``[...]``.
        program
            Program numbers.
        survey, level, kind, optical_element, exposure_type, detector
            As in ``HLWAS``, ``L2``, ``cal``, ``F158``, ``WFI_IMAGE``, ``WFI01``, in any case.
        skycell
            Cells of the sky map, such as ``270p65x49y70``.
        release
            ``p`` for prompt products, ``r0``, ``r1``, ... for data releases.
        quality
            Products that a person graded ``OK``, ``SUSPECT`` or ``BAD``.
        after, before
            Products whose exposures overlap this time range: a `datetime`, an `astropy.time.Time`
            or ISO 8601; UTC where nothing else is said.
        cone
            Products whose footprint meets it: right ascension, declination (ICRS) and radius, deg,
            or a `SkyCoord` and an angle.
        polygon
            Products whose footprint meets this convex polygon of great circles: corners (ra, dec)
            in order, ICRS, deg; or a `SkyCoord` of them; or an s_region.
        overwritten
            Past generations as well. They can be cited, and not be opened any more.
        limit
            At most so many, of the newest.

        Returns
        -------
        pandas.DataFrame
            One row a product, ordered by name: the columns of
            `roman_assets.registry.catalog.schema.SEARCH_COLUMNS` that the role may see, and
            ``path``, the file (null where there is no public one). ``footprint`` is an s_region,
            ICRS, deg; times are UTC, ``size`` is in bytes.

        Raises
        ------
        ValueError
            If a value is not one that a product can have, naming those it can.
        """
        found = self._registry.products.find(
            name=_checked(name, ProductName.parse),
            pattern=pattern,
            exposure=_checked(exposure, ExposureId.parse),
            visit=_checked(visit, VisitId.parse),
            program=program,
            survey=_known(survey, "survey", Survey),
            level=_known(level, "level", Level),
            kind=_known(kind, "kind", KIND_BY_NAME),
            optical_element=_known(optical_element, "optical element", OpticalElement),
            exposure_type=_known(exposure_type, "exposure type", ExposureType),
            detector=_known(detector, "detector", DETECTORS),
            skycell=skycell,
            release=release,
            quality=_known(quality, "quality", Quality),
            after=_utc(after),
            before=_utc(before),
            cone=_cone(cone),
            polygon=_polygon(polygon),
            overwritten=overwritten,
            limit=limit,
        )
        shown = found["state"].isin(AVAILABLE) & (found["access"] == Role.PUBLIC)
        found[PATH.name] = pd.Series(
            [
                self._archive.location(ProductName.parse(name)) if is_shown else None
                for name, is_shown in zip(found["name"], shown, strict=True)
            ],
            dtype=found["name"].dtype,
        )
        return found

    def names(self, pattern: str = "*") -> Iterator[str]:
        """Go through the names of the products there are, in order, however many.

        Parameters
        ----------
        pattern
            An official name with ``*``, ``?`` and ``[...]``.
        """
        return self._registry.products.names(pattern)

    def path(self, product: Product, *, verify: bool = False) -> Path:
        """Return the file of a product, to be read and not to be changed.

        A process that has the file open keeps its content, whatever is published.

        Parameters
        ----------
        product
            An official name, or a row of `find`.
        verify
            Read the file and compare its sha256 with the registry's.

        Raises
        ------
        BadInputError
            If there is no such product, if it is not available any more (a row of a generation
            that was overwritten since, say), or if the content is not that of the product.
        AccessDeniedError
            If the name does not lead to a regular file in the public tree.
        """
        if verify:
            return self._verified(product, lambda path: path)
        return self._file(product)[0]

    def open(self, product: Product, *, verify: bool = False, lazy: bool = False) -> Any:
        """Open a product.

        Parameters
        ----------
        product
            An official name, or a row of `find`.
        verify
            Compare the file's sha256 with the registry's first.
        lazy
            Read the arrays of a data model when they are first used; they die with the model then.

        Returns
        -------
        roman_datamodels.datamodels.DataModel, astropy.table.QTable or dict
            See `roman_assets.reader.product_file.open_product_file`.

        Raises
        ------
        BadInputError, AccessDeniedError
            As `path` does.
        """
        name = _name_of(product)
        return open_product_file(self.path(product, verify=verify), name, lazy=lazy)

    def copy(self, product: Product, directory: Path | str) -> Path:
        """Copy a product under its official name; it appears whole and with the right sha256.

        Parameters
        ----------
        product
            An official name, or a row of `find`.
        directory
            Where to; it must exist.

        Returns
        -------
        pathlib.Path
            The copy, to be changed at will.

        Raises
        ------
        BadInputError, AccessDeniedError
            As `path` does.
        PassingFaultError
            If the disk is full.
        """
        target = Path(directory) / str(_name_of(product))
        partial = temporary_name(target)

        def taken(source: Path) -> Path:
            with disk_space(target.parent):
                return Path(shutil.copyfile(source, partial))

        try:
            return self._verified(product, taken).replace(target)
        finally:
            partial.unlink(missing_ok=True)

    def history(self, product: Product) -> pd.DataFrame:
        """Return every generation of a product with all it takes to cite and reproduce it.

        Parameters
        ----------
        product
            An official name, or a row of `find`.

        Returns
        -------
        pandas.DataFrame
            One row a generation, oldest first: ``generation``, ``state``, ``committed_at`` and
            ``ended_at`` (UTC), ``quality`` and ``quality_reason`` (a person's grade), ``sha256``,
            ``size`` (bytes), ``context``, ``software`` (versions by package), ``references`` (files
            by kind), ``inputs`` (name and sha256 of each), ``fingerprint``; and ``change``, what
            the generation that overwrote it changed (see
            `roman_assets.reader.product_comparison.GenerationChange`), empty where that is not on
            record.

        Raises
        ------
        BadInputError
            If there never was such a product.
        """
        generations = self._generations(_name_of(product))
        stated = filter(None, map(GenerationChange.of_record, generations))
        changes = {
            change.overwrote: change.model_dump(mode="json", exclude_defaults=True)
            for change in stated
        }
        return pd.DataFrame(
            [
                {field: getattr(made, field) for field in _CITED}
                | {
                    "inputs": [item.model_dump() for item in made.inputs],
                    "change": changes.get(made.record_id, {}),
                }
                for made in generations
            ],
            columns=[*_CITED, "change"],
        )

    def provenance(self, product: Product, generation: int | None = None) -> Provenance:
        """Trace a product up to the packets and down to the last product made from it.

        Parameters
        ----------
        product
            An official name, or a row of `find`.
        generation
            Which one, the newest by default; that of the row if it is a row.

        Raises
        ------
        BadInputError
            If there never was such a product or generation.
        """
        name = _name_of(product)
        if generation is None and not isinstance(product, str | ProductName):
            generation = product.get("generation")
        made = self._generations(name)
        chosen = [entry for entry in made if generation in (None, entry.generation)]
        if not chosen:
            raise BadInputError(
                name, "generation", f"there is no generation {generation}", f"1 to {len(made)} are"
            )
        return trace(self._registry, chosen[-1])

    def _file(self, product: Product) -> tuple[Path, RegisteredProduct]:
        name = _name_of(product)
        entry = self._current(name)
        wanted = None if isinstance(product, str | ProductName) else product.get("sha256")
        if wanted not in (None, entry.sha256):
            raise _not_available(
                name, "this generation is not available any more: a later one took its place"
            )
        try:
            _warn_of(entry)
            if entry.access is Role.PUBLIC:
                return self._archive.path(name), entry
            return self._archive.local(entry.sha256), entry
        except FileNotFoundError as error:
            raise _not_available(name, "its file is missing") from error
        except PermissionError as error:
            raise AccessDeniedError(
                f"{name} is not for you to read: {error.strerror}. Remedy: tell the operator that "
                "the public tree is to be readable by all"
            ) from error

    def _verified(self, product: Product, take: Callable[[Path], Path]) -> Path:
        """Take a file with the content that the registry states.

        A public name shows a new generation a moment before the registry does, so content that
        differs is looked at again.
        """
        for pause in PAUSES:
            time.sleep(pause)
            path, entry = self._file(product)
            taken = take(path)
            found = sha256_of(taken)
            if found == entry.sha256:
                return taken
        raise BadInputError(
            entry.name,
            "sha256",
            f"the file has {found}, the product {entry.sha256}",
            "tell the operator: `roman-assets fsck` finds and mends this",
        )

    def _current(self, name: ProductName) -> RegisteredProduct:
        entry = self._registry.generations.current([str(name)]).get(str(name))
        if entry is None:
            past = self._generations(name)[-1]
            raise _not_available(
                name, f"it is not available any more: generation {past.generation} is {past.state}"
            )
        return entry

    def _generations(self, name: ProductName) -> tuple[RegisteredProduct, ...]:
        made = self._registry.generations.of([str(name)]).get(str(name))
        if not made:
            raise BadInputError(name, "name", "the archive has no such product", _SEE_NAMES)
        return made


PAUSES = (0.0, 0.1, 0.4, 1.5)
"""Before each look for a file that is overwritten meanwhile, s."""

_CITED = (
    "generation", "state", "committed_at", "ended_at", "quality", "quality_reason", "sha256",
    "size", "context", "software", "references", "inputs", "fingerprint",
)  # fmt: skip


def _data_root(location: str | Path | None) -> DataRoot:
    if location is None:
        return DataRoot.from_environment()
    if isinstance(location, Path) or "://" not in location:
        return DataRoot(Path(location).expanduser().absolute())
    url = urlsplit(location)
    if url.scheme == "s3":
        return DataRoot(Path(get_cache_dir("roman-assets")), location.rstrip("/"))
    if url.scheme != "file" or url.netloc not in ("", "localhost"):
        raise BadInputError(
            location,
            "location",
            "no archive can be opened there",
            "give a path, a file:// URL or an s3:// URL",
        )
    return DataRoot(Path(unquote(url.path)))


def _name_of(product: Product) -> ProductName:
    if isinstance(product, ProductName):
        return product
    text = product if isinstance(product, str) else product["name"]
    try:
        return ProductName.parse(text)
    except (ValueError, TypeError) as error:
        raise BadInputError(
            repr(text), "name", "not an official product name", _SEE_NAMES
        ) from error


def _not_available(name: ProductName, reason: str) -> BadInputError:
    return BadInputError(
        name, "file", reason, "see `history` for what it can be cited by; find the current one"
    )


def _checked(values: OneOrMore, parse: Any) -> OneOrMore:
    """Check that values are official names."""
    if values is None:
        return None
    items = [values] if isinstance(values, str) or not isinstance(values, Iterable) else values
    return [str(parse(str(item))) for item in items]


class QualityWarning(UserWarning):
    """A product that is read was graded ``SUSPECT`` or ``BAD`` by an operator."""


_WARNED_OF = frozenset({Quality.SUSPECT, Quality.BAD})


def _warn_of(entry: RegisteredProduct) -> None:
    if entry.quality in _WARNED_OF:
        warnings.warn(
            f"{entry.name} is graded {entry.quality}: {entry.quality_reason}",
            QualityWarning,
            stacklevel=4,
        )


def _known(values: OneOrMore, what: str, known: Iterable[str]) -> OneOrMore:
    """Return values as the registry spells them."""
    if values is None:
        return None
    spelling = {str(value).upper(): str(value) for value in known}
    items = [values] if isinstance(values, str) else list(values)
    if unknown := [item for item in items if str(item).upper() not in spelling]:
        raise ValueError(
            f"{unknown[0]!r} is not a known {what}: known are {', '.join(spelling.values())}"
        )
    return [spelling[str(item).upper()] for item in items]


def _utc(moment: Moment | None) -> datetime | None:
    if moment is None:
        return None
    if isinstance(moment, Time):
        utc: datetime = moment.utc.to_datetime(UTC)
        return utc
    time = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def _cone(cone: Cone | tuple[SkyCoord, Any] | None) -> Cone | None:
    if cone is None or len(cone) == 3:
        return cone
    centre, radius = cone
    return float(centre.icrs.ra.deg), float(centre.icrs.dec.deg), float(Angle(radius).deg)


def _polygon(polygon: Polygon | SkyCoord | None) -> Polygon | None:
    if isinstance(polygon, SkyCoord):
        corners: list[tuple[float, float]] = np.stack(
            [polygon.icrs.ra.deg, polygon.icrs.dec.deg], axis=-1
        ).tolist()
        return corners
    return polygon
