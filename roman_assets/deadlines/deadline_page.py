"""The deadline report for people: one picture, a summary in Markdown, a page by itself in HTML."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roman_assets.archive.durability import make_directory
from roman_assets.deadlines.deadline_statistics import FORECAST_WINDOW, DeadlineStatistics
from roman_assets.products.deadline import ProductState
from roman_assets.products.kind import Level
from roman_assets.products.observation import Survey

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PICTURE_NAME = "deadlines.png"
PAGE_NAME = "deadlines.html"
MOST_URGENT = 40
"""Rows of a list on the page."""

_STATE_COLOURS: Mapping[str, str] = {
    ProductState.OVERDUE: "#b2182b",
    ProductState.FAILED: "#762a83",
    ProductState.WAITING_FOR_DOWNLINK: "#bababa",
    ProductState.WAITING_FOR_ANCILLARY: "#878787",
    ProductState.WAITING_FOR_SSC: "#c2a5cf",
    ProductState.QUEUED: "#fdae61",
    ProductState.RUNNING: "#74add1",
    ProductState.MADE_LATE: "#ef8a62",
    ProductState.MADE_IN_TIME: "#1a9850",
    ProductState.MADE_UNTIMED: "#a6d96a",
}
_SURVEY_COLOURS: Mapping[str, str] = dict(
    zip(Survey, ("#1f77b4", "#d95f02", "#7570b3", "#1b9e77"), strict=True)
)
_LEVEL_COLOURS: Mapping[Level, str] = dict(
    zip(Level, ("#4575b4", "#1a9850", "#fdae61", "#b2182b"), strict=True)
)
_INK, _MOST_POINTS = "#333333", 4_000


def write_report(statistics: DeadlineStatistics, directory: Path) -> list[Path]:
    """Write the picture and the page into a directory; gives their paths."""
    make_directory(directory)
    picture = report_png(statistics)
    paths = [directory / PICTURE_NAME, directory / PAGE_NAME]
    paths[0].write_bytes(picture)
    paths[1].write_text(report_html(statistics, picture), encoding="utf-8")
    return paths


def report_png(statistics: DeadlineStatistics) -> bytes:
    """Draw margins, states, backlog and missing detectors."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = len(statistics.levels)
    figure = Figure(figsize=(14, 4.6 + 2.3 * rows), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"Deadlines at {statistics.now:%Y-%m-%d %H:%M} UTC", fontsize=14, color=_INK)
    if rows:
        _draw_panels(figure, statistics)
    else:
        figure.text(0.5, 0.5, "Nothing is expected yet", ha="center", color=_INK)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _draw_panels(figure: Figure, statistics: DeadlineStatistics) -> None:
    """Lay out margins at the left, states above the backlog at the right, detectors below."""
    rows = len(statistics.levels)
    grid = figure.add_gridspec(max(rows, 2) + 1, 2, width_ratios=(1.6, 1))
    half = max(rows, 2) // 2
    _draw_margins(figure, grid, statistics, statistics.levels)
    _draw_states(figure.add_subplot(grid[:half, 1]), statistics)
    _draw_backlog(figure.add_subplot(grid[half:-1, 1]), statistics)
    _draw_detectors(figure.add_subplot(grid[-1, :]), statistics)


def _draw_margins(
    figure: Figure, grid: Any, statistics: DeadlineStatistics, levels: Sequence[Level]
) -> None:
    axes: dict[Level, Axes] = {}
    for row, level in enumerate(levels):
        first = next(iter(axes.values()), None)
        axes[level] = figure.add_subplot(grid[row, 0], sharex=first)
        axes[level].axhline(0, color=_STATE_COLOURS[ProductState.OVERDUE], linewidth=1.2)
        axes[level].set_ylabel(f"{level} margin (h)")
        axes[level].grid(alpha=0.25)
        if level is not levels[-1]:
            axes[level].tick_params(labelbottom=False)
    shown = set()
    for level, survey, made in statistics.margins():
        drawn = made if len(made) <= _MOST_POINTS else made.sample(_MOST_POINTS, random_state=1)
        axes[level].scatter(
            drawn["made"], drawn["margin_hours"], s=6, alpha=0.5, linewidths=0,
            color=_SURVEY_COLOURS.get(survey, _INK), label=None if survey in shown else survey,
        )  # fmt: skip
        shown.add(survey)
    top = axes[levels[0]]
    top.set_title("Margin at publication; below the red line is late", loc="left", fontsize=11)
    if shown:
        figure.legend(loc="upper left", ncols=len(shown), markerscale=3, frameon=False)
    else:
        top.text(0.5, 0.5, "nothing made yet", ha="center", va="center", transform=top.transAxes)
    axes[levels[-1]].set_xlabel("published (UTC)")
    _dates(axes[levels[-1]])


