"""What is checked of a delivery before anything of it becomes a product (R12).

All faults are looked for, so that the SSC corrects them at once. Each is a `BadInputError`: file,
field, reason, remedy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from roman_assets.archive.store import sha256_of
from roman_assets.errors import BadInputError
from roman_assets.products.lifecycle import is_versioned
from roman_assets.products.name import (
    DetectorFileSet,
    GroupDetectorFileSet,
    GroupedFileSet,
    ProductName,
)
from roman_assets.products.observation import Survey
from roman_assets.publishing.publication_order import superseded_already
from roman_assets.registry.catalog.delivered_schema import schema_faults
from roman_assets.registry.catalog.metadata import (
    ProductMetadata,
    delivered_metadata,
    product_metadata,
)
from roman_assets.registry.registry import Registry
from roman_assets.registry.releases.state import Release
from roman_assets.ssc.delivery import Delivery, delivered_name
from roman_assets.ssc.exchange import MOST_FILES
from roman_assets.ssc.known import KnownProducts, Observed, leader_of
from roman_assets.ssc.notification import NOTIFICATION, DeliveredFile, metadata_of

CLOCKS_DIFFER = timedelta(minutes=10)
"""Largest clock skew tolerated between SOC and SSC."""

CREATED = "ssc_created"
"""The fact of a delivered product that says when the SSC made it."""

_AGAIN = "correct it and deliver again"


@dataclass(frozen=True)
class CheckedFile:
    """A delivered file without a fault.

    Parameters
    ----------
    name
        Its official name.
    path
        The copy that was checked.
    sent
        What the SSC says about it.
    metadata
        What the registry and the metadata tables take from that.
    """

    name: ProductName
    path: Path
    sent: DeliveredFile
    metadata: ProductMetadata


@dataclass(frozen=True)
class Findings:
    """What the checks of a delivery found.

    Parameters
    ----------
    files
        Those without a fault.
    faults
        All faults; a delivery with one is rejected as a whole.
    release
        The data release that it is for, None for prompt products.
    """

    files: tuple[CheckedFile, ...]
    faults: tuple[BadInputError, ...]
    release: Release | None = None


def check_delivery(
    registry: Registry, delivery: Delivery, copies: Mapping[str, Path], now: datetime
) -> Findings:
    """Check a delivery.

    Parameters
    ----------
    registry
        What there is, folded.
    delivery
        The delivery.
    copies
        Copies of its files that nobody else writes to, by name; they count, not the originals.
    now
        UTC.
    """
    try:
        address, sent = delivery.address(), delivery.notification.files
        observed = Observed.of(registry, address, delivery.name)
    except BadInputError as fault:
        return Findings((), (fault,))
    if len(delivery.files) >= MOST_FILES:
        reason = f"has {MOST_FILES} files or more"
        many = BadInputError(delivery.name, "files", reason, "deliver fewer at once")
        return Findings((), (many,))
    faults = list(_listing_faults(delivery))
    known = KnownProducts.of(registry, sent, observed.released)
    files = []
    for file in sent:
        try:
            name = delivered_name(file.filename, delivery.name)
        except BadInputError as fault:
            faults.append(fault)
            continue
        check = _FileCheck(delivery, file, name, copies.get(file.filename), observed, known)
        try:
            found = list(check.faults(now))
            faults += found
            if not found and (metadata := check.metadata(faults)) is not None:
                files.append(CheckedFile(name, copies[file.filename], file, metadata))
        except OSError:
            raise
        except Exception as error:  # whatever a library does on what it does not expect
            faults.append(
                BadInputError(check.source, "file", f"cannot be checked: {error!r}", _AGAIN)
            )
    release = None if observed.released is None else observed.released.release
    return Findings(tuple(files), tuple(faults), release)


def _listing_faults(delivery: Delivery) -> Iterator[BadInputError]:
    """Compare the files there are with those that the notification names."""
    named = Counter(file.filename for file in delivery.notification.files)
    for name, times in named.items():
        if times > 1:
            yield BadInputError(
                f"{delivery.name}/{name}", "filename", f"is named {times} times in {NOTIFICATION}",
                "name each file once",
            )  # fmt: skip
    for file in delivery.files:
        relative = file.key.relative_to(delivery.place)
        if file.obstacle:
            reason = file.obstacle
        elif len(relative.parts) > 1:
            reason = "lies in a directory within the delivery"
        elif relative.name not in named and relative.name != NOTIFICATION:
            reason = f"is not named in {NOTIFICATION}"
        else:
            continue
        yield BadInputError(
            f"{delivery.name}/{relative}", "file", reason,
            f"deliver exactly the files that {NOTIFICATION} names",
        )  # fmt: skip


@dataclass(frozen=True)
class _FileCheck:
    """The checks of one file."""

    delivery: Delivery
    sent: DeliveredFile
    name: ProductName
    copy: Path | None
    observed: Observed
    known: KnownProducts

    def faults(self, now: datetime) -> Iterator[BadInputError]:
        yield from self._content_faults()
        yield from self._kind_faults()
        yield from self._metadata_faults()
        yield from self._input_faults()
        yield from self._time_faults(now)

    def metadata(self, faults: list[BadInputError]) -> ProductMetadata | None:
        """Read what the registry takes; what cannot be read is another fault."""
        assert self.copy is not None
        try:
            _open(self.copy, self.name)
            found = delivered_metadata(self.name, metadata_of(self.sent))
            rows = _rows(self.copy, self.name)
        except BadInputError as error:
            faults.append(
                BadInputError(self.source, error.field, error.reason, "write the file again")
            )
            return None
        known = {
            "survey": self.observed.survey.value,
            "exposure_type": self.observed.exposure_type.value,
            **({} if rows is None else {"rows": rows}),
        }
        return ProductMetadata({**found.facts, **known}, found.archived)

    def _content_faults(self) -> Iterator[BadInputError]:
        if self.copy is None:
            yield self._fault("file", f"is named in {NOTIFICATION} and not there", "deliver it")
            return
        size = self.copy.stat().st_size
        if size != self.sent.file_size:
            yield self._fault(
                "fileSize", f"has {size} bytes, {self.sent.file_size} are stated",
                "copy the file again, or correct the notification",
            )  # fmt: skip
        elif (found := sha256_of(self.copy)) != self.sent.sha256:
            yield self._fault(
                "sha256", f"is {found}, {self.sent.sha256} is stated",
                "copy the file again, or correct the notification",
            )  # fmt: skip

    def _kind_faults(self) -> Iterator[BadInputError]:
        kind, element = self.name.kind, str(self.name.file_set.optical_element)
        if kind not in self.observed.expected:
            yield self._fault(
                "filename",
                f"{kind.name} is not made of {self.observed.survey} {self.observed.exposure_type}",
                "deliver it for an exposure or visit of which it is made",
            )
        if element not in self.observed.optical_elements:
            elements = ", ".join(sorted(self.observed.optical_elements))
            yield self._fault("filename", f"is of {element}, its L2 images of {elements}", _AGAIN)
        elif self.observed.released and self.name not in self.observed.released.unit.products:
            yield self._fault("filename", "there is no L2 image of its detector", _AGAIN)
        if (release := self.known.superseded_by.get(self.name)) is not None:
            yield superseded_already(self.source, release)

    def _metadata_faults(self) -> Iterator[BadInputError]:
        metadata = metadata_of(self.sent)
        for field, reason in schema_faults(str(self.name.kind.rad_schema), metadata):
            yield self._fault(f"metadata.{field}", reason, "follow rad's schema")
        for field, stated in _said_by_name(self.name, self.observed.survey).items():
            found = metadata.get(field)
            if found is not None and str(found).lower() != str(stated).lower():
                yield self._fault(
                    f"metadata.{field}", f"is {found!r}, the file's name says {stated!r}", _AGAIN
                )
        for field in ("filename", "file_date"):
            if field in self.sent.metadata and self.sent.metadata[field] != metadata[field]:
                yield self._fault(
                    f"metadata.{field}", f"is {self.sent.metadata[field]!r}, the notification says "
                    f"{metadata[field]!r}", "leave it out: the SOC adds it",
                )  # fmt: skip

    def _input_faults(self) -> Iterator[BadInputError]:
        for item in self.sent.inputs:
            if item.name == self.sent.filename:
                yield self._fault("inputs", "names the file itself", _AGAIN)
            elif not self.known.has(item):
                yield self._fault(
                    "inputs", f"{item.name} with the sha256 {item.sha256} is not on record",
                    "name the products that it was made from, as handed over or delivered",
                )  # fmt: skip
            elif (
                self.known.inputs is not None
                and (made := self.known.generation(item)) is not None
                and (reason := self.known.inputs.objection(made)) is not None
            ):
                yield self._fault(
                    "inputs", f"{item.name} {reason}",
                    f"make it from the L2 images and products of {self.known.inputs.release} alone",
                )  # fmt: skip
        leader = leader_of(self.sent.filename)
        if leader is None:
            return
        named = {item.sha256 for item in self.sent.inputs if item.name == leader}
        mine = {one.sha256 for one in self.known.delivered if one.name == leader}
        current = self.known.current.get(leader)
        wanted = mine or ({current.sha256} if current is not None else set())
        if not named & wanted:
            yield self._fault(
                "inputs", f"it was not made from the present {leader}",
                f"make it from {leader} with the sha256 {', '.join(wanted) or 'of a delivery'} "
                "and name that among its inputs (R14)",
            )  # fmt: skip

    def _time_faults(self, now: datetime) -> Iterator[BadInputError]:
        created = self.sent.file_creation_timestamp
        if created > now + CLOCKS_DIFFER:
            yield self._fault(
                "fileCreationTimestamp", f"{created.isoformat()} is still to come", _AGAIN
            )
        current = self.known.current.get(self.sent.filename)
        before = None if current is None else current.metadata.get(CREATED)
        if current is None or before is None or current.sha256 == self.sent.sha256:
            return
        if is_versioned(self.name):
            yield self._fault(
                "filename", f"was delivered on {current.committed_at:%Y-%m-%d %H:%M} UTC with "
                "another content, and a product of a data release is never overwritten (R13)",
                "deliver it for the next release",
            )  # fmt: skip
            return
        if created <= datetime.fromisoformat(before):
            yield self._fault(
                "fileCreationTimestamp",
                f"{created.isoformat()} is not after {before}, when the file was made that is in "
                "the archive with another content",
                "deliver the newest file; a corrected one has a later time",
            )

    @property
    def source(self) -> str:
        return f"{self.delivery.name}/{self.sent.filename}"

    def _fault(self, field: str, reason: str, remedy: str) -> BadInputError:
        return BadInputError(self.source, field, reason, remedy)


def _open(path: Path, name: ProductName) -> None:
    """Read a file as what its name says: by its data model if rad has one."""
    product_metadata(path, name)
    if name.kind.datamodel is None:
        return
    from roman_datamodels import datamodels

    wanted = getattr(datamodels, name.kind.datamodel)
    try:
        with datamodels.open(path) as model:
            model.validate()
            found = type(model)
    except Exception as error:  # the libraries raise almost anything on damaged files
        raise BadInputError(path, "data model", str(error).partition("\n")[0], _AGAIN) from error
    if found is not wanted:
        raise BadInputError(
            path, "data model", f"is a {found.__name__}, not a {wanted.__name__}", _AGAIN
        )


def _rows(path: Path, name: ProductName) -> int | None:
    """Return the number of rows of a table."""
    return pq.read_metadata(path).num_rows if name.kind.extension == "parquet" else None


def _said_by_name(name: ProductName, survey: Survey) -> dict[str, Any]:
    """Return what metadata must say, if they say it, given the file's name."""
    visit, file_set = name.visit, name.file_set
    said: dict[str, Any] = {
        "optical_element": file_set.optical_element,
        "subcategory": survey.subcategory,
    }
    if visit is not None:
        said |= {
            "program": visit.program,
            "segment": visit.segment,
            "visit": visit.visit,
            "observation_id": visit.digits,
        }
    if isinstance(file_set, GroupedFileSet):
        said |= {"program": file_set.program}
    if is_versioned(name):
        said |= {"data_release_id": getattr(file_set, "release", None)}
    if isinstance(file_set, DetectorFileSet | GroupDetectorFileSet):
        said["detector"] = file_set.detector
    if survey is Survey.GAS:
        del said["subcategory"]
    return said
