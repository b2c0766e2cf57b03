"""Observing: a plan is carried out, and what the telescope sends lands."""

from __future__ import annotations

import math
import multiprocessing
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from itertools import islice

import numpy as np
from astropy.coordinates import SkyCoord

from roman_assets.data_root import DataRoot
from roman_assets.errors import PassingFaultError
from roman_assets.formatting.executed_visit import GuideStar
from roman_assets.formatting.orbit_ephemeris import EphemerisKind
from roman_assets.formatting.telemetry import DetectorReadout, GuideWindowReadout, Telemetry
from roman_assets.products.observation import ExposureId, ExposureType, Survey
from roman_assets.simulation.telescope.crds_cache import DEFAULT_FIELDS, build_crds_cache
from roman_assets.simulation.telescope.detector_geometry import active_pixels, detector_wcs
from roman_assets.simulation.telescope.downlink import Downlink, DownlinkDelivery
from roman_assets.simulation.telescope.ephemeris import orbit_message
from roman_assets.simulation.telescope.execution import executed_visit, ma_table_document
from roman_assets.simulation.telescope.guiding import Wander, face_telemetry
from roman_assets.simulation.telescope.lensing import LensingSeason
from roman_assets.simulation.telescope.multiaccum import ma_table
from roman_assets.simulation.telescope.planned_exposure import PlannedExposure, Pointing
from roman_assets.simulation.telescope.point_spread import PIXEL_SCALE, PSF_RADIUS
from roman_assets.simulation.telescope.scene import SkyCircle
from roman_assets.simulation.telescope.spectrum import with_lines
from roman_assets.simulation.telescope.survey_plan import VisitPlan
from roman_assets.simulation.telescope.telescope import (
    DEFAULT_SEED,
    DEFAULT_WINDOW,
    SPECTRAL_REACH,
    PointingError,
    Telescope,
)
from roman_assets.simulation.telescope.truth import write_truth

Progress = Callable[[str, int, int], None]
"""Called with what is being made, how many of its kind are done, and how many there are."""
_FIELD_MARGIN, _FIELD_STEP = 0.05, 0.1
"""Degrees beyond what the first pointing in a new field needs, and to which that is rounded up."""
_LOOKAHEAD = 2
"""Readouts to have in hand for each process."""


def observe(
    plan: VisitPlan,
    root: DataRoot,
    *,
    seed: int = DEFAULT_SEED,
    window: int | None = DEFAULT_WINDOW,
    pointing_error: PointingError | None = None,
    delivery: DownlinkDelivery | None = None,
    definitive_ephemeris: bool = False,
    lost: Collection[int] = (),
    processes: int = 2,
    progress: Progress | None = None,
) -> tuple[ExposureId, ...]:
    """Carry a plan out: calibrate the instrument, take the exposures, land the data.

    Builds what is missing in the CRDS cache of the installation, writes the truth table of each
    visit (see `roman_assets.simulation.telescope.truth`), and lands the predicted ephemeris, the MA
    tables, the packets of each exposure, and each executed visit after its last exposure. The same
    plan, seed, window and pointing error always land the same bytes; doing it again after an
    interruption is safe.

    Parameters
    ----------
    plan
        What to observe.
    root
        The installation to feed.
    seed
        Decides the simulated sky, the detectors and all noise.
    window
        Active pixels along a side of the detectors, None for whole ones.
    pointing_error
        How the true pointing differs from the planned one.
    delivery
        How the data arrive; at once and in order unless told otherwise.
    definitive_ephemeris
        Whether to land the definitive ephemeris too (otherwise later, by
        `send_definitive_ephemeris`).
    lost
        Exposures of each visit, by number, that are executed and never received.
    processes
        How many detectors to simulate at the same time.
    progress
        Called as the cache and the readouts are made.

    Returns
    -------
    tuple of ExposureId
        The exposures taken, lost ones too.

    Raises
    ------
    BadInputError
        If the cache was made with another seed or window, or the orbit does not cover the plan.
    PassingFaultError
        If the disk is full or a process was lost.
    """
    build_crds_cache(
        root.crds,
        detectors=plan.detectors,
        optical_elements=plan.optical_elements,
        window=window,
        seed=seed,
        sky_fields=sky_fields(plan, window),
        progress=progress,
    )
    telescope = Telescope(
        seed,
        window,
        pointing_error or PointingError(),
        root.crds,
        LensingSeason.of(plan.exposures, seed),
    )
    downlink = Downlink(root, delivery)
    _send_ephemeris(plan, downlink, EphemerisKind.PREDICTED)
    for number in sorted({planned.ma_table_number for planned in plan.exposures}):
        downlink.send_document(ma_table_document(ma_table(number)))
    received = [one for one in plan.exposures if one.exposure.exposure not in lost]
    readouts = _readouts(telescope, received, processes, progress)
    for exposures in plan.visits.values():
        _write_truth(telescope, root, exposures)
        stars = {}
        for planned in exposures:
            stars[planned.exposure] = {
                name: telescope.guide_star(planned, name) for name in planned.detectors
            }
            if planned in received:
                _send_exposure(telescope, planned, stars[planned.exposure], readouts, downlink)
        downlink.send_document(executed_visit(exposures, stars, window))
    if definitive_ephemeris:
        _send_ephemeris(plan, downlink, EphemerisKind.DEFINITIVE)
    return tuple(planned.exposure for planned in plan.exposures)


