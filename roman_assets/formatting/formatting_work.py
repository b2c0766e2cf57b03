"""What is to be made of an exposure, and from what (R3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from roman_assets.errors import BadInputError
from roman_assets.formatting.executed_visit import ExecutedExposure, ExecutedVisit
from roman_assets.formatting.landing import LandingArea
from roman_assets.formatting.level1_metadata import Observation
from roman_assets.formatting.ma_table import MATable
from roman_assets.formatting.orbit_ephemeris import open_ephemeris
from roman_assets.formatting.receipt import Receipt
from roman_assets.products.kind import Step
from roman_assets.products.name import ProductName, level0_name
from roman_assets.products.observation import ExposureId
from roman_assets.products.packet_policy import FACE
from roman_assets.publishing.provenance import file_input
from roman_assets.records.record import ProductInput, fingerprint
from roman_assets.software import installed_software

DETECTOR_KINDS = ("uncal", "guide_window")


@dataclass(frozen=True)
class FormattingWork:
    """What is to be made of an exposure, and from what."""

    landing: LandingArea
    receipt: Receipt
    observation: Observation
    senders: frozenset[str]
    packets: Mapping[str, ProductInput]
    ephemeris: ProductInput
    software: Mapping[str, str]
    facts: Mapping[str, Any]

    @classmethod
    def plan(
        cls, landing: LandingArea, receipt: Receipt, orbit_file: Path, senders: frozenset[str]
    ) -> FormattingWork:
        """Find out what is to be made of what has been received, with one ephemeris."""
        visit, executed, table = _documents(landing, receipt.exposure)
        ephemeris = open_ephemeris(orbit_file)
        middle = executed.start_time + (executed.end_time - executed.start_time) / 2
        observation = Observation(
            receipt.exposure, visit, executed, table, ephemeris.state(middle), ephemeris.kind
        )
        packets = {
            sender: ProductInput(
                name=level0_name(receipt.exposure, sender),
                sha256=receipt.senders[sender].content_version,
            )
            for sender in senders
        }
        facts = {
            "survey": str(visit.survey),
            "exposure_type": str(visit.exposure_type),
            "nexposures": visit.nexposures,
        }
        orbit = file_input(orbit_file)
        software = installed_software(Step.FORMATTING)
        return cls(landing, receipt, observation, senders, packets, orbit, software, facts)

    def inputs(self, sender: str) -> tuple[ProductInput, ...]:
        """Return what the products of a sender are made from."""
        return self.packets[sender], self.ephemeris

    def fingerprint(self, sender: str) -> str:
        """Return the fingerprint of the products of a sender."""
        return fingerprint(
            Step.FORMATTING,
            self.inputs(sender),
            None,
            self.software,
            ephemeris=str(self.observation.ephemeris_kind),
        )

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of all L1 of the exposure."""
        return tuple(
            str(name)
            for sender in (*self.observation.executed.detectors, FACE)
            for name in self.names_of(sender)
        )

    def names_of(self, sender: str) -> tuple[ProductName, ...]:
        """Return the names of the products of a sender."""
        if sender == FACE:
            return (self.observation.name("face"),)
        return tuple(self.observation.name(kind, sender) for kind in DETECTOR_KINDS)

    @cached_property
    def senders_of(self) -> dict[str, str]:
        """The sender of the packets of each product that is made now, by name."""
        return {str(name): sender for sender in self.senders for name in self.names_of(sender)}

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """The fingerprint of each product that is made now, by name."""
        return {name: self.fingerprint(sender) for name, sender in self.senders_of.items()}


def _documents(
    landing: LandingArea, exposure: ExposureId
) -> tuple[ExecutedVisit, ExecutedExposure, MATable]:
    ancillary = landing.ancillary(exposure)
    visit, table = ancillary.visit, ancillary.ma_table
    executed = None if visit is None else visit.executed(exposure)
    if visit is None or executed is None or table is None:
        raise BadInputError(
            exposure, "ancillary", "a document is gone since all was received",
            "deliver the executed visit and the MA table again",
        )  # fmt: skip
    return visit, executed, table.truncated(executed.nresultants)
