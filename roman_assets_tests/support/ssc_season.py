"""Visits of which the SSC makes L3 and L4, beside one of the SOC, with both of their doubles.

Of HLWAS an imaging visit, whose L3 and L4 are the SOC's, and a grism visit; of GBTDS a visit of two
exposures. romancal only writes (see `survey_night`), and so does the SSC.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from roman_assets.calibration.exposure import calibrate_exposure
from roman_assets.mosaic.manifest import visit_manifests
from roman_assets.mosaic.visit import mosaic_visit
from roman_assets.products.kind import Step, expected_kinds
from roman_assets.products.name import ProductName
from roman_assets.products.observation import ExposureId, ExposureType, Survey, VisitId
from roman_assets.publishing.step import StepResult
from roman_assets.registry.registry import Registry
from roman_assets.registry.releases.state import Release, ReleaseState
from roman_assets.registry.store.fold import fold
from roman_assets.releases.run import begin_release, work_on_release
from roman_assets.ssc.handover import hand_over, ready_images
from roman_assets.ssc.intake import take_in
from roman_assets_tests.support.ssc_center import Center
from roman_assets_tests.support.survey_night import EARLY, START, Night

IMAGING = VisitId.parse("r0000101001001001001")
GRISM = VisitId.parse("r0000101001003001001")
BULGE = VisitId.parse("r0000301001001001001")
EXPOSURES = {
    ExposureId(IMAGING, 1): (Survey.HLWAS, ExposureType.WFI_IMAGE, "f158"),
    ExposureId(GRISM, 1): (Survey.HLWAS, ExposureType.WFI_SPECTRAL, "grism"),
    ExposureId(BULGE, 1): (Survey.GBTDS, ExposureType.WFI_IMAGE, "f146"),
    ExposureId(BULGE, 2): (Survey.GBTDS, ExposureType.WFI_IMAGE, "f146"),
}
STEPS = {GRISM: Step.COMBINED_SPECTRA, BULGE: Step.MICROLENSING}
RELEASE_STEPS = {GRISM: Step.RELEASE_SPECTRA, BULGE: Step.RELEASE_MICROLENSING}


def unit(visit: VisitId, release: str = "r0") -> str:
    return f"r{visit.program:05d}_{release}_{visit.grouping}"


def names_of(visit: VisitId, release: str = "p") -> list[str]:
    """Give the names of all that the SSC makes of a visit, what others follow first."""
    survey, exposure_type, element = next(
        about for exposure, about in EXPOSURES.items() if exposure.visit == visit
    )
    stem = unit(visit, release)
    return [
        f"{stem}{'_wfi01' if 'detector' in kind.scope else ''}_{element}_{kind.suffix}."
        f"{kind.extension}"
        for kind in expected_kinds(survey, exposure_type, (STEPS[visit],))
    ]


class Season(Night):
    """An installation with L1 of these exposures, or more."""

    @classmethod
    def prompt(
        cls, place: Path, monkeypatch: pytest.MonkeyPatch, object_store: str | None = None
    ) -> Season:
        """Make all prompt products of the SOC and the SSC, with the early context."""
        season = cls.begun(place, monkeypatch, object_store)
        season.observe(EXPOSURES)
        for exposure in EXPOSURES:
            assert not calibrate_exposure(season.root, exposure, context=EARLY, workers=1).failures
        assert mosaic_visit(season.root, IMAGING, context=EARLY, workers=1).made
        for visit in STEPS:
            season.tell(visit)
            assert not season.receive(visit).failures
        return season

    @classmethod
    def bulge_alone(cls, place: Path, monkeypatch: pytest.MonkeyPatch) -> Season:
        """Begin an installation with L1 of the GBTDS visit alone."""
        season = cls.begun(place, monkeypatch)
        season.observe(exposure for exposure in EXPOSURES if exposure.visit == BULGE)
        return season

    def observe(self, exposures: Iterable[ExposureId]) -> None:
        """Register L1."""
        for number, exposure in enumerate(exposures):
            survey, exposure_type, element = EXPOSURES[exposure]
            self.format(
                exposure, START + timedelta(hours=number), survey=survey,
                exposure_type=exposure_type, element=element,
                nexposures=sum(one.visit == exposure.visit for one in EXPOSURES),
            )  # fmt: skip
        fold(self.root)

    @property
    def center(self) -> Center:
        """The SSC, which makes what it delivers now."""
        return Center(self.root.path / "ssc", datetime.now(UTC))

    def tell(self, visit: VisitId) -> None:
        """Hand a visit over, and the exposures of it."""
        with Registry(self.root) as registry:
            manifest = visit_manifests(self.root, registry, [visit])[visit]
        hand_over(self.root, list(ready_images(manifest)))

    def manifest(self, partition: str) -> dict[str, Any]:
        """Read the newest manifest that the SSC finds of a visit or unit."""
        found = (self.root.path / "ssc" / "to_ssc" / partition).glob("*.json")
        told = [json.loads(path.read_text()) for path in found]
        newest: dict[str, Any] = max(told, key=lambda one: one["handed_over_at"])
        return newest

    def images(self, partition: str) -> list[dict[str, str]]:
        """Give the L2 images that the SSC was told of, as inputs."""
        return [
            {"name": image["name"], "sha256": image["sha256"]}
            for image in self.manifest(partition)["images"]
        ]

    def deliver(
        self,
        visit: VisitId,
        release: str = "p",
        *,
        names: Iterable[str] | None = None,
        inputs: list[dict[str, str]] | None = None,
        text: str = "x",
    ) -> str:
        """Deliver what is made of a visit; return the name of the delivery."""
        chosen = names_of(visit, release) if names is None else list(names)
        partition = str(visit) if release == "p" else unit(visit, release)
        images = self.images(partition) if inputs is None else inputs
        delivery = f"{partition}_{text}"

        def name_leaders(notification: dict[str, Any]) -> None:
            sent = {file["filename"]: file["sha256"] for file in notification["files"]}
            known = {**self._current(visit, release), **sent}
            for file in notification["files"]:
                leader = str(ProductName.parse(file["filename"]).leader)
                if leader in known:
                    file["inputs"] = [*images, {"name": leader, "sha256": known[leader]}]

        self.center.deliver(chosen, images, delivery=delivery, text=text, change=name_leaders)
        return delivery

    def receive(self, visit: VisitId, release: str = "p", **delivery: Any) -> StepResult:
        """Deliver what is made of a visit, and take it in."""
        self.deliver(visit, release, **delivery)
        if release == "p":
            return take_in(self.root, STEPS[visit], str(visit))
        return take_in(self.root, RELEASE_STEPS[visit], unit(visit, release))

    def make(self, survey: str, release: str = "r0", **fields: str) -> ReleaseState:
        """Begin a release and do the SOC's part of it."""
        return work_on_release(self.root, self.begin(survey, release, **fields), workers=1)

    def begin(self, survey: str, release: str = "r0", **fields: str) -> Release:
        declaration = self.declare(release, survey=survey, **{"groupings": '["visit"]', **fields})
        return begin_release(self.root, declaration)

    def _current(self, visit: VisitId, release: str) -> Mapping[str, str]:
        with Registry(self.root) as registry:
            found = registry.generations.current(names_of(visit, release))
        return {name: entry.sha256 for name, entry in found.items()}
