"""Checking that archive, journal and registry agree, and mending what can be mended."""

# Names put into SQL are names of the schema; values are always parameters.
# ruff: noqa: S608

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from roman_assets.access import Role
from roman_assets.archive.set_aside import SetAside
from roman_assets.archive.store import Archive
from roman_assets.archive.watched_lock import Fence
from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError, PassingFaultError
from roman_assets.products.kind import Step
from roman_assets.products.lifecycle import State, Transition
from roman_assets.products.name import ProductName
from roman_assets.records.journal import Journal
from roman_assets.records.record import WHOLE_ARCHIVE, CommitRecord, ProductTransition
from roman_assets.registry.catalog.schema import IS_AVAILABLE
from roman_assets.registry.engine import Engine
from roman_assets.registry.search.completeness import Ask, dangling_inputs, partial_sets
from roman_assets.registry.search.contradiction import contradictions
from roman_assets.registry.search.finding import REMEDIES, Finding, FindingKind

DEFAULT_GRACE = timedelta(days=1)
_NAMES_AT_ONCE = 10_000


@dataclass(frozen=True)
class _Product:
    name: ProductName
    sha256: str
    size: int
    record_id: str
    access: str


def fsck(
    root: DataRoot,
    *,
    mend: bool = False,
    grace: timedelta = DEFAULT_GRACE,
    read_blobs: bool = True,
) -> list[Finding]:
    """Check that the archive shows what the records say.

    Parameters
    ----------
    root
        The installation. Publishing goes on, save that folds wait for the quick part.
    mend
        Mend as well. Nothing is mended by deleting what a record refers to: damaged records and
        blobs are set aside. Of a product whose file is lost, a record is written that says so.
    grace
        Blobs without an available product, and files of unfinished writers, count only when older:
        somebody may be publishing or reading them.
    read_blobs
        Read and hash every available file; otherwise only existence and size are checked.

    Returns
    -------
    list of Finding
        Empty when all is well.
    """
    findings = [*_check_pending(root, mend), *_check_journal(root, mend)]
    damage = list(_check_registry(root, mend))
    findings += damage
    if not damage or mend:
        findings += _check_records(root, mend)
        findings += _check_archive(root, mend, grace, read_blobs)
        findings += _check_rules(root, mend)
        findings += _check_products(root)
    findings += _check_set_aside(root, mend)
    return findings


def collect_blobs(root: DataRoot, *, grace: timedelta = DEFAULT_GRACE) -> list[Finding]:
    """Free the bytes that no product needs any more, after the grace period.

    A process that has such a file open keeps it. Nothing is removed while records or registry are
    damaged: what they cannot tell of may be needed.

    Parameters
    ----------
    root
        The installation.
    grace
        As `fsck` has it.

    Returns
    -------
    list of Finding
        The blobs, mended when they are removed; or the damage that has to be mended first.
    """
    Engine(root).fold()
    damage = [
        *_check_pending(root, mend=False),
        *_check_registry(root, mend=False),
        *_check_records(root, mend=False),
    ]
    return damage or list(_check_orphans(root, mend=True, grace=grace))


def _check_archive(
    root: DataRoot, mend: bool, grace: timedelta, read_blobs: bool
) -> Iterator[Finding]:
    with Engine(root).locked("comparing names") as fence:
        with _asking(root) as ask:
            products = _available_products(ask)
        missing = _missing_blobs(root, products, mend)
        there = [one for one in products if one not in missing or missing[one].mended]
        yield from _check_names(root, _public(products), _public(there), mend, fence)
    yield from _check_orphans(root, mend, grace)
    yield from _check_leftovers(root, mend, grace)
    found = missing | _wrong_blobs(root, there, mend, read_blobs)
    if mend:
        _state_lost(root, [product for product, finding in found.items() if not finding.mended])
    for finding in found.values():
        # What is on record as lost is a finding of its own.
        yield replace(finding, mended=mend)


def _check_rules(root: DataRoot, mend: bool) -> list[Finding]:
    with _asking(root) as ask:
        found = list(contradictions(ask))
    if mend:
        _state(root, tuple(one.change for one in found))
    return [one.finding(mended=mend) for one in found]


def _check_products(root: DataRoot) -> Iterator[Finding]:
    with _asking(root) as ask:
        yield from _lost_products(ask)
        yield from dangling_inputs(ask)
        yield from partial_sets(ask)


def _check_pending(root: DataRoot, mend: bool) -> list[Finding]:
    journal = Journal(root)
    _, damage = journal.read_pending(journal.pending_paths())
    if mend:
        Engine(root).fold()
    return [
        Finding(FindingKind.DAMAGED_RECORD, error.source, error.reason, mend) for error in damage
    ]


def _check_journal(root: DataRoot, mend: bool) -> Iterator[Finding]:
    journal = Journal(root)
    for segment in journal.segments():
        try:
            damage = journal.damage(segment)
        except FileNotFoundError:  # A fold has joined it with others, which say the same.
            continue
        for line, error in damage.items():
            yield Finding(FindingKind.DAMAGED_RECORD, f"{segment}:{line}", error.reason, mend)
        if damage and mend:
            with Engine(root).locked("repairing records"), suppress(FileNotFoundError):
                journal.repair_segment(segment)


