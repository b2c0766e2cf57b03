"""The hand-over: the SSC is told which L2 images are ready for its pipelines (R12).

A manifest is written into the exchange for each spectroscopic exposure and for each visit of which
the SSC makes L3 or L4, and again when its L2 images are reprocessed; for a data release, for each
unit that the SSC delivers. That it was written is on record with its time, from which on the ledger
counts the hours of the SSC for prompt products.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath

from pydantic import BaseModel, ConfigDict, NonNegativeInt

from roman_assets.archive.durability import locked, make_directory
from roman_assets.archive.store import Archive
from roman_assets.data_root import DataRoot
from roman_assets.mosaic.manifest import VisitManifest
from roman_assets.products.deadline import Clock, ClockEvent, utc_now
from roman_assets.products.kind import (
    DELIVERY_STEPS,
    VISIT_STEPS,
    Level,
    ProductKind,
    Step,
    expected_kinds,
)
from roman_assets.products.name import PROMPT_RELEASE, DetectorFileSet
from roman_assets.products.observation import ExposureType, OpticalElement, Survey
from roman_assets.records.journal import Journal
from roman_assets.records.record import (
    CommitRecord,
    Handover,
    ProductInput,
    Sha256,
    Statement,
    UtcTime,
)
from roman_assets.registry.engine import Engine
from roman_assets.registry.registry import Registry
from roman_assets.registry.search.generations import RegisteredProduct
from roman_assets.ssc.exchange import TO_SSC, Exchange

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


class HandedOverRelease(_Frozen):
    """The data release that images are for (R7, R13).

    Parameters
    ----------
    release, survey
        ``r0``, ``r1``, ... of the survey; the former stands in the names of its products.
    context, romancal
        The CRDS pipeline context and the version of romancal that made all its L2 images.
    exposures
        The exposures it is made from: those of the images, and of its other units.
    """

    release: str
    survey: Survey
    context: str
    romancal: str
    exposures: tuple[str, ...]


class HandoverManifest(_Frozen):
    """What the SSC is told of an exposure, visit or unit of a data release.

    A later one of the same takes its place.

    Parameters
    ----------
    version
        Of this format.
    partition, visit
        The exposure, visit or unit, and the visit it is of; None for a unit of several visits.
    survey, exposure_type, optical_element
        Of the visit; of a unit of several visits, those of its first image.
    digest
        Identifies what it says: the images, by name and content, and what is missing.
    handed_over_at
        When it was written.
    products
        The kinds of products that are expected from the SSC, by suffix and extension.
    images
        The L2 images, by name.
    missing
        What is missing: exposures or file sets of single detectors without L2.
    release
        The data release that it is for, None for prompt products.
    """

    version: int = 1
    partition: str
    visit: str | None
    survey: Survey
    exposure_type: ExposureType
    optical_element: OpticalElement
    digest: Sha256
    handed_over_at: UtcTime
    products: tuple[str, ...]
    images: tuple[HandedOverImage, ...]
    missing: tuple[str, ...]
    release: HandedOverRelease | None = None

    @property
    def release_id(self) -> str:
        """What stands for the release in names of products: ``p`` for prompt ones."""
        return PROMPT_RELEASE if self.release is None else self.release.release

    @property
    def key(self) -> PurePosixPath:
        """Its place in the exchange; the same content has the same place."""
        return TO_SSC / self.partition / f"{self.digest}.json"


@dataclass(frozen=True)
class ReadyImages:
    """The L2 images of an exposure, visit or unit of a release, to be handed over to the SSC.

    Parameters
    ----------
    partition
        The exposure, visit or unit.
    visit
        The visit it is or belongs to, None for a unit of several visits.
    survey, exposure_type
        Of the images.
    kinds
        The kinds of products that the SSC makes of them.
    members
        The images, by name.
    missing
        What is missing of it.
    failed
        Those of `missing` that could not be made: they are not awaited.
    of_exposure
        Whether it is a single exposure.
    release
        The data release that it is for, None for prompt products.
    """

    partition: str
    visit: str | None
    survey: Survey
    exposure_type: ExposureType
    kinds: tuple[ProductKind, ...]
    members: tuple[ProductInput, ...]
    missing: tuple[str, ...]
    failed: frozenset[str] = frozenset()
    of_exposure: bool = False
    release: HandedOverRelease | None = None

    @property
    def awaited(self) -> tuple[str, ...]:
        """What is missing and may still come."""
        return tuple(name for name in self.missing if name not in self.failed)

    @property
    def level(self) -> Level:
        """The level of the SSC's products that are due first."""
        return min(kind.level for kind in self.kinds)

    @property
    def digest(self) -> str:
        """A sha256 of the images' names and contents and of what is missing."""
        return self.digest_with(self.members)

    def digest_with(self, members: Iterable[ProductInput]) -> str:
        """Return the digest that it would have with other contents of its images."""
        lines = [
            *(f"{member.name} {member.sha256}" for member in members),
            *(f"without {name}" for name in self.missing),
        ]
        return hashlib.sha256("\n".join([self.partition, *lines]).encode()).hexdigest()


