"""Taking in what the SSC delivers: all of a delivery or nothing (R12).

A delivery without a fault is published like everything else (R6, R11, R13, R14). One with a fault
is rejected as a whole: the SSC gets a report, and what it sent is set aside. Either way the
delivery leaves the exchange as the last thing, so that what a crash interrupts is repeated,
with the same result.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import struct
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Self

from roman_assets.access import Role
from roman_assets.archive.durability import make_directory
from roman_assets.archive.set_aside import SetAside
from roman_assets.data_root import DataRoot
from roman_assets.errors import AccessDeniedError, BadInputError, PassingFaultError
from roman_assets.products.deadline import Clock, utc_now
from roman_assets.products.kind import Step
from roman_assets.publishing.attempt import Run, StepAttempt
from roman_assets.publishing.scratch import scratch_directory
from roman_assets.publishing.step import Output, StepResult, publish_step, reusable
from roman_assets.records.record import ProductEntry, WorkFailure, fingerprint
from roman_assets.registry.engine import Engine
from roman_assets.registry.registry import Registry
from roman_assets.registry.releases.state import Release
from roman_assets.ssc.delivery import (
    Address,
    Delivery,
    Exchanged,
    deliveries,
)
from roman_assets.ssc.delivery_checks import CREATED, CheckedFile, Findings, check_delivery
from roman_assets.ssc.exchange import REPORTS, Exchange
from roman_assets.ssc.notification import NOTIFICATION

_LOCK = "deliveries.lock"

STATES = "files"
"""Key of a report under which the files of the delivery are."""
_LARGEST_REPORT = 64 << 20


@dataclass(frozen=True)
class DeliveryReport:
    """What became of a delivery, for the SSC.

    Parameters
    ----------
    delivery, version
        Which one, as it was looked at.
    when
        UTC.
    products
        What was published of it, by name, with the sha256; what was there already counts.
    faults
        Why it was rejected, empty if it was not.
    states
        `Delivery.states`, by which what is left of it is known.
    release
        The data release that it is for, None for prompt products.
    """

    delivery: str
    version: str
    when: datetime
    products: Sequence[ProductEntry] = ()
    faults: Sequence[BadInputError] = ()
    states: Collection[str] = ()
    release: Release | None = None

    @classmethod
    def on(
        cls,
        delivery: Delivery,
        when: datetime,
        products: Sequence[ProductEntry] = (),
        faults: Sequence[BadInputError] = (),
        release: Release | None = None,
    ) -> Self:
        """Report on a delivery as it was looked at."""
        return cls(
            delivery.name, delivery.version, when, products, faults, delivery.states, release
        )

    @property
    def outcome(self) -> str:
        """``accepted`` or ``rejected``."""
        return "rejected" if self.faults else "accepted"

    def as_json(self) -> str:
        """Return it for programs."""
        return json.dumps(
            {
                "version": 1,
                "delivery": self.delivery,
                "outcome": self.outcome,
                "when": self.when.isoformat(),
                "products": [
                    {"filename": entry.name, "sha256": entry.sha256} for entry in self.products
                ],
                "faults": [
                    {
                        "file": fault.source,
                        "field": fault.field,
                        "reason": fault.reason,
                        "remedy": fault.remedy,
                    }
                    for fault in self.faults
                ],
                STATES: sorted(self.states),
            },
            indent=2,
        )

    def as_text(self) -> str:
        """Return it for people."""
        head = f"Delivery {self.delivery} was {self.outcome} at {self.when:%Y-%m-%d %H:%M:%S} UTC."
        if not self.faults:
            files = [f"  {entry.name}" for entry in self.products]
            return "\n".join([head, "", f"In the archive{self._for_release}:", *files, ""])
        lines = [
            line
            for fault in self.faults
            for line in (
                f"  {fault.source}", f"    {fault.field}: {fault.reason}",
                f"    Remedy: {fault.remedy}",
            )
        ]  # fmt: skip
        advice = "Nothing of it was taken in. Correct it and deliver all of it again."
        return "\n".join([head, advice, "", *lines, ""])

    @property
    def _for_release(self) -> str:
        if self.release is None:
            return ""
        shown = "public" if self.release.published_at else "hidden until that is published"
        return f", for {self.release.declaration} ({shown})"

    def write(self, exchange: Exchange) -> None:
        """Leave it for the SSC, as JSON and as text; the same again has the same names."""
        stem = REPORTS / self.delivery / f"{self.version[:16]}_{self.outcome}"
        exchange.write(stem.with_suffix(".txt"), self.as_text().encode())
        exchange.write(stem.with_suffix(".json"), self.as_json().encode())


def take_in(
    root: DataRoot, step: Step, partition: str, *, run: Run | None = None, clock: Clock = utc_now
) -> StepResult:
    """Publish all whole deliveries for an exposure or visit, oldest first.

    Parameters
    ----------
    root
        The installation.
    step, partition
        What they are of.
    run
        The run it is done in, for the record.
    clock
        Gives the time.

    Returns
    -------
    StepResult
        What was published, or is there already of what the step takes in; a delivery that was
        rejected is a failure under its name.

    Raises
    ------
    PassingFaultError
        If the exchange or the archive cannot be written to, or another run is taking in deliveries
        of the same. What was not taken in stays there.
    """
    exchange, address = Exchange.of(root), Address(step, partition)
    made: dict[str, ProductEntry] = {}
    failures: list[WorkFailure] = []
    faults: list[Exception] = []
    with sole_intake(root, address):
        Engine(root).fold()
        remove_remains(exchange)
        for delivery in Exchanged.look(exchange, clock()).whole:
            if _address_of(delivery) != address:
                continue
            try:
                result = _take_in_one(root, delivery, address, run, clock)
            except BadInputError as error:
                failures.append(
                    WorkFailure(
                        file_set=delivery.name, error=type(error).__name__, message=str(error)
                    )
                )
            except Exception as error:  # the deliveries after it go on; raised when they are done
                faults.append(error)
            else:
                made |= {entry.name: entry for entry in result.made}
    if faults:
        raise faults[0]
    with Registry(root) as registry:
        names = registry.products.find(step=str(step), partition=partition)["name"]
        present = registry.generations.current(names)
    return StepResult(
        tuple(made.values()),
        tuple(entry for name, entry in present.items() if name not in made),
        tuple(failures),
    )


@contextmanager
def sole_intake(root: DataRoot, address: Address) -> Iterator[None]:
    """Keep other runs from taking in deliveries of one exposure or visit.

    Its lock is a byte of a file that all of them share: nobody waits for the deliveries of others.

    Raises
    ------
    PassingFaultError
        If another run is doing so.
    """
    place = hashlib.sha256(f"{address.step} {address.partition}".encode()).digest()
    byte = int.from_bytes(place[:7])
    path = make_directory(root.registry) / _LOCK
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _record_lock(fcntl.F_WRLCK, byte))
        except BlockingIOError as error:
            raise PassingFaultError(
                f"another run is taking in deliveries of {address.partition}. Remedy: wait for it"
            ) from error
        yield
        # A fork shares the lock until it is released by name, not by closing.
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _record_lock(fcntl.F_UNLCK, byte))
    finally:
        os.close(descriptor)


def _record_lock(kind: int, byte: int) -> bytes:
    """Pack Linux's ``struct flock`` for one byte of a file."""
    return struct.pack("hhqqi4x", kind, os.SEEK_SET, byte, 1, 0)


