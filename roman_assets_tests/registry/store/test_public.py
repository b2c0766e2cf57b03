"""R1: what general users can reach of an installation, by permissions and by content."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from roman_assets.access import Role
from roman_assets.archive.set_aside import SetAside
from roman_assets.data_root import DataRoot
from roman_assets.errors import AccessDeniedError, BadInputError
from roman_assets.formatting.landing import LandingArea
from roman_assets.products.deadline import ClockEvent
from roman_assets.products.kind import Step
from roman_assets.publishing.scratch import scratch_directory
from roman_assets.records.journal import Journal
from roman_assets.records.record import ProductInput, WorkFailure
from roman_assets.registry.catalog.schema import ARCHIVE_TABLES, search_columns
from roman_assets.registry.engine import Engine
from roman_assets.registry.registry import Registry
from roman_assets.registry.store import new_tier as new_tier_module
from roman_assets.registry.store.fold import fold
from roman_assets.registry.store.snapshot import SNAPSHOT, TIERS
from roman_assets_tests.support.other_user import another_user, as_root, open_directory
from roman_assets_tests.support.small_products import (
    archived,
    cal,
    exposure,
    moment,
    public_content,
    record_of,
    sha256,
    tiers,
)

SECRETS = ("run-of-operations", "/landing/secret-packets.l0", "secret-file-set")


@pytest.fixture
def root() -> Iterator[DataRoot]:
    with open_directory() as directory:
        root = DataRoot(directory / "data")
        for generation in range(2):
            commit(root, b"%d" % generation, generation)
        fold(root)
        (LandingArea(root).path / "contact.l0").write_bytes(b"packets")
        SetAside(root).add(b"bytes", BadInputError("contact.l0", "packet 3", "torn", "resend"))
        yield root


def commit(root: DataRoot, content: bytes, second: int) -> None:
    run, message, file_set = SECRETS
    record = record_of(
        root,
        {cal(): content},
        committed_at=moment(second),
        run_id=run,
        failures=(WorkFailure(file_set=file_set, error="BadInputError", message=message),),
        events={ClockEvent.FIRST_PACKET: moment(0)},
        inputs=(ProductInput(name=f"{exposure()}_wfi01_l0", sha256=sha256(b"packets")),),
        context="roman_0001.pmap",
        metadata={"survey": "GAS"},
    )
    Journal(root).write(record)


def public_tier(root: DataRoot) -> Path:
    """Give the one file that has what the public may know."""
    (tier,) = tiers(root)
    return root.public_registry / TIERS / tier.name


def readable(path: Path) -> bool:
    try:
        path.open("rb").close()
    except PermissionError:
        return False
    return True


@as_root
def test_another_user_of_the_machine_reads_the_products_and_the_public_registry_only(
    root: DataRoot,
) -> None:
    with scratch_directory(root, exposure()) as scratch:
        (scratch / "half").write_bytes(b"half a product")
        files = [path for path in root.path.rglob("*") if path.is_file()]
        with another_user():
            found = [path.relative_to(root.path) for path in files if readable(path)]
    assert sorted(map(str, found)) == [
        f"archive/public/L2/00010/r0001001001001001001/{cal()}",
        f"archive/registry/{SNAPSHOT}",
        f"archive/registry/{TIERS}/{public_tier(root).name}",
    ]
    assert len(files) > len(found) + 5


@as_root
def test_another_user_searches_as_the_public_and_not_as_operations(root: DataRoot) -> None:
    with another_user():
        assert list(Registry(root, Role.PUBLIC).products.find()["name"]) == [cal()]
        with pytest.raises(AccessDeniedError, match="role public"):
            Registry(root, Role.OPERATIONS).products.find()


def test_private_trees_are_closed_and_public_ones_open(root: DataRoot) -> None:
    with scratch_directory(root, exposure()):
        private = (
            root.landing, root.set_aside, root.blobs, root.staging, root.registry, root.scratch,
        )  # fmt: skip
        assert {path.stat().st_mode & 0o077 for path in private} == {0}
    assert root.public.stat().st_mode & 0o005 == 0o005
    for path in (root.public_registry / SNAPSHOT, public_tier(root)):
        assert path.stat().st_mode & 0o777 == 0o444


def test_a_tree_that_somebody_opened_is_closed_by_the_next_publication(root: DataRoot) -> None:
    for path in (root.registry, root.blobs):
        path.chmod(0o755)
    commit(root, b"2", 2)
    fold(root)
    assert {path.stat().st_mode & 0o077 for path in (root.registry, root.blobs)} == {0}


def test_the_file_of_the_public_registry_holds_nothing_internal(root: DataRoot) -> None:
    path = public_tier(root)
    with duckdb.connect(path, read_only=True) as connection:
        tables = {name for (name,) in connection.execute("show tables").fetchall()}
        columns = {row[0] for row in connection.execute("describe products").fetchall()}
        rows = str([connection.execute(f"from {table}").fetchall() for table in tables])
    archived = {table.name for table in ARCHIVE_TABLES}
    assert tables == {"products", "places", "inputs"} | archived
    assert "run_id" not in columns
    for secret in SECRETS:
        assert secret not in rows
        assert secret.encode() not in path.read_bytes()
    (tier,) = tiers(root)
    whole = tier.read_bytes()
    assert all(secret.encode() in whole for secret in SECRETS), "the search must be able to fail"


def test_the_public_registry_finds_what_operations_find(root: DataRoot) -> None:
    public, operations = Registry(root, Role.PUBLIC), Registry(root)
    assert tuple(public.products.find().columns) == search_columns(Role.PUBLIC)
    assert set(search_columns(Role.OPERATIONS)) - set(search_columns(Role.PUBLIC)) == {"run_id"}
    for search in ({"survey": "GAS"}, {"overwritten": True}, {"level": "L1"}):
        expected = operations.products.find(**search).drop(columns="run_id")  # type: ignore[arg-type]
        assert public.products.find(**search).equals(expected)  # type: ignore[arg-type]
    assert (
        public.generations.current([cal()])[cal()].inputs
        == operations.generations.current([cal()])[cal()].inputs
    )
    assert Engine(root).snapshot(Role.PUBLIC).source_tables() == []


def test_what_only_operations_may_know_is_refused_by_name(root: DataRoot) -> None:
    public = Registry(root, Role.PUBLIC)
    for ask in (
        public.work.failures,
        public.work.latest_records,
        public.deadlines.groups,
        lambda: public.work.partition_state(Step.EXPOSURE),
        lambda: public.receipts.events(exposure()),
    ):
        with pytest.raises(AccessDeniedError, match="public"):
            ask()


@pytest.mark.parametrize("lost", [SNAPSHOT, f"{TIERS}/*"])
@pytest.mark.parametrize("full", [1, 1 << 20])
def test_a_lost_public_registry_is_published_by_the_next_fold(
    root: DataRoot, monkeypatch: pytest.MonkeyPatch, lost: str, full: int
) -> None:
    monkeypatch.setattr(new_tier_module, "FULL", full)
    for path in root.public_registry.glob(lost):
        path.unlink()
    fold(root)
    assert len(Registry(root, Role.PUBLIC).products.find()) == 1


def test_a_product_made_for_operations_has_no_public_name_and_no_public_row(
    root: DataRoot,
) -> None:
    hidden = cal(2)
    about = archived("wfi_image", {"filename": "hidden-file"})
    record = record_of(root, {hidden: b"h"}, access=Role.OPERATIONS, inputs=(
        ProductInput(name="hidden-input.asdf", sha256=sha256(b"i")),), **about)  # fmt: skip
    Journal(root).write(record)
    fold(root)
    assert hidden not in public_content(root)
    assert list(Registry(root).products.find(access=Role.OPERATIONS)["name"]) == [hidden]
    assert Registry(root).generations.current([hidden])[hidden].access is Role.OPERATIONS
    assert list(Registry(root, Role.PUBLIC).products.find()["name"]) == [cal()]
    assert Registry(root, Role.PUBLIC).archive.archive_rows("WFIExposure").empty
    content = public_tier(root).read_bytes()
    assert not any(word in content for word in (hidden.encode(), b"hidden-file", b"hidden-input"))
