"""What goes wrong in a rehearsal, drawn for every exposure and attempt before anything is replayed.

A draw belongs to an exposure, a visit or an attempt at one, never to a moment. So the number of
workers, or the rate of another fault, changes nothing about which exposure is lost; and what goes
wrong at a rate also goes wrong at every higher one.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Self
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from roman_assets.errors import BadInputError
from roman_assets.products.kind import Step
from roman_assets.rehearsal.planned_work import Observations

ATTEMPTS_DRAWN = 64
"""Attempts of one step at one exposure or visit that are drawn; further ones repeat them."""

Draws = NDArray[np.float64]
Verdicts = NDArray[np.bool_]


@dataclass(frozen=True)
class FaultRates:
    """How often what goes wrong; each a fraction from 0 to 1.

    Parameters
    ----------
    lost_contacts
        Of the contacts with the ground: what waits on board comes down in the next.
    late_packets
        Of the exposures: their last packets come only with the next contact.
    lost_exposures
        Of the exposures: they are executed, and their packets never come.
    cut_short
        Of the visits with several exposures: the observatory does not execute the last ones.
    late_ancillary
        Of the visits: their ancillary data come late.
    bad_input
        Of the exposures: L1 cannot be made of them.
    failed_detectors
        Of the detectors of all exposures: L2 cannot be made of them.
    passing_faults
        Of the attempts of a step: they fail and are tried again.
    lost_workers
        Of the attempts of a step: their worker vanishes and their run starts again.

    Raises
    ------
    BadInputError
        If one is not a fraction.
    """

    lost_contacts: float = 0.0
    late_packets: float = 0.0
    lost_exposures: float = 0.0
    cut_short: float = 0.0
    late_ancillary: float = 0.0
    bad_input: float = 0.0
    failed_detectors: float = 0.0
    passing_faults: float = 0.0
    lost_workers: float = 0.0

    def __post_init__(self) -> None:
        for name in self.names():
            rate = getattr(self, name)
            if not 0 <= rate <= 1:
                raise BadInputError(
                    "fault rates", name, f"{rate} is not a fraction", "give a number from 0 to 1"
                )

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Return the names of all faults."""
        return tuple(field.name for field in fields(cls))

    @classmethod
    def all_at(cls, rate: float) -> Self:
        """Return rates by which everything goes wrong equally often."""
        return cls(**dict.fromkeys(cls.names(), rate))


@dataclass(frozen=True)
class Faults:
    """What goes wrong with some observations.

    Parameters
    ----------
    observations
        The plan.
    rates
        How often.
    seed
        Decides what.
    """

    observations: Observations
    rates: FaultRates
    seed: int

    def draws(self, purpose: str, *shape: int) -> Draws:
        """Return uniform numbers in [0, 1): always the same for a seed and a purpose."""
        return np.random.default_rng([self.seed, crc32(purpose.encode())]).random(shape)

    def _happens(self, fault: str, *shape: int) -> Verdicts:
        happens: Verdicts = self.draws(fault, *shape) < getattr(self.rates, fault)
        return happens

    def lost_contacts(self, count: int) -> Verdicts:
        """Return which of so many contacts are lost; shape (count,)."""
        return self._happens("lost_contacts", count)

    @cached_property
    def executed(self) -> Verdicts:
        """Which exposures are executed: all but those of visits that were cut short."""
        executed = np.ones(self._nexposures, dtype=bool)
        where = self.draws("cut_short_after", self._nvisits)
        for number in np.flatnonzero(self._happens("cut_short", self._nvisits)).tolist():
            members = self.observations.visits[number].members
            kept = 1 + int(where[number] * (len(members) - 1))
            executed[list(members[kept:])] = False
        return executed

    @cached_property
    def lost(self) -> Verdicts:
        """Which exposures are never received."""
        return self._happens("lost_exposures", self._nexposures)

    @cached_property
    def late_packets(self) -> Verdicts:
        """Which exposures wait for their last packets."""
        return self._happens("late_packets", self._nexposures)

    @cached_property
    def ancillary_delay(self) -> Draws:
        """By what multiple of the usual delay ancillary data are late, by visit; mostly 0."""
        late = self._happens("late_ancillary", self._nvisits)
        return np.where(late, -np.log1p(-self.draws("ancillary_delay", self._nvisits)), 0.0)

    @cached_property
    def bad_input(self) -> Verdicts:
        """Of which exposures no L1 can be made."""
        return self._happens("bad_input", self._nexposures)

    @cached_property
    def failed_detectors(self) -> Verdicts:
        """Of which detectors no L2 can be made; shape (exposures, most detectors)."""
        most = int(self.observations.ndetectors.max())
        return self._happens("failed_detectors", self._nexposures, most)

    @cached_property
    def images(self) -> NDArray[np.int64]:
        """How many L2 images there will be of each exposure: of the detectors that do not fail."""
        fails = self.failed_detectors
        read_out = np.arange(fails.shape[1]) < self.observations.ndetectors[:, np.newaxis]
        images: NDArray[np.int64] = (read_out & ~fails).sum(axis=1)
        return images

    def passing(self, step: Step) -> Verdicts:
        """Return which attempts fail in passing; shape (exposures or visits, `ATTEMPTS_DRAWN`)."""
        return self.draws(f"passing {step}", *self._attempts(step)) < self.rates.passing_faults

    def lost_workers(self, step: Step) -> Verdicts:
        """Return which attempts lose their worker; the same shape."""
        return self.draws(f"worker {step}", *self._attempts(step)) < self.rates.lost_workers

    def progress(self, step: Step) -> Draws:
        """Return what part of an attempt's work is done before it fails; the same shape."""
        return self.draws(f"progress {step}", *self._attempts(step))

    def _attempts(self, step: Step) -> tuple[int, int]:
        return (self._nvisits if step is Step.VISIT else self._nexposures), ATTEMPTS_DRAWN

    @property
    def _nexposures(self) -> int:
        return len(self.observations.exposures)

    @property
    def _nvisits(self) -> int:
        return len(self.observations.visits)