def _address_of(delivery: Delivery) -> Address | None:
    try:
        return delivery.address()
    except BadInputError:
        return None


def _take_in_one(
    root: DataRoot, delivery: Delivery, address: Address, run: Run | None, clock: Clock
) -> StepResult:
    attempt = StepAttempt(root, address.step, address.partition, run, clock)
    with attempt, scratch_directory(root, delivery.name) as directory:
        arrived = directory / delivery.name
        arrived.mkdir()
        copies, faults = delivery.fetch(arrived)
        with Registry(root) as registry:
            findings = check_delivery(registry, delivery, copies, clock())
        if faults := [*faults, *findings.faults]:
            reject(root, delivery, faults, arrived, clock())
            raise summary(delivery, faults)
        try:
            result = _publish(root, findings, address, attempt)
        except BadInputError as fault:
            # an image was replaced since the checks; what was staged is gone from the copies
            again = directory / "again" / delivery.name
            again.mkdir(parents=True)
            _, unreadable = delivery.fetch(again)
            reject(root, delivery, [fault, *unreadable], again, clock())
            raise
        products = (*result.made, *result.reused)
        report = DeliveryReport.on(delivery, clock(), products, release=findings.release)
        report.write(delivery.exchange)
        _remove(delivery)
        return result


def _publish(
    root: DataRoot, findings: Findings, address: Address, attempt: StepAttempt
) -> StepResult:
    outputs = [_output(file, findings.release) for file in findings.files]
    kept = reusable(root, {str(output.name): output.fingerprint for output in outputs})
    return publish_step(
        root,
        step=address.step,
        partition=address.partition,
        outputs=[output for output in outputs if str(output.name) not in kept],
        reused=kept.values(),
        attempt=attempt,
    )


