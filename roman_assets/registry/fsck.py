"""Checking that archive, journal and registry agree, and mending what can be mended."""

# Names put into SQL are names of the schema; values are always parameters.
# ruff: noqa: S608

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from roman_assets.archive.store import Archive
from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError
from roman_assets.products.name import ProductName
from roman_assets.registry.fold import DATABASE, fold, fold_lock, rebuild
from roman_assets.registry.journal import Journal
from roman_assets.registry.schema import IS_AVAILABLE, open_database

DEFAULT_GRACE = timedelta(days=1)


class FindingKind(StrEnum):
    """What can be wrong."""

    DAMAGED_RECORD = "damaged record"
    WRONG_REGISTRY = "registry differs from records"
    MISSING_BLOB = "missing blob"
    WRONG_BLOB = "wrong blob"
    WRONG_PUBLIC_NAME = "public name differs from records"
    UNKNOWN_PUBLIC_NAME = "public name without a product"
    ORPHAN_BLOB = "orphan blob"
    LEFTOVER = "leftover of a dead writer"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Parameters
    ----------
    kind
        What.
    subject
        The product, file or record it is about.
    detail
        What was found, and what a person has to do if it could not be mended.
    mended
        Whether all is well with it now.
    """

    kind: FindingKind
    subject: str
    detail: str
    mended: bool = False


@dataclass(frozen=True)
class _Product:
    name: ProductName
    sha256: str
    size: int


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
        blobs are set aside.
    grace
        Blobs without a current product, and files of unfinished writers, count only when older:
        somebody may be publishing or reading them.
    read_blobs
        Read and hash every current file; otherwise only existence and size are checked.

    Returns
    -------
    list of Finding
        Empty when all is well.
    """
    findings = [*_check_pending(root, mend), *_check_journal(root, mend)]
    with fold_lock(root):
        products = _current_products(root)
        findings += _check_names(root, products, mend)
        findings += _check_orphans(root, mend, grace)
        findings += _check_leftovers(root, mend, grace)
    if read_blobs:
        findings += _check_contents(root, products, mend)
    return findings


def _check_pending(root: DataRoot, mend: bool) -> list[Finding]:
    journal = Journal(root)
    with fold_lock(root):
        _, damage = journal.read_pending(journal.pending_paths())
    if mend:
        fold(root)
    return [
        Finding(FindingKind.DAMAGED_RECORD, error.source, error.reason, mend) for error in damage
    ]


def _check_journal(root: DataRoot, mend: bool) -> Iterator[Finding]:
    journal = Journal(root)
    with fold_lock(root):
        for segment in journal.segments():
            for line, error in journal.damage(segment).items():
                yield Finding(FindingKind.DAMAGED_RECORD, f"{segment}:{line}", error.reason, mend)
            if mend:
                journal.repair_segment(segment)
        pending = {path.stem.rpartition("_")[2] for path in journal.pending_paths()}
        recorded = {record.record_id for record in journal.records()} - pending
        folded = _folded_records(root) - pending
    differing = sorted(recorded ^ folded)
    if differing and mend:
        rebuild(root)
    for record_id in differing:
        place = "registry" if record_id in recorded else "journal"
        yield Finding(FindingKind.WRONG_REGISTRY, record_id, f"not in the {place}", mend)


def _check_names(root: DataRoot, products: list[_Product], mend: bool) -> Iterator[Finding]:
    archive = Archive.of(root)
    there = {blob.sha256 for blob in archive.blobs()}
    for product in products:
        if product.sha256 not in there:
            yield _restore_blob(archive, product, mend)
    wrong = archive.differing(
        {product.name: product.sha256 for product in products if product.sha256 in there}
    )
    for name, sha256 in wrong.items():
        yield Finding(
            FindingKind.WRONG_PUBLIC_NAME, str(name), f"does not show the blob {sha256}", mend
        )
    if mend:
        archive.show(wrong)
    known = {archive.public_key(product.name) for product in products}
    for key in archive.public_keys():
        if key not in known:
            if mend:
                archive.unlink_key(key)
            yield Finding(
                FindingKind.UNKNOWN_PUBLIC_NAME,
                f"{archive.public}/{key}",
                "no current product has it",
                mend,
            )


