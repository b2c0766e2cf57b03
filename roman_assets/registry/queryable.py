"""What the parts of the registry ask their questions of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import duckdb

from roman_assets.access import Role
from roman_assets.data_root import DataRoot

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

StateId = tuple[int, int, int]
"""Identifies one published state of the registry: inode, time of change and size of its file."""
NO_STATE: StateId = (0, 0, 0)
"""The state before the first fold."""

Preparation = Callable[[duckdb.DuckDBPyConnection], None]


class Queryable(ABC):
    """Answers SQL from the newest published state of one registry.

    Parameters
    ----------
    root
        The installation.
    role
        For whom it answers.
    """

    def __init__(self, root: DataRoot, role: Role = Role.OPERATIONS) -> None:
        self.root = root
        self.role = role

    @abstractmethod
    def connection(self) -> AbstractContextManager[duckdb.DuckDBPyConnection]:
        """Return a connection to the newest state, for a question of several statements.

        Raises
        ------
        PassingFaultError
            If something cannot be read.
        AccessDeniedError
            If the role may not see it.
        """

    @abstractmethod
    def state(self) -> StateId:
        """Return the newest state, `NO_STATE` before the first fold."""

    @abstractmethod
    def beside(self) -> AbstractContextManager[Queryable]:
        """Return the same registry for a long question that keeps no other waiting."""

    @abstractmethod
    def close(self) -> None:
        """Close the state; a later question opens it again."""

    def query(
        self, sql: str, parameters: Mapping[str, Any], prepare: Preparation | None = None
    ) -> pd.DataFrame:
        """Return the answer as a data frame; parameters as `answer`."""
        frame: pd.DataFrame = self.table(sql, parameters, prepare).to_pandas()
        return frame

    def table(
        self, sql: str, parameters: Mapping[str, Any], prepare: Preparation | None = None
    ) -> pa.Table:
        """Return the answer as an Arrow table; parameters as `answer`."""
        with self.answer(sql, parameters, prepare) as answer:
            return answer.to_arrow_table()

    def rows(self, sql: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the rows of the answer, each by column."""
        with self.connection() as connection:
            # Unlike a relation, a statement that is executed is planned once.
            answer = connection.execute(sql, dict(parameters))
            columns = [column[0] for column in answer.description or ()]
            return [dict(zip(columns, row, strict=True)) for row in answer.fetchall()]

    @contextmanager
    def answer(
        self, sql: str, parameters: Mapping[str, Any], prepare: Preparation | None = None
    ) -> Iterator[duckdb.DuckDBPyRelation]:
        """Return the answer, to be read within the block.

        Parameters
        ----------
        sql
            One question.
        parameters
            Its values.
        prepare
            Called with the connection before the question is asked.
        """
        with self.connection() as connection:
            if prepare is not None:
                prepare(connection)
            yield connection.sql(sql, params=dict(parameters))
