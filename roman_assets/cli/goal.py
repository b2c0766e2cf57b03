"""What a plan has to become, and how far it is: for commands that wait for products."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from roman_assets.data_root import DataRoot
from roman_assets.errors import PassingFaultError, PlatformError
from roman_assets.products.kind import (
    DELIVERY_STEPS,
    SOC_STEPS,
    VISIT_STEPS,
    Step,
    expected_kinds,
)
from roman_assets.registry.registry import Registry
from roman_assets.ssc.command import Mode, command_for

if TYPE_CHECKING:
    from roman_assets.defs.lib.runs import Runs
    from roman_assets.simulation.telescope.survey_plan import VisitPlan

_POLL_SECONDS = 2.0
_TITLES: Mapping[Step, str] = {
    Step.FORMATTING: "L1 of exposures",
    Step.EXPOSURE: "L2 and L4 of exposures",
    Step.VISIT: "L3 and L4 of visits",
    Step.MICROLENSING: "SSC: microlensing",
    Step.SPECTRA: "SSC: spectra of exposures",
    Step.COMBINED_SPECTRA: "SSC: spectra of visits",
}


@dataclass(frozen=True)
class Goal:
    """The partitions that each step has to make.

    Parameters
    ----------
    partitions
        By step.
    """

    partitions: Mapping[Step, frozenset[str]]

    @classmethod
    def of(cls, plan: VisitPlan, root: DataRoot) -> Goal:
        """Derive it from a plan.

        What the SSC makes (R12) is part of it where the installation has a command in its place;
        deliveries from outside are not waited for.
        """
        partitions: dict[Step, set[str]] = {}
        for planned in plan.exposures:
            mode = Mode.of(planned.optical_element)
            commanded = command_for(root, planned.survey, mode) is not None
            for step in (*SOC_STEPS, *(DELIVERY_STEPS if commanded else ())):
                if expected_kinds(planned.survey, planned.exposure_type, (step,)):
                    exposure = planned.exposure
                    key = exposure.visit if step in VISIT_STEPS else exposure
                    partitions.setdefault(step, set()).add(str(key))
        return cls({step: frozenset(keys) for step, keys in partitions.items()})

    def reached(self, registry: Registry) -> Mapping[Step, frozenset[str]]:
        """Return the partitions that have been made, by step."""
        return {
            step: wanted & frozenset(registry.work.partition_state(step)["partition"])
            for step, wanted in self.partitions.items()
        }

    def wait(
        self,
        registry: Registry,
        runs: Runs,
        timeout: timedelta,
        console: Console,
    ) -> None:
        """Show the progress until everything is made and no run is left.

        Raises
        ------
        PassingFaultError
            If time is up.
        PlatformError
            If a run failed and will not be tried again.
        """
        end = time.monotonic() + timeout.total_seconds()
        columns = (TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
            tasks = {
                step: progress.add_task(_TITLES[step], total=len(wanted))
                for step, wanted in self.partitions.items()
            }
            while True:
                reached = self.reached(registry)
                for step, task in tasks.items():
                    progress.update(task, completed=len(reached[step]))
                if reached == self.partitions and not runs.any_unfinished():
                    return
                self._raise_failed(runs)
                if time.monotonic() > end:
                    raise PassingFaultError(
                        f"not everything was made within {timeout}; it goes on where it is "
                        "with `roman-assets dev`"
                    )
                time.sleep(_POLL_SECONDS)

    def _raise_failed(self, runs: Runs) -> None:
        if runs.any_unfinished():
            return
        wanted = frozenset().union(*self.partitions.values())
        failed = {partition: run for partition, run in runs.failed().items() if partition in wanted}
        if failed:
            partition, run_id = min(failed.items())
            raise PlatformError(
                f"{len(failed)} runs failed, the one of {partition} among them; "
                f"`roman-assets dev` shows why: /runs/{run_id}"
            )
