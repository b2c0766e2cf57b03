"""Ephemerides: CCSDS Orbit Ephemeris Messages (502.0-B) of the observatory."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from astropy import units as u
from astropy.coordinates import get_body_barycentric, get_body_barycentric_posvel
from astropy.time import Time
from numpy.typing import NDArray
from oem import OrbitEphemerisMessage

from roman_assets.errors import BadInputError
from roman_assets.formatting.document import check_size
from roman_assets.formatting.telemetry import check_moment

MOST_EPHEMERIS_BYTES = 1 << 23
"""The parsers take up to a second for each MiB."""


class EphemerisKind(StrEnum):
    """``meta.ephemeris.type`` (R3)."""

    PREDICTED = "PREDICTED"
    DEFINITIVE = "DEFINITIVE"


@dataclass(frozen=True, eq=False)
class SpacecraftState:
    """Barycentric state of the observatory, on the axes of the ephemeris.

    Parameters
    ----------
    time
        UTC.
    frame
        ``EME2000`` or ``ICRF``.
    position, velocity
        Relative to the solar system's barycentre, km and km/s, shape (3,).
    """

    time: datetime
    frame: str
    position: NDArray[np.float64]
    velocity: NDArray[np.float64]


_KIND_COMMENT = re.compile(r"^COMMENT\s+EPHEMERIS_TYPE\s*=\s*(\S+)\s*$", re.MULTILINE)
_KIND_IN_NAME = re.compile(r"predicted|definitive", re.IGNORECASE)
_FRAMES = frozenset({"EME2000", "ICRF"})
_CENTERS = {
    "EARTH": "earth",
    "SUN": "sun",
    "SOLAR SYSTEM BARYCENTER": None,
}


class Ephemeris:
    """An orbit file: where the observatory is, when, and how well that is known.

    The kind is told by a line ``COMMENT EPHEMERIS_TYPE = PREDICTED`` (or ``DEFINITIVE``), else by
    one of these two words in the file name.

    Raises
    ------
    BadInputError
        If it is not an OEM, has no kind, or uses a centre, frame or time system not handled.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        check_size(path, MOST_EPHEMERIS_BYTES)
        self.kind = _ephemeris_kind(path)
        with _oem_explained(path):
            self._message = OrbitEphemerisMessage.open(str(path))
        for segment in self._message:
            _check_segment(path, segment.metadata)
        with _oem_explained(path):
            self.creation_date = _datetime(self._message.header["CREATION_DATE"])
            self.start = _datetime(min(segment.useable_start_time for segment in self._message))
            self.stop = _datetime(max(segment.useable_stop_time for segment in self._message))

    def covers(self, start: datetime, stop: datetime) -> bool:
        """Return whether both moments can be interpolated."""
        return all(_time(moment) in self._message for moment in (start, stop))

    def state(self, time: datetime) -> SpacecraftState:
        """Interpolate as the file says and refer the state to the barycentre.

        The Earth and the Sun are taken from ERFA's analytic ephemeris (`astropy`), good to a few
        km and mm/s.

        Raises
        ------
        BadInputError
            If the file does not cover the moment.
        """
        moment = _time(time)
        try:
            state = self._message(moment)
        except ValueError as error:
            raise BadInputError(
                self.path, "epoch", f"{time.isoformat()} is not covered", "deliver one that does"
            ) from error
        position, velocity = np.asarray(state.position), np.asarray(state.velocity)
        body = _CENTERS[state.center.upper()]
        if body is not None:
            center = get_body_barycentric_posvel(body, moment, ephemeris="builtin")
            position = position + center[0].xyz.to_value(u.km)
            velocity = velocity + center[1].xyz.to_value(u.km / u.s)
        return SpacecraftState(time, state.frame.upper(), position, velocity)

    @property
    def metadata(self) -> list[Mapping[str, str]]:
        """The metadata of each segment."""
        return [segment.metadata for segment in self._message]

    def positions(self, most: int) -> tuple[Time, NDArray[np.float64]]:
        """Return some of the states: first, last and others evenly between.

        Returns
        -------
        epochs, positions
            Positions relative to the solar system's barycentre, km, shape (n, 3).
        """
        states = [state for segment in self._message for state in segment]
        chosen = np.unique(np.linspace(0, len(states) - 1, most).astype(int))
        some = [states[index] for index in chosen]
        epochs = Time([state.epoch for state in some])
        positions = np.array([state.position for state in some])
        for center in {state.center.upper() for state in some} - {"SOLAR SYSTEM BARYCENTER"}:
            body = get_body_barycentric(_CENTERS[center], epochs, ephemeris="builtin")
            about = np.array([state.center.upper() == center for state in some])
            positions[about] += body.xyz.to_value(u.km).T[about]
        return epochs, positions


@contextmanager
def _oem_explained(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the parser raises many types, some of them its own
        raise BadInputError(
            path, "OEM", f"cannot be parsed: {error}", "deliver a CCSDS 502.0-B OEM"
        ) from error


@lru_cache(maxsize=8)
def _open_ephemeris(path: Path, _size: int, _mtime_ns: int) -> Ephemeris:
    return Ephemeris(path)


def open_ephemeris(path: Path) -> Ephemeris:
    """Read an orbit file, once as long as it does not change.

    Raises
    ------
    BadInputError
        As `Ephemeris` does, or if the file is gone.
    """
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise BadInputError(
            path, "ephemeris", "it is gone", "bring it back, or deliver another for the same time"
        ) from error
    return _open_ephemeris(path, status.st_size, status.st_mtime_ns)


def _ephemeris_kind(path: Path) -> EphemerisKind:
    text = path.read_text(encoding="ascii", errors="replace")
    if text.lstrip().startswith("<"):
        raise BadInputError(path, "OEM", "it is XML", "deliver it as text (KVN)")
    words = set(_KIND_COMMENT.findall(text)) or set(_KIND_IN_NAME.findall(path.name))
    kinds = {word.upper() for word in words}
    if len(kinds) != 1 or not kinds <= set(EphemerisKind):
        raise BadInputError(
            path,
            "EPHEMERIS_TYPE",
            f"the kind is not clear: found {sorted(kinds) or 'nothing'}",
            "add a line COMMENT EPHEMERIS_TYPE = PREDICTED (or DEFINITIVE), or put the word in "
            "the file name",
        )
    return EphemerisKind(kinds.pop())


def _check_segment(path: Path, metadata: Any) -> None:
    for field, known in (
        ("CENTER_NAME", _CENTERS), ("REF_FRAME", _FRAMES), ("TIME_SYSTEM", {"UTC"})
    ):  # fmt: skip
        value = metadata[field].upper()
        if value not in known:
            raise BadInputError(
                path, field, f"{value!r} is not handled", f"use one of {sorted(known)}"
            )


def _time(moment: datetime) -> Time:
    return Time(moment.astimezone(UTC).replace(tzinfo=None), scale="utc")


def _datetime(time: Time) -> datetime:
    return check_moment(time.to_datetime(timezone=UTC))


def ephemeris_metadata(state: SpacecraftState, kind: EphemerisKind) -> dict[str, Any]:
    """Return rad's ``meta.ephemeris`` of a state (R3, R4)."""
    axes = ("x", "y", "z")
    return {
        "type": str(kind),
        "ephemeris_reference_frame": state.frame,
        "time": float(Time(state.time).utc.mjd),
        **{f"spatial_{axis}": float(v) for axis, v in zip(axes, state.position, strict=True)},
        **{f"velocity_{axis}": float(v) for axis, v in zip(axes, state.velocity, strict=True)},
    }
