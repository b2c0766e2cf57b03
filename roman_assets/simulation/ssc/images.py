"""The images of a manifest as they were handed over."""

from __future__ import annotations

from pathlib import Path

from roman_assets.archive.store import sha256_of
from roman_assets.errors import BadInputError
from roman_assets.products.observation import VisitId
from roman_assets.reader.archive_reader import ArchiveReader
from roman_assets.records.record import ProductInput
from roman_assets.ssc.handover import HandedOverImage, HandoverManifest


def handed_over(archive: ArchiveReader, image: HandedOverImage) -> Path:
    """Return the file of an image.

    Raises
    ------
    BadInputError
        If it is another by now.
    """
    path = archive.path(image.name)
    if sha256_of(path) != image.sha256:
        raise BadInputError(
            image.name, "sha256", "it was reprocessed since the hand-over",
            "wait for the next manifest",
        )  # fmt: skip
    return path


def visit_of(manifest: HandoverManifest) -> VisitId:
    """Return the visit of a manifest.

    Raises
    ------
    BadInputError
        If it is of a unit of several visits.
    """
    if manifest.visit is None:
        raise BadInputError(
            manifest.partition, "visit", "it is of several visits, and this works on one",
            'declare the release with ssc_groupings = ["visit"]',
        )  # fmt: skip
    return VisitId.parse(manifest.visit)


def as_input(image: HandedOverImage) -> ProductInput:
    """Return an image as the input of a product."""
    return ProductInput(name=image.name, sha256=image.sha256)
