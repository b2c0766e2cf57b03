"""Which calibration context applies (R5, R7).

CRDS keeps contexts (``roman_NNNN.pmap``), each of which names a reference file for every kind
of exposure. Everything here works with a local cache as well as with a CRDS server: an
operator who sets ``CRDS_SERVER_URL`` and ``CRDS_PATH`` changes nothing else.

Call `configure_crds` before the first use of CRDS in a process: CRDS reads some variables only
once.
"""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError
from roman_assets.products.observation import ExposureType, OpticalElement

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SERVERLESS_URL = "https://crds-serverless-mode.stsci.edu"
"""The value of ``CRDS_SERVER_URL`` by which CRDS means: use the cache alone."""

ASTROMETRIC_CATALOG = Path("astrometric", "roman_assets_astrometric.fits")
"""The reference catalogue of positions within a cache that has one of its own."""

_CONTEXT = re.compile(r"roman_\d{4}\.pmap")


def configure_crds(root: DataRoot) -> None:
    """Point CRDS at the installation's cache, where the operator has not said otherwise.

    Parameters
    ----------
    root
        The installation; ``CRDS_PATH`` becomes its `DataRoot.crds`.

    Notes
    -----
    Sets defaults for ``CRDS_PATH``, ``CRDS_OBSERVATORY`` and ``CRDS_SERVER_URL``; and
    ``CRDS_READONLY_CACHE`` only when no server is in use, since CRDS stores what it gets from
    a server in the cache. Variables that are set stay as they are.
    """
    os.environ.setdefault("CRDS_PATH", str(root.crds))
    os.environ.setdefault("CRDS_OBSERVATORY", "roman")
    url = os.environ.setdefault("CRDS_SERVER_URL", SERVERLESS_URL)
    if url == SERVERLESS_URL:
        os.environ.setdefault("CRDS_READONLY_CACHE", "1")


def operational_context() -> str:
    """Return the context that CRDS would use now, such as ``roman_0002.pmap``.

    ``CRDS_CONTEXT`` wins over the server's word (or that of the cache's ``server_config``),
    which is asked anew at each call.

    Raises
    ------
    BadInputError
        If the cache has no configuration.
    """
    from crds.core import heavy_client

    with _missing_cache_explained():
        info = heavy_client.get_config_info.uncached("roman")
        return str(heavy_client.get_final_context(info, None))


def use_context(context: str) -> None:
    """Make romancal in this process use a context from now on.

    A process that has used CRDS keeps to the context it found then, whatever the environment
    or the server say later; so calibration names the context, once for each exposure.

    Parameters
    ----------
    context
        As given by `operational_context` or recorded with a product or a data release.

    Raises
    ------
    BadInputError
        If the name is not that of a context.
    """
    from crds.core import utils

    _require_name(context)
    os.environ["CRDS_CONTEXT"] = context
    utils.clear_function_caches()


def _require_name(context: str) -> None:
    if _CONTEXT.fullmatch(context) is None:
        raise BadInputError(
            "CRDS", "context", f"{context!r} is not a context", "name one such as roman_0002.pmap"
        )


def require_context(context: str) -> str:
    """Return a context that is fixed beforehand, if the cache or the server has it (R7, R15).

    Parameters
    ----------
    context
        As a data release declares it, or as reprocessing was approved for.

    Raises
    ------
    BadInputError
        If the name is not that of a context, or a cache that no server fills does not have it.
    """
    _require_name(context)
    serverless = os.environ.get("CRDS_SERVER_URL", SERVERLESS_URL) == SERVERLESS_URL
    if serverless and context not in (known := known_contexts()):
        raise BadInputError(
            os.environ["CRDS_PATH"],
            "context",
            f"the cache has no {context}; it has {', '.join(known) or 'none'}",
            "bring it into the cache, or name one that is there",
        )
    return context


