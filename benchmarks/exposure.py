"""Compare the platform with plain romancal on the same exposure.

The platform does an exposure in one Dagster run; the plain alternative runs ``strun roman_elp`` on
each L1 file, two at a time. Both start from the same L1 and the same CRDS cache, and both pay for
the start of their processes. Wall time, CPU time of all processes and peak memory (proportional
set size of all processes together) are measured from outside, in the same way. Pairs alternate in
order. Linux only.

    python benchmarks/exposure.py                      # 18 detectors, 512x512 windows
    python benchmarks/exposure.py --full --detectors 1  # one whole detector
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from usage import Usage, compare, measured, report


@dataclass(frozen=True)
class Case:
    """One exposure with L1, and the calibration cache for it."""

    root: Path
    exposure: str
    ramps: tuple[Path, ...]
    environment: dict[str, str]


def simulate(root: Path, detectors: int, window: int | None) -> None:
    """Make L1 of one imaging exposure, from packets, with the CRDS cache for it."""
    from dataclasses import replace

    from roman_assets.data_root import DataRoot
    from roman_assets.formatting.formatting_step import format_exposure
    from roman_assets.formatting.landing import LandingArea
    from roman_assets.products.observation import DETECTORS
    from roman_assets.simulation.telescope.observing import observe
    from roman_assets.simulation.telescope.survey_plan import DEMO_REQUESTS, VisitPlan

    data = DataRoot(root)
    request = replace(DEMO_REQUESTS[0], dither="NONE")
    plan = VisitPlan.from_requests([request], detectors=DETECTORS[:detectors])
    (exposure,) = observe(plan, data, window=window, processes=2 if window else 1)
    LandingArea(data).scan()
    made = format_exposure(data, exposure)
    if made.failures:
        raise SystemExit(f"L1 could not be made: {made.failures}")


def find_case(root: Path) -> Case:
    """Give the exposure of an installation with one."""
    from roman_assets.archive.file_archive import FileArchive
    from roman_assets.data_root import DataRoot
    from roman_assets.products.name import ProductName
    from roman_assets.references.context import configure_crds
    from roman_assets.registry.registry import Registry

    data = DataRoot(root)
    names = [ProductName.parse(name) for name in Registry(data).products.find(kind="uncal")["name"]]
    (exposure,) = {str(name.exposure) for name in names}
    configure_crds(data)
    ramps = tuple(FileArchive(data).path(name) for name in names)
    return Case(root, exposure, ramps, os.environ | {"OMP_NUM_THREADS": "1"})


def copy_installation(template: Path, target: Path) -> None:
    """Give a fresh installation with the same L1: large files are linked, the registry copied."""
    for name in ("archive", "landing"):
        shutil.copytree(template / name, target / name, copy_function=os.link)
    shutil.copytree(template / "registry", target / "registry")


def run_platform(case: Case, place: Path) -> Usage:
    """Calibrate the exposure in a Dagster run, in a process of its own."""
    copy_installation(case.root, place / "data")
    home = place / "dagster"
    home.mkdir()
    usage = measured(
        [sys.executable, __file__, "--run", str(place / "data"), case.exposure],
        case.environment | {"DAGSTER_HOME": str(home)},
        place / "log",
    )
    return _with_products(usage, (place / "data").rglob("public/L2/**/*_cal.asdf"), case)


def run_plain(case: Case, place: Path, processes: int) -> Usage:
    """Run ``strun roman_elp`` on each L1 file, some at a time, as a shell user would."""
    strun = Path(sys.executable).with_name("strun")
    listing = place / "ramps"
    listing.write_text("".join(f"{ramp}\0" for ramp in case.ramps))
    options = ["--output_dir", str(place), *_reference_positions(case)]
    command = ["xargs", "-0", "-a", str(listing), "-P", str(processes), "-I{}"]
    usage = measured(
        [*command, str(strun), "roman_elp", "{}", *options], case.environment, place / "log"
    )
    return _with_products(usage, place.glob("*_cal.asdf"), case)


def _reference_positions(case: Case) -> list[str]:
    from roman_assets.data_root import DataRoot
    from roman_assets.references.context import astrometric_catalog

    catalog = astrometric_catalog(DataRoot(case.root))
    return [] if catalog is None else [f"--steps.tweakreg.abs_refcat={catalog}"]


def _with_products(usage: Usage, images: Iterable[Path], case: Case) -> Usage:
    made = len(list(images))
    if made != len(case.ramps):
        raise SystemExit(f"{made} L2 images instead of {len(case.ramps)}")
    return usage


def run_in_dagster(root: str, exposure: str) -> None:
    """Calibrate an exposure in a Dagster run of this process."""
    from usage.dagster_run import materialize

    from roman_assets.defs.exposure.assets import level2
    from roman_assets.defs.lib.partitions import exposure_partitions

    materialize(level2, exposure_partitions, exposure, root)


def main() -> None:
    """Parse the command line and compare."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--window", type=int, default=512, help="active pixels along a side")
    size.add_argument("--full", action="store_true", help="whole detectors")
    parser.add_argument("--detectors", type=int, help="default: 18 windows or 1 whole detector")
    parser.add_argument("--pairs", type=int, help="default: 3 of windows, 1 of whole detectors")
    parser.add_argument("--processes", type=int, default=2, help="of the alternative at a time")
    parser.add_argument("--keep", type=Path, help="make the L1 there, or use those made before")
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--simulate", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.simulate:
        root, detectors, window = options.simulate
        simulate(Path(root), int(detectors), int(window) or None)
        return
    if options.run:
        run_in_dagster(*options.run)
        return
    detectors = options.detectors or (1 if options.full else 18)
    pairs = options.pairs or (1 if options.full else 3)
    size_name = "full" if options.full else f"window{options.window}"
    with tempfile.TemporaryDirectory() as work:
        root = (options.keep or Path(work) / "data").absolute()
        # in a process of its own: what it leaves running must not be waited for
        subprocess.run(
            [
                *(sys.executable, __file__, "--simulate", str(root), str(detectors)),
                "0" if options.full else str(options.window),
            ],
            check=True,
        )
        case = find_case(root)
        print(f"{case.exposure}: {len(case.ramps)} detectors, {size_name}", flush=True)
        measurements = compare(
            lambda place: run_platform(case, place),
            lambda place: run_plain(case, place, options.processes),
            pairs,
            root.parent,
        )
    report(f"exposure_{size_name}_{detectors}", measurements)


if __name__ == "__main__":
    main()