def _draw_states(axes: Axes, statistics: DeadlineStatistics) -> None:
    counts = statistics.counts().drop(index=ProductState.NOT_EXPECTED.value, errors="ignore")
    in_time = counts.reindex([ProductState.MADE_IN_TIME.value], fill_value=0).iloc[0]
    others = counts.drop(index=ProductState.MADE_IN_TIME.value, errors="ignore")
    places = range(len(counts.columns))
    left = [0.0] * len(counts.columns)
    for state in others.index:
        values = [float(number) for number in others.loc[state]]
        axes.barh(places, values, left=left, color=_STATE_COLOURS[state], label=state, height=0.6)
        left = [before + value for before, value in zip(left, values, strict=True)]
    totals = zip(counts.columns, in_time, counts.sum(), strict=True)
    labels = [f"{level}\n{made:,} of {total:,}\nmade in time" for level, made, total in totals]
    axes.set_yticks(list(places), labels, fontsize=9)
    axes.set_ylim(len(counts.columns) - 0.4, -0.6)
    axes.set_xlabel("products")
    axes.set_title("Not made in time, or not yet", loc="left", fontsize=11)
    if len(others):
        axes.legend(fontsize=8, frameon=False, loc="best")


def _draw_backlog(axes: Axes, statistics: DeadlineStatistics) -> None:
    for level in statistics.levels:
        backlog = statistics.backlog(level)
        if len(backlog):
            axes.step(
                backlog["time"], backlog["products"], where="post", label=level,
                color=_LEVEL_COLOURS[level], linewidth=1.4,
            )  # fmt: skip
    axes.set_title("Backlog: data are in, not made", loc="left", fontsize=11)
    axes.set_ylabel("products")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    if axes.lines:
        axes.legend(fontsize=8, frameon=False, loc="upper left", ncols=4)
        _dates(axes)


def _draw_detectors(axes: Axes, statistics: DeadlineStatistics) -> None:
    table = statistics.missing_detectors()
    places = range(len(table))
    axes.bar(places, table["failed"], color=_STATE_COLOURS[ProductState.FAILED], label="failed")
    axes.bar(
        places, table["overdue"], bottom=table["failed"],
        color=_STATE_COLOURS[ProductState.OVERDUE], label="overdue",
    )  # fmt: skip
    axes.set_xticks(list(places), [name.removeprefix("WFI") for name in table.index])
    axes.set_xlabel("detector (WFI)")
    axes.set_ylabel("products missing")
    axes.set_title("Missing detectors", loc="left", fontsize=11)
    axes.legend(fontsize=8, frameon=False, loc="upper right")
    if not table.to_numpy().any():
        axes.set_ylim(0, 1)
        axes.set_yticks([0])
        axes.text(0.5, 0.5, "none", ha="center", va="center", transform=axes.transAxes)


def _dates(axes: Axes) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(minticks=3, maxticks=7)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]


def summary_markdown(statistics: DeadlineStatistics) -> str:
    """Return states and forecast as Markdown tables, for metadata in Dagster's UI."""
    counts = statistics.counts()
    state_rows = [
        [str(state), *(f"{int(number):,}" for number in counts.loc[state])]
        for state in counts.index
    ]
    return "\n\n".join(
        [
            f"Deadlines at {statistics.now:%Y-%m-%d %H:%M} UTC",
            _markdown(["state", *counts.columns], state_rows),
            f"At the rate of the last {FORECAST_WINDOW.total_seconds() / 3600:g} h:",
            _markdown(_FORECAST_COLUMNS, _forecast_rows(statistics)),
        ]
    )


