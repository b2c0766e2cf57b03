"""The step from L0 to L1 of one exposure (R2, R3)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path

from roman_assets.archive.durability import disk_space
from roman_assets.archive.store import Archive, sha256_of
from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError
from roman_assets.formatting.delivered_step import publish_delivered, published_before
from roman_assets.formatting.formatting_work import FormattingWork
from roman_assets.formatting.landing import LandingArea
from roman_assets.formatting.level1_maker import Level1Maker
from roman_assets.formatting.receipt import Receipt, SenderReceipt
from roman_assets.formatting.receipt_record import record_receipts
from roman_assets.products.deadline import Clock, ClockEvent, utc_now
from roman_assets.products.kind import Step
from roman_assets.products.observation import ExposureId
from roman_assets.products.origin import Origin
from roman_assets.products.packet_policy import formatted_from
from roman_assets.products.visit_policy import MISSING
from roman_assets.publishing.attempt import Run, StepAttempt
from roman_assets.publishing.scratch import scratch_directory
from roman_assets.publishing.step import StepResult, publish_step, reusable
from roman_assets.records.record import ProductEntry, ProductInput
from roman_assets.registry.registry import Registry
from roman_assets.registry.search.generations import RegisteredProduct
from roman_assets.software import deciding_software


def format_exposure(
    root: DataRoot,
    exposure: ExposureId,
    *,
    run: Run | None = None,
    force: bool = False,
    routine: bool = False,
    clock: Clock = utc_now,
) -> StepResult:
    """Make and publish L1 of an exposure: science, guide windows and FACE.

    L1 that was formatted elsewhere is published as it was delivered; published L1 stays when its
    files are taken out of the landing area.

    Each detector, and FACE, is made when its own packets are in. Once the wait for packets is over,
    a detector that has lost some is made from the rest, and one without any is recorded as a
    failure; when more arrives, both are reprocessed. Lost packets replace no L1.

    A product that exists as it would be made is reused. A detector whose content cannot be
    used fails alone. When a person asks, L1 is reprocessed with the definitive ephemeris once that
    is in, or by newer software; routine work leaves it as it is (R3, R8).

    Parameters
    ----------
    root
        The installation.
    exposure
        Which exposure.
    run
        The run it is done in.
    force
        Make everything again.
    routine
        Nobody asked for L1 again: products made of the same packets stay, whatever ephemeris or
        software came since.
    clock
        Gives the time.

    Returns
    -------
    StepResult
        What was made, reused and failed.

    Raises
    ------
    BadInputError
        If nothing of the exposure can be formatted yet; it names what is missing.
    PassingFaultError
        If the disk is full.
    """
    landing = LandingArea(root)
    with StepAttempt(root, Step.FORMATTING, str(exposure), run, clock) as attempt:
        if published := published_before(root, landing.receipt(exposure)):
            return StepResult(reused=published)
        receipt, senders = _formattable(landing, exposure, clock)
        if receipt.origin is Origin.DELIVERED:
            return publish_delivered(root, receipt, attempt)
        work = FormattingWork.plan(landing, receipt, _best_ephemeris(receipt), senders)
        with Registry(root) as registry:
            current = registry.generations.current(work.names)
        kept: dict[str, ProductEntry] = {**reusable(root, work.fingerprints, force)}
        kept |= _standing(root, work, current, same_packets=routine and not force)
        with scratch_directory(root, str(exposure)) as scratch, disk_space(scratch):
            maker = Level1Maker(work, scratch, kept, {name for name in current if "_gw." in name})
            maker.make()
            return publish_step(
                root,
                step=Step.FORMATTING,
                partition=str(exposure),
                outputs=maker.outputs,
                failures=maker.failures,
                reused=maker.kept.values(),
                attempt=attempt,
            )


def why_again(root: DataRoot, exposure: ExposureId) -> tuple[str, ...]:
    """Return why L1 of an exposure would differ if reprocessed now.

    Returns
    -------
    tuple of str
        For people; empty when all L1 is as it would be made, or was formatted elsewhere.

    Raises
    ------
    BadInputError
        If something of the exposure has not been received; it names what.
    """
    landing = LandingArea(root)
    receipt, senders = _formattable(landing, exposure, utc_now)
    if receipt.origin is Origin.DELIVERED:
        return ()
    work = FormattingWork.plan(landing, receipt, _best_ephemeris(receipt), senders)
    with Registry(root) as registry:
        current = registry.generations.current(work.fingerprints)
    reasons = [
        f"{name} is not there"
        for name, sender in sorted(work.senders_of.items())
        if name not in current and not receipt.senders[sender].missing
    ]
    protected = _standing(root, work, current, same_packets=False)
    for name, entry in current.items():
        if name not in protected:
            reasons += _differences(entry, work)
    return tuple(dict.fromkeys(reasons))


def _differences(made: ProductEntry, work: FormattingWork) -> Iterator[str]:
    if made.fingerprint == work.fingerprints[made.name]:
        return
    packets = work.packets[work.senders_of[made.name]]
    before = {item.name: item for item in made.inputs}
    if before.get(packets.name) != packets:
        yield "other packets or documents are in"
    if work.ephemeris not in made.inputs:
        old = ", ".join(name for name in before if name != packets.name) or "none"
        kind = work.observation.ephemeris_kind.lower()
        yield f"the {kind} ephemeris {work.ephemeris.name} in place of {old}"
    for package, version in deciding_software(Step.FORMATTING, work.software).items():
        if made.software.get(package) != version:
            yield f"{package} {version} in place of {made.software.get(package, 'none')}"


def _standing(
    root: DataRoot,
    work: FormattingWork,
    current: Mapping[str, RegisteredProduct],
    *,
    same_packets: bool,
) -> dict[str, ProductEntry]:
    """Return the products that stay, by name, if their files are there.

    Lost packets replace no L1, except where more of them have arrived since. Of the same packets
    L1 stays as well when nobody has asked for it again (R8).
    """
    archive = Archive.of(root)
    lacks = any(work.receipt.senders[sender].missing for sender in work.senders)
    begun = _begun(root, work.receipt.exposure) if lacks else {}
    return {
        name: entry
        for name, entry in current.items()
        if (sender := work.senders_of.get(name)) is not None
        and (
            _is_better(entry, work.receipt.senders[sender], begun)
            or (same_packets and work.packets[sender] in entry.inputs)
        )
        and archive.has_blob(entry.sha256, entry.size)
    }


def _is_better(
    entry: RegisteredProduct, sender: SenderReceipt, begun: Mapping[str, datetime]
) -> bool:
    """Return whether a product was made of more packets than are in."""
    if not sender.missing:
        return False
    if MISSING not in entry.metadata or sender.newest is None:
        return True
    return sender.newest <= begun.get(entry.record_id, entry.committed_at)


def _begun(root: DataRoot, exposure: ExposureId) -> dict[str, datetime]:
    """Return when the work began that made L1 of an exposure, by commit record (UTC)."""
    with Registry(root) as registry:
        attempts = registry.work.attempts([str(exposure)])
    formatted = attempts[attempts["step"] == Step.FORMATTING]
    return {row["record_id"]: row["started"] for row in formatted.to_dict("records")}


def make_level1(
    landing: LandingArea, exposure: ExposureId, wanted: ProductEntry, scratch: Path
) -> Path:
    """Make one L1 product again as its record says, without publishing it.

    Parameters
    ----------
    landing
        Where its packets and documents are retained.
    exposure
        Of the product.
    wanted
        What the record says of it.
    scratch
        A directory of the caller's own.

    Raises
    ------
    BadInputError
        If the packets or the ephemeris that it was made of are not there any more, or it cannot be
        made.
    """
    if wanted.metadata.get("origin") == Origin.DELIVERED:
        raise BadInputError(
            wanted.name, "origin", "it was formatted elsewhere and delivered",
            "ask who delivered it, or take it out of the landing area",
        )  # fmt: skip
    receipt = landing.receipt(exposure)
    packets, ephemeris = wanted.inputs
    orbit = retained_ephemeris(landing, ephemeris)
    work = FormattingWork.plan(landing, receipt, orbit, frozenset(receipt.senders))
    sender = work.senders_of.get(wanted.name, "")
    now = work.packets.get(sender)
    if now != packets:
        raise BadInputError(
            wanted.name, "inputs",
            f"the packets and documents of {packets.name} ({packets.sha256}) were replaced: the "
            f"landing area has {now.sha256 if now else 'none'} now",
            "bring back into the landing area what was there when it was made",
        )  # fmt: skip
    maker = Level1Maker(work, scratch, {})
    maker.make_again(wanted, sender)
    made = {str(output.name): output.path for output in maker.outputs}
    if wanted.name not in made:
        reasons = "; ".join(failure.message for failure in maker.failures) or "nothing was made"
        raise BadInputError(wanted.name, "L0", reasons, "see `roman-assets status`")
    return made[wanted.name]


def retained_ephemeris(landing: LandingArea, recorded: ProductInput) -> Path:
    """Return the ephemeris that a record names, out of the landing area.

    Raises
    ------
    BadInputError
        If it is gone, or its content is another.
    """
    for path in landing.ephemerides_named(recorded.name):
        if path.is_file() and sha256_of(path) == recorded.sha256:
            return path
    raise BadInputError(
        landing.path / recorded.name, "ephemeris",
        f"the one with the sha256 {recorded.sha256} is gone",
        "bring it back into the landing area, or a directory in it",
    )  # fmt: skip


def _formattable(
    landing: LandingArea, exposure: ExposureId, clock: Clock
) -> tuple[Receipt, frozenset[str]]:
    """Return what was received of an exposure, and the senders whose L1 is made now."""
    receipt = landing.receipt(exposure)
    if not receipt.complete:
        landing.scan()
        receipt = landing.receipt(exposure)
    record_receipts(landing.root, [receipt], clock=clock)
    if receipt.origin is Origin.DELIVERED and receipt.complete:
        return receipt, frozenset(receipt.senders)
    now, ready = clock(), frozenset[str]()
    if not receipt.lacks_ancillary:
        moments = formatted_from(
            receipt.senders,
            receipt.events.get(ClockEvent.ANCILLARY),
            _cut_off(landing.root, exposure),
            timedelta(0),
        )
        ready = frozenset(
            sender for sender, moment in moments.items() if receipt.complete or moment <= now
        )
    if not ready:
        raise BadInputError(
            exposure, "receipt", f"not all of it is in: {'; '.join(receipt.missing)}",
            "wait for it, or have it delivered again",
        )  # fmt: skip
    return receipt, ready


def _cut_off(root: DataRoot, exposure: ExposureId) -> datetime | None:
    """Return when the wait for packets of an exposure ends, as it is on record."""
    with Registry(root) as registry:
        _, moments = registry.receipts.newest([str(exposure)])[str(exposure)]
    return moments.get(ClockEvent.CUT_OFF)


def _best_ephemeris(receipt: Receipt) -> Path:
    """Return the definitive ephemeris if there is one, else the predicted (R3)."""
    path = receipt.definitive_ephemeris or receipt.ephemeris
    if path is None:
        raise BadInputError(
            receipt.exposure, "ephemeris", "it is gone since all was received",
            "deliver an ephemeris that covers the exposure",
        )  # fmt: skip
    return path
