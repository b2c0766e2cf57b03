"""Orbit files of the simulated observatory, as the flight dynamics facility would deliver them.

The orbit is the mission's published one for the nominal launch date (CCSDS OEM, one state a day,
in the package roman-technical-information). It serves as the predicted orbit; the definitive one
is a few kilometres and millimetres per second away from it, as orbit determination would find.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from astropy import units as u
from astropy.coordinates import get_body_barycentric_posvel
from astropy.time import Time
from numpy.typing import NDArray
from oem import OrbitEphemerisMessage
from oem.components import EphemerisSegment, HeaderSection, MetaDataSection

from roman_assets.errors import BadInputError
from roman_assets.formatting.orbit_ephemeris import EphemerisKind

ORBIT_FILE = "RST_103026.oem"
SHORTEST_STEP = timedelta(minutes=10)
MOST_STEPS = 500
MARGIN = timedelta(hours=2)
"""How far the files reach beyond the plan on both sides; more than interpolation needs."""

_ERROR_PERIOD = 6 * 3600.0
_POSITION_ERROR = np.array([3.1, -2.4, 1.7])
_CREATED: dict[EphemerisKind, Callable[[datetime, datetime], datetime]] = {
    EphemerisKind.PREDICTED: lambda start, _: start - timedelta(days=7),
    EphemerisKind.DEFINITIVE: lambda _, stop: stop + timedelta(days=3),
}


def orbit_message(start: datetime, stop: datetime, kind: EphemerisKind) -> str:
    """Make an orbit file that covers a span of time.

    Parameters
    ----------
    start, stop
        Span to cover, aware; the file reaches `MARGIN` further.
    kind
        PREDICTED or DEFINITIVE.

    Returns
    -------
    str
        A CCSDS 502.0-B OEM in keyword-value notation: centre Earth, frame EME2000, UTC, km and
        km/s, with a comment ``EPHEMERIS_TYPE`` that tells the kind.

    Raises
    ------
    BadInputError
        If the mission's orbit does not cover the span.
    """
    epochs = _epochs(start - MARGIN, stop + MARGIN)
    states = _mission_states(epochs)
    if kind is EphemerisKind.DEFINITIVE:
        states = states + _orbit_error(epochs)
    first, last = (f"{epoch:%Y-%m-%dT%H:%M:%S.%f}" for epoch in (epochs[0], epochs[-1]))
    header = HeaderSection(
        {
            "CCSDS_OEM_VERS": "2.0",
            "CREATION_DATE": f"{_CREATED[kind](start, stop).astimezone(UTC):%Y-%m-%dT%H:%M:%S}",
            "ORIGINATOR": "ROMAN_ASSETS",
        }
    )
    metadata = MetaDataSection(
        {
            "OBJECT_NAME": "ROMAN",
            "OBJECT_ID": "211",
            "CENTER_NAME": "EARTH",
            "REF_FRAME": "EME2000",
            "TIME_SYSTEM": "UTC",
            "START_TIME": first,
            "USEABLE_START_TIME": first,
            "USEABLE_STOP_TIME": last,
            "STOP_TIME": last,
            "INTERPOLATION": "HERMITE",
            "INTERPOLATION_DEGREE": "7",
        }
    )
    segment = EphemerisSegment(metadata, (_times(epochs), *states.T))
    return _text(OrbitEphemerisMessage(header, [segment]), kind)


def barycentric_velocity(time: datetime) -> NDArray[np.float64]:
    """Return the observatory's velocity about the solar system's barycentre, km/s, shape (3,).

    Raises
    ------
    BadInputError
        If the mission's orbit does not cover the moment.
    """
    state = _mission_states([time])[0]
    _, earth = get_body_barycentric_posvel("earth", _times([time])[0], ephemeris="builtin")
    velocity: NDArray[np.float64] = state[3:] + earth.xyz.to_value(u.km / u.s)
    return velocity


def _text(message: OrbitEphemerisMessage, kind: EphemerisKind) -> str:
    with TemporaryDirectory() as directory:
        path = Path(directory) / "orbit.oem"
        message.save_as(path)
        version, _, rest = path.read_text(encoding="ascii").partition("\n")
    return f"{version}\nCOMMENT EPHEMERIS_TYPE = {kind}\n{rest}"


def _epochs(start: datetime, stop: datetime) -> list[datetime]:
    begin = start.astimezone(UTC)
    step = max(SHORTEST_STEP, (stop - start) / MOST_STEPS)
    count = int(np.ceil((stop - start) / step)) + 1
    return [begin + i * step for i in range(count)]


def _times(epochs: list[datetime]) -> list[Time]:
    return [Time(epoch.astimezone(UTC).replace(tzinfo=None), scale="utc") for epoch in epochs]


@cache
def _mission_orbit() -> OrbitEphemerisMessage:
    path = resources.files("roman_technical_information") / "data/Observatory/Orbit" / ORBIT_FILE
    with warnings.catch_warnings():
        # The orbit reaches into years for which leap seconds are not known.
        warnings.filterwarnings("ignore", "ERFA function")
        return OrbitEphemerisMessage.open(str(path))


def _mission_states(epochs: list[datetime]) -> NDArray[np.float64]:
    orbit = _mission_orbit()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "ERFA function")
        try:
            return np.array([orbit(time).vector for time in _times(epochs)])
        except ValueError as error:
            raise BadInputError(
                ORBIT_FILE, "span", f"does not cover {epochs[0]} to {epochs[-1]}",
                f"plan within {orbit.span[0].iso} to {orbit.span[1].iso}",
            ) from error  # fmt: skip


def _orbit_error(epochs: list[datetime]) -> NDArray[np.float64]:
    """Return the slow oscillation that the prediction missed: km and km/s, shape (n, 6)."""
    phase = 2 * np.pi / _ERROR_PERIOD * np.array([epoch.timestamp() for epoch in epochs])
    position = _POSITION_ERROR * (1 + 0.1 * np.sin(phase))[:, None]
    velocity = _POSITION_ERROR * (0.1 * 2 * np.pi / _ERROR_PERIOD * np.cos(phase))[:, None]
    return np.hstack([position, velocity])