def _check_registry(root: DataRoot, mend: bool) -> Iterator[Finding]:
    damage: dict[Role, str] = {}
    for role in Role:
        try:
            with Engine(root).snapshot(role) as snapshot:
                snapshot.read_all()
        except PassingFaultError as error:
            damage[role] = str(error)
    if damage and mend:
        Engine(root).rebuild()
    for role, detail in damage.items():
        yield Finding(FindingKind.DAMAGED_REGISTRY, f"registry for the role {role}", detail, mend)


def _check_records(root: DataRoot, mend: bool) -> Iterator[Finding]:
    lost_records, lost_rows = _differing_records(root)
    if mend and (lost_records or lost_rows):
        Engine(root).rebuild()
    for record_id in sorted(lost_rows):
        yield Finding(FindingKind.WRONG_REGISTRY, record_id, "not in the registry", mend)
    for record_id in sorted(lost_records):
        yield Finding(FindingKind.WRONG_REGISTRY, record_id, "not in the journal", mend)


def _differing_records(root: DataRoot) -> tuple[set[str], set[str]]:
    """Return the records missing from the journal, and those missing from the registry.

    Without a lock, as the journal takes long to read. What was folded before it was read must be in
    it; what is in it must be folded afterwards, or still wait.
    """
    journal = Journal(root)
    with _asking(root) as ask:
        folded_before = _folded_records(ask)
    recorded = set(journal.sealed_ids())
    pending = {path.stem.rpartition("_")[2] for path in journal.pending_paths()}
    with _asking(root) as ask:
        folded = _folded_records(ask)
    return folded_before - recorded - pending, recorded - folded - pending


def _missing_blobs(root: DataRoot, products: list[_Product], mend: bool) -> dict[_Product, Finding]:
    archive = Archive.of(root)
    there = {blob.sha256 for blob in archive.blobs()}
    lacking = [product for product in products if product.sha256 not in there]
    restored = {
        product.sha256
        for product in lacking
        if archive.restore_blob(product.name, product.sha256, mend=mend)
    }
    return {
        product: Finding(
            FindingKind.MISSING_BLOB,
            str(product.name),
            f"the blob {product.sha256} is gone, "
            + ("a public file has" if product.sha256 in restored else "and no public file has")
            + " its content",
            mend and product.sha256 in restored,
        )
        for product in lacking
    }


def _check_names(
    root: DataRoot,
    products: list[_Product],
    there: list[_Product],
    mend: bool,
    fence: Fence,
) -> Iterator[Finding]:
    archive = Archive.of(root)
    wrong: dict[ProductName, str] = {}
    for start in range(0, len(there), _NAMES_AT_ONCE):
        fence.confirm()
        part = there[start : start + _NAMES_AT_ONCE]
        wrong |= archive.differing({product.name: product.sha256 for product in part})
    unshown = archive.show(wrong, fence) if mend else {}
    for name, sha256 in wrong.items():
        reason = f": {unshown[name]}" if name in unshown else ""
        yield Finding(
            FindingKind.WRONG_PUBLIC_NAME,
            str(name),
            f"does not show the blob {sha256}{reason}",
            mend and name not in unshown,
        )
    known = {archive.public_key(product.name) for product in products}
    for number, key in enumerate(archive.public_keys()):
        if number % _NAMES_AT_ONCE == 0:
            fence.confirm()
        if key not in known:
            if mend:
                archive.unlink_key(key, fence)
            yield Finding(
                FindingKind.UNKNOWN_PUBLIC_NAME,
                f"{archive.public}/{key}",
                "no available product has it",
                mend,
            )


def _wrong_blobs(
    root: DataRoot, products: list[_Product], mend: bool, read: bool
) -> dict[_Product, Finding]:
    archive = Archive.of(root)
    of_blob: dict[str, list[_Product]] = {}
    for product in products:
        of_blob.setdefault(product.sha256, []).append(product)
    found: dict[_Product, Finding] = {}
    for sharing in of_blob.values():
        try:
            detail = _blob_damage(archive, sharing[0], read)
        except FileNotFoundError:
            continue
        if not detail:
            continue
        if mend:
            with Engine(root).locked("setting a blob aside") as fence:
                _set_blob_aside(archive, sharing, detail, fence)
        for product in sharing:
            found[product] = Finding(FindingKind.WRONG_BLOB, str(product.name), detail)
    return found


def _blob_damage(archive: Archive, product: _Product, read: bool) -> str:
    """Return what is wrong with a blob, empty if nothing is; `FileNotFoundError` without one."""
    if not read:
        wrong = not archive.has_blob(product.sha256, product.size)
        return f"the blob {product.sha256} has not {product.size} bytes" if wrong else ""
    content = archive.content_hash(product.sha256)
    if content == product.sha256:
        return ""
    return f"the content of the blob {product.sha256} has the sha256 {content}"


