"""Which changes of software make products out of date, and which do not (R5)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import roman_assets
from roman_assets.products.kind import Step
from roman_assets.records.record import fingerprint
from roman_assets.software import (
    RECIPES,
    Recipe,
    deciding_software,
    installed_software,
    source_digest,
    text_digest,
)

PACKAGE = Path(roman_assets.__file__).parent
ALL_RECIPES = tuple({recipe.name: recipe for some in RECIPES.values() for recipe in some}.values())

DECIDES_NOTHING = {
    "access": "who may see products",
    "archive": "bytes as they are",
    "build": "recorded in products, compared nowhere",
    "acceleration": "replaces functions of libraries bit by bit",
    "data_root": "where things lie",
    "errors": "why nothing was made",
    "publishing/attempt": "how often it was tried",
    "formatting/delivered_step": "publishes delivered files as they are",
    "formatting/landing": "which inputs: their content is in the fingerprint",
    "formatting/receipt": "which inputs: their content is in the fingerprint",
    "formatting/receipt_record": "when inputs came",
    "calibration/preview": "pictures of an image, which nothing is made from",
    "publishing/provenance": "what the record says beside the content",
    "publishing/scratch": "where work is done",
    "publishing/step": "publishes bytes as they are",
    "products": "names, kinds and identities, which products are found by",
    "reader/product_comparison": "what the record says beside the content",
    "records": "what the record says beside the content",
    "registry": "what the record says beside the content",
    "software": "recorded in products, compared by fingerprint",
}
"""What modules of recipes use of this package beside each other, and why it is in no recipe."""


def used_modules(module: str) -> Iterator[str]:
    for node in ast.walk(ast.parse((PACKAGE / module).read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("roman_assets."):
            path = str(node.module).removeprefix("roman_assets.").replace(".", "/")
            if (PACKAGE / path).is_dir():
                yield from (f"{path}/{alias.name}" for alias in node.names)
            else:
                yield path


@pytest.mark.parametrize("recipe", ALL_RECIPES, ids=lambda recipe: recipe.name)
def test_what_a_recipe_uses_is_in_it_or_known_to_decide_nothing(recipe: Recipe) -> None:
    for module in recipe.modules:
        for used in used_modules(module):
            prefixes = {used[: match.start()] for match in re.finditer("/|$", used)}
            assert f"{used}.py" in recipe.modules or prefixes & DECIDES_NOTHING.keys(), (
                f"{module} uses {used}: add it to the recipe {recipe.name} in software.py if it "
                "can change a product, else here with the reason"
            )


MODULE = '''"""Flat fields."""
from typing import TYPE_CHECKING
from roman_assets.pipelines.flat import level
import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

def flatten(data: "np.ndarray", flat: float = 2.0) -> "np.ndarray":
    """Divide by the flat."""
    if level(flat) <= 0:
        raise ValueError(f"a flat of {flat}")
    return data / flat  # per pixel
'''


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("# per pixel", "# for each pixel"),
        ('"""Divide by the flat."""', '"""Return flat data."""'),
        ('"""Flat fields."""', '"""Flat fields, as a telescope has them."""\n\n'),
        ('data: "np.ndarray"', 'data: "np.typing.NDArray"'),
        ('-> "np.ndarray"', '-> "Path"'),
        ('f"a flat of {flat}"', 'f"{flat} is no flat", "divide by another"'),
        ("import Path", "import Path, PurePath"),
        ("roman_assets.pipelines.flat", "roman_assets.calibration.flat"),
        ("<= 0:", "<= (\n        0\n    ):"),
    ],
)
def test_words_and_places_are_no_other_recipe(before: str, after: str) -> None:
    assert before in MODULE
    assert text_digest(MODULE.replace(before, after)) == text_digest(MODULE)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("data / flat", "data * flat"),
        ("= 2.0", "= 2.5"),
        ("<= 0", "< 0"),
        ("import level", "import other as level"),
        ("import numpy as np", "import cupy as np"),
        ("raise ValueError", "raise TypeError"),
        ("level(flat)", "level(flat, 'mean')"),
    ],
)
def test_a_correction_is_another_recipe(before: str, after: str) -> None:
    assert before in MODULE
    assert text_digest(MODULE.replace(before, after)) != text_digest(MODULE)


def test_code_in_another_file_is_the_same_recipe(tmp_path: Path) -> None:
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text(MODULE)
    assert source_digest("a.py", package=tmp_path) == source_digest("b.py", package=tmp_path)


def test_source_that_is_known_to_be_equal_counts_as_what_it_was() -> None:
    module = "mosaic/skycell.py"
    changed = Recipe("mosaic", (module,), (), equal={source_digest(module): "before"})
    assert changed.version == "before"


def mark(step: Step, versions: Mapping[str, str]) -> str:
    return fingerprint(step, (), "roman_0001.pmap", versions)


def test_another_commit_of_this_package_is_the_same_work() -> None:
    for step in RECIPES:
        now = installed_software(step)
        assert mark(step, now | {"roman_assets": "0.2.0+g1234567"}) == mark(step, now)


@pytest.mark.parametrize(
    ("step", "key"),
    [
        (Step.FORMATTING, "roman_assets.formatting"),
        (Step.FORMATTING, "astropy"),
        (Step.EXPOSURE, "roman_assets.calibration"),
        (Step.EXPOSURE, "romancal"),
        (Step.EXPOSURE, "photutils"),
        (Step.VISIT, "roman_assets.mosaic"),
        (Step.VISIT, "gwcs"),
        (Step.VISIT, "numpy"),
    ],
)
def test_what_computes_content_is_recorded_and_other_work_if_changed(step: Step, key: str) -> None:
    now = installed_software(step)
    assert mark(step, now | {key: "other"}) != mark(step, now)


def test_a_new_romancal_is_no_reason_to_make_l1_again() -> None:
    now = installed_software(Step.FORMATTING)
    assert mark(Step.FORMATTING, now | {"romancal": "99"}) == mark(Step.FORMATTING, now)


def test_of_software_that_the_ssc_states_all_counts() -> None:
    stated = {"msos": "1.0", "numpy": "2"}
    assert deciding_software(Step.MICROLENSING, stated) == stated