def send_definitive_ephemeris(
    plan: VisitPlan, root: DataRoot, *, delivery: DownlinkDelivery | None = None
) -> None:
    """Land the definitive ephemeris of a plan that was observed (R3, R4)."""
    _send_ephemeris(plan, Downlink(root, delivery), EphemerisKind.DEFINITIVE)


def sky_fields(plan: VisitPlan, window: int | None = DEFAULT_WINDOW) -> tuple[SkyCircle, ...]:
    """Return parts of the sky that hold all that the detectors of a plan see.

    The field of the real stars comes first, so that most plans need no other, and an existing cache
    covers them.

    Parameters
    ----------
    plan
        What to observe.
    window
        Active pixels along a side of the detectors, None for whole ones.
    """
    reach = max(_reach(detector, window) for detector in plan.detectors)
    fields = list(DEFAULT_FIELDS)
    used: dict[SkyCircle, None] = {}
    for pointing in dict.fromkeys(planned.pointing for planned in plan.exposures):
        field = next((circle for circle in fields if _covers(circle, pointing, reach)), None)
        if field is None:
            steps = math.ceil((reach + _FIELD_MARGIN) / _FIELD_STEP)
            field = SkyCircle(pointing.ra, pointing.dec, round(steps * _FIELD_STEP, 1))
            fields.append(field)
        used[field] = None
    return tuple(used)


def _reach(detector: str, window: int | None) -> float:
    """Return the angle (degrees) from WFI_CEN to the farthest light that reaches a detector."""
    wcs = detector_wcs(detector, 0.0, 0.0, 0.0, window)
    middle = (active_pixels(window) - 1) / 2
    centre = SkyCoord(*(float(angle) for angle in wcs(middle, middle)), unit="deg")
    pixels = active_pixels(window) / np.sqrt(2) + PSF_RADIUS + SPECTRAL_REACH
    return float(
        SkyCoord(0.0, 0.0, unit="deg").separation(centre).deg + pixels * PIXEL_SCALE / 3600
    )


def _covers(circle: SkyCircle, pointing: Pointing, reach: float) -> bool:
    centre, place = (SkyCoord(where.ra, where.dec, unit="deg") for where in (circle, pointing))
    return bool(centre.separation(place).deg + reach <= circle.radius)


def _send_ephemeris(plan: VisitPlan, downlink: Downlink, kind: EphemerisKind) -> None:
    start = min(planned.start for planned in plan.exposures)
    stop = max(planned.end for planned in plan.exposures)
    name = f"orbit_{kind.lower()}_{start:%Y%j%H%M%S}_{stop:%Y%j%H%M%S}"
    downlink.send_ephemeris(name, orbit_message(start, stop, kind))


def _write_truth(
    telescope: Telescope, root: DataRoot, exposures: tuple[PlannedExposure, ...]
) -> None:
    fields = [telescope.field(planned, name) for planned in exposures for name in planned.detectors]
    table = telescope.scene.sources(fields)
    if telescope.lensing is not None and exposures[0].survey is Survey.GBTDS:
        table = telescope.lensing.events(table)
    if any(one.exposure_type is ExposureType.WFI_SPECTRAL for one in exposures):
        table = with_lines(table, telescope.seed)
    table.meta["seed"], table.meta["window"] = telescope.seed, telescope.window
    table.meta["true_pointing"] = {
        str(planned.exposure): asdict(telescope.true_pointing(planned)) for planned in exposures
    }
    write_truth(root, exposures[0].exposure.visit, table)


def _send_exposure(
    telescope: Telescope,
    planned: PlannedExposure,
    stars: Mapping[str, GuideStar],
    readouts: Iterator[tuple[DetectorReadout, GuideWindowReadout]],
    downlink: Downlink,
) -> None:
    def telemetry() -> Iterator[Telemetry]:
        for pair in islice(readouts, len(planned.detectors)):
            yield from pair
        wander = Wander.of(planned, telescope.seed)
        yield face_telemetry(planned, stars, wander, seed=telescope.seed)

    downlink.send(str(planned.exposure), telemetry())


def _readouts(
    telescope: Telescope,
    exposures: Sequence[PlannedExposure],
    processes: int,
    progress: Progress | None,
) -> Iterator[tuple[DetectorReadout, GuideWindowReadout]]:
    """Expose all detectors in the plan's order, a few ahead of what was asked for."""
    tasks = [(planned, name) for planned in exposures for name in planned.detectors]
    made = _expose_all(telescope, tasks, processes)
    for done, (planned, name) in enumerate(tasks):
        if progress is not None:
            progress(f"{planned.exposure} {name}", done, len(tasks))
        yield next(made)


def _expose_all(
    telescope: Telescope, tasks: list[tuple[PlannedExposure, str]], processes: int
) -> Iterator[tuple[DetectorReadout, GuideWindowReadout]]:
    if processes == 1 or len(tasks) == 1:
        yield from (telescope.expose(*task) for task in tasks)
        return
    # A plain fork is unsafe once libraries have started threads, and the one fork server that a
    # process can have is that of the pipelines.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        waiting: deque[Future[tuple[DetectorReadout, GuideWindowReadout]]] = deque()
        todo = iter(tasks)
        try:
            for task in islice(todo, _LOOKAHEAD * processes):
                waiting.append(pool.submit(telescope.expose, *task))
            while waiting:
                yield waiting.popleft().result()
                for task in islice(todo, 1):
                    waiting.append(pool.submit(telescope.expose, *task))
        except BrokenProcessPool as error:
            raise PassingFaultError("a process of the simulated telescope was lost") from error
        finally:
            pool.shutdown(cancel_futures=True)
