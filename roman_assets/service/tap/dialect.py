"""ADQL as sqlglot reads it: functions are names, and nothing is of other dialects."""

from __future__ import annotations

import re

from sqlglot import exp, parse, parser, tokens
from sqlglot.dialects.dialect import Dialect
from sqlglot.errors import SqlglotError
from sqlglot.tokenizer_core import TokenType

from roman_assets.service.request_error import UsageError

_BEGINNING = re.compile(r"(?:\s|--[^\n]*\n)*(?:\(|select\b|with\b)", re.IGNORECASE)
LONGEST_QUERY = 1 << 16
"""Characters."""


class Adql(Dialect):
    """ADQL 2.1, as far as its queries are SQL."""

    class Tokenizer(tokens.Tokenizer):
        """SQL's words, and TOP."""

        KEYWORDS = {**tokens.Tokenizer.KEYWORDS, "TOP": TokenType.TOP}  # noqa: RUF012
        IDENTIFIERS = ['"']  # noqa: RUF012

    class Parser(parser.Parser):
        """SQL's grammar; each function is a name with arguments, for `translation` to know."""

        FUNCTIONS = {}  # noqa: RUF012
        FUNCTION_PARSERS = {"CAST": parser.Parser.FUNCTION_PARSERS["CAST"]}  # noqa: RUF012
        NO_PAREN_FUNCTIONS = {}  # noqa: RUF012
        NO_PAREN_FUNCTION_PARSERS = {  # noqa: RUF012
            "CASE": parser.Parser.NO_PAREN_FUNCTION_PARSERS["CASE"]
        }


def parsed(query: str) -> exp.Query:
    """Read one ADQL query.

    Raises
    ------
    UsageError
        If it is too long, or not a query.
    """
    if len(query) > LONGEST_QUERY:
        raise UsageError(f"the query is longer than {LONGEST_QUERY} characters")
    if _BEGINNING.match(query) is None:
        raise UsageError("a query begins with SELECT")
    try:
        statements = parse(query, read=Adql)
    except SqlglotError as error:
        raise UsageError(f"the query is not ADQL: {_first_line(error)}") from error
    except RecursionError as error:
        raise UsageError("the query is nested too deeply") from error
    if len(statements) != 1 or not isinstance(statements[0], exp.Query):
        raise UsageError("send one query, which begins with SELECT")
    return statements[0]


def _first_line(error: SqlglotError) -> str:
    plain = str(error).replace("\\x1b[4m", "").replace("\\x1b[0m", "")
    return plain.splitlines()[0].strip()
