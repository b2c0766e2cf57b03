"""The metadata tables that rad declares, and the IVOA's view of the products."""

# Names put into SQL are column names of the schema; values are always parameters.
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import duckdb

from roman_assets.archive.store import Archive
from roman_assets.registry.catalog.obscore import ARCHIVE_URL, DEFAULT_PUBLISHER, OBSCORE, PUBLISHER
from roman_assets.registry.catalog.schema import ARCHIVE_TABLES, IS_AVAILABLE
from roman_assets.registry.queryable import Queryable
from roman_assets.registry.search.condition import OneOrMore, conditions_of, places_of

if TYPE_CHECKING:
    import pandas as pd


class ArchiveSearch:
    """Asks the archive's catalogue tables.

    Parameters
    ----------
    snapshot
        The registry to ask.
    """

    def __init__(self, snapshot: Queryable) -> None:
        self._snapshot = snapshot

    def archive_rows(
        self, table: str, *, name: OneOrMore = None, overwritten: bool = False
    ) -> pd.DataFrame:
        """Return what products say in one of the metadata tables that rad declares.

        Parameters
        ----------
        table
            Such as ``WFIExposure``.
        name
            Only these products.
        overwritten
            Past generations as well.

        Returns
        -------
        pandas.DataFrame
            The table's columns but ``name_key``, ordered by name and commit.

        Raises
        ------
        ValueError
            If there is no such table.
        """
        if table not in (known := [declared.name for declared in ARCHIVE_TABLES]):
            raise ValueError(f"{table!r} is not a metadata table: known are {', '.join(known)}")
        conditions, parameters = conditions_of({"name": name})
        conditions += places_of({"name": name})
        if not overwritten:
            conditions.append(IS_AVAILABLE)
        return self._snapshot.query(
            f"select {table}.* exclude (name_key) from {table} join "
            "(select name_key, record_id, name, state, committed_at from products) "
            "using (name_key, record_id, name) "
            f"where {' and '.join(conditions) or 'true'} order by name, committed_at",
            parameters,
        )

    def obscore(
        self,
        *,
        name: OneOrMore = None,
        dataproduct_type: OneOrMore = None,
        calib_level: int | Iterable[int] | None = None,
        archive_url: str | None = None,
        publisher: str | None = None,
    ) -> pd.DataFrame:
        """Return the available public data products as the IVOA's ObsCore 1.1 describes them.

        Parameters
        ----------
        name
            Only these products, by official file name.
        dataproduct_type, calib_level
            Only products of these types and levels, in ObsCore's words.
        archive_url
            Where users find the public tree; by default its own place.
        publisher
            The IVOA identifier of who publishes, such as ``ivo://observatory.example/roman``.

        Returns
        -------
        pandas.DataFrame
            Columns `roman_assets.registry.catalog.obscore.OBSCORE_COLUMNS`, ordered by ``obs_id``
            and ``obs_publisher_did``. `roman_assets.registry.catalog.obscore.obscore_table` makes a
            VOTable.
        """
        conditions, parameters = conditions_of(
            {"dataproduct_type": dataproduct_type, "calib_level": calib_level}
        )
        if name is not None:
            conditions.append("split_part(obs_publisher_did, '?', -1) in (select unnest($names))")
            parameters["names"] = [name] if isinstance(name, str) else [str(one) for one in name]
        variables = {
            ARCHIVE_URL: archive_url or Archive.of(self._snapshot.root).public_uri,
            PUBLISHER: publisher or DEFAULT_PUBLISHER,
        }
        return self._snapshot.query(
            f"select * from {OBSCORE} where {' and '.join(conditions) or 'true'} "
            "order by obs_id, obs_publisher_did",
            parameters,
            prepare=partial(_set_variables, values=variables),
        )

    def unfit_values(self, name: OneOrMore = None) -> pd.DataFrame:
        """Return what products say that does not fit the column it belongs to.

        Parameters
        ----------
        name
            Only these products.

        Returns
        -------
        pandas.DataFrame
            ``name``, ``table_name``, ``column_name``, ``datatype``, ``value`` and ``record_id``.
        """
        conditions, parameters = conditions_of({"name": name})
        conditions += places_of({"name": name})
        return self._snapshot.query(
            "select name, table_name, column_name, datatype, value, record_id from unfit_values "
            f"where {' and '.join(conditions) or 'true'} order by all",
            parameters,
        )


def _set_variables(connection: duckdb.DuckDBPyConnection, values: Mapping[str, str]) -> None:
    for name, value in values.items():
        connection.execute(f"set variable {name} = $value", {"value": value})
