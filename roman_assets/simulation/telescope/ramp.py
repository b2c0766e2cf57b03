"""Ramps: electrons gathered read by read, averaged into resultants, as the detector sends them."""

from __future__ import annotations

from zlib import crc32

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray
from romancal.dark_decay.dark_decay import subtract_dark_decay

from roman_assets.formatting.telemetry import (
    REFERENCE_OUTPUT_COLUMNS,
    DetectorReadout,
)
from roman_assets.simulation.telescope.detector_geometry import detector_wcs
from roman_assets.simulation.telescope.light import electron_rates
from roman_assets.simulation.telescope.multiaccum import MultiAccumTable
from roman_assets.simulation.telescope.planned_exposure import PlannedExposure, Pointing
from roman_assets.simulation.telescope.point_spread import PointSpread
from roman_assets.simulation.telescope.response import DetectorResponse, detector_number

REFERENCE_OUTPUT_LEVEL = 5000.0
"""DN of the reference output."""
RESET_NOISE = 4.0
"""DN rms by which the level after reset differs from exposure to exposure."""


def detector_readout(
    planned: PlannedExposure,
    response: DetectorResponse,
    sources: Table,
    pointing: Pointing,
    spread: PointSpread,
    *,
    seed: int,
    velocity_aberration: float = 1.0,
) -> DetectorReadout:
    """Expose one detector and read it out.

    Parameters
    ----------
    planned
        The exposure.
    response
        The detector, or its window.
    sources
        Truth table of the scene; sources off the detector do no harm.
    pointing
        The true pointing, which is not quite the planned one.
    spread
        PSF of the detector and element (see `roman_assets.simulation.telescope.light`).
    seed
        With exposure and detector decides all noise.
    velocity_aberration
        Scale of the sky as the moving observatory sees it, over the true one.
    """
    rng = np.random.default_rng(
        [seed, crc32(str(planned.exposure).encode()), detector_number(response.detector)]
    )
    wcs = detector_wcs(
        response.detector, pointing.ra, pointing.dec, pointing.pa, response.window,
        velocity_aberration=velocity_aberration,
    )  # fmt: skip
    rates = electron_rates(
        response, planned.exposure_type, planned.optical_element, sources, wcs, spread
    )
    table = planned.ma_table
    return DetectorReadout(
        exposure=planned.exposure,
        detector=response.detector,
        resultants=resultants(rates, response, table, rng),
        reference_output=reference_output(response, table, rng),
        start_time=planned.start,
    )


def resultants(
    rates: NDArray[np.float64],
    response: DetectorResponse,
    table: MultiAccumTable,
    rng: np.random.Generator,
) -> NDArray[np.uint16]:
    """Read a detector out while light falls on it.

    Every read adds Poisson-distributed electrons to those before it, is bent by the response, and
    has its own read noise; resultants average reads. So resultants have the noise and the
    covariance that reads give them.

    Parameters
    ----------
    rates
        Electrons by light in the active pixels, e/s, shape (active, active).
    response
        The detector.
    table
        Which reads make which resultant.
    rng
        Source of all randomness.

    Returns
    -------
    ndarray
        DN, uint16, shape (nresultants, n, n) with the reference border.
    """
    total = response.dark_rate.astype(float) * response.gain
    total[response.active] += rates
    electrons = np.zeros(response.shape, dtype=np.float32)
    start = np.float32(RESET_NOISE) * rng.standard_normal(response.shape, dtype=np.float32)
    start += response.pedestal
    means = np.zeros((table.nresultants, *response.shape), dtype=np.float32)
    previous = 0
    for mean, reads in zip(means, table.read_pattern, strict=True):
        for read in reads:
            electrons += rng.poisson(total * ((read - previous) * table.frame_time))
            previous = read
            mean += response.raw_counts(start + electrons / response.gain)
        mean /= len(reads)
        np.minimum(mean, response.saturation * np.float32(1.05), out=mean)
        noise = rng.standard_normal(response.shape, dtype=np.float32)
        mean += noise * response.read_noise / np.float32(np.sqrt(len(reads)))
    add_dark_decay(means, response, table)
    np.rint(means, out=means)
    np.clip(means, 0, 65535, out=means)
    return means.astype(np.uint16)


def reference_output(
    response: DetectorResponse, table: MultiAccumTable, rng: np.random.Generator
) -> NDArray[np.uint16]:
    """Read the reference output (amplifier 33): DN, uint16, shape (nresultants, n, 128)."""
    shape = (table.nresultants, response.shape[0], REFERENCE_OUTPUT_COLUMNS)
    noise = rng.standard_normal(shape, dtype=np.float32)
    noise *= np.float32(4.5) / np.sqrt(
        np.array([len(reads) for reads in table.read_pattern], dtype=np.float32)
    ).reshape(-1, 1, 1)
    level: NDArray[np.uint16] = np.rint(REFERENCE_OUTPUT_LEVEL + noise).astype(np.uint16)
    return level


def add_dark_decay(
    means: NDArray[np.float32], response: DetectorResponse, table: MultiAccumTable
) -> None:
    """Add the signal after reset, which decays from read to read, to the means of a dark.

    Parameters
    ----------
    means
        DN by resultant, shape (resultants, rows, columns); changed in place.
    response
        Of the detector; says amplitude and time constant of the decay.
    table
        Which reads are averaged.
    """
    amplitude, time_constant = response.dark_decay
    if not amplitude:
        return
    # From read to read the signal only shrinks, so the first read's image serves for all.
    first = np.zeros((1, *response.shape), dtype=np.float32)
    subtract_dark_decay(
        first,
        -amplitude,
        time_constant,
        table.frame_time,
        [[1]],
        detector_number(response.detector),
    )
    for mean, reads in zip(means, table.read_pattern, strict=True):
        later = (np.array(reads) - 1) * table.frame_time / time_constant
        mean += np.float32(np.mean(np.exp(-later))) * first[0]
