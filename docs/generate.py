"""Pages of the reference that follow from the code: `make docs` writes them anew each time."""

from __future__ import annotations

import ast
import importlib
import re
import types
from collections.abc import Iterable, Iterator
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from typer.cli import get_docs_for_click

import roman_assets
from roman_assets.cli import app
from roman_assets.products.deadline import DEADLINES
from roman_assets.products.kind import KINDS, ProductKind
from roman_assets.products.lifecycle import LIFECYCLES
from roman_assets.registry.catalog.obscore import OBSCORE_COLUMNS
from roman_assets.registry.catalog.schema import ARCHIVE_TABLES, TABLES, VIEWS, Table

PACKAGE = Path(roman_assets.__file__).parent


def table(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Return a table in Markdown."""
    titles = list(header)
    lines = [titles, ["---"] * len(titles), *([_cell(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")


def _of_docstring(text: str) -> str:
    """Return a docstring as Markdown: literals with one backtick, examples as blocks of TOML."""
    plain = re.sub(r"`{1,2}([^`]+)`{1,2}", r"`\1`", text)
    before, mark, example = plain.partition("::\n\n")
    if not mark:
        return plain
    block, _, after = example.partition("\n\n\n") if "\n\n\n" in example else (example, "", "")
    lines = block.split("\n")
    end = next((n for n, line in enumerate(lines) if line and not line.startswith(" ")), len(lines))
    code = "\n".join(line[4:] for line in lines[:end]).rstrip()
    rest = "\n".join([*lines[end:], after]).strip()
    return f"{before}:\n\n```toml\n{code}\n```\n\n{rest}".rstrip()


# --- settings -----------------------------------------------------------------------------------


def _sources() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        yield name, ast.parse(path.read_text())


def variables() -> dict[str, str]:
    """Return the description of each environment variable that a constant of the package names."""
    found = {}
    for _, tree in _sources():
        for statement, following in zip(tree.body, [*tree.body[1:], None], strict=True):
            match statement:
                case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=str(value))):
                    if name.endswith("_VARIABLE"):
                        found[value] = _text_of(following)
    return dict(sorted(found.items()))


def _text_of(statement: ast.stmt | None) -> str:
    match statement:
        case ast.Expr(value=ast.Constant(value=str(text))):
            return _of_docstring(text)
    return ""


def settings_files() -> dict[str, str]:
    """Return the module that reads each settings file below the data root."""
    return {
        statement.value.value: module
        for module, tree in _sources()
        for statement in tree.body
        if isinstance(statement, ast.Assign)
        and isinstance(statement.value, ast.Constant)
        and str(statement.value.value).endswith(".toml")
    }


def settings_page() -> str:
    """Return the tables of environment variables and settings files."""
    parts = [
        "## Environment variables",
        table(
            ("variable", "meaning"),
            ((f"`{name}`", text) for name, text in variables().items()),
        ),
        "## Files",
    ]
    for name, module_name in sorted(settings_files().items()):
        module = importlib.import_module(module_name)
        assert module.__doc__ is not None
        parts += [f"### `{name}`", _of_docstring(module.__doc__), _fields(module)]
    return "\n\n".join(parts)


def _fields(module: Any) -> str:
    models = [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, BaseModel)
        and value.__module__ == module.__name__
    ]
    rows = [
        (f"`{name}`", _type(field.annotation), _default(field.default), _bounds(field))
        for model in models
        for name, field in model.model_fields.items()
        if name != "version"
    ]
    return table(("key", "type", "default", "bounds"), rows)


def _type(annotation: Any) -> str:
    arguments = [one for one in get_args(annotation) if one not in (type(None), Ellipsis)]
    origin = get_origin(annotation)
    if origin is Annotated or origin is types.UnionType:
        return _type(arguments[0])
    if origin is tuple:
        return f"list of {_type(arguments[0])}"
    if origin is dict:
        return f"table: {_type(arguments[0])} to {_type(arguments[1])}"
    if issubclass(annotation, BaseModel):
        return "table"
    if issubclass(annotation, Enum):
        return " or ".join(f"`{one.value}`" for one in annotation)
    return f"`{annotation.__name__}`"


def _default(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(_default, value))
    if isinstance(value, Enum):
        return f"`{value.value}`"
    if value is PydanticUndefined or isinstance(value, BaseModel) or value is None:
        return ""
    return f"`{value}`"


def _bounds(field: Any) -> str:
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    found = (
        (sign, getattr(bound, name, None))
        for bound in field.metadata
        for name, sign in signs.items()
    )
    return ", ".join(f"{sign} {value}" for sign, value in found if value is not None)


# --- command line -------------------------------------------------------------------------------


def command_line_page() -> str:
    """Return the help of every command, from its parser."""
    command = typer.main.get_command(app)
    context = command.context_class(command, info_name="roman-assets")
    text = get_docs_for_click(obj=command, ctx=context, name="roman-assets")
    text = re.sub(r"\[bold\](.*?)\[/bold\]", r"`\1`", text)
    text = re.sub(r"\*\*Commands\*\*:\n\n(\* .*\n)+\n", "", text)
    text = re.sub(r"^\* `--help`: .*\n", "", text, flags=re.MULTILINE)
    return text.partition("\n")[2].replace("**Options**:\n\n\n", "")


# --- product kinds ------------------------------------------------------------------------------


def product_kinds_page() -> str:
    """Return the tables of product kinds, deadlines and life cycles."""
    return "\n\n".join(
        [
            "## Kinds",
            table(
                ("kind", "file name ends in", "level", "covers", "made by", "opens as", "content"),
                (_kind_row(kind) for kind in KINDS),
            ),
            "## Deadlines",
            table(
                ("level", "clock starts at", "due after", "at risk when less is left than"),
                (
                    (level, one.origin, _hours(one.latency), _hours(one.warning))
                    for level, one in DEADLINES.items()
                ),
            ),
            "## Life cycles",
            table(
                ("products", "transitions"),
                ((one.description, ", ".join(sorted(one.transitions))) for one in LIFECYCLES),
            ),
        ]
    )


def _kind_row(kind: ProductKind) -> tuple[str, ...]:
    followed = f" Overwritten and removed with `{kind.follows}`." if kind.follows else ""
    return (
        f"`{kind.name}`",
        f"`_{kind.suffix}.{kind.extension}`",
        kind.level,
        kind.scope.replace("_", " "),
        kind.maker,
        f"`{kind.datamodel}`" if kind.datamodel else "",
        kind.description + followed,
    )


def _hours(time: timedelta) -> str:
    return f"{time / timedelta(hours=1):g} h"


# --- registry -----------------------------------------------------------------------------------


def registry_columns_page() -> str:
    """Return every table of the registry with its columns."""
    own = [one for one in TABLES if one not in ARCHIVE_TABLES]
    parts = ["## Tables", *map(_registry_table, own)]
    parts += ["## Views", table(("view", "a row is"), ((f"`{v.name}`", v.row) for v in VIEWS))]
    parts += [
        "## Columns of `ivoa_obscore`",
        table(
            ("column", "type", "unit", "UCD", "meaning"),
            (
                (f"`{c.name}`", c.type, c.unit or "", c.ucd or "", c.description)
                for c in OBSCORE_COLUMNS
            ),
        ),
        "## Metadata tables",
        "From the schemas of the installed rad, with its names and types.",
        *map(_registry_table, ARCHIVE_TABLES),
    ]
    return "\n\n".join(parts)


def _registry_table(declared: Table) -> str:
    columns = table(
        ("column", "type", "unit", "seen by", "meaning"),
        (
            (
                f"`{c.name}`",
                f"`{c.type}`",
                c.unit or "",
                _seen_by(declared, c.access),
                c.description,
            )
            for c in declared.columns
        ),
    )
    return f"### `{declared.name}`\n\nA row is {declared.row}.\n\n{columns}"


def _seen_by(declared: Table, access: str) -> str:
    return "operations" if "operations" in (declared.access, access) else "everyone"


PAGES = {
    "settings": settings_page,
    "command-line": command_line_page,
    "product-kinds": product_kinds_page,
    "registry-columns": registry_columns_page,
}


def write_pages(directory: Path) -> None:
    """Write all generated parts of the reference into a directory."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, page in PAGES.items():
        (directory / f"{name}.md").write_text(f"{page()}\n")
