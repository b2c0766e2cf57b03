"""Serving the figures of an installation to Prometheus.

Every figure is computed from the registry and from Dagster's storage when it is asked for. So a
restart loses nothing, and several exporters of one installation say the same.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import dagster as dg
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from roman_assets.build import build
from roman_assets.data_root import DataRoot
from roman_assets.defs.metrics.dagster_families import run_families, tick_families
from roman_assets.metrics.families import gauge, registry_families, work_families
from roman_assets.registry.registry import Registry

PORT = 9464
"""The usual port of exporters of applications."""
FRESH_SECONDS = 10.0
"""An answer is given again for so long: two Prometheus servers cost no more than one."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """One source of figures; its failure leaves the others as they are.

    Parameters
    ----------
    name
        Of the source.
    families
        Computes them for a moment (UTC).
    """

    name: str
    families: Callable[[datetime], Iterable[Metric]]


class InstallationCollector(Collector):
    """Computes the figures of an installation when Prometheus asks.

    Parameters
    ----------
    root
        The installation.
    instance
        Its Dagster instance.
    fresh_seconds
        For how long an answer is given again.
    """

    def __init__(
        self, root: DataRoot, instance: dg.DagsterInstance, fresh_seconds: float = FRESH_SECONDS
    ) -> None:
        self._registry = Registry(root)
        self._parts = (
            Part("work", lambda now: work_families(root, self._registry, now)),
            Part("registry", lambda now: registry_families(root, now)),
            Part("runs", lambda now: run_families(instance, now)),
            Part("ticks", lambda now: tick_families(instance, now)),
        )
        self._fresh_seconds = fresh_seconds
        self._one_at_a_time = threading.Lock()
        self._computed: tuple[float, list[Metric]] | None = None

    def close(self) -> None:
        """Close the registry."""
        self._registry.close()

    def describe(self) -> Iterable[Metric]:
        """Return nothing: what there is to tell, the first answer says."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield all figures; one computation at a time, however many ask."""
        with self._one_at_a_time:
            known = self._computed
            if known is None or time.monotonic() - known[0] > self._fresh_seconds:
                known = (time.monotonic(), self._compute())
                self._computed = known
        yield from known[1]

    def _compute(self) -> list[Metric]:
        now = datetime.now(UTC)
        found: list[Metric] = []
        rows = []
        for part in self._parts:
            began = time.monotonic()
            try:
                families = list(part.families(now))
                found += families
                succeeded = 1
            except Exception:  # any fault of a database: the figures say so, and the log says which
                _log.exception("the figures of %s cannot be computed", part.name)
                succeeded = 0
            rows.append({"part": part.name, "ok": succeeded, "seconds": time.monotonic() - began})
        found.append(gauge("collector_success", "Whether the figures of a part could be computed.",
                           ("part",), rows, "ok"))  # fmt: skip
        found.append(gauge("collector_seconds", "How long that took.", ("part",), rows, "seconds"))
        found.append(gauge("info", "The version that serves these figures.", ("version",),
                           [{"version": build(), "one": 1}], "one"))  # fmt: skip
        return found


def collector_registry(collector: InstallationCollector) -> CollectorRegistry:
    """Return what prometheus_client serves and writes of an installation."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    return registry


def serve(collector: InstallationCollector, host: str, port: int) -> None:
    """Serve the figures at ``/metrics`` until interrupted."""
    server, thread = start_http_server(port, host, collector_registry(collector))
    try:
        thread.join()
    finally:
        server.shutdown()
