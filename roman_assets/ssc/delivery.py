"""Deliveries as they lie in the exchange: whole or arriving, and for which exposure or visit."""

from __future__ import annotations

import errno
import hashlib
import re
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath
from typing import Self

from roman_assets.errors import BadInputError, PassingFaultError
from roman_assets.products.kind import PROMPT_STEPS, VISIT_STEPS, Maker, Step
from roman_assets.products.lifecycle import is_versioned
from roman_assets.products.name import GroupedFileSet, ProductName
from roman_assets.products.release_id import unit_containing
from roman_assets.ssc.exchange import (
    FROM_SSC,
    MOST_FILES,
    REPORTS,
    Exchange,
    ExchangedFile,
)
from roman_assets.ssc.notification import (
    LARGEST_NOTIFICATION,
    NOTIFICATION,
    Notification,
)

PATIENCE = timedelta(hours=6)
"""A delivery of which nothing has changed for so long does not become whole by itself."""

QUIET = timedelta(minutes=2)
"""A notification that cannot be read, and has not changed for so long, is not being written."""

_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO})
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)


class Arrival(StrEnum):
    """How far a delivery has come."""

    ARRIVING = "arriving"
    """Files are missing or incomplete, and may still come."""
    HERE = "here"
    """It can be looked at: it is whole, or nothing more is to be expected."""


@dataclass(frozen=True)
class Address:
    """For what a delivery is: a step, and its exposure, visit or unit of a data release."""

    step: Step
    partition: str


@dataclass(frozen=True)
class Delivery:
    """One delivery in the exchange.

    Parameters
    ----------
    name
        Its directory.
    files
        What is in it, at any depth.
    exchange
        Where it is.
    """

    name: str
    files: tuple[ExchangedFile, ...]
    exchange: Exchange

    @property
    def place(self) -> PurePosixPath:
        """Its place in the exchange."""
        return FROM_SSC / self.name

    @cached_property
    def by_name(self) -> dict[str, ExchangedFile]:
        """The files that lie in it directly, by name."""
        return {file.key.name: file for file in self.files if file.key.parent == self.place}

    @property
    def version(self) -> str:
        """Differs when anything in it was written again."""
        return hashlib.sha256("\n".join(sorted(self.states)).encode()).hexdigest()

    @cached_property
    def states(self) -> frozenset[str]:
        """What is in it, each file as it was written last."""
        return frozenset(f"{file.key} {file.size} {file.version}" for file in self.files)

    @property
    def changed(self) -> datetime:
        """When something of it was written last (UTC)."""
        return datetime.fromtimestamp(max(file.changed for file in self.files), UTC)

    @property
    def report(self) -> PurePosixPath:
        """The place of the report on this version of it, without outcome and suffix."""
        return REPORTS / self.name / self.version[:16]

    @property
    def reported(self) -> bool:
        """Whether there is a report on this version: it has only to be removed."""
        return any(
            file.key.name.startswith(f"{self.report.name}_")
            for file in self.exchange.files(self.report.parent)
            if file.key.suffix == ".json"
        )

    @cached_property
    def notification(self) -> Notification:
        """What the SSC says about it.

        Raises
        ------
        BadInputError
            If there is no notification, or none that can be read.
        """
        content = _content(self.exchange, self.name, self._notification_file)
        return Notification.parse(content, f"{self.name}/{NOTIFICATION}")

    @property
    def _notification_file(self) -> ExchangedFile:
        source = f"{self.name}/{NOTIFICATION}"
        file = self.by_name.get(NOTIFICATION)
        if file is None:
            raise BadInputError(
                source, "file", "the delivery has no notification", "deliver it again, with one"
            )
        if file.obstacle or file.size > LARGEST_NOTIFICATION:
            reason = file.obstacle or f"has {file.size} bytes, more than {LARGEST_NOTIFICATION}"
            raise BadInputError(source, "file", reason, "write the file itself")
        return file

    def _stated(self) -> _Stated:
        """Return the essence of the notification, which is read once for each version of it."""
        stated = _stated(self.exchange, self.name, self._notification_file)
        if isinstance(stated, BadInputError):
            raise BadInputError(*stated.args)
        return stated

    def arrival(self, now: datetime) -> Arrival:
        """Return whether it can be looked at.

        What is whole is here. What is not may still be on its way: for `PATIENCE` since something
        of it changed last, or for `QUIET` if only the notification cannot be read.
        """
        waited = now - self.changed
        if NOTIFICATION not in self.by_name:
            whole, patience = False, PATIENCE
        else:
            try:
                whole, patience = self._is_whole(), PATIENCE
            except BadInputError:
                whole, patience = False, QUIET
        return Arrival.HERE if whole or waited >= patience else Arrival.ARRIVING

    def _is_whole(self) -> bool:
        """Whether no file is missing or shorter than stated; longer ones will not get shorter."""
        return all(
            name in self.by_name and self.by_name[name].size >= size
            for name, size in self._stated().sizes
        )

    def address(self) -> Address:
        """Return its step and partition, by the names of its files.

        Raises
        ------
        BadInputError
            If it has no notification that can be read, or its files are not of one exposure, visit
            or unit of a data release, or none of them is the SSC's to deliver.
        """
        address = self._stated().address
        if isinstance(address, BadInputError):
            raise BadInputError(*address.args)
        return address

    def fetch(self, directory: Path) -> tuple[dict[str, Path], list[BadInputError]]:
        """Copy its files into an empty directory.

        Files that lie deeper, and those with odd names, get numbers for names.

        Returns
        -------
        dict of str to pathlib.Path
            Copies of the files that lie in it directly, by name.
        list of BadInputError
            A fault for each file that cannot be read.

        Raises
        ------
        PassingFaultError
            If the disk has no room for it.
        """
        needed, free = sum(file.size for file in self.files), shutil.disk_usage(directory).free
        if needed > free:
            raise PassingFaultError(
                f"the delivery {self.name} has {needed} bytes, and {free} are free in {directory}. "
                "Remedy: free space there, or remove the delivery"
            )
        copies, faults = {}, []
        for number, file in enumerate(self.files):
            direct = file.key.parent == self.place and _NAME.fullmatch(file.key.name)
            path = directory / (file.key.name if direct else f"_{number}")
            if file.obstacle:
                continue
            try:
                self.exchange.fetch(file, path)
            except OSError as error:
                if path.exists():
                    path.unlink()
                if error.errno in _DISK:
                    raise
                faults.append(_unreadable(f"{self.name}/{path.name}", error))
            else:
                if file.key.parent == self.place:
                    copies[file.key.name] = path
        return copies, faults

    def remove(self) -> None:
        """Take it out of the exchange, its notification first: it cannot seem whole again."""
        self.exchange.remove(sorted(self.files, key=lambda file: file.key.name != NOTIFICATION))