def known_contexts() -> tuple[str, ...]:
    """Return the contexts present in the local cache, oldest first."""
    mappings = Path(os.environ["CRDS_PATH"]) / "mappings" / "roman"
    return tuple(
        sorted(path.name for path in mappings.glob("*.pmap") if _CONTEXT.fullmatch(path.name))
    )


def best_references(
    detector: str,
    optical_element: OpticalElement,
    exposure_type: ExposureType,
    start_time: datetime,
    *,
    context: str | None = None,
    kinds: Iterable[str] = (),
) -> dict[str, str]:
    """Return the names of the reference files CRDS chooses for an exposure.

    Parameters
    ----------
    detector
        ``WFI01`` to ``WFI18``.
    optical_element, exposure_type
        As in ``meta.instrument.optical_element`` and ``meta.exposure.type``.
    start_time
        Start of the exposure; naive times are UTC.
    context
        The context, by default the operational one.
    kinds
        Reference kinds such as ``flat``; by default all that the context knows.

    Returns
    -------
    dict
        Kind to file name, ``N/A`` where the context says that there is none.

    Raises
    ------
    BadInputError
        If the cache has no such context, or no reference of a kind that was asked for.
    """
    import crds

    start = start_time if start_time.tzinfo is None else start_time.astimezone(UTC)
    chosen = context or operational_context()
    parameters = {
        "ROMAN.META.INSTRUMENT.NAME": "WFI",
        "ROMAN.META.INSTRUMENT.DETECTOR": detector,
        "ROMAN.META.INSTRUMENT.OPTICAL_ELEMENT": str(optical_element),
        "ROMAN.META.EXPOSURE.TYPE": str(exposure_type),
        "ROMAN.META.EXPOSURE.START_TIME": f"{start:%Y-%m-%d %H:%M:%S}",
    }
    asked = tuple(kinds)
    with _missing_cache_explained():
        try:
            found = crds.getrecommendations(
                parameters, reftypes=list(asked) or None, context=chosen, observatory="roman"
            )
        except crds.CrdsError as error:
            raise BadInputError(
                f"CRDS context {chosen}", "mapping", str(error), "repair or complete the cache"
            ) from error
    references = {kind: _plain(name) for kind, name in found.items()}
    absent = sorted(kind for kind in asked if references[kind].startswith("NOT FOUND"))
    if absent:
        raise BadInputError(
            f"CRDS context {chosen}",
            ", ".join(absent),
            f"no reference for {detector} {optical_element} {exposure_type}",
            "add the detector and optical element to the cache",
        )
    return {kind: name for kind, name in references.items() if not name.startswith("NOT FOUND")}


def astrometric_catalog(root: DataRoot) -> Path | None:
    """Return the catalogue of reference positions to hand to `TweakRegStep` as ``abs_refcat``.

    Returns
    -------
    Path or None
        A table with ``RA`` and ``DEC`` (ICRS, degrees) that lies in the cache; None if the
        cache has none, when romancal's own choice (Gaia, from its service) applies.

    Notes
    -----
    Parameter references can hold only absolute paths. The cache's own one is right until the
    cache is moved, and right again after the next build; a step argument, which wins over
    it, is always right: ``steps={"tweakreg": {"abs_refcat": str(path)}}``.
    """
    path = Path(os.environ.get("CRDS_PATH", str(root.crds))) / ASTROMETRIC_CATALOG
    return path if path.is_file() else None


def _plain(name: str) -> str:
    return "N/A" if name.upper().endswith("N/A") else name


@contextmanager
def _missing_cache_explained() -> Iterator[None]:
    try:
        yield
    except SystemExit as error:
        # CRDS leaves the interpreter when it finds neither a server nor a configured cache.
        raise BadInputError(
            os.environ.get("CRDS_PATH", "CRDS_PATH"),
            "config/roman/server_config",
            "the CRDS cache has no configuration and no server answers",
            "build a cache, or set CRDS_SERVER_URL and CRDS_PATH",
        ) from error
