from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import roman_assets

PACKAGE = Path(roman_assets.__file__).parent
LAYERS = (
    {"cli"},
    {"definitions"},
    {"assets", "checks", "automation", "partitions", "resources", "dagster_home", "webserver"},
    {"rehearsal", "stand_in"},
    {"pipelines"},
    {"reader"},
    {"archive", "registry", "calibration"},
    {"products", "access", "build", "_build", "data_root", "errors", "software"},
)
RANK = {part: rank for rank, parts in enumerate(LAYERS) for part in parts}
SIMULATOR = "observatory"
SIMULATOR_MAY_IMPORT = {
    SIMULATOR, "pipelines", "archive", "calibration", "products", "access", "data_root", "errors",
    "software",
}  # fmt: skip
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_modules(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""


def imported_parts(path: Path) -> set[str]:
    names = (module.split(".") for module in imported_modules(path))
    return {name[1] for name in names if name[0] == "roman_assets" and len(name) > 1}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downwards_only(path: Path) -> None:
    part = part_of(path)
    if part == SIMULATOR:
        assert imported_parts(path) <= SIMULATOR_MAY_IMPORT
        return
    allowed = {other for other in RANK if RANK[other] >= RANK[part]}
    if part == "cli":
        allowed.add(SIMULATOR)
    assert imported_parts(path) <= allowed


@pytest.mark.parametrize(
    "part",
    ["rehearsal", "pipelines", "reader", "archive", "registry", "calibration", "products"],
)
def test_science_and_storage_work_without_dagster(part: str) -> None:
    for path in (path for path in MODULES if part_of(path) == part):
        assert not any(name.split(".")[0] == "dagster" for name in imported_modules(path)), path


def test_every_part_has_a_layer() -> None:
    assert {part_of(path) for path in MODULES} <= RANK.keys() | {SIMULATOR}
