"""What people see of a step's products in the UI: the metadata of its materializations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import dagster as dg
from rich.filesize import decimal

from roman_assets.access import Role
from roman_assets.data_root import DataRoot
from roman_assets.defs.lib.astrometry_check import ImagePointing
from roman_assets.defs.lib.in_time_check import in_time, ledger_rows, standings
from roman_assets.defs.lib.partition_work import Materialized, joint_data_version
from roman_assets.defs.lib.specs import asset_key, kinds_of
from roman_assets.products.deadline import Blame, ProductState
from roman_assets.products.kind import Maker, ProductKind, Step, pictures_of
from roman_assets.products.name import ProductName
from roman_assets.products.pixel_scale import PIXEL_SCALE
from roman_assets.products.pointing import ALIGNED, PointingSource
from roman_assets.products.visit_policy import MISSING
from roman_assets.settings.service_settings import service_address

if TYPE_CHECKING:
    import pandas as pd

    from roman_assets.archive.store import Archive
    from roman_assets.publishing.step import StepResult
    from roman_assets.registry.search.generations import RegisteredProduct

PRODUCTS_METADATA = "products"
REUSED_METADATA = "reused"

QUICKLOOK_KINDS = frozenset({"microlensing_reference_frame"})
"""Kinds without thumbnails whose images are drawn for the UI."""

THUMBNAILS = {"cal": "cal_thumbnail", "coadd": "coadd_thumbnail"}
"""Kinds of images and of their thumbnails, which the UI shows."""


@dataclass(frozen=True)
class StepReport:
    """What a step did for one partition, as the registry and the archive show it.

    Parameters
    ----------
    products
        The step's current products that this call made or found made, by kind.
    reused
        Names of those that were there already.
    failures
        Number of file sets that could not be made.
    deadlines
        The ledger's rows of the partition (`DeadlineQuery.groups`).
    """

    products: Mapping[str, Sequence[RegisteredProduct]]
    reused: frozenset[str]
    failures: int
    deadlines: pd.DataFrame

    @classmethod
    def of(cls, root: DataRoot, partition: str, result: StepResult) -> StepReport:
        """Look up what a step's result names."""
        from roman_assets.registry.registry import Registry

        reused = [entry.product_name for entry in result.reused]
        reused += [
            ProductName(name.file_set, kind) for name in reused for kind in pictures_of(name.kind)
        ]
        names = [*(entry.name for entry in result.made), *map(str, reused)]
        with Registry(root) as registry:
            entries = registry.generations.current(names)
            deadlines = registry.deadlines.groups(partition=partition)
        by_kind: dict[str, list[RegisteredProduct]] = {}
        for name in sorted(entries):
            by_kind.setdefault(entries[name].product_name.kind.name, []).append(entries[name])
        return cls(
            by_kind,
            frozenset(map(str, reused)),
            len(result.failures),
            deadlines,
        )

    def in_time(self, step: Step) -> list[dg.AssetCheckResult]:
        """Evaluate the checks of the levels that a step makes, as far as any are expected."""
        expected = (row for row in ledger_rows(self.deadlines) if row["step"] == step)
        return [
            in_time(standing)
            for standing in standings(expected)
            if standing.state != ProductState.NOT_EXPECTED
        ]

    @property
    def entries(self) -> Iterator[RegisteredProduct]:
        """All products, of any kind."""
        return (entry for entries in self.products.values() for entry in entries)


def materialized(root: DataRoot, step: Step, report: StepReport) -> dict[dg.AssetKey, Materialized]:
    """Return the materialization of each asset of a step that has products, upstream first."""
    from roman_assets.archive.store import Archive

    archive, service = Archive.of(root), service_address(root)
    return {
        asset_key(step, kind): Materialized(
            _metadata(archive, kind, report.products[kind.name], report)
            | _pages(service, report.products[kind.name]),
            content_version(report.products[kind.name]),
        )
        for kind in kinds_of(step)
        if kind.name in report.products
    }


