"""The simulated telescope: carries a visit plan out and sends the data down."""

from __future__ import annotations

import math
import multiprocessing
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from zlib import crc32

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.table import Table
from stcal.velocity_aberration import compute_va_effects

from roman_assets.data_root import DataRoot
from roman_assets.errors import PassingFaultError
from roman_assets.formatting.executed_visit import GuideStar
from roman_assets.formatting.orbit_ephemeris import EphemerisKind
from roman_assets.formatting.telemetry import (
    DetectorReadout,
    GuideWindowReadout,
    Telemetry,
)
from roman_assets.products.observation import ExposureId, ExposureType, OpticalElement, Survey
from roman_assets.simulation.telescope.crds_cache import (
    DEFAULT_FIELDS,
    build_crds_cache,
    stored_epsf,
)
from roman_assets.simulation.telescope.detector_geometry import active_pixels, detector_wcs
from roman_assets.simulation.telescope.downlink import Delivery, Downlink
from roman_assets.simulation.telescope.effective_psf import effective_psf
from roman_assets.simulation.telescope.ephemeris import barycentric_velocity, orbit_message
from roman_assets.simulation.telescope.execution import executed_visit, ma_table_document
from roman_assets.simulation.telescope.guiding import (
    Wander,
    face_telemetry,
    guide_star,
    guide_window_readout,
)
from roman_assets.simulation.telescope.lensing import LensingSeason
from roman_assets.simulation.telescope.multiaccum import ma_table
from roman_assets.simulation.telescope.point_spread import PIXEL_SCALE, PSF_RADIUS, PointSpread
from roman_assets.simulation.telescope.ramp import detector_readout
from roman_assets.simulation.telescope.response import DetectorResponse, imaging
from roman_assets.simulation.telescope.scene import Scene, SkyCircle
from roman_assets.simulation.telescope.spectrum import with_lines
from roman_assets.simulation.telescope.survey_plan import PlannedExposure, Pointing, VisitPlan
from roman_assets.simulation.telescope.truth import write_truth

DEFAULT_WINDOW = 512
DEFAULT_SEED = 20270601

Progress = Callable[[str, int, int], None]
"""Called with what is being made, how many of its kind are done, and how many there are."""

_GUIDING_PSF = OpticalElement.F129
"""The filter whose PSF guide windows have in spectral exposures."""
_SPECTRAL_REACH = 1000
"""Pixels from the direct image to the far end of the longest spectrum, rounded up."""
_FIELD_MARGIN, _FIELD_STEP = 0.05, 0.1
"""Degrees beyond what the first pointing in a new field needs, and to which that is rounded up."""
_LOOKAHEAD = 2
"""Readouts to have in hand for each process."""


@dataclass(frozen=True)
class PointingError:
    """By how much the telescope misses the planned pointing.

    Parameters
    ----------
    x, y
        Along the ideal axes of WFI_CEN, arcsec.
    roll
        Degrees.
    repeatability
        Rms of a further displacement of each axis that differs between exposures, arcsec.
    """

    x: float = 0.3
    y: float = -0.2
    roll: float = 5e-4
    repeatability: float = 0.02

    def true_pointing(self, planned: PlannedExposure, seed: int) -> Pointing:
        """Return where the telescope really points in an exposure."""
        rng = np.random.default_rng([seed, crc32(str(planned.exposure).encode()), 97])
        dx, dy = rng.normal(0, self.repeatability, 2)
        return planned.pointing.offset(self.x + dx, self.y + dy, self.roll)


