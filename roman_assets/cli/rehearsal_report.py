"""What ``rehearse`` prints and writes: verdicts, blame, the search, the premises."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import typer
from rich.table import Table

from roman_assets.cli.terminal import terminal
from roman_assets.products.deadline import ProductState
from roman_assets.rehearsal.figure import draw
from roman_assets.rehearsal.processing import UNIT_OF_STEP
from roman_assets.rehearsal.rehearsal import Rehearsal
from roman_assets.rehearsal.sizing import Sizing, Trial
from roman_assets.rehearsal.timeline import Timeline, longest_wait
from roman_assets.rehearsal.verdict import LevelVerdict, verdicts

PICTURE = "rehearsal.png"
NUMBERS = "rehearsal.json"
_SHOWN_PERCENTILES = (0, 5, 50)


@dataclass(frozen=True)
class RehearsalReport:
    """A rehearsal with what the ledger says of it.

    Parameters
    ----------
    rehearsal
        What was replayed.
    sizing
        The search for workers, None if there was none.
    levels
        The ledger's verdicts.
    timeline
        How busy the platform was.
    directory
        Where picture and numbers go, None for nowhere.
    """

    rehearsal: Rehearsal
    sizing: Sizing | None
    levels: tuple[LevelVerdict, ...]
    timeline: Timeline
    directory: Path | None

    @classmethod
    def of(cls, rehearsal: Rehearsal, sizing: Sizing | None, directory: Path | None) -> Self:
        """Read the ledger of a rehearsal, and draw the picture if there is a directory for it."""
        with rehearsal.ledger() as connection:
            levels = verdicts(connection)
            if directory is not None:
                directory.mkdir(parents=True, exist_ok=True)
                draw(rehearsal, connection, directory / PICTURE)
        timeline = Timeline.of(rehearsal.log, rehearsal.platform)
        return cls(rehearsal, sizing, levels, timeline, directory)

    def print(self, as_json: bool, seconds: float) -> None:
        """Print tables or JSON, and write the latter to the directory.

        Parameters
        ----------
        as_json
            Whether JSON is printed.
        seconds
            What the rehearsal took.
        """
        numbers = json.dumps(self.numbers() | {"seconds": round(seconds, 1)}, indent=1)
        if self.directory is not None:
            (self.directory / NUMBERS).write_text(numbers + "\n")
        if as_json:
            typer.echo(numbers)
            return
        console = terminal()
        for line in self._premises():
            console.print(line, highlight=False)
        console.print(self._verdict_table())
        if any(level.missed for level in self.levels):
            console.print(self._blame_table())
        if self.sizing is not None:
            console.print(self._sizing_table(self.sizing))
        console.print(f"{self.summary} ({seconds:.0f} s)", highlight=False)

    @property
    def summary(self) -> str:
        """The result in one sentence."""
        workers = self.rehearsal.platform.workers
        kept = sum(level.kept for level in self.levels)
        missed = sum(level.missed for level in self.levels)
        text = f"{workers} workers keep {kept:,} deadlines and miss {missed:,}"
        if self.sizing is None:
            return f"{text}."
        fewest = self._workers(self.sizing.machines)
        return f"{text}; {fewest} are the fewest with which none is missed for want of workers."

    def numbers(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        scenario, platform = self.rehearsal.scenario, self.rehearsal.platform
        return {
            "exposures": len(scenario.observations.exposures),
            "visits": len(scenario.observations.visits),
            "seed": scenario.seed,
            "faults": asdict(scenario.rates),
            "downlink": {name: _plain(value) for name, value in asdict(scenario.downlink).items()},
            "times": {
                str(step): {
                    "worker_seconds": found.median,
                    "measurements": len(found.worker_seconds),
                    "per": UNIT_OF_STEP[step],
                    "source": found.source,
                }
                for step, found in scenario.times.items()
            },
            "platform": {name: _plain(value) for name, value in asdict(platform).items()},
            "levels": [_level(level) for level in self.levels],
            "workers_busy_on_busiest_day": round(self._busy(), 3),
            "longest_queue": self.timeline.longest_queue,
            "longest_wait_hours": round(longest_wait(self.rehearsal.log), 3),
            "search": self._search(),
        }

    def _search(self) -> dict[str, Any] | None:
        if self.sizing is None:
            return None
        return {
            "fewest_workers": self._workers(self.sizing.machines),
            "attainable": self.sizing.attainable,
            "trials": [
                {
                    "workers": None if one.machines is None else self._workers(one.machines),
                    "kept": one.kept,
                }
                for one in self.sizing.trials
            ],
        }

    def _workers(self, machines: int) -> int:
        return machines * self.rehearsal.platform.workers_per_machine

    def _busy(self) -> float:
        """Return the part of the workers that is at work on the busiest day."""
        return self.timeline.busiest_day / self.rehearsal.platform.workers

    def _premises(self) -> Iterator[str]:
        scenario, platform = self.rehearsal.scenario, self.rehearsal.platform
        wrong = {name: rate for name, rate in asdict(scenario.rates).items() if rate}
        yield (
            f"{len(scenario.observations.exposures):,} exposures of "
            f"{len(scenario.observations.visits):,} visits on {platform.workers} workers, "
            f"{platform.workers_per_machine} on a machine, {platform.most_runs} runs at once"
        )
        yield f"seed {scenario.seed}, faults: " + (
            ", ".join(f"{name} {rate:g}" for name, rate in wrong.items()) or "none"
        )
        for step, found in scenario.times.items():
            count = len(found.worker_seconds)
            yield (
                f"{step}: {found.median:.3g} s of a worker for a {UNIT_OF_STEP[step]} "
                f"(median of {count}: {found.source})"
            )
        yield (
            f"{100 * self._busy():.0f} % of the workers at work on the busiest day, at most "
            f"{self.timeline.longest_queue:,} runs in the queue, "
            f"longest wait there {longest_wait(self.rehearsal.log):.1f} h"
        )

    def _verdict_table(self) -> Table:
        table = Table(
            "survey", "level", "products", "kept", "made late", "overdue", "failed",
            "no deadline", *(f"margin {q} %" if q else "least margin" for q in _SHOWN_PERCENTILES),
            title="Deadlines",
            caption="products; no deadline: not all of their exposure was ever received; "
            "margins of those that were made",
        )  # fmt: skip
        for level in self.levels:
            table.add_row(
                level.survey,
                level.level,
                f"{level.products:,}",
                f"[green]{level.kept:,}[/green]",
                *(
                    _warned(level.states.get(state, 0))
                    for state in (
                        ProductState.MADE_LATE,
                        ProductState.OVERDUE,
                        ProductState.FAILED,
                    )
                ),
                f"{level.without_deadline:,}",
                *(
                    f"{level.margins[q]:.1f} h" if q in level.margins else "-"
                    for q in _SHOWN_PERCENTILES
                ),
            )
        return table

    def _blame_table(self) -> Table:
        blames = sorted({blame for level in self.levels for blame in level.blame_hours})
        table = Table(
            "survey", "level", "missed", *blames, title="Blame for the missed ones",
            caption="products, by what took most of their time; mean hours of all of them",
        )  # fmt: skip
        for level in self.levels:
            if not level.missed:
                continue
            table.add_row(
                level.survey,
                level.level,
                f"{level.missed:,}",
                *(
                    f"{level.missed_by_blame.get(blame, 0):,} "
                    f"({level.blame_hours[blame] / level.missed:.1f} h)"
                    for blame in blames
                ),
            )
        return table

    def _sizing_table(self, sizing: Sizing) -> Table:
        table = Table(
            "workers", "machines", "kept", "missed for want of workers",
            title="Search for workers", caption="products; every row is a rehearsal",
        )  # fmt: skip
        for one in sizing.trials:
            table.add_row(*self._trial(one, sizing), style=_style(one, sizing))
        return table

    def _trial(self, trial: Trial, sizing: Sizing) -> Iterator[str]:
        machines = trial.machines
        yield "as many as there is work for" if machines is None else str(self._workers(machines))
        yield "" if machines is None else str(machines)
        yield f"{trial.kept:,}"
        yield f"{sizing.attainable - trial.kept:,}"


def _style(trial: Trial, sizing: Sizing) -> str:
    return "bold green" if trial.machines == sizing.machines else ""


def _warned(count: int) -> str:
    return f"[red]{count:,}[/red]" if count else "0"


def _plain(value: Any) -> Any:
    """Return times in seconds, everything else as it is."""
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value.total_seconds() if hasattr(value, "total_seconds") else value


def _level(level: LevelVerdict) -> dict[str, Any]:
    return {
        "survey": str(level.survey),
        "level": str(level.level),
        "products": level.products,
        "kept": level.kept,
        "missed": level.missed,
        "without_deadline": level.without_deadline,
        "not_expected": level.not_expected,
        "made_again": level.made_again,
        "states": {str(state): count for state, count in level.states.items()},
        "margin_hours": {str(q): round(margin, 4) for q, margin in level.margins.items()},
        "missed_by_blame": {str(blame): n for blame, n in level.missed_by_blame.items()},
        "blame_hours": {str(blame): round(h, 1) for blame, h in level.blame_hours.items()},
    }
