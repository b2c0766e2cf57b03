"""From a delivery in the exchange to materialized assets, by the sensor and the graph."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from roman_assets.data_root import DataRoot
from roman_assets.definitions import build_defs, defs
from roman_assets.defs.lib.dagster_home import project_directory
from roman_assets.defs.lib.in_progress import WILL_RETRY_TAG
from roman_assets.defs.lib.resources import Installation
from roman_assets.defs.lib.specs import RELEASE_HANDOVER
from roman_assets.defs.releases.sensors import release_sensor
from roman_assets.defs.ssc.delivery_sensor import commissioned, delivery_sensor
from roman_assets.defs.visit.sensors import visit_sensor
from roman_assets.errors import BadInputError, PassingFaultError
from roman_assets.mosaic.manifest import visit_manifests
from roman_assets.products.deadline import DEADLINES
from roman_assets.products.kind import Level, Step
from roman_assets.products.observation import OpticalElement, Survey, VisitId
from roman_assets.products.priority import PRIORITY_TAG, run_priority
from roman_assets.publishing.attempt import Run, StepAttempt
from roman_assets.registry.registry import Registry
from roman_assets.releases.run import calibrate_for_release
from roman_assets.settings.automation_settings import SSC_RUN_VARIABLE
from roman_assets.ssc.command import Mode, command_for, commission, deliver
from roman_assets.ssc.handover import hand_over, ready_images
from roman_assets.ssc.intake import take_in
from roman_assets_tests.support.dagster_privates import RUN_KEY_TAG, TagConcurrencyLimitsCounter
from roman_assets_tests.support.facts import Facts, at
from roman_assets_tests.support.small_products import VISIT, exposure
from roman_assets_tests.support.ssc_center import (
    Center,
    bulge,
    contents,
    images,
    observe,
    spectrum,
)
from roman_assets_tests.support.ssc_center import metadata as metadata_of
from roman_assets_tests.support.ssc_season import BULGE, Season, unit
from roman_assets_tests.support.survey_night import LATE
from roman_assets_tests.support.ticks import Ticks

EVENTS, CURVES = bulge("event_catalog"), bulge("light_curve_catalog")


@pytest.fixture
def center(root: DataRoot) -> Center:
    observe(root)
    return Center.of(root)


def installation(root: DataRoot) -> dict[str, Installation]:
    return {"installation": Installation(data_root=str(root.path))}


def look(root: DataRoot, instance: dg.DagsterInstance) -> list[dg.RunRequest]:
    context = dg.build_sensor_context(
        instance=instance, resources=installation(root), sensor_name="delivery_sensor"
    )
    result = delivery_sensor(context)
    if isinstance(result, dg.SkipReason):
        return []
    assert isinstance(result, dg.SensorResult)
    for request in result.dynamic_partitions_requests or ():
        instance.add_dynamic_partitions(request.partitions_def_name, request.partition_keys)
    return list(result.run_requests or ())


def run(root: DataRoot, instance: dg.DagsterInstance, request: dg.RunRequest) -> bool:
    job = build_defs(dict(installation(root))).resolve_job_def(str(request.job_name))
    result = job.execute_in_process(
        instance=instance, partition_key=request.partition_key, raise_on_error=False,
        tags=request.tags,
    )  # fmt: skip
    return result.success


def metadata(instance: dg.DagsterInstance, kind: str) -> dict[str, object]:
    event = instance.get_latest_materialization_event(dg.AssetKey(kind))
    assert event is not None
    assert event.asset_materialization is not None
    return {name: entry.value for name, entry in event.asset_materialization.metadata.items()}


def checks(instance: dg.DagsterInstance) -> dict[str, bool]:
    events = instance.get_event_records(
        dg.EventRecordsFilter(dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    )
    found = [record.event_log_entry.dagster_event for record in events]
    return {
        one.event_specific_data.check_name: one.event_specific_data.passed
        for one in found
        if one is not None
    }


def light_curves(path: Path, data: bytes) -> None:
    time = np.linspace(61557.0, 61600.0, 30)
    columns = {
        "object_id": np.zeros(30, dtype=int), "mjd": time, "flux": 10 + np.sin(time),
        "flux_error": np.full(30, 0.1),
    }  # fmt: skip
    pq.write_table(pa.table(columns), path)


def test_a_whole_delivery_becomes_assets_with_checks_and_a_picture(
    root: DataRoot, instance: dg.DagsterInstance, center: Center
) -> None:
    import hashlib

    frame = bulge("reference_frame")
    center.deliver([frame], images())
    (made,) = take_in(root, Step.MICROLENSING, VISIT).made
    directory = center.deliver([EVENTS, CURVES], images())
    light_curves(directory / CURVES, b"")
    notification = json.loads((directory / "notification.json").read_text())
    about = {file["filename"]: file for file in notification["files"]}
    data = (directory / CURVES).read_bytes()
    about[CURVES] |= {
        "fileSize": len(data), "sha256": hashlib.sha256(data).hexdigest(),
        "inputs": [{"name": frame, "sha256": made.sha256}],
    }  # fmt: skip
    (directory / "notification.json").write_text(json.dumps(notification))
    (request,) = look(root, instance)
    assert (request.partition_key, request.job_name) == (VISIT, "microlensing_delivery")
    assert run(root, instance, request)
    assert metadata(instance, "microlensing_event_catalog")["dagster/row_count"] == 1
    curves = metadata(instance, "microlensing_light_curve_catalog")
    assert "data:image/png;base64," in str(curves["quick_look"])
    assert checks(instance)["deliveries_taken_in"]
    assert checks(instance)["files_only"]
    assert look(root, instance) == []


def test_an_intake_that_failed_for_a_passing_fault_is_requested_again(
    root: DataRoot, instance: dg.DagsterInstance, center: Center
) -> None:
    center.deliver([bulge("reference_frame")], images())
    (request,) = look(root, instance)
    tags = {**request.tags, "dagster/run_key": str(request.run_key)}
    failed = dg.DagsterRun("any", status=dg.DagsterRunStatus.FAILURE, tags=tags)
    a_minute_ago = datetime.now(UTC) - timedelta(minutes=1)
    attempt = StepAttempt(
        root,
        Step.MICROLENSING,
        VISIT,
        Run(instance.add_run(failed).run_id, last_try=False),
        lambda: a_minute_ago,
    )
    with suppress(PassingFaultError), attempt:
        raise PassingFaultError("the disk is full")
    assert look(root, instance) == []
    (root.path / "retries.toml").write_text("version = 1\nfirst_minutes = 0.5\n")
    (again,) = look(root, instance)
    assert again.run_key == f"{request.run_key}:failed-1"


def test_a_rejected_delivery_fails_its_run_and_the_check_says_why(
    root: DataRoot, instance: dg.DagsterInstance, center: Center
) -> None:
    center.deliver([EVENTS], images(), change=lambda said: said["files"][0].update(sha256="0" * 64))
    (request,) = look(root, instance)
    assert not run(root, instance, request)
    assert not checks(instance)["deliveries_taken_in"]
    assert look(root, instance) == []
    assert center.reports()[0]["outcome"] == "rejected"


@pytest.mark.slow
def test_a_delivery_is_requested_once_for_each_state_of_it(
    root: DataRoot, instance: dg.DagsterInstance, center: Center
) -> None:
    center.deliver([EVENTS], images())
    (first,) = look(root, instance)
    (same,) = look(root, instance)
    assert first.run_key == same.run_key
    center.deliver([EVENTS], images(), text="corrected")
    (corrected,) = look(root, instance)
    assert corrected.run_key != first.run_key


def test_runs_are_as_urgent_as_the_first_product_that_waits_for_them(
    root: DataRoot, instance: dg.DagsterInstance
) -> None:
    observe(root)
    for number in (1, 2):
        Facts(root).receipt(
            exposure(number), survey=Survey.GBTDS, optical_element=OpticalElement.F146,
            detectors=("WFI01",), nexposures=2,
        )  # fmt: skip
    told(root)
    configure(root, '["true"]')
    Center.of(root).deliver([EVENTS], images())
    delivered, computed = look(root, instance)
    due = at(0) + DEADLINES[Level.L3].latency
    assert delivered.tags[PRIORITY_TAG] == str(run_priority(due))
    assert computed.tags[PRIORITY_TAG] == delivered.tags[PRIORITY_TAG]


def test_several_deliveries_of_one_visit_are_taken_in_by_one_run(
    root: DataRoot, instance: dg.DagsterInstance, center: Center
) -> None:
    center.deliver([EVENTS], images(), delivery="a")
    center.deliver([EVENTS], images(), delivery="b", text="other")
    assert [one.partition_key for one in look(root, instance)] == [VISIT]
    assert instance.get_dynamic_partitions("ssc_visit") == [VISIT]


def test_a_delivery_for_nobody_is_rejected_by_the_sensor(
    root: DataRoot, instance: dg.DagsterInstance, center: Center
) -> None:
    center.deliver([EVENTS], images(), change=lambda said: said["files"][0].update(filename="../x"))
    for path in (center.place / "from_ssc" / "first").iterdir():
        import os

        os.utime(path, (0, 0))
    assert look(root, instance) == []
    assert center.reports()[0]["outcome"] == "rejected"


def test_spectra_go_to_the_exposure_and_combined_ones_to_the_visit(
    root: DataRoot, instance: dg.DagsterInstance
) -> None:
    observe(root, spectra=True)
    center = Center.of(root)
    center.deliver([spectrum("individual_1d")], images(spectra=True), delivery="a")
    center.deliver([spectrum("catalog")], images(spectra=True), delivery="b")
    assert {(one.job_name, one.partition_key) for one in look(root, instance)} == {
        ("spectra_delivery", exposure()), ("combined_spectra_delivery", VISIT),
    }  # fmt: skip


@pytest.mark.parametrize("spectra", [False, True])
def test_the_visit_l3_and_l4_of_the_soc_never_run_where_the_ssc_makes_them(
    root: DataRoot, instance: dg.DagsterInstance, spectra: bool
) -> None:
    observe(root, spectra=spectra)
    with Ticks(root, instance).look(visit_sensor) as result:
        assert isinstance(result, dg.SkipReason)
    job = build_defs(dict(installation(root))).resolve_job_def("visit_products")
    instance.add_dynamic_partitions("visit", [VISIT])
    result = job.execute_in_process(instance=instance, partition_key=VISIT, raise_on_error=False)
    made = {event.asset_key for event in result.get_asset_materialization_events()}
    assert made <= {dg.AssetKey("visit_manifest")}


SCRIPT = Path(__file__).parents[2] / "support" / "foreign_pipeline.sh"


def told(root: DataRoot) -> None:
    """Hand the visit over."""
    with Registry(root) as registry:
        manifests = visit_manifests(root, registry, [VisitId.parse(VISIT)])
    assert hand_over(root, list(ready_images(manifests[VisitId.parse(VISIT)])))


def configure(root: DataRoot, command: str, mode: str = "imaging") -> None:
    (root.path / "ssc.toml").write_text(
        f'version = 1\n[[command]]\nsurveys = ["GBTDS"]\nmode = "{mode}"\nrun = {command}\n'
    )


def products_of_others(directory: Path) -> list[str]:
    """Files and metadata as another program would have made them."""
    directory.mkdir()
    for name in (EVENTS, bulge("events_dqa")):
        (directory / name).write_bytes(contents(name, "x"))
        (directory / f"{name}.metadata").write_text(json.dumps(metadata_of(name)))
    return [EVENTS]


def test_a_shell_script_takes_the_place_of_the_pipeline_without_a_change(
    root: DataRoot, instance: dg.DagsterInstance, center: Center, tmp_path: Path
) -> None:
    directory = tmp_path / "made"
    products_of_others(directory)
    (directory / f"{bulge('events_dqa')}.metadata").unlink()
    told(root)
    assert look(root, instance) == []
    configure(root, json.dumps(["sh", str(SCRIPT), str(directory)]))
    (request,) = look(root, instance)
    assert (request.job_name, request.partition_key) == ("microlensing_command", VISIT)
    assert run(root, instance, request)
    delivered = next(one for one in look(root, instance) if "delivery" in str(one.job_name))
    assert run(root, instance, delivered)
    with Registry(root) as registry:
        found = registry.generations.current([EVENTS])[EVENTS]
        assert found.software == {"sh": "1"}
        assert {item.name for item in found.inputs} == {image["name"] for image in images()}
    assert look(root, instance) == []


@pytest.mark.slow
def test_a_command_that_cannot_use_its_input_is_run_again_for_a_new_hand_over_only(
    root: DataRoot, instance: dg.DagsterInstance, center: Center
) -> None:
    told(root)
    configure(root, '["sh", "-c", "echo run >> $ROMAN_ASSETS_DATA/runs; exit 65"]')
    (request,) = look(root, instance)
    assert not run(root, instance, request)
    assert (root.path / "runs").read_text() == "run\n"
    assert not (center.place / "from_ssc").exists()
    assert commissioned(instance, root, datetime.now(UTC) + timedelta(days=2)) == []
    observe(root, content="made again")
    told(root)
    (again,) = look(root, instance)
    assert again.run_key != request.run_key


def end_run(
    instance: dg.DagsterInstance, request: dg.RunRequest, status: dg.DagsterRunStatus, **tags: str
) -> None:
    tags |= {**request.tags, RUN_KEY_TAG: str(request.run_key)}
    instance.add_run(dg.DagsterRun(job_name=str(request.job_name), status=status, tags=tags))


def test_a_command_is_run_again_with_growing_pauses_until_the_fault_has_passed(
    root: DataRoot, instance: dg.DagsterInstance, center: Center
) -> None:
    told(root)
    configure(root, '["true"]')
    ended, keys = datetime.now(UTC), set()

    def asked_for(minutes: float) -> list[dg.RunRequest]:
        return commissioned(instance, root, ended + timedelta(minutes=minutes))

    for pause in (2, 4, 8, 16, 32, 60, 60):
        (request,) = asked_for(pause + 1)
        keys.add(request.run_key)
        end_run(instance, request, dg.DagsterRunStatus.FAILURE, **{WILL_RETRY_TAG: "true"})
        assert asked_for(100) == [], "the daemon starts it again"
        end_run(instance, request, dg.DagsterRunStatus.FAILURE)
        assert asked_for(pause - 1) == []
    assert len(keys) == 7
    (request,) = asked_for(62)
    end_run(instance, request, dg.DagsterRunStatus.STARTED)
    assert asked_for(200) == []


@pytest.mark.parametrize("status", ["CANCELED", "SUCCESS"])
def test_a_command_that_was_cancelled_or_has_delivered_is_not_run_again(
    root: DataRoot, instance: dg.DagsterInstance, center: Center, status: str
) -> None:
    told(root)
    configure(root, '["true"]')
    (request,) = look(root, instance)
    end_run(instance, request, dg.DagsterRunStatus[status])
    assert commissioned(instance, root, datetime.now(UTC) + timedelta(days=1)) == []


@pytest.mark.slow
def test_a_command_that_fails_is_tried_again_in_its_run(
    root: DataRoot, instance: dg.DagsterInstance, center: Center, tmp_path: Path
) -> None:
    directory = tmp_path / "made"
    products_of_others(directory)
    told(root)
    once = 'test -e "$ROMAN_ASSETS_DATA/failed" || { touch "$ROMAN_ASSETS_DATA/failed"; exit 1; }'
    script = f'{once}; exec sh "{SCRIPT}" "{directory}"'
    configure(root, json.dumps(["sh", "-c", script]))
    (request,) = look(root, instance)
    assert run(root, instance, request)
    assert (root.path / "failed").exists()
    delivered = [one for one in look(root, instance) if "delivery" in str(one.job_name)]
    assert len(delivered) == 1


@pytest.mark.slow
def test_a_command_is_for_its_survey_and_mode_only(
    root: DataRoot, instance: dg.DagsterInstance, center: Center
) -> None:
    told(root)
    configure(root, '["true"]', mode="grism")
    assert look(root, instance) == []


def test_a_command_without_a_notification_is_told_what_lacks(
    root: DataRoot, tmp_path: Path
) -> None:
    observe(root)
    told(root)
    configure(root, '["true"]')
    work = commission(root, Step.MICROLENSING, VISIT, tmp_path)
    assert work is not None
    with pytest.raises(BadInputError, match="left none in ROMAN_ASSETS_SSC_DELIVERY"):
        deliver(root, work)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("version = 2", "version"),
        ('version = 1\n[[command]]\nmode = "imaging"\nrun = []', "run"),
        ('version = 1\n[[command]]\nmode = "echelle"\nrun = ["x"]', "mode"),
        ("version = 1\n" + 2 * '[[command]]\nmode = "imaging"\nrun = ["x"]\n', "command"),
    ],
)
def test_wrong_settings_are_named(root: DataRoot, text: str, named: str) -> None:
    root.path.mkdir(parents=True)
    (root.path / "ssc.toml").write_text(text)
    with pytest.raises(BadInputError, match=named):
        command_for(root, Survey.GBTDS, Mode.IMAGING)


def test_units_of_a_release_are_handed_over_and_taken_in_after_all_prompt_work(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    season = Season.bulge_alone(tmp_path, monkeypatch)
    release = season.begin("GBTDS")
    for exposure_id in release.exposures:
        calibrate_for_release(season.root, release.partition, exposure_id, workers=1)
    told = look_at_releases(season.root, instance)
    assert isinstance(told, dg.SensorResult)
    ((event,),) = [told.asset_events]
    assert (event.asset_key, event.partition) == (RELEASE_HANDOVER, unit(BULGE))
    again = look_at_releases(season.root, instance)
    assert not isinstance(again, dg.SensorResult), "the SSC is told once"
    season.deliver(BULGE, "r0")
    (request,) = look(season.root, instance)
    assert (request.partition_key, request.job_name) == (
        unit(BULGE),
        "release_microlensing_delivery",
    )
    assert int(request.tags[PRIORITY_TAG]) < 0
    assert run(season.root, instance, request)
    shown = metadata(instance, "release_microlensing_event_catalog")
    assert shown["context"] == LATE
    assert checks(instance)["deliveries_taken_in"]
    assert look(season.root, instance) == []


def test_a_command_is_asked_for_what_a_release_hands_over(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    season = Season.bulge_alone(tmp_path, monkeypatch)
    season.make("GBTDS")
    (season.root.path / "ssc.toml").write_text(
        'version = 1\n[[command]]\nmode = "imaging"\nrun = ["true"]\n'
    )
    (request,) = commissioned(instance, season.root, datetime.now(UTC))
    assert (request.partition_key, request.job_name) == (
        unit(BULGE),
        "release_microlensing_command",
    )
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    work = commission(season.root, Step.RELEASE_MICROLENSING, unit(BULGE), scratch)
    assert work is not None
    assert work.manifest.release is not None
    assert work.manifest.release.context == LATE


def look_at_releases(
    root: DataRoot, instance: dg.DagsterInstance
) -> dg.SensorResult | dg.SkipReason:
    context = dg.build_sensor_context(
        instance=instance, definitions=defs, resources=installation(root)
    )
    result = release_sensor(context)
    assert isinstance(result, dg.SensorResult | dg.SkipReason)
    return result


def test_two_runs_for_the_ssc_that_hang_leave_a_slot_and_are_ended(
    root: DataRoot,
    instance: dg.DagsterInstance,
    center: Center,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told(root)
    configure(root, '["sleep", "1000000"]')
    center.deliver([EVENTS], images())
    monkeypatch.setenv(SSC_RUN_VARIABLE, "2")
    requests = look(root, instance)
    jobs = {request.job_name for request in requests}
    assert jobs == {"microlensing_delivery", "microlensing_command"}
    assert {request.tags["dagster/max_runtime"] for request in requests} == {"7200"}
    settings = yaml.safe_load((project_directory() / "dagster.yaml").read_text())
    runs = [dg.DagsterRun(str(one.job_name), tags=dict(one.tags)) for one in requests]
    admitted = TagConcurrencyLimitsCounter(
        settings["concurrency"]["runs"]["tag_concurrency_limits"], runs[:1]
    )
    assert admitted.is_blocked(runs[1])
    assert not admitted.is_blocked(dg.DagsterRun("exposure_products"))
