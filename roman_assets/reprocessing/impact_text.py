"""The summary of an impact in words, the same on the command line and in the UI."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.filesize import decimal

_MOST_NAMED = 5
_HOUR = 3600

Summary = Mapping[str, Any]


def impact_lines(summary: Summary) -> Iterator[tuple[str, str]]:
    """Yield what `Impact.summary` says, each with what it is about.

    Parameters
    ----------
    summary
        Of `roman_assets.reprocessing.impact.Impact.summary`.
    """
    yield "new", f"{summary['change']['cause']} {summary['change']['value']}"
    for reference in summary["references"][:_MOST_NAMED]:
        where = reference["detector"] or "coadds"
        yield (
            f"{reference['kind']} of {where}",
            f"{reference['old']} → {reference['new']}, {reference['images']} images",
        )
    if (more := len(summary["references"]) - _MOST_NAMED) > 0:
        yield "other references", f"{more} more change"
    yield "products that change", _totals(summary["products"])
    yield "detectors", _names(summary["detectors"], "detector")
    yield "reprocessed because of it", _totals(summary["following"])
    yield "exposures", str(summary["exposures"])
    yield "visits whose L3 and L4 follow", str(summary["visits"])
    yield "visits of mixed contexts", _mixed(summary["mixed_visits"])
    yield "computation", _computation(summary)
    yield "deadlines endangered", _endangered(summary["endangered"])


def _totals(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return "none"
    levels: dict[str, list[int]] = {}
    for row in rows:
        total = levels.setdefault(row["level"], [0, 0])
        total[0] += row["products"]
        total[1] += row["size"]
    count, size = (sum(total[i] for total in levels.values()) for i in (0, 1))
    parts = ", ".join(f"{level}: {total[0]}" for level, total in sorted(levels.items()))
    return f"{count} ({parts}), {decimal(size)}"


def _names(rows: Sequence[Mapping[str, Any]], key: str) -> str:
    return ", ".join(row[key] for row in rows) or "none"


def _mixed(mixed: Mapping[str, Any]) -> str:
    if not mixed["count"]:
        return "none"
    named = ", ".join(
        f"{one['visit']} ({' + '.join(one['contexts'])})" for one in mixed["visits"][:_MOST_NAMED]
    )
    dots = " ..." if mixed["count"] > _MOST_NAMED else ""
    return f"{mixed['count']}, of which {mixed['already']} are so already: {named}{dots}"


def _computation(summary: Summary) -> str:
    parts = ", ".join(
        f"{one['step']}: {one['runs']} runs"
        + ("" if one["computation_s"] is None else f" {_duration(one['computation_s'])}")
        for one in summary["work"]
    )
    if summary["computation_s"] is None:
        return f"not known, since some step was never measured ({parts})"
    return f"{_duration(summary['computation_s'])} of one machine ({parts})"


def _duration(seconds: float) -> str:
    if seconds < _HOUR:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / _HOUR:.1f} h"


def _endangered(endangered: Mapping[str, Any]) -> str:
    if not endangered["count"]:
        return "none: prompt products go first"
    named = ", ".join(
        f"{one['level']} of {one['partition']}" for one in endangered["products"][:_MOST_NAMED]
    )
    dots = " ..." if endangered["count"] > _MOST_NAMED else ""
    return f"{endangered['count']}: {named}{dots}"
