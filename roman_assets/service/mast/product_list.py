"""The products of file sets, as MAST lists them."""

# ruff: noqa: S608

from __future__ import annotations

from typing import Any

from roman_assets.access import Role
from roman_assets.products.kind import KIND_BY_NAME, Level
from roman_assets.products.name import parse_file_set
from roman_assets.registry.catalog.schema import IS_AVAILABLE
from roman_assets.service.request_error import UsageError
from roman_assets.service.sealed_snapshot import PublicSnapshots

MOST_FILE_SETS = 1000
_CATEGORIES = {
    Level.L1: "UNCALIBRATED",
    Level.L2: "CALIBRATED",
    Level.L3: "COMBINED",
    Level.L4: "ANALYZED",
}


def product_list(snapshots: PublicSnapshots, file_sets: list[str]) -> list[dict[str, Any]]:
    """Return the available products of file sets, by name.

    Parameters
    ----------
    snapshots
        The newest public registry.
    file_sets
        Names up to the suffix; unknown ones have no products.

    Raises
    ------
    UsageError
        If they are too many, or one is not the name of a file set.
    """
    if len(file_sets) > MOST_FILE_SETS:
        raise UsageError(f"dataset_ids: give at most {MOST_FILE_SETS}")
    for name in file_sets:
        try:
            parse_file_set(name)
        except ValueError as error:
            raise UsageError(f"dataset_ids: {error}") from error
    with snapshots.cursor() as cursor:
        rows = cursor.execute(
            f"""
            select name, file_set, kind, level, optical_element, size, sha256, generation,
                committed_at
            from products
            where file_set in (select unnest($sets)) and {IS_AVAILABLE}
                and access = '{Role.PUBLIC}'
                and name_key in (select name_key(one || '_') from (select unnest($sets) as one))
            order by name
            """,
            {"sets": file_sets},
        ).fetchall()
    return [_product(*row) for row in rows]


def _product(
    name: str, file_set: str, kind: str, level: str, element: str | None, size: int,
    sha256: str, generation: int, committed_at: Any,
) -> dict[str, Any]:  # fmt: skip
    about = KIND_BY_NAME[kind]
    return {
        "product_key": f"{file_set}/{name}",
        "access": "PUBLIC",
        "dataset": file_set,
        "instrument_name": "WFI",
        "filters": element or "",
        "filename": name,
        "uri": f"{file_set}/{name}",
        "file_suffix": f"_{about.suffix}",
        "category": _CATEGORIES[Level(level)],
        "type": "preview" if about.picture else "science",
        "size": size,
        "product_level": level,
        "description": about.description,
        "generation": generation,
        "sha256": sha256,
        "made": committed_at.strftime("%Y-%m-%dT%H:%M:%S"),
    }