def _set_blob_aside(archive: Archive, sharing: list[_Product], detail: str, fence: Fence) -> None:
    """Take a wrong blob away, with the names that show it."""
    first = sharing[0]
    for product in sharing:
        if archive.shows(product.name, product.sha256):
            archive.unlink(product.name, fence)
    damage = BadInputError(
        f"blob {first.sha256}",
        "content",
        f"{detail}; it was that of {', '.join(str(product.name) for product in sharing)}",
        REMEDIES[FindingKind.LOST_PRODUCT],
    )
    archive.set_aside(first.sha256, damage, first.name)


def _state_lost(root: DataRoot, products: list[_Product]) -> None:
    """Put on record that the files of products are gone, unless somebody has brought them back."""
    archive = Archive.of(root)
    changes = tuple(
        ProductTransition(
            transition=Transition.LOST,
            name=str(product.name),
            made_by=product.record_id,
            sha256=product.sha256,
            reason="its file was missing or damaged",
            cause="fsck",
        )
        for product in products
        if not archive.has_blob(product.sha256, product.size)
    )
    _state(root, changes)


def _state(root: DataRoot, changes: tuple[ProductTransition, ...]) -> None:
    if changes:
        record = CommitRecord(step=Step.UPKEEP, partition=WHOLE_ARCHIVE, transitions=changes)
        Engine(root).commit(record)


def _lost_products(ask: Ask) -> Iterator[Finding]:
    rows = ask(
        'select name, max(step), max("partition"), max(ended_at) from products '
        "group by name having arg_max(state, generation) = $lost order by name",
        {"lost": State.LOST.value},
    )
    for name, step, partition, when in rows:
        yield Finding(
            FindingKind.LOST_PRODUCT,
            name,
            f"its file was found missing or damaged on {when:%Y-%m-%d %H:%M:%S} UTC "
            f"(step {step} of {partition})",
        )


def _check_set_aside(root: DataRoot, mend: bool) -> Iterator[Finding]:
    aside = SetAside(root)
    for case in aside.list():
        if case.is_damaged:
            if mend:
                aside.mend(case)
            yield Finding(FindingKind.DAMAGED_CASE, str(case.path), case.reason, mend)


def _check_orphans(root: DataRoot, mend: bool, grace: timedelta) -> Iterator[Finding]:
    archive = Archive.of(root)
    horizon = archive.now() - int(grace.total_seconds() * 1e9)
    old = [blob for blob in archive.blobs() if blob.staged_at <= horizon]
    # After the blobs are listed: what is staged, committed and folded meanwhile is seen here.
    needed = _needed_hashes(root, archive, grace) if old else set()
    for blob in old:
        if blob.sha256 not in needed:
            removed = mend and archive.remove_blob_staged_at(blob.sha256, blob.staged_at)
            yield Finding(
                FindingKind.ORPHAN_BLOB, blob.sha256, "no available product refers to it", removed
            )


def _check_leftovers(root: DataRoot, mend: bool, grace: timedelta) -> Iterator[Finding]:
    horizon = time.time() - grace.total_seconds()
    places = (
        Archive.of(root).leftovers(),
        Engine(root).leftovers(),
        Journal(root).leftovers(),
        SetAside(root).leftovers(),
    )
    for path in (path for place in places for path in place):
        # Its writer may be alive, and done with it by now.
        with suppress(FileNotFoundError):
            if path.stat().st_mtime > horizon:
                continue
            if mend and path.is_dir():
                shutil.rmtree(path)
            elif mend:
                path.unlink()
            yield Finding(FindingKind.LEFTOVER, str(path), "its writer is gone", mend)


def _folded_records(ask: Ask) -> set[str]:
    return {record_id for (record_id,) in ask("select record_id from records", {})}


def _public(products: list[_Product]) -> list[_Product]:
    """Return those that have a public name."""
    return [product for product in products if product.access == Role.PUBLIC]


def _available_products(ask: Ask) -> list[_Product]:
    columns = "name, sha256, size, record_id, access"
    rows = ask(f"select {columns} from products where {IS_AVAILABLE}", {})
    return [_Product(ProductName.parse(name), *content) for name, *content in rows]


def _needed_hashes(root: DataRoot, archive: Archive, grace: timedelta) -> set[str]:
    """Return the content that is needed: available, so a moment ago, not folded yet, or in use.

    Asked in the order in which content goes from one to the next, so that none is missed.
    """
    in_use = archive.in_use()
    journal = Journal(root)
    pending, _ = journal.read_pending(journal.pending_paths())
    waiting = {product.sha256 for item in pending for product in item.record.products}
    with _asking(root) as ask:
        rows = ask(
            f"select sha256 from products where {IS_AVAILABLE} or ended_at > $horizon",
            {"horizon": datetime.now(UTC) - grace},
        )
    return {sha256 for (sha256,) in rows} | waiting | in_use


@contextmanager
def _asking(root: DataRoot) -> Iterator[Ask]:
    """Ask the registry as it is at the beginning of the block."""
    snapshot = Engine(root).open_snapshot()
    try:
        yield lambda sql, parameters: snapshot.connection.execute(sql, parameters).fetchall()
    finally:
        snapshot.close()
