"""The asset that shows operators how all deadlines stand: a page, a picture, tables in the UI."""

import base64
import io
from datetime import UTC, datetime

import dagster as dg

from roman_assets.archive.durability import private_directory
from roman_assets.defs.lib.in_time_check import CHECKS
from roman_assets.defs.lib.resources import Installation
from roman_assets.defs.lib.specs import OWNERS

DEADLINE_REPORT = dg.AssetKey("deadline_report")

_PICTURE_WIDTH = 1000
_PICTURE_COLOURS = 48
"""The picture in the UI is small enough for an event; the one on disk is whole."""


@dg.asset(
    key=DEADLINE_REPORT,
    description=(
        "How every product stands against its deadline: margins by level and survey, states, "
        "backlog, missing detectors and a forecast. Made every hour."
    ),
    deps=sorted({key.asset_key for key in CHECKS.values()}),
    group_name="operations",
    kinds={"duckdb", "png"},
    owners=OWNERS,
)
def deadline_report(installation: dg.ResourceParam[Installation]) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Draw the deadline ledger as it is now."""
    from roman_assets.deadlines.deadline_page import summary_markdown, write_report
    from roman_assets.deadlines.deadline_statistics import DeadlineStatistics
    from roman_assets.registry.registry import Registry

    now = datetime.now(UTC)
    with Registry(installation.root) as registry:
        statistics = DeadlineStatistics.of(registry.deadlines.groups(now=now), now)
    picture, page = write_report(statistics, private_directory(installation.root.reports))
    return dg.MaterializeResult(
        metadata={
            "summary": dg.MetadataValue.md(summary_markdown(statistics)),
            "picture": dg.MetadataValue.md(inline_picture(picture.read_bytes())),
            "page": dg.MetadataValue.path(page),
            "at": dg.MetadataValue.timestamp(now),
        }
    )


def inline_picture(png: bytes) -> str:
    """Return a picture as Markdown, small enough for an event."""
    from PIL import Image

    with Image.open(io.BytesIO(png)) as image:
        image.thumbnail((_PICTURE_WIDTH, 4 * _PICTURE_WIDTH))
        buffer = io.BytesIO()
        image.convert("RGB").quantize(_PICTURE_COLOURS).save(buffer, format="png", optimize=True)
    return f"![deadlines](data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()})"
