"""The software that makes products, and the part of it that decides their content (R5, R7).

Every product records the version of this package and of the libraries that it was made with. Only
what decides its content enters its fingerprint: the libraries that compute it, and of this package
the *recipe*, a digest of the modules that decide content. A new help text gives a new version of
the package and the same recipe; a correction in a formatting module gives another recipe.

Replacements of library functions that give bit-identical results belong to no recipe.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from roman_assets.build import build
from roman_assets.products.kind import Step

PACKAGE = "roman_assets"
"""The key of this package's version among those of a product."""

_SOURCE = Path(__file__).resolve().parent
_DIGITS = 16


@dataclass(frozen=True)
class Recipe:
    """Software that decides the content of some products.

    Parameters
    ----------
    name
        Names it: ``roman_assets.NAME`` among the versions of a product.
    modules
        The modules of this package that decide content, as paths below it.
    libraries
        The libraries that compute content.
    recorded
        Libraries that are recorded and decide nothing.
    equal
        Digests of sources that are known to give the same content as earlier ones: newer to
        earlier. Add a line after a change that cannot change a product.
    """

    name: str
    modules: tuple[str, ...]
    libraries: tuple[str, ...]
    recorded: tuple[str, ...] = ()
    equal: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Its key among the versions of a product."""
        return f"{PACKAGE}.{self.name}"

    @property
    def version(self) -> str:
        """Its version: the digest of its modules, or the one that this counts as."""
        digest = source_digest(*self.modules)
        return self.equal.get(digest, digest)

    @property
    def deciding(self) -> frozenset[str]:
        """The keys of the versions that enter the fingerprint."""
        return frozenset((self.key, *self.libraries))


_MODELS = ("roman_datamodels", "rad", "numpy", "astropy")
_PIPELINES = (
    *_MODELS, "romancal", "stcal", "stpipe", "crds", "scipy", "photutils", "gwcs", "drizzle",
    "tweakwcs", "spherical_geometry", "scikit_image",
)  # fmt: skip
_FILES = ("asdf", "asdf_astropy", "pyarrow")
"""They decide how content is written, not the content itself."""

_FORMATTING = Recipe(
    "formatting",
    (
        "formatting/ancillary.py",
        "formatting/data_unit.py",
        "formatting/document.py",
        "formatting/orbit_ephemeris.py",
        "formatting/executed_visit.py",
        "formatting/file_window.py",
        "formatting/formatting_step.py",
        "formatting/formatting_work.py",
        "formatting/level1.py",
        "formatting/level1_guiding.py",
        "formatting/level1_maker.py",
        "formatting/level1_metadata.py",
        "formatting/ma_table.py",
        "formatting/packet.py",
        "formatting/telemetry.py",
        "formatting/telemetry_record.py",
    ),
    (*_MODELS, "oem"),
    # L1 takes a few lines of geometry from the pipelines. A new romancal is no reason to make L1
    # again (R8); should those lines have been wrong, a person names the exposures.
    ("romancal", "stcal", "gwcs", "imagecodecs", "spacepackets", *_FILES),
    # packets are read in pieces instead of from a memory map; the code lies in more files, and asks
    # the registry by its parts
    {"150e11ed543733d8": "64a2731c2fb42790"},
)
_CALIBRATION = Recipe(
    "calibration",
    (
        "calibration/detector.py",
        "calibration/common_pointing.py",
        # the definitive ephemeris of a supplement
        "formatting/document.py",
        "formatting/orbit_ephemeris.py",
        "formatting/telemetry.py",
    ),
    (*_PIPELINES, "oem"),
    (*_FILES, "stpreview"),
    # only the part of formatting that supplements use
    {"ae4e19aefa825735": "19c8038a4fe71712"},
)
_MOSAIC = Recipe(
    "mosaic",
    ("mosaic/skycell.py", "products/pixel_scale.py"),
    _PIPELINES,
    (*_FILES, "stpreview"),
)

RECIPES: Mapping[Step, tuple[Recipe, ...]] = {
    Step.FORMATTING: (_FORMATTING,),
    Step.EXPOSURE: (_CALIBRATION,),
    Step.VISIT: (_MOSAIC,),
    Step.RELEASE: (_CALIBRATION, _MOSAIC),
}
"""Software that decides the products of a step; the SSC states that of its deliveries."""


@functools.cache
def _installed(step: Step) -> Mapping[str, str]:
    recipes = RECIPES[step]
    libraries = {one for recipe in recipes for one in (*recipe.libraries, *recipe.recorded)}
    return {
        PACKAGE: build().version,
        **{recipe.key: recipe.version for recipe in recipes},
        **versions(libraries),
    }


def installed_software(step: Step) -> dict[str, str]:
    """Return the versions of the software that a step's products would be made with now."""
    return dict(_installed(step))