def _markdown(columns: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    heads = list(columns)
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


_FORECAST_COLUMNS = ("level", "products an hour", "backlog", "breaches expected", "cleared (UTC)")


def _forecast_rows(statistics: DeadlineStatistics) -> list[list[str]]:
    return [
        [
            forecast.level.value,
            f"{forecast.rate:.1f}",
            f"{forecast.backlog:,}",
            f"{forecast.breaches:,}",
            _cleared(forecast.backlog, forecast.cleared),
        ]
        for forecast in statistics.forecasts()
    ]


def _cleared(backlog: int, cleared: Any) -> str:
    if not backlog:
        return "no backlog"
    return "never: nothing was made" if cleared is None else f"{cleared:%Y-%m-%d %H:%M}"


def report_html(statistics: DeadlineStatistics, picture: bytes) -> str:
    """Return the whole report as one page that needs nothing from elsewhere."""
    counts = statistics.counts()
    state_rows = [
        [str(state), *(f"{int(number):,}" for number in counts.loc[state])]
        for state in counts.index
    ]
    sections = [
        f"<h1>Deadlines at {statistics.now:%Y-%m-%d %H:%M} UTC</h1>",
        _section("Products by state", _table(["state", *counts.columns], state_rows)),
        _section(
            "Forecast", _forecast_text(), _table(_FORECAST_COLUMNS, _forecast_rows(statistics))
        ),
        f'<img alt="margins, states, backlog and missing detectors" '
        f'src="data:image/png;base64,{base64.b64encode(picture).decode()}">',
        _section("From the start of the clock to publication", _percentile_table(statistics)),
        _section("Most urgent", _urgent_table(statistics)),
        _section("Deadlines missed, by what took most of the time", _blame_table(statistics)),
        _section("Made late, newest first", _late_table(statistics)),
    ]
    return _PAGE.format(title="Deadlines", style=_STYLE, body="\n".join(sections))


def _forecast_text() -> str:
    hours = FORECAST_WINDOW.total_seconds() / 3600
    return (
        "<p>What can be worked on now is made in the order of its due times, at the rate at which "
        f"products of the level were published in the last {hours:g} h; a breach is what is late "
        "by then. What waits for data, and what is still to arrive, is not counted.</p>"
    )


def _percentile_table(statistics: DeadlineStatistics) -> str:
    table = statistics.percentiles()
    rows = [
        [
            str(row["level"]), str(row["survey"]), f"{row['made']:,}", f"{row['late']:,}",
            f"{row['open']:,}", *(_number(row[f"p{p}"]) for p in (50, 90, 99)),
            _number(row["least_margin"]), _number(100 * row["in_time"]),
        ]
        for row in table.to_dict("records")
    ]  # fmt: skip
    heads = (
        "level", "survey", "made", "late or overdue", "not made", "median (h)", "90 % (h)",
        "99 % (h)", "least margin (h)", "in time (%)",
    )  # fmt: skip
    return _table(heads, rows)


def _urgent_table(statistics: DeadlineStatistics) -> str:
    groups = statistics.groups
    urgent = groups["state"].isin([ProductState.OVERDUE.value, ProductState.FAILED.value])
    chosen = groups[urgent | groups["at_risk"].astype(bool)].head(MOST_URGENT)
    return _group_table(chosen) or "<p>Nothing is overdue, failed or at risk.</p>"


def _late_table(statistics: DeadlineStatistics) -> str:
    groups = statistics.groups
    late = groups[groups["state"] == ProductState.MADE_LATE.value]
    chosen = late.sort_values("made", ascending=False, kind="stable").head(MOST_URGENT)
    return _group_table(chosen) or "<p>Nothing was made late.</p>"


def _blame_table(statistics: DeadlineStatistics) -> str:
    missed = statistics.missed_by_blame()
    rows = [[str(level), *(f"{int(n):,}" for n in missed.loc[level])] for level in missed.index]
    if not rows:
        return "<p>No deadline was missed.</p>"
    return _table(["level", *missed.columns], rows)


def _group_table(groups: pd.DataFrame) -> str:
    plain = groups.astype(object).where(groups.notna(), None)
    rows = [
        [
            _state(row), str(row["partition"]), str(row["survey"]), str(row["level"]),
            str(row["kind"]), str(row["products"]), _minute(row["due"]), _minute(row["made"]),
            _number(row["margin_hours"]), str(row["blame"] or ""), str(row["reason"] or ""),
        ]
        for row in plain.to_dict("records")
    ]  # fmt: skip
    heads = (
        "state", "made for", "survey", "level", "kind", "products", "due (UTC)", "made (UTC)",
        "margin (h)", "blame", "reason",
    )  # fmt: skip
    return _table(heads, rows) if rows else ""


def _state(row: Mapping[Any, Any]) -> str:
    if row["state"] == ProductState.OVERDUE:
        return f"{row['state']}, {row['stage']}"
    return f"at risk, {row['state']}" if row["at_risk"] else str(row["state"])


def _minute(moment: pd.Timestamp | None) -> str:
    return "" if moment is None else f"{moment:%m-%d %H:%M}"


def _number(value: float | None) -> str:
    return "" if value is None or value != value else f"{value:.1f}"


def _section(title: str, *parts: str) -> str:
    return f"<h2>{html.escape(title)}</h2>\n{''.join(parts)}"


def _table(heads: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in heads)
    body = "".join(
        f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


_STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; color: #333; max-width: 1200px; margin: 2em auto; }
h1 { font-size: 1.4em } h2 { font-size: 1.1em; margin-top: 1.6em }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: 3px 12px 3px 0; border-bottom: 1px solid #ddd }
th { color: #666; font-weight: 600 } img { width: 100%; margin-top: 1.5em }
"""
_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{style}</style></head>
<body>
{body}
</body></html>
"""
