"""From ADQL to DuckDB's SQL: known tables, columns and functions, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.optimizer.qualify import qualify

from roman_assets.registry.search.area import Area
from roman_assets.service.request_error import UsageError
from roman_assets.service.tap import adql_geometry as geometry
from roman_assets.service.tap.dialect import Adql, parsed
from roman_assets.service.tap.grammar import require_allowed
from roman_assets.service.tap.place import PLACE_COLUMNS, Places
from roman_assets.service.tap.tap_schema import TapColumn, TapTable

FUNCTIONS: Mapping[str, tuple[str, tuple[int, ...]]] = {
    "abs": ("abs", (1,)), "ceiling": ("ceiling", (1,)), "degrees": ("degrees", (1,)),
    "exp": ("exp", (1,)), "floor": ("floor", (1,)), "log": ("adql_log", (1,)),
    "log10": ("log10", (1,)), "mod": ("mod", (2,)), "pi": ("pi", (0,)), "power": ("power", (2,)),
    "radians": ("radians", (1,)), "sqrt": ("sqrt", (1,)), "rand": ("random", (0,)),
    "round": ("round", (1,)), "truncate": ("trunc", (1,)), "sign": ("sign", (1,)),
    "acos": ("acos", (1,)), "asin": ("asin", (1,)), "atan": ("atan", (1,)),
    "atan2": ("atan2", (2,)), "cos": ("cos", (1,)), "cot": ("cot", (1,)), "sin": ("sin", (1,)),
    "tan": ("tan", (1,)), "lower": ("lower", (1,)), "upper": ("upper", (1,)),
    "coalesce": ("coalesce", tuple(range(1, 100))), "nullif": ("nullif", (2,)),
    "count": ("count", (1,)), "avg": ("avg", (1,)), "min": ("min", (1,)), "max": ("max", (1,)),
    "sum": ("sum", (1,)),
}  # fmt: skip
"""ADQL's functions: DuckDB's name, and how many arguments they take."""

_WITH_DIGITS = {"round": "adql_round", "truncate": "adql_truncate"}


@dataclass(frozen=True)
class Translation:
    """A query for DuckDB.

    Parameters
    ----------
    sql
        The statement.
    names
        Columns of the answer, as the query calls them.
    columns
        What is known of those that are columns of a table, None for the others.
    """

    sql: str
    names: tuple[str, ...]
    columns: tuple[TapColumn | None, ...]


@dataclass(frozen=True)
class SourceTable:
    """A table that queries can name, and where DuckDB has it."""

    table: TapTable
    place: str


def translate(
    query: str, tables: Mapping[tuple[str, str], SourceTable], places: Places
) -> Translation:
    """Translate an ADQL query.

    Parameters
    ----------
    query
        What a user sent.
    tables
        The tables there are, by schema and name in lower case.
    places
        Looks up what lies near an area.

    Raises
    ------
    UsageError
        If it is not ADQL, or names something that does not exist.
    """
    tree = parsed(query)
    require_allowed(tree)
    _require_tables(tree, tables)
    _require_functions(tree)
    schema: dict[str, Any] = {}
    # Names of tables that the query leaves out would be normalized for nothing.
    named = {(table.db, table.name) for table in tree.find_all(exp.Table)}
    for db, name in named & tables.keys():
        source = tables[db, name]
        columns = {column.name.lower(): "text" for column in source.table.columns}
        schema.setdefault(db, {})[name] = columns
    try:
        qualified = qualify(tree, dialect=Adql, schema=schema, validate_qualify_columns=True)
    except SqlglotError as error:
        raise UsageError(str(error).splitlines()[0]) from error
    except RecursionError as error:
        raise UsageError("the query is nested too deeply") from error
    assert isinstance(qualified, exp.Query)
    described, names = tuple(_described(qualified, tables)), tuple(qualified.named_selects)
    rewritten = _Rewriting(tables, places).rewritten(qualified)
    return Translation(rewritten.sql(dialect="duckdb", comments=False), names, described)


def _require_tables(tree: exp.Expr, tables: Mapping[tuple[str, str], SourceTable]) -> None:
    """Refuse tables that do not exist, and drop the schema from the names of columns."""
    common = {cte.alias.lower() for cte in tree.find_all(exp.CTE)}
    for table in tree.find_all(exp.Table):
        if not isinstance(table.this, exp.Identifier):
            raise UsageError(f"{table.sql()[:60]!r} is not a table")
        key = (table.db.lower(), table.name.lower())
        if not table.db and key[1] in common:
            continue
        if key not in tables:
            raise UsageError(
                f"there is not a table {table.sql()[:80]}; tap_schema.tables lists those there are"
            )
        table.set("db", exp.to_identifier(key[0]))
        table.set("this", exp.to_identifier(key[1]))
    for column in tree.find_all(exp.Column):
        column.set("db", None)


def _require_functions(tree: exp.Expr) -> None:
    known = {*FUNCTIONS, *_GEOMETRY, *geometry.PREDICATES, *geometry.SHAPES}
    for node in tree.find_all(exp.Anonymous):
        name = geometry.function_name(node)
        if name not in known or not isinstance(node.this, str):
            raise UsageError(f"ADQL has no function {str(node.this)[:40]}")
        if name in FUNCTIONS:
            _, counts = FUNCTIONS[name]
            given = len(node.expressions)
            digits = given == 2 and name in _WITH_DIGITS
            if given not in counts and not digits:
                raise UsageError(f"{name.upper()} does not take {given} arguments")


_GEOMETRY: Mapping[str, Callable[[exp.Anonymous], exp.Expr]] = {
    "distance": geometry.distance,
    "coord1": geometry.coordinate,
    "coord2": geometry.coordinate,
    "area": geometry.area,
}


class _Rewriting:
    """Replaces functions and tables by those of DuckDB, in a tree with qualified columns."""

    def __init__(self, tables: Mapping[tuple[str, str], SourceTable], places: Places) -> None:
        self._tables = tables
        self._places = places

    def rewritten(self, tree: exp.Expr) -> exp.Expr:
        """Return the tree as DuckDB is to read it."""
        # Innermost first. Geometry comes while names of tables are still those of the query.
        for node in reversed(list(tree.find_all(exp.Anonymous))):
            self._replace(node)
        for table in list(tree.find_all(exp.Table)):
            source = self._tables.get((table.db, table.name))
            if source is not None:
                replaced = exp.to_table(source.place, dialect="duckdb")
                for part in ("this", "db", "catalog"):
                    table.set(part, replaced.args.get(part))
        return tree

    def _replace(self, node: exp.Anonymous) -> None:
        name = geometry.function_name(node)
        if name in geometry.PREDICATES:
            self._replace_predicate(node)
        elif name in _GEOMETRY:
            node.replace(_GEOMETRY[name](node))
        elif name in geometry.SHAPES:
            if not isinstance(node.parent, exp.Anonymous):
                raise UsageError(f"{name.upper()} can only be an argument of a geometric function")
        else:
            digits = len(node.expressions) == 2 and name in _WITH_DIGITS
            node.set("this", _WITH_DIGITS[name] if digits else FUNCTIONS[name][0])

    def _replace_predicate(self, node: exp.Anonymous) -> None:
        """Replace ``1 = CONTAINS(...)`` and the like by the condition itself."""
        comparison = node.parent
        if isinstance(comparison, exp.EQ | exp.NEQ):
            number = comparison.expression if comparison.this is node else comparison.this
            if isinstance(number, exp.Literal) and number.this in ("0", "1"):
                condition = geometry.predicate(node, self._prefilter)
                wanted = (number.this == "1") is isinstance(comparison, exp.EQ)
                comparison.replace(exp.paren(condition) if wanted else exp.not_(condition))
                return
        condition = geometry.predicate(node, lambda column, area: None)
        node.replace(exp.cast(condition, exp.DType.INT))

    def _prefilter(self, column: exp.Column, area: Area) -> exp.Expr | None:
        """Return that a row lies near an area, if its table has places and it tells where it is."""
        scope = column.find_ancestor(exp.Select)
        while isinstance(scope, exp.Select):
            for table in _tables_of(scope):
                if table.alias_or_name == column.table:
                    if not isinstance(table, exp.Table):
                        return None
                    source = self._tables.get((table.db, table.name))
                    if source is None or not source.table.has_places:
                        return None
                    if column.name not in PLACE_COLUMNS:
                        return None
                    return self._places.near(column.table, area)
            scope = scope.parent_select
        return None


def _tables_of(select: exp.Select) -> Sequence[exp.Expr]:
    sources = [select.args.get("from_"), *(select.args.get("joins") or ())]
    return [source.this for source in sources if source is not None]


def _described(
    tree: exp.Expr, tables: Mapping[tuple[str, str], SourceTable]
) -> list[TapColumn | None]:
    """Return what is known of the columns of an answer."""
    select = tree
    while isinstance(select, exp.SetOperation | exp.Subquery):
        select = select.this
    assert isinstance(select, exp.Select)
    return [_column(column, select, tables) for column in select.expressions]


def _column(
    node: exp.Expr, select: exp.Select, tables: Mapping[tuple[str, str], SourceTable]
) -> TapColumn | None:
    value = node.this if isinstance(node, exp.Alias) else node
    if not isinstance(value, exp.Column):
        return None
    for source in _tables_of(select):
        if source.alias_or_name != value.table:
            continue
        if isinstance(source, exp.Table):
            found = tables.get((source.db, source.name))
            columns = found.table.columns if found else ()
            return next((one for one in columns if one.name.lower() == value.name), None)
        inner = source.this
        if isinstance(inner, exp.Select):
            selected = [one for one in inner.expressions if one.alias_or_name == value.name]
            return _column(selected[0], inner, tables) if selected else None
    return None