@dataclass(frozen=True)
class _Stated:
    """What each look needs of a notification, which may be a thousand times larger."""

    sizes: tuple[tuple[str, int], ...]
    address: Address | BadInputError


def _content(exchange: Exchange, delivery: str, file: ExchangedFile) -> bytes:
    try:
        return exchange.read(file.key, LARGEST_NOTIFICATION)
    except OSError as error:
        raise _unreadable(f"{delivery}/{NOTIFICATION}", error) from error


@lru_cache(maxsize=MOST_FILES)
def _stated(exchange: Exchange, delivery: str, file: ExchangedFile) -> _Stated | BadInputError:
    """Read one version of a notification; the cache also keeps the fault of an invalid one.

    Cached faults are raised as copies: without traceback and cause, they take little memory.
    """
    content = _content(exchange, delivery, file)
    try:
        notification = Notification.parse(content, f"{delivery}/{NOTIFICATION}")
    except BadInputError as fault:
        return BadInputError(*fault.args)
    try:
        address: Address | BadInputError = _addressed(notification, delivery)
    except BadInputError as fault:
        address = BadInputError(*fault.args)
    return _Stated(tuple((file.filename, file.file_size) for file in notification.files), address)


def _addressed(notification: Notification, delivery: str) -> Address:
    found: dict[Address, str] = {}
    bad: list[BadInputError] = []
    for file in notification.files:
        try:
            name = delivered_name(file.filename, delivery)
        except BadInputError as error:
            bad.append(error)
            continue
        found.setdefault(_address_of(name, f"{delivery}/{name}"), file.filename)
    if not found:
        raise bad[0]
    if len(found) > 1:
        (one, first), (other, second), *_ = found.items()
        raise BadInputError(
            f"{delivery}/{second}",
            "filename",
            f"is of {other.step} {other.partition}, while {first} is of {one.step} {one.partition}",
            "deliver what is of several exposures or visits, of exposures and visits, or of visits "
            "and a data release, apart",
        )
    return next(iter(found))


_RELEASE_STEP = {prompt: step for step, prompt in PROMPT_STEPS.items()}