def content_version(entries: Iterable[RegisteredProduct]) -> dg.DataVersion:
    """Return the data version of a set of products.

    It is made of the fingerprints, which identify content: a product reprocessed by the same
    work from the same inputs differs in dates and logs only, and makes nothing downstream stale.
    """
    return joint_data_version(f"{entry.name} {entry.fingerprint}" for entry in entries)


def _metadata(
    archive: Archive,
    kind: ProductKind,
    entries: Sequence[RegisteredProduct],
    report: StepReport,
) -> dict[str, Any]:
    size = sum(entry.size for entry in entries)
    directory = archive.location(entries[0].product_name).rpartition("/")[0]
    return {
        "files": len(entries),
        "size": decimal(size),
        "size_bytes": size,
        "failed_file_sets": report.failures,
        REUSED_METADATA: all(entry.name in report.reused for entry in entries),
        "generation": max(entry.generation for entry in entries),
        "public_directory": dg.MetadataValue.path(directory),
        "public_files": dg.MetadataValue.md(_links(archive, entries)),
        **_provenance(entries),
        **_quality(kind, entries),
        **_clock(kind, report.deadlines),
        **_partial(kind, entries),
        **_pixel_scale(entries),
        **_pictures(archive, kind, entries, report),
        PRODUCTS_METADATA: dg.MetadataValue.json([_summary(archive, entry) for entry in entries]),
    }


def _pages(service: str | None, entries: Sequence[RegisteredProduct]) -> dict[str, Any]:
    """Return links to the pages of public products in the archive service, if it has an address."""
    public = [entry for entry in entries if entry.access is Role.PUBLIC]
    if service is None or not public:
        return {}
    links = (f"- [{entry.name}]({service}/products/{quote(entry.name)})" for entry in public)
    return {"archive_pages": dg.MetadataValue.md("\n".join(links))}


def _links(archive: Archive, entries: Iterable[RegisteredProduct]) -> str:
    return "\n".join(
        f"- [{entry.name}]({archive.uri(entry.product_name)}) {decimal(entry.size)}"
        for entry in entries
    )


def _summary(archive: Archive, entry: RegisteredProduct) -> dict[str, Any]:
    return {
        "name": entry.name,
        "sha256": entry.sha256,
        "size": entry.size,
        "generation": entry.generation,
        "path": archive.location(entry.product_name),
    }


def _provenance(entries: Iterable[RegisteredProduct]) -> dict[str, Any]:
    contexts = sorted({entry.context for entry in entries if entry.context})
    software = {
        f"{package} {version}" for entry in entries for package, version in entry.software.items()
    }
    found = {"context": ", ".join(contexts), "software": ", ".join(sorted(software))}
    return {name: text for name, text in found.items() if text}


def _quality(kind: ProductKind, entries: Sequence[RegisteredProduct]) -> dict[str, Any]:
    if kind.maker is Maker.SSC:
        rows = [entry.metadata["rows"] for entry in entries if "rows" in entry.metadata]
        return {"dagster/row_count": sum(rows)} if rows else {}
    if kind.extension == "parquet":
        return {"dagster/row_count": total} if (total := source_count(entries)) is not None else {}
    images = pointings(entries)
    residuals = [image.rms for image in images if image.rms is not None]
    if not residuals:
        return {}
    return {
        "alignment_rms_mas_median": median(residuals),
        "alignment_rms_mas_worst": max(residuals),
        "aligned_detectors": sum(image.source is PointingSource.OWN for image in images),
        "detectors_with_common_pointing": sum(
            image.source is PointingSource.COMMON for image in images
        ),
    }


def source_count(entries: Iterable[RegisteredProduct]) -> int | None:
    """Return the number of sources in catalogues, None if no entry states it."""
    counts = [entry.metadata.get("source_count") for entry in entries]
    known = [int(count) for count in counts if count is not None]
    return sum(known) if known else None


def pointings(entries: Iterable[RegisteredProduct]) -> list[ImagePointing]:
    """Return what is known of the pointing of L2 images."""
    return [_pointing(entry.name, entry.metadata) for entry in entries]


