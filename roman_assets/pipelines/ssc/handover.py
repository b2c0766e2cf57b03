"""The hand-over: the SSC is told which L2 images are ready for its pipelines (R12).

A manifest is written into the exchange for each spectroscopic exposure and for each visit of which
the SSC makes L3 or L4, and again when its L2 images are made again. That it was written is on
record with its time, from which on the ledger counts the hours of the SSC.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath

from pydantic import BaseModel, ConfigDict, NonNegativeInt

from roman_assets.archive.durability import locked, make_directory
from roman_assets.archive.exchange import TO_SSC, Exchange
from roman_assets.archive.store import Archive
from roman_assets.data_root import DataRoot
from roman_assets.pipelines.manifest import VisitManifest
from roman_assets.products.deadline import Clock, ClockEvent, utc_now
from roman_assets.products.kind import (
    DELIVERY_STEPS,
    VISIT_STEPS,
    Level,
    ProductKind,
    Step,
    expected_kinds,
)
from roman_assets.products.name import DetectorFileSet
from roman_assets.products.observation import ExposureType, OpticalElement, Survey
from roman_assets.registry.fold import fold
from roman_assets.registry.generations import RegisteredProduct
from roman_assets.registry.journal import Journal
from roman_assets.registry.record import (
    CommitRecord,
    Handover,
    ProductInput,
    Sha256,
    Statement,
    UtcTime,
)
from roman_assets.registry.registry import Registry

_LOCK = "handovers.lock"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class HandedOverImage(_Frozen):
    """One L2 image that is ready.

    Parameters
    ----------
    name, sha256, size
        Official file name, and what is in the file; bytes.
    exposure, detector
        What it is an image of.
    context
        CRDS pipeline context it was made with.
    software
        Versions by package name.
    uri
        Where the archive shows it.
    """

    name: str
    sha256: Sha256
    size: NonNegativeInt
    exposure: str
    detector: str
    context: str | None
    software: dict[str, str]
    uri: str


class HandoverManifest(_Frozen):
    """What the SSC is told of an exposure or visit; a later one of the same takes its place.

    Parameters
    ----------
    version
        Of this format.
    partition, visit
        The exposure or visit, and the visit it is of.
    survey, exposure_type, optical_element
        Of the visit.
    digest
        Identifies what it says: the images, by name and content, and what lacks.
    handed_over_at
        When it was written.
    products
        The kinds of products that are expected from the SSC, by suffix and extension.
    images
        The L2 images, by name.
    missing
        What lacks: exposures or file sets of single detectors without L2.
    """

    version: int = 1
    partition: str
    visit: str
    survey: Survey
    exposure_type: ExposureType
    optical_element: OpticalElement
    digest: Sha256
    handed_over_at: UtcTime
    products: tuple[str, ...]
    images: tuple[HandedOverImage, ...]
    missing: tuple[str, ...]

    @property
    def key(self) -> PurePosixPath:
        """Its place in the exchange; the same content has the same place."""
        return TO_SSC / self.partition / f"{self.digest}.json"


@dataclass(frozen=True)
class ReadyImages:
    """The L2 images of an exposure or visit, of which the SSC is to be told.

    Parameters
    ----------
    partition
        The exposure or visit.
    step
        The step that takes in what the SSC makes of them.
    manifest
        Of the visit.
    members
        The images, by name.
    missing
        What lacks of it.
    """

    partition: str
    step: Step
    manifest: VisitManifest
    members: tuple[ProductInput, ...]
    missing: tuple[str, ...]

    @property
    def of_visit(self) -> bool:
        """Whether it is a visit."""
        return self.step in VISIT_STEPS

    @property
    def awaited(self) -> tuple[str, ...]:
        """What lacks and may still come."""
        return tuple(name for name in self.missing if name not in self.manifest.failed)

    @property
    def level(self) -> Level:
        """The level of the SSC's products that are due first."""
        return min(kind.level for kind in self.kinds)

    @property
    def kinds(self) -> tuple[ProductKind, ...]:
        """The kinds of products that the SSC makes of them."""
        manifest = self.manifest
        assert manifest.survey is not None and manifest.exposure_type is not None
        return expected_kinds(manifest.survey, manifest.exposure_type, (self.step,))

    @property
    def digest(self) -> str:
        """A sha256 of the images' names and contents and of what lacks."""
        lines = [
            *(f"{member.name} {member.sha256}" for member in self.members),
            *(f"without {name}" for name in self.missing),
        ]
        return hashlib.sha256("\n".join([self.partition, *lines]).encode()).hexdigest()


