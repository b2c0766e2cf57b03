"""How long the steps take: figures that were measured, by step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError
from roman_assets.products.kind import Step
from roman_assets.registry.registry import Registry

STEPS: tuple[Step, ...] = (Step.FORMATTING, Step.EXPOSURE, Step.VISIT)

UNIT_OF_STEP: Mapping[Step, str] = MappingProxyType(
    {Step.FORMATTING: "detector", Step.EXPOSURE: "detector", Step.VISIT: "skycell"}
)
"""What the time of a step grows with."""


@dataclass(frozen=True)
class StepTime:
    """The measured times of one step.

    Parameters
    ----------
    worker_seconds
        Seconds that one worker spent on one unit (see `UNIT_OF_STEP`), one for each measurement;
        every rehearsed piece of work takes one of them.
    source
        Where they come from.
    parallel
        Whether the workers of a machine share the units of one piece of work.

    Raises
    ------
    BadInputError
        Without measurements, or if one is not positive.
    """

    worker_seconds: tuple[float, ...]
    source: str
    parallel: bool = True

    def __post_init__(self) -> None:
        if not self.worker_seconds or min(self.worker_seconds) <= 0:
            raise BadInputError(
                self.source, "worker_seconds", f"{self.worker_seconds} are not times",
                "give at least one, all positive",
            )  # fmt: skip

    def duration(self, units: int, workers: int, draw: float) -> float:
        """Return the seconds that a machine takes.

        Parameters
        ----------
        units
            Detectors or skycells.
        workers
            Of the machine.
        draw
            From [0, 1): which of the measured times.
        """
        seconds = self.worker_seconds[int(draw * len(self.worker_seconds))]
        return seconds * (max(1.0, units / workers) if self.parallel else units)

    @property
    def median(self) -> float:
        """The median of the measured times, seconds."""
        ordered = sorted(self.worker_seconds)
        return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


ProcessingTimes = Mapping[Step, StepTime]

WHOLE_DETECTORS: ProcessingTimes = MappingProxyType(
    {
        Step.FORMATTING: StepTime(
            (4.5,), "docs/performance.md: whole detector of 8 resultants", parallel=False
        ),
        Step.EXPOSURE: StepTime(
            (44.4, 47.3), "docs/performance.md: CPU time of whole detectors, with accelerations"
        ),
        Step.VISIT: StepTime(
            (
                8.9, 10.1, 10.2, 11.0, 14.0, 14.6, 16.6, 17.2, 19.1, 19.4, 21.2, 25.1, 27.4, 27.4,
                34.3,
            ),
            "docs/rehearsal.md: the skycells of a visit of two exposures, native scale",
        ),
    }
)  # fmt: skip
"""Figures for whole detectors, used where an installation has none of its own."""


def measured_times(root: DataRoot, workers: int) -> ProcessingTimes | None:
    """Take the times that the steps of an installation took.

    Parameters
    ----------
    root
        The installation.
    workers
        How many it has on the machine that did the work.

    Returns
    -------
    mapping of Step to StepTime, or None
        None unless every step has been measured at least once.
    """
    with Registry(root) as registry:
        found = {step: registry.work.unit_times(step) for step in STEPS}
    if not all(found.values()):
        return None
    return {
        step: StepTime(
            tuple(
                seconds / units * (min(workers, units) if WHOLE_DETECTORS[step].parallel else 1)
                for seconds, units in measured
            ),
            f"{len(measured)} measured in {root.path}",
            WHOLE_DETECTORS[step].parallel,
        )
        for step, measured in found.items()
    }
