"""What commands cost: wall time, CPU time of all processes and peak memory, from outside.

Linux only.
"""

from __future__ import annotations

import ctypes
import os
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from usage.ratios import print_ratio

PR_SET_CHILD_SUBREAPER = 36
SAMPLING_INTERVAL = 0.5
GIB = 2**30


@dataclass(frozen=True)
class Usage:
    """What a command cost."""

    wall: float
    cpu: float
    peak_memory: float

    def __str__(self) -> str:
        return (
            f"{self.wall:7.1f} s wall {self.cpu:7.1f} s CPU {self.peak_memory / GIB:6.2f} GiB peak"
        )


def measured(command: list[str], environment: dict[str, str], log: Path) -> Usage:
    """Run a command in a session of its own and add up all its processes, orphans included."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with log.open("wb") as output:
        begun = time.perf_counter()
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=output, start_new_session=True
        )
        memory = _PeakMemory(process.pid)
        memory.start()
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - begun
        memory.stop()
    cpu = usage.ru_utime + usage.ru_stime + _orphans_cpu()
    if os.waitstatus_to_exitcode(status) != 0:
        raise SystemExit(f"{command} failed:\n{log.read_text(errors='replace')[-4000:]}")
    return Usage(wall, cpu, memory.peak)


def _orphans_cpu() -> float:
    seconds = 0.0
    while True:
        try:
            _, _, usage = os.wait3(0)
        except ChildProcessError:
            return seconds
        seconds += usage.ru_utime + usage.ru_stime


class _PeakMemory(threading.Thread):
    """Samples the memory of all processes of a session."""

    def __init__(self, session: int) -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self._session = session
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(SAMPLING_INTERVAL):
            self.peak = max(self.peak, sum(map(_memory, self._processes())))

    def stop(self) -> None:
        self._ended.set()
        self.join()

    def _processes(self) -> list[Path]:
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                session = int((path / "stat").read_text().rsplit(")", 1)[1].split()[3])
            except (OSError, IndexError):
                continue
            if session == self._session:
                found.append(path)
        return found


def _memory(process: Path) -> int:
    try:
        for line in (process / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def compare(
    ours: Callable[[Path], Usage], alternative: Callable[[Path], Usage], pairs: int, work: Path
) -> list[tuple[Usage, Usage]]:
    """Measure pairs (ours, the alternative), each pair in the other order than the one before.

    Each of the two functions does its work in an empty directory below ``work``.
    """
    commands = {"ours": ours, "alternative": alternative}
    measurements = []
    for number in range(pairs):
        results: dict[str, Usage] = {}
        for name in list(commands)[:: 1 if number % 2 == 0 else -1]:
            with tempfile.TemporaryDirectory(dir=work) as directory:
                results[name] = commands[name](Path(directory))
            print(f"pair {number + 1} {name:11} {results[name]}", flush=True)
        measurements.append((results["ours"], results["alternative"]))
    return measurements


def report(name: str, measurements: list[tuple[Usage, Usage]]) -> None:
    """Print the median over the pairs of each ratio of alternative to ours."""
    for quantity, unit in (("wall", "wall"), ("cpu", "cpu"), ("peak_memory", "peak_memory")):
        ratio = statistics.median(
            getattr(alternative, quantity) / getattr(ours, quantity)
            for ours, alternative in measurements
        )
        print_ratio(f"{name}_{unit}", ratio)
