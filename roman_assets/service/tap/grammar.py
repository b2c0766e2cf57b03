"""What a query may consist of: the security boundary of TAP.

A query passes if every part of its syntax tree is listed here, with no argument that is not. What
sqlglot understands beside it (files as tables, table functions, settings, other dialects' clauses)
is refused because it is not listed. Tables, columns and functions are names to be known by
`roman_assets.service.tap.translation`.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlglot import exp

from roman_assets.service.request_error import UsageError

_TWO = frozenset({"this", "expression"})
_ONE = frozenset({"this"})
_SET = _TWO | {"distinct", "order", "limit", "offset", "with_"}

ALLOWED: Mapping[type[exp.Expr], frozenset[str]] = {
    # queries
    exp.Select: frozenset({
        "expressions", "distinct", "from_", "joins", "where", "group", "having", "order", "limit",
        "offset", "with_",
    }),
    exp.Union: _SET,
    exp.Intersect: _SET,
    exp.Except: _SET,
    exp.Subquery: frozenset({"this", "alias"}),
    exp.With: frozenset({"expressions"}),
    exp.CTE: frozenset({"this", "alias"}),
    exp.From: _ONE,
    exp.Join: frozenset({"this", "on", "using", "side", "kind", "method"}),
    exp.Where: _ONE,
    exp.Group: frozenset({"expressions"}),
    exp.Having: _ONE,
    exp.Order: frozenset({"expressions"}),
    exp.Ordered: frozenset({"this", "desc", "nulls_first"}),
    exp.Limit: frozenset({"expression"}),
    exp.Offset: frozenset({"expression"}),
    exp.Distinct: frozenset({"expressions"}),
    # names
    exp.Table: frozenset({"this", "db", "alias"}),
    exp.TableAlias: frozenset({"this", "columns"}),
    exp.Column: frozenset({"this", "table", "db"}),
    exp.Identifier: frozenset({"this", "quoted"}),
    exp.Alias: frozenset({"this", "alias"}),
    exp.Star: frozenset(),
    # values
    exp.Literal: frozenset({"this", "is_string"}),
    exp.Null: frozenset(),
    exp.Boolean: _ONE,
    exp.Anonymous: frozenset({"this", "expressions"}),
    exp.Cast: frozenset({"this", "to"}),
    exp.DataType: frozenset({"this", "expressions"}),
    exp.DataTypeParam: _ONE,
    exp.Case: frozenset({"this", "ifs", "default"}),
    exp.If: frozenset({"this", "true"}),
    exp.Paren: _ONE,
    # operators
    **dict.fromkeys(
        (
            exp.Add, exp.Sub, exp.Mul, exp.Div, exp.Mod, exp.And, exp.Or, exp.EQ, exp.NEQ, exp.LT,
            exp.LTE, exp.GT, exp.GTE, exp.Is, exp.Escape, exp.BitwiseAnd, exp.BitwiseOr,
            exp.BitwiseXor,
        ),
        _TWO,
    ),
    exp.DPipe: _TWO | {"safe"},
    exp.Like: _TWO | {"negate"},
    exp.ILike: _TWO | {"negate"},
    exp.Neg: _ONE,
    exp.Not: _ONE,
    exp.BitwiseNot: _ONE,
    exp.Exists: _ONE,
    exp.All: _ONE,
    exp.Any: _ONE,
    exp.Between: frozenset({"this", "low", "high"}),
    exp.In: frozenset({"this", "expressions", "query"}),
}  # fmt: skip
"""Parts of a syntax tree, with the arguments that each may have."""

_TYPES = frozenset({
    exp.DType.CHAR, exp.DType.VARCHAR, exp.DType.TEXT, exp.DType.NCHAR, exp.DType.NVARCHAR,
    exp.DType.SMALLINT, exp.DType.INT, exp.DType.BIGINT, exp.DType.FLOAT, exp.DType.DOUBLE,
    exp.DType.TIMESTAMP, exp.DType.DATE, exp.DType.DECIMAL, exp.DType.BOOLEAN,
})  # fmt: skip
"""Types of a CAST."""


def require_allowed(query: exp.Expr) -> None:
    """Refuse a query with a part that is not listed.

    Raises
    ------
    UsageError
        Naming that part.
    """
    for node in query.walk():
        allowed = ALLOWED.get(type(node))
        if allowed is None:
            raise UsageError(f"ADQL has no {_told(node)}")
        for name, value in node.args.items():
            if value not in (None, False, "", []) and name not in allowed:
                raise UsageError(f"ADQL has no {name.rstrip('_')} in {_told(node)}")
        if isinstance(node, exp.DataType) and node.this not in _TYPES:
            raise UsageError(f"ADQL casts to no type {node.sql()[:50]}")
        if isinstance(node, exp.Limit | exp.Offset):
            _require_count(node.expression)


def _require_count(node: exp.Expr) -> None:
    if not (isinstance(node, exp.Literal) and not node.is_string and str(node.this).isdecimal()):
        raise UsageError("TOP, LIMIT and OFFSET take a whole number")


def _told(node: exp.Expr) -> str:
    return f"{type(node).__name__} ({node.sql(comments=False)[:60]!r})"