def _pointing(name: str, facts: Mapping[str, Any]) -> ImagePointing:
    source = facts.get("pointing")
    if source is None:
        aligned = facts.get("alignment") == ALIGNED
        source = PointingSource.OWN if aligned else PointingSource.PLANNED
    rms, uncertainty = facts.get("alignment_rms"), facts.get("alignment_uncertainty")
    return ImagePointing(
        name,
        str(facts.get("exposure_type")),
        PointingSource(source),
        None if rms is None else float(rms),
        None if uncertainty is None else float(uncertainty),
    )


def _clock(kind: ProductKind, deadlines: pd.DataFrame) -> dict[str, Any]:
    """Return the ledger's verdict on the products of a kind that were made last, if it has one."""
    rows = deadlines[(deadlines["kind"] == kind.name) & deadlines["made"].notna()]
    if rows.empty:
        return {}
    last = rows.sort_values("made").iloc[-1]
    made = {
        "made_at": dg.MetadataValue.timestamp(last["made"].to_pydatetime()),
        "deadline": last["state"],
    }
    if last["state"] == ProductState.MADE_UNTIMED:
        return made
    hours = {f"{blame}_hours": float(last[f"{blame}_hours"]) for blame in Blame}
    late = {"blame": last["blame"]} if last["state"] == ProductState.MADE_LATE else {}
    return {
        **made,
        **late,
        "due": dg.MetadataValue.timestamp(last["due"].to_pydatetime()),
        "margin_hours": float(last["margin_hours"]),
        **hours,
    }


def _partial(kind: ProductKind, entries: Iterable[RegisteredProduct]) -> dict[str, Any]:
    lacking = missing_of(entries)
    if kind.step is not Step.VISIT and not lacking:
        return {}
    return {"partial": bool(lacking), MISSING: dg.MetadataValue.json(lacking)}


def _pixel_scale(entries: Iterable[RegisteredProduct]) -> dict[str, Any]:
    scales = sorted({e.metadata[PIXEL_SCALE] for e in entries if PIXEL_SCALE in e.metadata})
    return {f"{PIXEL_SCALE}_arcsec": ", ".join(map(str, scales))} if scales else {}


def missing_of(entries: Iterable[RegisteredProduct]) -> list[str]:
    """Return what was missing when products were made, as they are marked."""
    return sorted({name for entry in entries for name in entry.metadata.get(MISSING, ())})


def _pictures(
    archive: Archive,
    kind: ProductKind,
    entries: Sequence[RegisteredProduct],
    report: StepReport,
) -> dict[str, Any]:
    if kind.maker is Maker.SSC and kind.extension == "parquet":
        return _table_picture(archive, kind, entries)
    from roman_assets.calibration.quicklook import quicklooks
    from roman_assets.defs.lib.contact_sheet import MOST_PICTURES, contact_sheet, shrunk

    draw: Callable[[Sequence[Path], int], Sequence[bytes]]
    shown, draw = entries, quicklooks
    if kind.name in THUMBNAILS:
        shown, draw = report.products.get(THUMBNAILS[kind.name], ()), shrunk
    elif kind.name not in QUICKLOOK_KINDS:
        return {}
    if not shown:
        return {}
    first = shown[:MOST_PICTURES]
    images = [(str(entry.product_name.file_set), archive.local(entry.sha256)) for entry in first]
    sheet = contact_sheet(images, draw, len(shown) - len(first))
    return {"quick_look": dg.MetadataValue.md(sheet)}


def _table_picture(
    archive: Archive, kind: ProductKind, entries: Sequence[RegisteredProduct]
) -> dict[str, Any]:
    """Draw the first table of a kind whose tables are drawn."""
    from roman_assets.defs.lib.contact_sheet import inline
    from roman_assets.ssc.picture import draw

    try:
        drawing = draw(kind.name, lambda: archive.local(entries[0].sha256))
    except Exception as error:  # the product is published, whether it can be drawn or not
        return {"quick_look": dg.MetadataValue.text(f"not drawn: {error!r}")}
    if drawing is None:
        return {}
    return {"quick_look": dg.MetadataValue.md(inline(entries[0].name, drawing))}
