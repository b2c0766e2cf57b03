"""Runs every fuzz target for a stated time."""

from __future__ import annotations

import time
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, Phase, settings

PER_ROUND = 50
"""Examples of one round of a target."""

settings.register_profile(
    "fuzz",
    max_examples=PER_ROUND,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("fuzz")


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Repeat a target with new random examples until its seconds have passed."""
    end = time.monotonic() + float(pyfuncitem.config.getoption("fuzz_seconds"))
    done = yield
    while time.monotonic() < end:
        pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in _arguments(pyfuncitem)})
    return done


def _arguments(item: pytest.Function) -> tuple[str, ...]:
    return tuple(item._fixtureinfo.argnames)
