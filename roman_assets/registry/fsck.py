"""Checking that archive, journal and registry agree, and mending what can be mended."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

from roman_assets.archive.durability import make_directory
from roman_assets.archive.set_aside import SetAside
from roman_assets.archive.store import Archive, sha256_of
from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError
from roman_assets.products.name import ProductName
from roman_assets.registry.fold import DATABASE, fold, fold_lock, rebuild
from roman_assets.registry.journal import Journal
from roman_assets.registry.schema import open_database

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
    archive = Archive(root)
    for product in products:
        public, blob = archive.public_path(product.name), archive.blob(product.sha256)
        if not blob.exists():
            yield _restore_blob(product, public, blob, mend)
        elif public.is_symlink() or not public.exists() or not public.samefile(blob):
            if mend:
                archive.link(product.name, product.sha256)
            yield Finding(
                FindingKind.WRONG_PUBLIC_NAME, str(product.name), f"does not show {blob}", mend
            )
    known = {archive.public_path(product.name) for product in products}
    for path in archive.public_files():
        if path not in known:
            if mend:
                path.unlink()
            yield Finding(
                FindingKind.UNKNOWN_PUBLIC_NAME, str(path), "no current product has it", mend
            )


def _restore_blob(product: _Product, public: Path, blob: Path, mend: bool) -> Finding:
    if public.is_file() and not public.is_symlink() and sha256_of(public) == product.sha256:
        if mend:
            make_directory(blob.parent)
            blob.hardlink_to(public)
        return Finding(
            FindingKind.MISSING_BLOB, str(product.name), "its public file has the content", mend
        )
    return Finding(
        FindingKind.MISSING_BLOB,
        str(product.name),
        f"{blob} is gone; run the step that makes the product again",
    )


def _check_orphans(root: DataRoot, mend: bool, grace: timedelta) -> Iterator[Finding]:
    archive = Archive(root)
    horizon = time.time_ns() - int(grace.total_seconds() * 1e9)
    needed = _needed_hashes(root, grace)
    for blob in archive.blobs():
        if blob.name in needed or blob.stat().st_mtime_ns > horizon:
            continue
        removed = mend and archive.remove_blob_older_than(blob.name, horizon)
        yield Finding(
            FindingKind.ORPHAN_BLOB, str(blob), "no current product refers to it", removed
        )


def _check_leftovers(root: DataRoot, mend: bool, grace: timedelta) -> Iterator[Finding]:
    horizon = time.time() - grace.total_seconds()
    places = (
        root.staging.glob("*"),
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
    archive = Archive(root)
    for product in products:
        blob = archive.blob(product.sha256)
        try:
            found = sha256_of(blob)
        except FileNotFoundError:
            continue
        if found == product.sha256:
            continue
        damage = BadInputError(
            blob,
            "content",
            f"the content of {product.name} has the sha256 {found}",
            "run the step that makes the product again",
        )
        if mend:
            _set_blob_aside(root, archive, product, damage)
        yield Finding(FindingKind.WRONG_BLOB, str(product.name), str(damage))


def _set_blob_aside(
    root: DataRoot, archive: Archive, product: _Product, damage: BadInputError
) -> None:
    blob, public = archive.blob(product.sha256), archive.public_path(product.name)
    with fold_lock(root):
        if public.exists() and public.samefile(blob):
            public.unlink()
        SetAside(root).add(blob, damage, name=str(product.name))


def _folded_records(root: DataRoot) -> set[str]:
    rows = _ask(root, "select record_id from records")
    return {record_id for (record_id,) in rows}


def _current_products(root: DataRoot) -> list[_Product]:
    rows = _ask(root, "select name, sha256, size from products where state = 'current'")
    return [_Product(ProductName.parse(name), sha256, size) for name, sha256, size in rows]


def _needed_hashes(root: DataRoot, grace: timedelta) -> set[str]:
    """Give what products refer to: current, overwritten a moment ago, or not folded yet."""
    rows = _ask(
        root,
        "select sha256 from (select sha256, state, lead(committed_at) over "
        "(partition by name order by generation) as overwritten_at from products) "
        "where state = 'current' or overwritten_at > $horizon",
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