def ready_images(manifest: VisitManifest) -> Iterator[ReadyImages]:
    """Yield what to hand over of a visit and of its exposures, perhaps nothing (R12)."""
    survey, exposure_type = manifest.survey, manifest.exposure_type
    if survey is None or exposure_type is None or not manifest.members:
        return
    visit = str(manifest.visit)
    expected = expected_kinds(survey, exposure_type, DELIVERY_STEPS)
    for step in dict.fromkeys(kind.step for kind in expected):
        kinds = tuple(kind for kind in expected if kind.step is step)
        if step in VISIT_STEPS:
            yield ReadyImages(
                visit, visit, survey, exposure_type, kinds,
                manifest.members, manifest.missing, manifest.failed,
            )  # fmt: skip
            continue
        for exposure in map(str, manifest.exposures):
            yield ReadyImages(
                exposure, visit, survey, exposure_type, kinds,
                tuple(one for one in manifest.members if one.name.startswith(f"{exposure}_")),
                tuple(name for name in manifest.missing if name.startswith(f"{exposure}_")),
                manifest.failed,
                of_exposure=True,
            )  # fmt: skip


def hand_over(
    root: DataRoot, ready: Sequence[ReadyImages], *, clock: Clock = utc_now
) -> list[HandoverManifest]:
    """Hand images over to the SSC, and record that.

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
        Engine(root).fold()
        with Registry(root) as registry:
            told = registry.receipts.handovers([one.partition for one in ready])
            new = [
                one
                for one in ready
                if one.partition not in told or told[one.partition].digest != one.digest
            ]
            names = {member.name for one in new for member in one.members}
            entries = registry.generations.current(names)
        manifests = [
            found for one in new if (found := _manifest(root, one, entries, clock())) is not None
        ]
        for manifest in manifests:
            exchange.write(manifest.key, manifest.model_dump_json(indent=2).encode())
        Journal(root).write_all(map(_record, manifests))
        if manifests:
            Engine(root).fold()
    return manifests


def _manifest(
    root: DataRoot, ready: ReadyImages, entries: Mapping[str, RegisteredProduct], now: datetime
) -> HandoverManifest | None:
    """Describe the images; None if one of them was reprocessed meanwhile: the next look sees it."""
    members = [entries.get(member.name) for member in ready.members]
    images = [entry for entry in members if entry is not None]
    if [entry.sha256 for entry in images] != [member.sha256 for member in ready.members]:
        return None
    archive = Archive.of(root)
    described = tuple(_image(archive, entry) for entry in images)
    return HandoverManifest(
        partition=ready.partition,
        visit=ready.visit,
        survey=ready.survey,
        exposure_type=ready.exposure_type,
        optical_element=images[0].product_name.file_set.optical_element,
        digest=ready.digest,
        handed_over_at=now,
        products=tuple(f"{kind.suffix}.{kind.extension}" for kind in ready.kinds),
        images=described,
        missing=ready.missing,
        release=ready.release,
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
    """Return the newest manifest handed over of an exposure or visit, None without one."""
    told = registry.receipts.handovers([partition]).get(partition)
    if told is None:
        return None
    content = Exchange.of(root).read(PurePosixPath(told.manifest), _LARGEST_MANIFEST)
    return HandoverManifest.model_validate_json(content)


_LARGEST_MANIFEST = 64 << 20
