"""Small products with official names, and the state of an installation as plain values."""

from __future__ import annotations

import hashlib
import io
import json
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asdf
import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from roman_assets.archive.store import Archive
from roman_assets.data_root import DataRoot
from roman_assets.products.kind import Scope, Step
from roman_assets.products.lifecycle import Transition
from roman_assets.products.name import ProductName
from roman_assets.publishing.step import Output, StepResult, publish_step
from roman_assets.records.journal import Journal
from roman_assets.records.record import (
    ArchivedMetadata,
    CommitRecord,
    ProductEntry,
    ProductInput,
    ProductTransition,
    Sections,
    fingerprint,
)
from roman_assets.registry.catalog.schema import TABLES
from roman_assets.registry.store.snapshot import read_snapshot, tier_path
from roman_assets.registry.store.tiers import TieredDatabase
from roman_assets.upkeep.retention import supersede

VISIT = "r0001001001001001001"
_ABOUT_PRODUCTS = {
    "fingerprint",
    "metadata",
    "inputs",
    "context",
    "software",
    "references",
    "archived",
    "access",
}
ANY_FINGERPRINT = fingerprint(Step.FORMATTING, (), None, {})


def exposure(number: int = 1) -> str:
    return f"{VISIT}_{number:04d}"


def cal(number: int = 1, detector: int = 1) -> str:
    return f"{exposure(number)}_wfi{detector:02d}_f158_cal.asdf"


def association(cell: int = 1) -> str:
    return f"r00010_p_v01001001001001_270p65x{cell:02d}y50_f158_asn.json"


def skycell_set(cell: int = 1, release: str = "p") -> tuple[str, ...]:
    """Give the names of all products of a visit on a skycell: association, coadd and their L4."""
    file_set = f"r00010_{release}_v01001001001001_270p65x{cell:02d}y50_f158"
    return tuple(
        f"{file_set}_{end}" for end in ("asn.json", "coadd.asdf", "cat.parquet", "segm.asdf")
    )


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def staged_entry(root: DataRoot, name: str, content: bytes, **fields: Any) -> ProductEntry:
    """Put the content into the archive as a blob and describe it as a product."""
    source = root.path / "scratch" / f"{uuid.uuid4().hex}_{name}"
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_bytes(content)
    staged = Archive.of(root).stage(source)
    fields.setdefault("fingerprint", ANY_FINGERPRINT)
    return ProductEntry(name=name, sha256=staged.sha256, size=staged.size, **fields)


def record_of(root: DataRoot, contents: Mapping[str, bytes], **fields: Any) -> CommitRecord:
    """Stage contents by name and make the record that would commit them."""
    fields.setdefault("step", Step.EXPOSURE)
    fields.setdefault("partition", exposure())
    about = {field: fields.pop(field) for field in _ABOUT_PRODUCTS & fields.keys()}
    products = [staged_entry(root, name, data, **about) for name, data in contents.items()]
    return CommitRecord(products=tuple(products), **fields)


def commit(root: DataRoot, contents: Mapping[str, bytes], **fields: Any) -> CommitRecord:
    """Commit contents by name; a fold takes them into the registry."""
    record = record_of(root, contents, **fields)
    Journal(root).write(record)
    return record


def change_of(entry: ProductEntry, made_by: str, transition: Transition) -> ProductTransition:
    """State that something happened to a generation."""
    return ProductTransition(
        transition=transition,
        name=entry.name,
        made_by=made_by,
        sha256=entry.sha256,
        reason="for the test",
        cause="test",
    )