def _address_of(name: ProductName, source: str) -> Address:
    file_set, step = name.file_set, name.kind.step
    if is_versioned(name):
        assert isinstance(file_set, GroupedFileSet)
        return Address(_RELEASE_STEP[step], str(unit_containing(file_set)))
    partition = name.visit if step in VISIT_STEPS else name.exposure
    if partition is None:
        raise BadInputError(
            source, "filename", "is of no visit", "deliver prompt products by visit"
        )
    return Address(step, str(partition))


def _unreadable(source: str, error: OSError) -> BadInputError:
    return BadInputError(
        source, "file", f"cannot be read: {error.strerror or error}",
        "let the SOC read it, and deliver again",
    )  # fmt: skip


def delivered_name(filename: str, source: str) -> ProductName:
    """Read the name of a file that the SSC delivers.

    Raises
    ------
    BadInputError
        If it is not the official name of a product that the SSC makes.
    """
    try:
        name = ProductName.parse(filename)
    except ValueError as error:
        raise BadInputError(
            f"{source}/{filename!r}", "filename", str(error),
            "name the file by the grammar of official names, without a directory",
        ) from error  # fmt: skip
    if name.kind.maker is not Maker.SSC:
        raise BadInputError(
            f"{source}/{filename}", "filename", f"{name.kind.name} is the SOC's to make (R12)",
            "deliver the SSC's products only",
        )  # fmt: skip
    return name


def deliveries(exchange: Exchange) -> list[Delivery]:
    """List all deliveries in an exchange, by name."""
    return [
        Delivery(name, tuple(files), exchange)
        for name, files in _by_delivery(exchange.files(FROM_SSC)).items()
    ]


def strays(exchange: Exchange) -> list[ExchangedFile]:
    """List entries among the deliveries that are not deliveries: lone files, odd names."""
    return [file for file in exchange.files(FROM_SSC) if _delivery_of(file) is None]


def _by_delivery(files: Iterable[ExchangedFile]) -> dict[str, list[ExchangedFile]]:
    found: dict[str, list[ExchangedFile]] = {}
    for file in files:
        if (name := _delivery_of(file)) is not None:
            found.setdefault(name, []).append(file)
    return found


def _delivery_of(file: ExchangedFile) -> str | None:
    parts = file.key.relative_to(FROM_SSC).parts
    is_within = len(parts) > 1 or file.is_directory
    return parts[0] if is_within and _NAME.fullmatch(parts[0]) else None


@dataclass(frozen=True)
class Exchanged:
    """The content of an exchange at one look.

    Parameters
    ----------
    whole
        Deliveries to be taken in, oldest first.
    arriving
        Those that may still change.
    stuck
        What a person has to see to: deliveries that were reported on and cannot be removed, or that
        could not be looked at, and files that belong to no delivery.
    """

    whole: tuple[Delivery, ...]
    arriving: tuple[Delivery, ...]
    stuck: tuple[BadInputError, ...]

    @classmethod
    def look(cls, exchange: Exchange, now: datetime, *, reading: timedelta = timedelta.max) -> Self:
        """Look at all deliveries; whatever one of them does, the others are looked at.

        Parameters
        ----------
        exchange
            The exchange.
        now
            UTC.
        reading
            Longest time for reading notifications. Deliveries that are not reached count as
            arriving: the next look of the same process goes on with them.
        """
        whole: list[Delivery] = []
        arriving: list[Delivery] = []
        read = timedelta()
        stuck = [_stray(file) for file in strays(exchange)]
        for delivery in deliveries(exchange):
            try:
                if delivery.reported:
                    stuck.append(_remaining(delivery))
                    continue
                begun = time.monotonic()
                is_here = read <= reading and delivery.arrival(now) is Arrival.HERE
                read += timedelta(seconds=time.monotonic() - begun)
                (whole if is_here else arriving).append(delivery)
            except Exception as error:  # a fault of one place of the exchange, or our own
                stuck.append(_not_looked_at(delivery, error))
        oldest_first = sorted(whole, key=lambda one: (one.changed, one.name))
        return cls(tuple(oldest_first), tuple(arriving), tuple(stuck))


def _stray(file: ExchangedFile) -> BadInputError:
    return BadInputError(
        file.key,
        "directory",
        f"{file.obstacle} and belongs to no delivery".removeprefix(" and "),
        "move it into a directory, or remove it",
    )


def _remaining(delivery: Delivery) -> BadInputError:
    return BadInputError(
        delivery.place, "directory", "has been reported on and cannot be removed",
        "let the SOC write into it, or remove it",
    )  # fmt: skip


def _not_looked_at(delivery: Delivery, error: Exception) -> BadInputError:
    return BadInputError(
        delivery.place, "delivery", f"could not be looked at: {error!r}",
        "see to the cause; it is tried again at each look",
    )  # fmt: skip
