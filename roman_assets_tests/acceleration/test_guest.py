import dataclasses
import logging
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from roman_assets.acceleration.accelerations import MODULES, available
from roman_assets.acceleration.compilation import compiled
from roman_assets.acceleration.guest import (
    Acceleration,
    first_difference,
    source_hash,
)
from roman_assets.acceleration.installed import (
    ACCELERATION_VARIABLE,
    InstalledAccelerations,
    acceleration_wanted,
)
from roman_assets.errors import PlatformError
from roman_assets.publishing.workers import WorkerPool, calibration_environment

ALL = tuple(available())


@pytest.mark.parametrize("module", MODULES)
def test_every_acceleration_is_available_with_the_checked_versions(module: str) -> None:
    assert list(available([module]))


@pytest.mark.parametrize("acceleration", ALL, ids=lambda one: one.replaces)
def test_every_acceleration_passes_its_self_test(acceleration: Acceleration) -> None:
    assert acceleration.objection() is None


@pytest.mark.parametrize("acceleration", ALL, ids=lambda one: one.replaces)
def test_every_acceleration_has_a_text_for_upstream(acceleration: Acceleration) -> None:
    text = (Path(__file__).parents[2] / "docs" / "upstream.md").read_text()
    assert f"`{acceleration.replaces.replace(':', '.')}`" in text


def test_installed_accelerations_replace_upstream_until_they_are_removed() -> None:
    before = [acceleration.upstream for acceleration in ALL]
    installation = InstalledAccelerations(available)
    installation.install()
    installation.install()
    assert installation.active == tuple(acceleration.replaces for acceleration in ALL)
    for acceleration in ALL:
        held = {getattr(owner, name) for owner, name in acceleration.places()}
        assert held == {acceleration.replacement}
    installation.remove()
    installation.remove()
    assert [acceleration.upstream for acceleration in ALL] == before


def _benign(coefficients: np.ndarray) -> np.ndarray:
    return np.array([0.0, 1.0, *np.zeros(coefficients.shape[0] - 2)])


EXAMPLE = Acceleration(
    replaces="stcal.linearity.linearity:ben_coeffs",
    replacement=_benign,
    reason="An example.",
    obsolete="Never.",
    checked_with={"stcal": "1.0"},
    source=source_hash(["stcal.linearity.linearity:ben_coeffs"]),
    outputs=lambda function: [function(np.zeros((4, 2, 2)))],
)


def _last_bit(coefficients: np.ndarray) -> np.ndarray:
    return np.nextafter(_benign(coefficients), 2.0)


def _broken(*_: object) -> None:
    raise ZeroDivisionError("of no use")


@pytest.mark.parametrize(
    ("change", "objection"),
    [
        ({"replacement": _last_bit}, r"results differ: output\[0\] at \(0,\)"),
        ({"replacement": _broken}, "ZeroDivisionError: of no use"),
        ({"source": "0" * 64}, "upstream source changed"),
        ({"replaces": "stcal.linearity.linearity:gone"}, "AttributeError"),
    ],
)
def test_one_that_fails_its_self_test_is_left_out_with_a_warning(
    change: dict[str, object], objection: str, caplog: pytest.LogCaptureFixture
) -> None:
    upstream = EXAMPLE.upstream
    damaged = dataclasses.replace(EXAMPLE, checked_with={"stcal": "1.0"}, **change)  # type: ignore[arg-type]
    installation = InstalledAccelerations(lambda: [damaged])
    with caplog.at_level(logging.WARNING):
        installation.install()
    assert installation.active == ()
    assert EXAMPLE.upstream is upstream
    assert "runs unaccelerated" in caplog.text
    assert "checked with 1.0" in caplog.text
    with pytest.raises(AssertionError, match=objection):
        raise AssertionError(installation.objections[damaged.replaces])


def test_one_checked_with_another_version_stays_if_source_and_results_are_the_same() -> None:
    assert EXAMPLE.other_versions() == f"stcal {version('stcal')} (checked with 1.0)"
    assert EXAMPLE.objection() is None


def _active(_: int) -> tuple[str, ...]:
    from roman_assets import preload

    return preload.ACCELERATIONS.active


@pytest.mark.parametrize("chosen", ["on", "off"])
def test_the_setting_decides_for_the_workers(chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ACCELERATION_VARIABLE, chosen)
    with WorkerPool(1, calibration_environment("roman_0001.pmap")) as pool:
        (done,) = pool.run(_active, {"one": 1})
    assert done.value == (tuple(one.replaces for one in ALL) if chosen == "on" else ())


def test_a_module_that_upstream_broke_is_left_out_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        assert list(available(["roman_assets.acceleration.gone"])) == []
    assert "gone, which cannot be imported: ModuleNotFoundError" in caplog.text


def test_another_setting_than_on_and_off_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ACCELERATION_VARIABLE, "no")
    with pytest.raises(PlatformError, match="ROMAN_ASSETS_ACCELERATION='no'"):
        calibration_environment("roman_0001.pmap")
    with pytest.raises(PlatformError, match="ROMAN_ASSETS_ACCELERATION='yes'"):
        acceleration_wanted({ACCELERATION_VARIABLE: "yes"})


def test_outputs_are_compared_to_the_last_bit() -> None:
    values = np.array([1.0, np.nan, 0.0], np.float32)
    assert first_difference({"a": [values]}, {"a": [values.copy()]}) is None
    for changed in (
        np.nextafter(values, np.float32(2)),
        values.astype(np.float64),
        values[:2],
        np.array([1.0, np.nan, -0.0], np.float32),
        np.array([np.nan, np.nan, 0.0], np.float32),
        list(values),
    ):
        assert first_difference({"a": [values]}, {"a": [changed]}) is not None
    assert first_difference((1, "a", None), (1, "b", None)) is not None
    assert first_difference({"a": 1}, {"b": 1}) is not None
    assert first_difference(np.float32(1), 1.0) is not None
    assert first_difference([1], [1, 2]) is not None


def test_loops_are_compiled_also_where_their_code_cannot_be_kept() -> None:
    names: dict[str, Any] = {}
    exec(compile("def twice(value): return 2 * value", "/nowhere/loops.py", "exec"), names)
    assert compiled()(names["twice"])(2.5) == 5
