"""Templates of pages and documents; all that is put into them is escaped."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import jinja2
import pandas as pd


def _utc(moment: Any) -> str:
    if not isinstance(moment, datetime) or pd.isna(moment):
        return ""
    return f"{moment:%Y-%m-%d %H:%M}"


def iso(moment: datetime) -> str:
    """Return a time in ISO 8601, UTC, to the millisecond."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


_environment = jinja2.Environment(
    loader=jinja2.PackageLoader("roman_assets.service"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters["utc"] = _utc
_environment.filters["iso"] = iso


def render(template: str, values: Mapping[str, Any]) -> str:
    """Return a page or document.

    Parameters
    ----------
    template
        Its file in ``templates``.
    values
        What it needs.
    """
    return _environment.get_template(template).render(**values)
