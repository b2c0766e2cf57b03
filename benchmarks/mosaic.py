"""Compare the platform with plain romancal on the mosaics of one visit.

The platform makes them in one Dagster run; the plain alternative runs ``skycell_asn`` and then
``strun roman_mos`` on each skycell, two at a time. Both start from the same L2 of one visit of two
exposures, use the same pixel grid and the same CRDS cache, and pay for the start of their
processes. Pairs alternate in order. Linux only.

    python benchmarks/mosaic.py                 # two detectors, 512x512 windows
    python benchmarks/mosaic.py --full          # two whole detectors
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from exposure import copy_installation
from usage import Usage, compare, measured, report

SCALE = "native"


@dataclass(frozen=True)
class Case:
    """One visit with L2, and the calibration cache for it."""

    root: Path
    visit: str
    images: tuple[Path, ...]
    environment: dict[str, str]


def simulate(root: Path, detectors: int, window: int | None) -> None:
    """Make L2 of one imaging visit of two exposures, with the CRDS cache for it."""
    from roman_assets.calibration.exposure import calibrate_exposure
    from roman_assets.data_root import DataRoot
    from roman_assets.formatting.formatting_step import format_exposure
    from roman_assets.formatting.landing import LandingArea
    from roman_assets.products.observation import DETECTORS
    from roman_assets.simulation.telescope.observing import observe
    from roman_assets.simulation.telescope.survey_plan import DEMO_REQUESTS, VisitPlan

    data = DataRoot(root)
    plan = VisitPlan.from_requests([DEMO_REQUESTS[0]], detectors=DETECTORS[:detectors])
    exposures = observe(plan, data, window=window, processes=2 if window else 1)
    LandingArea(data).scan()
    for exposure in exposures:
        for made in (format_exposure(data, exposure), calibrate_exposure(data, exposure)):
            if made.failures:
                raise SystemExit(f"{exposure} could not be made: {made.failures}")


def find_case(root: Path) -> Case:
    """Return the visit of an installation with one."""
    from roman_assets.archive.file_archive import FileArchive
    from roman_assets.data_root import DataRoot
    from roman_assets.products.name import ProductName
    from roman_assets.references.context import configure_crds
    from roman_assets.registry.registry import Registry

    data = DataRoot(root)
    names = [ProductName.parse(name) for name in Registry(data).products.find(kind="cal")["name"]]
    (visit,) = {str(name.exposure.visit) for name in names}
    configure_crds(data)
    images = tuple(FileArchive(data).path(name) for name in names)
    return Case(root, visit, images, os.environ | {"OMP_NUM_THREADS": "1"})


def run_platform(case: Case, place: Path) -> Usage:
    """Make the mosaics in a Dagster run, in a process of its own."""
    copy_installation(case.root, place / "data")
    home = place / "dagster"
    home.mkdir()
    usage = measured(
        [sys.executable, __file__, "--run", str(place / "data"), case.visit],
        case.environment | {"DAGSTER_HOME": str(home)},
        place / "log",
    )
    print(f"{len(list((place / 'data').rglob('public/L3/**/*_coadd.asdf')))} coadds by us")
    return usage


def run_plain(case: Case, place: Path, processes: int) -> Usage:
    """Run ``skycell_asn``, then ``strun roman_mos`` on each skycell, as a shell user would."""
    write_grids(case, place)
    for image in case.images:
        (place / image.name).symlink_to(image)
    programs = Path(sys.executable).parent
    script = (
        f"{programs}/skycell_asn --product-type visit --data-release-id p -o mosaic *_cal.asdf && "
        f"printf '%s\\n' *_asn.json | xargs -P {processes} -I@ sh -c '"
        'grid=$(echo @ | grep -o "[0-9]*[pm][0-9]*x[0-9]*y[0-9]*").asdf; '
        f"{programs}/strun roman_mos @ --steps.resample.output_wcs=$grid'"
    )
    usage = measured(["sh", "-c", f"cd {place} && {script}"], case.environment, place / "log")
    print(f"{len(list(place.glob('*_coadd.asdf')))} coadds by the alternative")
    return usage


def write_grids(case: Case, place: Path) -> None:
    """Write the pixel grid of each skycell that an image touches: no command of romancal does."""
    import asdf

    from roman_assets.mosaic.skycell import skycell_wcs, skycells_of
    from roman_assets.products.pixel_scale import PixelScale

    for skycell in {name for image in case.images for name in skycells_of(image)}:
        grid = skycell_wcs(skycell, PixelScale(SCALE))
        asdf.AsdfFile({"wcs": grid}).write_to(place / f"{skycell}.asdf")


def run_in_dagster(root: str, visit: str) -> None:
    """Make the mosaics of a visit in a Dagster run of this process."""
    from usage.dagster_run import materialize

    from roman_assets.defs.lib.partitions import visit_partitions
    from roman_assets.defs.visit.assets import level3

    materialize(level3, visit_partitions, visit, root)


def main() -> None:
    """Parse the command line and compare."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--full", action="store_true", help="whole detectors")
    parser.add_argument("--window", type=int, default=512, help="active pixels along a side")
    parser.add_argument("--detectors", type=int, default=2)
    parser.add_argument("--pairs", type=int, help="default: 3 of windows, 1 of whole detectors")
    parser.add_argument("--processes", type=int, default=2, help="of the alternative at a time")
    parser.add_argument("--keep", type=Path, help="make the L2 there, or use those made before")
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
    size = "full" if options.full else f"window{options.window}"
    with tempfile.TemporaryDirectory() as work:
        root = (options.keep or Path(work) / "data").absolute()
        window = "0" if options.full else str(options.window)
        subprocess.run(
            [sys.executable, __file__, "--simulate", str(root), str(options.detectors), window],
            check=True,
        )
        case = find_case(root)
        print(f"{case.visit}: {len(case.images)} images, {size}, {SCALE} scale", flush=True)
        measurements = compare(
            lambda place: run_platform(case, place),
            lambda place: run_plain(case, place, options.processes),
            options.pairs or (1 if options.full else 3),
            root.parent,
        )
    report(f"mosaic_{size}", measurements)


if __name__ == "__main__":
    main()
