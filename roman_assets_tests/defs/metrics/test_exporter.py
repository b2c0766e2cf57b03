"""What an exporter answers: all parts of an installation, also while one cannot be read."""

from __future__ import annotations

import json
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from roman_assets.data_root import DataRoot
from roman_assets.defs.lib.dagster_internals import InstigatorState
from roman_assets.defs.metrics.exporter import (
    InstallationCollector,
    collector_registry,
    serve,
)
from roman_assets.registry.store.snapshot import SNAPSHOT
from roman_assets_tests.support.console import PROJECT
from roman_assets_tests.support.dagster_privates import (
    InstigatorStatus,
    InstigatorType,
    SensorInstigatorData,
    SerializableErrorInfo,
    TickData,
    TickStatus,
)
from roman_assets_tests.support.facts import Facts
from roman_assets_tests.support.platform import free_port

DASHBOARD = PROJECT / "deploy" / "grafana" / "roman-assets.json"
RULES = PROJECT / "deploy" / "prometheus" / "rules.yaml"


@pytest.fixture(scope="module")
def with_ticks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    """A Dagster instance on disk: one in memory keeps no ticks."""
    with dg.DagsterInstance.local_temp(str(tmp_path_factory.mktemp("dagster"))) as instance:
        yield instance


def figures(collector: InstallationCollector) -> dict[tuple[str, ...], float]:
    text = generate_latest(collector_registry(collector)).decode()
    return {
        (sample.name.removeprefix("roman_assets_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


_ERROR = SerializableErrorInfo("a full disk", [], None)


@dg.op
def fails() -> None:
    raise dg.Failure("on purpose")


@dg.job
def failing() -> None:
    fails()


def test_runs_are_counted_from_dagsters_storage(
    root: DataRoot, instance: dg.DagsterInstance
) -> None:
    failing.execute_in_process(instance=instance, raise_on_error=False)
    for _ in range(2):
        instance.add_run(dg.DagsterRun("failing", status=dg.DagsterRunStatus.STARTING))
    for _ in range(2):  # another exporter, or one that was restarted, says the same
        found = figures(InstallationCollector(root, instance))
        assert found["runs", "failing", "STARTING"] == 2
        assert found["runs_ended_total", "FAILURE"] == 1
        assert found["runs_ended_total", "SUCCESS"] == 0
        assert 0 <= found["run_queue_oldest_seconds", "failing"] < 60


def test_ticks_of_the_last_minutes_are_told_with_their_longest(
    root: DataRoot, with_ticks: dg.DagsterInstance
) -> None:
    now = datetime.now(UTC)
    state = recorded_sensor(with_ticks, "landing_sensor")
    for minutes, status, seconds in (
        (1, TickStatus.FAILURE, 7.0), (2, TickStatus.SKIPPED, 0.5), (60, TickStatus.FAILURE, 99.0)
    ):  # fmt: skip
        begun = (now - timedelta(minutes=minutes)).timestamp()
        with_ticks.create_tick(
            TickData(
                state.instigator_origin_id, state.name, InstigatorType.SENSOR, status, begun,
                end_timestamp=begun + seconds, selector_id=state.selector_id,
                error=_ERROR if status is TickStatus.FAILURE else None,
            )
        )  # fmt: skip
    found = figures(InstallationCollector(root, with_ticks))
    assert found["sensor_ticks", state.name, "FAILURE"] == 1
    assert found["sensor_ticks", state.name, "SKIPPED"] == 1
    assert found["sensor_tick_seconds", state.name] == pytest.approx(7)
    last = found["sensor_last_tick_timestamp_seconds", state.name]
    assert last == pytest.approx((now - timedelta(minutes=1)).timestamp())


def recorded_sensor(instance: dg.DagsterInstance, name: str) -> InstigatorState:
    """Return the state of a sensor as the daemon keeps it."""
    from roman_assets_tests.support.dagster_privates import (
        InProcessCodeLocationOrigin,
        LoadableTargetOrigin,
        RemoteInstigatorOrigin,
        RemoteRepositoryOrigin,
    )

    target = LoadableTargetOrigin(module_name="roman_assets.definitions")
    place = RemoteRepositoryOrigin(InProcessCodeLocationOrigin(target), "__repository__")
    state = InstigatorState(
        RemoteInstigatorOrigin(place, name),
        InstigatorType.SENSOR,
        InstigatorStatus.RUNNING,
        SensorInstigatorData(),
    )
    instance.add_instigator_state(state)
    return state


def test_a_damaged_registry_leaves_the_other_figures(
    root: DataRoot, instance: dg.DagsterInstance
) -> None:
    facts = Facts(root)
    facts.receipt()
    facts.fold()
    assert figures(InstallationCollector(root, instance))["collector_success", "work"] == 1
    (root.registry / SNAPSHOT).chmod(0o600)
    (root.registry / SNAPSHOT).write_text("not a snapshot")
    found = figures(InstallationCollector(root, instance))
    assert found["collector_success", "work"] == 0
    assert found["collector_success", "registry"] == 0
    assert found["collector_success", "runs"] == 1
    assert ("backlog", "formatting") not in found
    assert found["runs_ended_total", "SUCCESS"] == 0


def test_an_answer_is_computed_once_for_all_that_ask_at_a_time(
    root: DataRoot, instance: dg.DagsterInstance
) -> None:
    collector = InstallationCollector(root, instance, fresh_seconds=60)
    before = figures(collector)
    failing.execute_in_process(instance=instance, raise_on_error=False)
    assert figures(collector) == before
    assert figures(InstallationCollector(root, instance))["runs_ended_total", "FAILURE"] == 1


def test_prometheus_scrapes_the_installation(root: DataRoot, instance: dg.DagsterInstance) -> None:
    Facts(root).receipt()
    port = free_port()
    thread = threading.Thread(
        target=serve, args=(InstallationCollector(root, instance), "127.0.0.1", port), daemon=True
    )
    thread.start()

    def scrape() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
            assert answer.headers["Content-Type"].startswith("text/plain")
            return str(answer.read().decode())

    for _ in range(40):
        try:
            text = scrape()
            break
        except urllib.error.URLError:
            thread.join(0.1)
    assert "roman_assets_registry_pending_records 1.0" in text


def names_told(text: str) -> set[str]:
    return set(re.findall(r"roman_assets_[a-z0-9_]+", text))


def test_the_dashboard_and_the_alerts_use_only_what_is_exported(
    root: DataRoot, with_ticks: dg.DagsterInstance
) -> None:
    recorded_sensor(with_ticks, "visit_sensor")
    facts = Facts(root)
    facts.receipt()
    facts.fold()
    text = generate_latest(collector_registry(InstallationCollector(root, with_ticks))).decode()
    exported = {
        f"{family.name}{suffix}"
        for family in text_string_to_metric_families(text)
        for suffix in {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(
            family.type, ("",)
        )
    }
    dashboard = json.loads(DASHBOARD.read_text())
    asked = [t["expr"] for panel in dashboard["panels"] for t in panel.get("targets", ())]
    assert len(asked) > 10
    assert names_told(" ".join(asked)) <= exported
    assert names_told(RULES.read_text()) <= exported
    documented = names_told((PROJECT / "docs" / "how-to" / "monitor.md").read_text())
    assert {name.removesuffix("_bucket") for name in exported} <= documented | {
        f"{name}_{suffix}" for name in documented for suffix in ("sum", "count")
    }