def versions(libraries: Iterable[str]) -> dict[str, str]:
    """Return the installed versions of libraries by name, in the order of the names."""
    return {name: metadata.version(name) for name in sorted(libraries)}


def deciding_software(step: Step, software: Mapping[str, str]) -> dict[str, str]:
    """Return those versions that enter the fingerprints of a step's products.

    Parameters
    ----------
    step
        What makes the products.
    software
        Versions on record, or installed.
    """
    if step not in RECIPES:
        return dict(software)
    keys = frozenset[str]().union(*(recipe.deciding for recipe in RECIPES[step]))
    return {key: version for key, version in software.items() if key in keys}


def same_software(step: Step, one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Return whether a step's products have the same content with either software."""
    return deciding_software(step, one) == deciding_software(step, other)


def steps_decided_by(key: str) -> tuple[Step, ...]:
    """Return the steps whose products a library or recipe decides."""
    return tuple(
        step for step, recipes in RECIPES.items() if any(key in one.deciding for one in recipes)
    )


def deciding_keys() -> tuple[str, ...]:
    """Return the libraries and recipes that decide the content of any product."""
    recipes = (recipe for some in RECIPES.values() for recipe in some)
    return tuple(sorted(frozenset[str]().union(*(recipe.deciding for recipe in recipes))))


def installed_version(key: str) -> str | None:
    """Return the version of this package, a recipe or a library as it is here, None if absent."""
    if key == PACKAGE:
        return build().version
    for recipe in (_FORMATTING, _CALIBRATION, _MOSAIC):
        if key == recipe.key:
            return recipe.version
    try:
        return metadata.version(key)
    except metadata.PackageNotFoundError:
        return None


def remedy(wanted: Mapping[str, str], software: Mapping[str, str]) -> str:
    """Return how to install what products were made with.

    Parameters
    ----------
    wanted
        Libraries and recipes with their versions.
    software
        All versions on record, which tell the commit that has a recipe.
    """
    own = {key for key in wanted if key.startswith(f"{PACKAGE}.")}
    libraries = " ".join(f"{key}=={wanted[key]}" for key in wanted if key not in own)
    steps = [f"check out {PACKAGE} {software.get(PACKAGE, 'as it was')}"] if own else []
    return " and ".join([*steps, f"pip install {libraries}"] if libraries else steps)


def code_version(step: Step) -> str:
    """Return a text that changes exactly when the installed software would change content."""
    stated = json.dumps(deciding_software(step, _installed(step)), sort_keys=True)
    name = "-".join(recipe.name for recipe in RECIPES[step])
    return f"{name}-{hashlib.sha256(stated.encode()).hexdigest()[:_DIGITS]}"


@functools.cache
def source_digest(*modules: str, package: Path = _SOURCE) -> str:
    """Return a digest of the behaviour of modules of this package.

    Comments, docstrings, types of arguments, error messages and the places of modules of this
    package do not count.

    Parameters
    ----------
    *modules
        Paths below the package.
    package
        The directory of the package.
    """
    digests = sorted(text_digest((package / module).read_text()) for module in modules)
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:_DIGITS]


def text_digest(source: str) -> str:
    """Return a digest of a module's behaviour, given its text."""
    tree = ast.parse(source)
    behaviour = _Behaviour()
    body = _plain(behaviour.visit(tree))
    stated = json.dumps([sorted(behaviour.imported), body])
    return hashlib.sha256(stated.encode()).hexdigest()


class _Behaviour(ast.NodeTransformer):
    """Takes out of a module what cannot change a result."""

    def __init__(self) -> None:
        self.imported: set[tuple[str, str, str]] = set()

    def visit_Import(self, node: ast.Import) -> None:
        self.imported |= {("", alias.name, alias.asname or "") for alias in node.names}

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = node.module or ""
        place = "" if module.split(".")[0] == PACKAGE else module
        self.imported |= {(place, alias.name, alias.asname or "") for alias in node.names}

    def visit_If(self, node: ast.If) -> ast.AST | None:
        is_typing = isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        return None if is_typing else self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        is_text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if is_text else self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        if isinstance(node.exc, ast.Call):
            return ast.Raise(exc=node.exc.func, cause=None)
        return node

    def visit_arg(self, node: ast.arg) -> ast.AST:
        return ast.arg(arg=node.arg)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)


def _plain(node: Any) -> Any:
    """Return a syntax tree as JSON values, without empty fields.

    Unlike `ast.dump` it is the same for all versions of Python that parse alike.
    """
    if isinstance(node, ast.AST):
        return [type(node).__name__, *_plain_fields(node)]
    if isinstance(node, list):
        return [_plain(item) for item in node]
    return repr(node)


def _plain_fields(node: ast.AST) -> Iterator[tuple[str, Any]]:
    for name, value in ast.iter_fields(node):
        if value is not None and value != []:
            yield name, _plain(value)