def _restore_blob(archive: Archive, product: _Product, mend: bool) -> Finding:
    if archive.restore_blob(product.name, product.sha256, mend=mend):
        return Finding(
            FindingKind.MISSING_BLOB, str(product.name), "its public file has the content", mend
        )
    return Finding(
        FindingKind.MISSING_BLOB,
        str(product.name),
        f"the blob {product.sha256} is gone; run the step that makes the product again",
    )


def _check_orphans(root: DataRoot, mend: bool, grace: timedelta) -> Iterator[Finding]:
    archive = Archive.of(root)
    horizon = time.time_ns() - int(grace.total_seconds() * 1e9)
    needed = _needed_hashes(root, grace)
    for blob in archive.blobs():
        if blob.sha256 in needed or blob.staged_at > horizon:
            continue
        removed = mend and archive.remove_blob_older_than(blob.sha256, horizon)
        yield Finding(
            FindingKind.ORPHAN_BLOB, blob.sha256, "no current product refers to it", removed
        )


def _check_leftovers(root: DataRoot, mend: bool, grace: timedelta) -> Iterator[Finding]:
    horizon = time.time() - grace.total_seconds()
    places = (
        Archive.of(root).leftovers(),
        root.registry.glob(".*.tmp*"),
        root.public_registry.glob(".*.tmp*"),
        Journal(root).leftovers(),
    )
    for path in (path for place in places for path in place):
        if path.stat().st_mtime <= horizon:
            if mend:
                path.unlink()
            yield Finding(FindingKind.LEFTOVER, str(path), "its writer is gone", mend)


def _check_contents(root: DataRoot, products: list[_Product], mend: bool) -> Iterator[Finding]:
    archive = Archive.of(root)
    for product in products:
        try:
            found = archive.content_hash(product.sha256)
        except FileNotFoundError:
            continue
        if found == product.sha256:
            continue
        damage = BadInputError(
            f"blob {product.sha256}",
            "content",
            f"the content of {product.name} has the sha256 {found}",
            "run the step that makes the product again",
        )
        if mend:
            with fold_lock(root):
                if archive.shows(product.name, product.sha256):
                    archive.unlink(product.name)
                archive.set_aside(product.sha256, damage, product.name)
        yield Finding(FindingKind.WRONG_BLOB, str(product.name), str(damage))


def _folded_records(root: DataRoot) -> set[str]:
    rows = _ask(root, "select record_id from records")
    return {record_id for (record_id,) in rows}


def _current_products(root: DataRoot) -> list[_Product]:
    rows = _ask(root, f"select name, sha256, size from products where {IS_AVAILABLE}")
    return [_Product(ProductName.parse(name), sha256, size) for name, sha256, size in rows]


def _needed_hashes(root: DataRoot, grace: timedelta) -> set[str]:
    """Give what products refer to: available, so a moment ago, or not folded yet."""
    rows = _ask(
        root,
        f"select sha256 from products where {IS_AVAILABLE} or ended_at > $horizon",
        {"horizon": datetime.now(UTC) - grace},
    )
    journal = Journal(root)
    pending, _ = journal.read_pending(journal.pending_paths())
    waiting = {product.sha256 for item in pending for product in item.record.products}
    return {sha256 for (sha256,) in rows} | waiting


def _ask(
    root: DataRoot, sql: str, parameters: dict[str, object] | None = None
) -> list[tuple[Any, ...]]:
    database = root.registry / DATABASE
    if not database.exists():
        return []
    connection = open_database(database)
    try:
        return connection.execute(sql, parameters or {}).fetchall()
    finally:
        connection.close()