@dataclass(frozen=True)
class Telescope:
    """The telescope and its sky.

    Parameters
    ----------
    seed
        Decides the simulated sky, the detectors and all noise.
    window
        Active pixels along a side of the detectors, None for whole ones.
    pointing_error
        How the true pointing differs from the planned one.
    crds
        CRDS cache to take ePSFs from; they are computed, to the same values, if it is None.
    lensing
        The microlensing events of the Galactic Bulge survey, None without any.
    """

    seed: int = DEFAULT_SEED
    window: int | None = DEFAULT_WINDOW
    pointing_error: PointingError = PointingError()
    crds: Path | None = None
    lensing: LensingSeason | None = None

    @property
    def scene(self) -> Scene:
        """The sky."""
        return Scene(self.seed)

    def true_pointing(self, planned: PlannedExposure) -> Pointing:
        """Return where the telescope really points in an exposure."""
        return self.pointing_error.true_pointing(planned, self.seed)

    def field(self, planned: PlannedExposure, detector: str) -> SkyCircle:
        """Return a circle on the sky that holds all that a detector gets light from."""
        size = active_pixels(self.window)
        pointing = planned.pointing
        wcs = detector_wcs(detector, pointing.ra, pointing.dec, pointing.pa, self.window)
        ra, dec = wcs((size - 1) / 2, (size - 1) / 2)
        spectral = planned.exposure_type is ExposureType.WFI_SPECTRAL
        reach = size / np.sqrt(2) + PSF_RADIUS + (_SPECTRAL_REACH if spectral else 0)
        margin = float(np.hypot(self.pointing_error.x, self.pointing_error.y)) + 1.0
        return SkyCircle(float(ra), float(dec), float(reach * PIXEL_SCALE + margin) / 3600)

    def sources(self, planned: PlannedExposure, detector: str) -> Table:
        """Return the truth table of what a detector gets light from, as bright as it is then."""
        sources = self.scene.sources([self.field(planned, detector)])
        if planned.exposure_type is ExposureType.WFI_SPECTRAL:
            return with_lines(sources, self.seed)
        if self.lensing is None or planned.survey is not Survey.GBTDS:
            return sources
        return self.lensing.magnified(sources, planned.start + (planned.end - planned.start) / 2)

    def guide_star(self, planned: PlannedExposure, detector: str) -> GuideStar:
        """Choose the guide star of a detector."""
        pointing = planned.pointing
        wcs = detector_wcs(detector, pointing.ra, pointing.dec, pointing.pa, self.window)
        return guide_star(planned, detector, self.sources(planned, detector), wcs)

    def expose(
        self, planned: PlannedExposure, detector: str
    ) -> tuple[DetectorReadout, GuideWindowReadout]:
        """Take one exposure with one detector.

        The same telescope, exposure and detector always give the same counts.
        """
        response = _response(detector, self.window, self.seed)
        spread = _point_spread(detector, planned.optical_element, self.window, self.crds)
        readout = detector_readout(
            planned,
            response,
            self.sources(planned, detector),
            self.true_pointing(planned),
            spread,
            seed=self.seed,
            velocity_aberration=velocity_aberration(planned),
        )
        guide_window = guide_window_readout(
            planned,
            response,
            self.guide_star(planned, detector),
            Wander.of(planned, self.seed),
            spread,
            seed=self.seed,
        )
        return readout, guide_window


def velocity_aberration(planned: PlannedExposure) -> float:
    """Return the scale of the sky as the moving observatory sees it at mid-exposure."""
    velocity = barycentric_velocity(planned.start + (planned.end - planned.start) / 2)
    scale, _, _ = compute_va_effects(*velocity, planned.pointing.ra, planned.pointing.dec)
    return float(scale)


@lru_cache(maxsize=2)
def _response(detector: str, window: int | None, seed: int) -> DetectorResponse:
    return DetectorResponse(detector, window, seed)


@lru_cache(maxsize=4)
def _point_spread(
    detector: str, element: OpticalElement, window: int | None, crds: Path | None
) -> PointSpread:
    if crds is not None and imaging(element):
        return PointSpread(stored_epsf(crds, detector, element))
    drawn_with = element if imaging(element) else _GUIDING_PSF
    return PointSpread(effective_psf(detector, drawn_with, window))


def observe(
    plan: VisitPlan,
    root: DataRoot,
    *,
    seed: int = DEFAULT_SEED,
    window: int | None = DEFAULT_WINDOW,
    pointing_error: PointingError | None = None,
    delivery: Delivery | None = None,
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
    plan: VisitPlan, root: DataRoot, *, delivery: Delivery | None = None
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
    pixels = active_pixels(window) / np.sqrt(2) + PSF_RADIUS + _SPECTRAL_REACH
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
