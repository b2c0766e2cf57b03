"""How a data release appears: for operators while it is made, for everyone at once (R13)."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from roman_assets.access import Role
from roman_assets.data_root import DataRoot
from roman_assets.products.kind import Step
from roman_assets.products.lifecycle import State, Transition
from roman_assets.products.observation import Survey
from roman_assets.records.journal import Journal
from roman_assets.records.record import (
    CommitRecord,
    ProductInput,
    ReleasePhase,
    ReleaseStatement,
    Statement,
)
from roman_assets.registry.registry import Registry
from roman_assets.registry.store import fold as fold_module
from roman_assets.registry.store.fold import fold, rebuild
from roman_assets.upkeep.fsck import fsck
from roman_assets_tests.support.small_products import (
    archived,
    cal,
    change_of,
    public_content,
    record_of,
    registry_content,
    sha256,
    skycell_set,
)

UNIT = "r00010_r0_v01001001001001"
STATEMENT = ReleaseStatement(
    release="r0",
    survey=Survey.HLWAS,
    phase=ReleasePhase.BEGUN,
    declaration=sha256(b"declaration"),
    content="declaration",
    software={"romancal": "1.1.0"},
    exposures=(cal(1, 1)[:25],),
)


@pytest.fixture
def root(tmp_path: Path) -> DataRoot:
    return DataRoot(tmp_path / "data")


def made(root: DataRoot, cell: int = 1) -> CommitRecord:
    """Commit what a release has of a skycell, which only operators see."""
    fields = archived("wfi_mosaic", {"coordinates.reference_frame": "ICRS"})
    record = record_of(
        root,
        {name: name.encode() for name in skycell_set(cell, "r0")},
        step=Step.RELEASE,
        partition=UNIT,
        access=Role.OPERATIONS,
        inputs=(ProductInput(name=cal(), sha256=sha256(b"cal")),),
        metadata={
            "survey": "HLWAS",
            "exposure_type": "WFI_IMAGE",
            "ra": 270.0,
            "dec": 66.0,
            "radius": 0.05,
            "footprint": "POLYGON ICRS 269.9 65.9 270.1 65.9 270.1 66.1 269.9 66.1",
        },
        **fields,
    )
    Journal(root).write(record)
    return record


def publication(*records: CommitRecord) -> CommitRecord:
    return CommitRecord(
        step=Step.RELEASE,
        partition="HLWAS_r0",
        statement=Statement.RELEASE,
        release=STATEMENT.model_copy(update={"phase": ReleasePhase.PUBLISHED, "exposures": ()}),
        transitions=tuple(
            change_of(entry, record.record_id, Transition.PUBLISHED)
            for record in records
            for entry in record.products
        ),
    )


def seen(root: DataRoot, role: Role) -> set[str]:
    return set(Registry(root, role).products.find(overwritten=True)["name"])


def everything_public(root: DataRoot) -> dict[str, list[tuple[object, ...]]]:
    """Give what the public registry says of the release, table by table."""
    registry = Registry(root, Role.PUBLIC)
    return {
        "found": registry.products.find(cone=(270.0, 66.0, 0.1))["name"].tolist(),
        "entries": sorted(registry.generations.current(skycell_set(1, "r0")).items()),
        "archive": registry.archive.archive_rows("WFIMosaic")["name"].tolist(),
        "obscore": registry.archive.obscore()["obs_publisher_did"].tolist(),
    }


def test_what_a_release_made_is_seen_by_operators_alone_until_it_is_published(either_root):
    root = either_root
    record = made(root)
    fold(root)
    assert seen(root, Role.OPERATIONS) == set(skycell_set(1, "r0"))
    assert not any(everything_public(root).values())
    assert public_content(root) == {}
    assert {finding.kind for finding in fsck(root)} <= {"dangling input"}
    Journal(root).write(publication(record))
    fold(root)
    names = sorted(skycell_set(1, "r0"))
    assert sorted(public_content(root)) == names
    public = everything_public(root)
    assert public["found"] == names
    assert [name for name, _ in public["entries"]] == names
    assert all(entry.inputs and entry.state is State.CURRENT for _, entry in public["entries"])
    assert public["archive"] == names
    assert public["obscore"]
    assert {finding.kind for finding in fsck(root)} <= {"dangling input"}


@pytest.mark.parametrize("folds", itertools.product([False, True], repeat=3))
def test_a_published_release_is_the_same_whatever_was_folded_together(root, folds, monkeypatch):
    monkeypatch.setattr(fold_module, "newest_to_copy", lambda root, tiers: None)
    first, second = made(root, 1), None
    if folds[0]:
        fold(root)
    second = made(root, 2)
    if folds[1]:
        fold(root)
    Journal(root).write(publication(first))
    if folds[2]:
        fold(root)
    Journal(root).write(publication(second))
    fold(root)
    folded, public = registry_content(root), everything_public(root)
    rebuild(root)
    assert registry_content(root) == folded
    assert everything_public(root) == public
    assert seen(root, Role.PUBLIC) == seen(root, Role.OPERATIONS)


def test_a_publication_shows_only_the_generation_it_names(root):
    record = made(root)
    other = publication(record.model_copy(update={"record_id": "f" * 32}))
    Journal(root).write(other)
    fold(root)
    assert seen(root, Role.PUBLIC) == set()


def test_what_happened_to_a_release_is_on_record(root):
    begun = CommitRecord(
        step=Step.RELEASE,
        partition="HLWAS_r0",
        statement=Statement.RELEASE,
        release=STATEMENT,
    )
    Journal(root).write(begun)
    fold(root)
    with Registry(root) as registry:
        ((statement, when),) = registry.decisions.releases()
        assert (statement, when) == (STATEMENT, begun.committed_at)
        assert registry.decisions.releases(survey=Survey.GAS) == []
