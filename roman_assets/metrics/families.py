"""What Prometheus is told of work, deadlines and the registry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from roman_assets.data_root import DataRoot
from roman_assets.metrics.ledger_figures import (
    LATENCY_BOUNDS_HOURS,
    LedgerFigures,
    ledger_figures,
)
from roman_assets.records.journal import Journal
from roman_assets.registry.engine import Engine, TimedWork
from roman_assets.registry.registry import Registry

PREFIX = "roman_assets"
_HOUR_S = 3600.0
_RECENT = timedelta(hours=1)
_QUANTILES = (0.5, 0.95, 1.0)

Rows = Sequence[Mapping[str, Any]]


def gauge(name: str, meaning: str, labels: Sequence[str], rows: Rows, value: str) -> Metric:
    """Return a gauge with a sample for each row.

    Parameters
    ----------
    name
        Without the prefix.
    meaning
        For people.
    labels
        Columns that are labels.
    rows
        The rows.
    value
        Column with the value; rows without one have no sample.
    """
    family = GaugeMetricFamily(f"{PREFIX}_{name}", meaning, labels=labels)
    _add(family, labels, rows, value)
    return family


def counter(name: str, meaning: str, labels: Sequence[str], rows: Rows, value: str) -> Metric:
    """Return a counter with a sample for each row; parameters as `gauge`."""
    family = CounterMetricFamily(f"{PREFIX}_{name}", meaning, labels=labels)
    _add(family, labels, rows, value)
    return family


def _add(
    family: GaugeMetricFamily | CounterMetricFamily, labels: Sequence[str], rows: Rows, value: str
) -> None:
    for row in rows:
        if row[value] is not None:
            family.add_metric([str(row[label]) for label in labels], float(row[value]))


def work_families(root: DataRoot, registry: Registry, now: datetime) -> Iterator[Metric]:
    """Yield what the registry knows of work and deadlines.

    Parameters
    ----------
    root, registry
        The installation and its registry.
    now
        The present, UTC.

    Raises
    ------
    PassingFaultError
        If the registry cannot be read.
    """
    figures = ledger_figures(root, registry, now)
    by_state = ("survey", "level", "state")
    yield gauge("products", "Products by state in the deadline ledger.", by_state,
                figures.products, "products")  # fmt: skip
    yield gauge("products_at_risk", "Products with less than their warning time left.",
                by_state, figures.products, "at_risk")  # fmt: skip
    yield from _queue_families(figures)
    yield _latency_family(figures)
    yield counter("attempts", "Attempts of steps that have ended, by outcome and class of error.",
                  ("step", "outcome", "error"), figures.attempts, "attempts")  # fmt: skip
    yield counter("failed_file_sets", "File sets that an attempt could not make, by class of "
                  "error.", ("step", "error"), figures.failures, "file_sets")  # fmt: skip
    yield counter("publications", "Commit records that published products.", ("step",),
                  figures.publications, "records")  # fmt: skip


def _queue_families(figures: LedgerFigures) -> Iterator[Metric]:
    rows = [
        row | {"margin": row["least_margin_hours"] and row["least_margin_hours"] * _HOUR_S}
        for row in figures.queues
    ]
    for name, meaning, value in (
        ("backlog", "Exposures and visits that can be worked on now and are not made.",
         "partitions"),
        ("backlog_queued", "Those of the backlog that nothing works on.", "queued"),
        ("backlog_running", "Those of the backlog that a run works on.", "running"),
        ("backlog_products", "Products of the backlog.", "products"),
        ("backlog_least_margin_seconds", "Least time left to a deadline in the backlog; negative "
         "when one is past.", "margin"),
    ):  # fmt: skip
        yield gauge(name, meaning, ("queue",), [r | {"queue": r["step"]} for r in rows], value)


def _latency_family(figures: LedgerFigures) -> Metric:
    family = HistogramMetricFamily(
        f"{PREFIX}_publication_latency_seconds",
        "Time from the start of a product's clock to its first publication.",
        labels=("level", "survey"),
    )
    bounds = [str(bound * _HOUR_S) for bound in LATENCY_BOUNDS_HOURS]
    for row in figures.latencies:
        buckets = [*zip(bounds, row["buckets"], strict=True), ("+Inf", row["products"])]
        family.add_metric([row["level"], row["survey"]], buckets, row["hours"] * _HOUR_S)
    return family


def registry_families(root: DataRoot, now: datetime) -> Iterator[Metric]:
    """Yield how the registry's files are: what waits, its tiers, how long folds and merges took.

    Parameters
    ----------
    root
        The installation.
    now
        The present, UTC.

    Raises
    ------
    PassingFaultError
        If an object store cannot be reached.
    SnapshotError
        If the snapshot is damaged.
    """
    waiting = len(Journal(root).pending_paths())
    yield gauge("registry_pending_records", "Commit records that are not folded yet.", (),
                [{"records": waiting}], "records")  # fmt: skip
    sizes = Engine(root).tier_sizes()
    yield gauge("registry_tiers", "Files of the registry.", (), [{"n": len(sizes)}], "n")
    yield gauge("registry_bytes", "Their size.", (), [{"n": sum(sizes)}], "n")
    yield from _timing_families(root, now)


def _timing_families(root: DataRoot, now: datetime) -> Iterator[Metric]:
    timings = Engine(root).timings(now - _RECENT)
    rows: list[dict[str, Any]] = []
    for work in TimedWork:
        seconds = sorted(timing.seconds for timing in timings if timing.work is work)
        rows += [
            {"work": work, "quantile": q, "seconds": seconds[round(q * (len(seconds) - 1))]}
            for q in (_QUANTILES if seconds else ())
        ]
    yield gauge("registry_work_seconds", "Duration of the folds and merges of the last hour, by "
                "quantile; 1 is the longest.", ("work", "quantile"), rows, "seconds")  # fmt: skip
    last = {timing.work: timing.ended.timestamp() for timing in timings}
    yield gauge("registry_work_last_timestamp_seconds", "End of the last fold and merge of the "
                "last hour.", ("work",), [{"work": w, "at": t} for w, t in last.items()],
                "at")  # fmt: skip
