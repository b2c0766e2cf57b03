"""The registry of one installation, for reading."""

from __future__ import annotations

from roman_assets.registry.deadline_query import DeadlineQuery
from roman_assets.registry.decisions import Decisions
from roman_assets.registry.receipts import Receipts
from roman_assets.registry.search.product_search import ProductSearch
from roman_assets.registry.work_history import WorkHistory


class Registry(ProductSearch, WorkHistory, Receipts, DeadlineQuery, Decisions):
    """The registry of one installation, for reading, from any process or thread.

    Every call sees one whole state: the newest snapshot at its beginning. Before the first fold
    all results are empty.

    Parameters
    ----------
    root
        The installation.
    role
        For whom: the public role reads the public registry, which knows neither records nor
        events nor failures (R1); what needs them raises `AccessDeniedError`.
    """
