"""Whose orbit an ephemeris tells: the observatory's, or that of another spacecraft.

``spacecraft.toml`` below the data root holds what differs from the observatory's names and place::

    version = 1
    names = ["ROMAN", "RST"]         # OBJECT_NAME, up to a space, _ or -
    ids = ["211"]                    # OBJECT_ID
    farthest_from_l2_km = 1_200_000  # once it is there
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from astropy import units as u
from astropy.coordinates import get_body_barycentric
from astropy.time import Time
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError
from roman_assets.formatting.orbit_ephemeris import Ephemeris
from roman_assets.settings.settings_file import read_settings

FILE_NAME = "spacecraft.toml"
_REMEDY = (
    "write version = 1 and what differs of names, ids and farthest_from_l2_km (docs/l0.md), or "
    "remove the file for the observatory's own"
)
_L2_KM = 1.5e6
"""From the Earth, away from the Sun."""
_STATES_LOOKED_AT = 500
_Texts = Annotated[
    tuple[Annotated[str, Field(min_length=1, max_length=100)], ...],
    Field(min_length=1, max_length=100),
]


class Spacecraft(BaseModel):
    """The spacecraft and orbit that an ephemeris must describe.

    Parameters
    ----------
    names
        ``OBJECT_NAME`` is one of these, or begins with one, followed by a space, ``_`` or ``-``.
    ids
        ``OBJECT_ID`` is one of these.
    farthest_from_l2_km
        From the Sun-Earth L2 point. An orbit may begin at the Earth, and stays within this
        distance once it is there.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    names: _Texts = ("ROMAN", "RST")
    ids: _Texts = ("211",)
    farthest_from_l2_km: float = Field(default=1.2e6, gt=0, le=1e9, allow_inf_nan=False)

    def check(self, ephemeris: Ephemeris) -> None:
        """Raise `BadInputError` if an ephemeris is that of another spacecraft."""
        for metadata in ephemeris.metadata:
            self._check_identity(ephemeris.path, metadata["OBJECT_NAME"], metadata["OBJECT_ID"])
        epochs, positions = ephemeris.positions(_STATES_LOOKED_AT)
        away = _km_from_l2(epochs, positions)
        near = away <= self.farthest_from_l2_km
        first = int(np.argmax(near))
        if not near[first:].all():
            worst = first + int(np.argmax(away[first:]))
            raise BadInputError(
                ephemeris.path, "states",
                f"at {epochs[worst].isot} it is {away[worst]:.0f} km from the Sun-Earth L2 point, "
                f"more than {self.farthest_from_l2_km:.0f}",
                f"deliver the observatory's orbit in km, or correct {FILE_NAME} (docs/l0.md)",
            )  # fmt: skip

    def _check_identity(self, path: Path, name: str, number: str) -> None:
        known = "|".join(map(re.escape, self.names))
        for field, value, expected, fits in (
            ("OBJECT_NAME", name, self.names, re.fullmatch(rf"(?:{known})(?:[ _-].*)?", name)),
            ("OBJECT_ID", number, self.ids, number in self.ids),
        ):
            if not fits:
                raise BadInputError(
                    path, field, f"{value!r} is not the observatory: expected {expected}",
                    f"deliver its own orbit, or name it in {FILE_NAME} (docs/l0.md)",
                )  # fmt: skip


def spacecraft_of(root: DataRoot) -> Spacecraft:
    """Return what ephemerides of an installation's observatory say.

    Raises
    ------
    BadInputError
        If the settings file is there and cannot be used.
    """
    return read_settings(root.path / FILE_NAME, Spacecraft, _REMEDY) or Spacecraft()


def _km_from_l2(epochs: Time, positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return distances from L2 of barycentric positions in km, shape (n, 3)."""
    earth, sun = (
        get_body_barycentric(body, epochs, ephemeris="builtin").xyz.to_value(u.km).T
        for body in ("earth", "sun")
    )
    outwards = (earth - sun) / np.linalg.norm(earth - sun, axis=1, keepdims=True)
    away: NDArray[np.float64] = np.linalg.norm(positions - earth - _L2_KM * outwards, axis=1)
    return away