def ready_images(manifest: VisitManifest) -> Iterator[ReadyImages]:
    """Give what the SSC is to be told of a visit and of its exposures, perhaps nothing (R12)."""
    if manifest.survey is None or manifest.exposure_type is None or not manifest.members:
        return
    expected = expected_kinds(manifest.survey, manifest.exposure_type, DELIVERY_STEPS)
    for step in dict.fromkeys(kind.step for kind in expected):
        if step in VISIT_STEPS:
            yield ReadyImages(
                str(manifest.visit), step, manifest, manifest.members, manifest.missing
            )
            continue
        for exposure in map(str, manifest.exposures):
            yield ReadyImages(
                exposure,
                step,
                manifest,
                tuple(one for one in manifest.members if one.name.startswith(f"{exposure}_")),
                tuple(name for name in manifest.missing if name.startswith(f"{exposure}_")),
            )


def hand_over(
    root: DataRoot, ready: Sequence[ReadyImages], *, clock: Clock = utc_now
) -> list[HandoverManifest]:
    """Tell the SSC of images, and put on record that it was told.

    What it was told already, it is not told again. The manifest is written before the record, so
    that a crash between the two repeats it; several processes may do this at once.

    Parameters
    ----------
    root
        The installation.
    ready
        The images.
    clock
        Gives the time.

    Returns
    -------
    list of HandoverManifest
        What was written.

    Raises
    ------
    PassingFaultError
        If the exchange cannot be written to.
    """
    if not ready:
        return []
    exchange = Exchange.of(root)
    with locked(make_directory(root.registry) / _LOCK):
        fold(root)
        with Registry(root) as registry:
            told = registry.handovers([one.partition for one in ready])
            new = [
                one
                for one in ready
                if one.partition not in told or told[one.partition].digest != one.digest
            ]
            names = {member.name for one in new for member in one.members}
            entries = registry.current(names)
        manifests = [
            found for one in new if (found := _manifest(root, one, entries, clock())) is not None
        ]
        for manifest in manifests:
            exchange.write(manifest.key, manifest.model_dump_json(indent=2).encode())
        Journal(root).write_all(map(_record, manifests))
        if manifests:
            fold(root)
    return manifests


def _manifest(
    root: DataRoot, ready: ReadyImages, entries: Mapping[str, RegisteredProduct], now: datetime
) -> HandoverManifest | None:
    """Describe the images; None if one of them was made again meanwhile: the next look sees it."""
    members = [entries.get(member.name) for member in ready.members]
    images = [entry for entry in members if entry is not None]
    if [entry.sha256 for entry in images] != [member.sha256 for member in ready.members]:
        return None
    visit = ready.manifest
    assert visit.survey is not None and visit.exposure_type is not None
    archive = Archive.of(root)
    described = tuple(_image(archive, entry) for entry in images)
    return HandoverManifest(
        partition=ready.partition,
        visit=str(visit.visit),
        survey=visit.survey,
        exposure_type=visit.exposure_type,
        optical_element=images[0].product_name.file_set.optical_element,
        digest=ready.digest,
        handed_over_at=now,
        products=tuple(f"{kind.suffix}.{kind.extension}" for kind in ready.kinds),
        images=described,
        missing=ready.missing,
    )


def _image(archive: Archive, entry: RegisteredProduct) -> HandedOverImage:
    name = entry.product_name
    file_set = name.file_set
    assert isinstance(file_set, DetectorFileSet)
    return HandedOverImage(
        name=entry.name,
        sha256=entry.sha256,
        size=entry.size,
        exposure=str(file_set.exposure),
        detector=file_set.detector,
        context=entry.context,
        software=entry.software,
        uri=archive.uri(name),
    )


def _record(manifest: HandoverManifest) -> CommitRecord:
    return CommitRecord(
        step=Step.HANDOVER,
        partition=manifest.partition,
        committed_at=manifest.handed_over_at,
        statement=Statement.HANDOVER,
        handover=Handover(
            manifest=str(manifest.key), digest=manifest.digest, images=len(manifest.images)
        ),
        events={ClockEvent.HANDED_OVER: manifest.handed_over_at},
    )


def handed_over_manifest(
    root: DataRoot, partition: str, registry: Registry
) -> HandoverManifest | None:
    """Give the newest manifest that the SSC was told of an exposure or visit, None without one."""
    told = registry.handovers([partition]).get(partition)
    if told is None:
        return None
    content = Exchange.of(root).read(PurePosixPath(told.manifest), _LARGEST_MANIFEST)
    return HandoverManifest.model_validate_json(content)


_LARGEST_MANIFEST = 64 << 20