def archived(rad_schema: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Give the fields of a record whose products say these values for the metadata tables."""
    sections = Sections()
    places = sections.add(values)
    return {
        "archived": ArchivedMetadata(rad_schema=rad_schema, sections=places),
        "sections": sections.collected,
    }


def association_output(root: DataRoot, cell: int, text: str) -> Output:
    """Give a small file that is a valid product."""
    return output(root, association(cell), text)


def publish_associations(root: DataRoot, texts: Mapping[int, str], **fields: Any) -> StepResult:
    outputs = [association_output(root, cell, text) for cell, text in texts.items()]
    return publish_step(root, step=Step.VISIT, partition=VISIT, outputs=outputs, **fields)


def product_bytes(name: str, text: str) -> bytes:
    """Give a small file that is a valid product of its kind and holds a text."""
    if name.endswith(".json"):
        return json.dumps({"asn_type": "image", "note": text}).encode()
    stream = io.BytesIO()
    if name.endswith(".parquet"):
        pq.write_table(pa.table({"note": [text], "name": [name]}), stream)
    else:
        asdf.AsdfFile({"roman": {"meta": {}, "note": text, "name": name}}).write_to(stream)
    return stream.getvalue()


def output(root: DataRoot, name: str, text: str) -> Output:
    """Give a product as a step hands it over to be published."""
    path = root.path / "scratch" / uuid.uuid4().hex / name
    path.parent.mkdir(parents=True)
    path.write_bytes(product_bytes(name, text))
    return Output(
        ProductName.parse(name), path, fingerprint(Step.FORMATTING, (), None, {}, note=text)
    )


def publish_skycells(
    root: DataRoot, texts: Mapping[int, str], release: str = "p", **fields: Any
) -> StepResult:
    """Publish whole file sets of a visit: association, coadd, catalogue and segmentation map."""
    outputs = [
        output(root, name, text)
        for cell, text in texts.items()
        for name in skycell_set(cell, release)
    ]
    return publish_step(root, step=Step.VISIT, partition=VISIT, outputs=outputs, **fields)


def registry_content(root: DataRoot) -> dict[str, list[tuple[Any, ...]]]:
    """Give every row of every table, in an order that does not depend on the storage."""
    snapshot = read_snapshot(root.registry)
    database = TieredDatabase(root)
    try:
        database.show(snapshot)
        return {
            table.name: database.connection.execute(
                f"select * from {table.name} order by all"
            ).fetchall()
            for table in TABLES
        }
    finally:
        database.close()


def tiers(root: DataRoot) -> list[Path]:
    """Give the files of the published tiers, newest first."""
    snapshot = read_snapshot(root.registry)
    return [tier_path(root, tier) for tier in snapshot.tiers] if snapshot else []


def damage(path: Path, content: bytes) -> None:
    """Put something else in the place of a file that is read-only."""
    path.unlink()
    path.write_bytes(content)


def change_tier(root: DataRoot, sql: str) -> None:
    """Change the newest tier as nothing in the platform does."""
    (newest, *_) = tiers(root)
    newest.chmod(0o644)
    with duckdb.connect(newest) as connection:
        connection.execute(sql)


def public_content(root: DataRoot) -> dict[str, bytes]:
    """Give what general users see, by file name."""
    archive = Archive.of(root)
    return {
        key.name: archive.path(ProductName.parse(key.name)).read_bytes()
        for key in archive.public_keys()
    }


def moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(1_700_000_000 + seconds, UTC)


SUPERSEDED_AT = moment(100)


def image_input(number: int = 1) -> ProductInput:
    """Return an image as `commit_names` commits it, as an input."""
    content = f"{cal(number)} {moment(0)}".encode()
    return ProductInput(name=cal(number), sha256=sha256(content))


def commit_names(root: DataRoot, names: Iterable[str], **fields: Any) -> CommitRecord:
    """Commit products of HLWAS, made at the beginning of time unless said otherwise.

    Those of skycells are made from the first image that was committed so.
    """
    about = {"committed_at": moment(0), "metadata": {"survey": "HLWAS"}, **fields}
    names = list(names)
    if ProductName.parse(names[0]).kind.scope is Scope.SKYCELL:
        about.setdefault("inputs", (image_input(),))
    contents = {name: f"{name} {about['committed_at']}".encode() for name in names}
    return commit(root, contents, **about)


def installed_with_release(root: DataRoot) -> DataRoot:
    """Fill an installation whose release r0 supersedes the first of two skycells of a visit."""
    commit_names(root, [cal()])
    for cell in (1, 2):
        commit_names(root, skycell_set(cell))
    commit_names(root, skycell_set(1, "r0"), committed_at=SUPERSEDED_AT)
    coadd = skycell_set(1)[1]
    supersede(root, [coadd], reason="r0 is published", cause="r0", clock=lambda: SUPERSEDED_AT)
    return root