def _output(file: CheckedFile, release: Release | None) -> Output:
    sent = file.sent
    context = None if release is None else release.declaration.context
    return Output(
        name=file.name,
        path=file.path,
        fingerprint=fingerprint(
            file.name.kind.step, sent.inputs, context, sent.software_versions, sha256=sent.sha256
        ),
        inputs=sent.inputs,
        context=context,
        software=sent.software_versions,
        metadata={
            **file.metadata.facts,
            CREATED: sent.file_creation_timestamp.isoformat(),
        },
        archived=file.metadata.archived,
        access=Role.PUBLIC if release is None else Role.OPERATIONS,
    )


def reject(
    root: DataRoot,
    delivery: Delivery,
    faults: Sequence[BadInputError],
    arrived: Path,
    when: datetime,
) -> None:
    """Set a delivery aside, tell the SSC why, and take it out of the exchange if that can be.

    Parameters
    ----------
    root
        The installation.
    delivery
        The delivery.
    faults
        What is wrong with it, at least one.
    arrived
        A directory with copies of its files, which is moved.
    when
        UTC.
    """
    SetAside(root).add(arrived, summary(delivery, faults), name=delivery.name)
    DeliveryReport.on(delivery, when, faults=faults).write(delivery.exchange)
    _remove(delivery)


def _remove(delivery: Delivery) -> None:
    """Remove a delivery; what may not be removed has its report, and `Exchanged` names it."""
    with suppress(OSError, AccessDeniedError):
        delivery.remove()


def reject_unaddressed(
    root: DataRoot, delivery: Delivery, fault: BadInputError, *, clock: Clock = utc_now
) -> None:
    """Reject a delivery that matches no exposure or visit."""
    with scratch_directory(root, delivery.name) as directory:
        arrived = directory / delivery.name
        arrived.mkdir()
        _, faults = delivery.fetch(arrived)
        reject(root, delivery, [fault, *faults], arrived, clock())


def remove_remains(exchange: Exchange) -> None:
    """Remove the files that a crash left of deliveries with a report.

    A delivery loses its notification first. What is left without one, and is just as the report
    says it was, is not a delivery that is arriving under the same name.
    """
    for delivery in deliveries(exchange):
        if delivery.reported or (
            NOTIFICATION not in delivery.by_name
            and any(delivery.states <= states for states in _reported(exchange, delivery.name))
        ):
            _remove(delivery)


def _reported(exchange: Exchange, delivery: str) -> Iterator[frozenset[str]]:
    for file in list(exchange.files(REPORTS / delivery)):
        if file.key.suffix == ".json":
            content = json.loads(exchange.read(file.key, _LARGEST_REPORT))
            yield frozenset(content[STATES])


def summary(delivery: Delivery, faults: Sequence[BadInputError]) -> BadInputError:
    """Return one error for all faults of a delivery."""
    first, more = faults[0], len(faults) - 1
    return BadInputError(
        first.source,
        first.field,
        f"{first.reason}{f' (and {more} more faults)' if more else ''}",
        f"{first.remedy}; the report of {delivery.name} names all faults",
    )
