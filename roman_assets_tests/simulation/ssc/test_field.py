"""A field through grism and prism, from packets to 1-D spectra in the archive (slow).

Two direct images of the field come first, whose catalogues romancal makes. Everything between the
packets and the spectra is what runs in operations; what is compared is read from the archive's
public side, and the truth is the scene of the simulated telescope.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import roman_assets
from roman_assets.calibration.exposure import calibrate_exposure
from roman_assets.data_root import DATA_ROOT_VARIABLE, DataRoot
from roman_assets.formatting.formatting_step import format_exposure
from roman_assets.formatting.landing import LandingArea
from roman_assets.mosaic.manifest import visit_manifests
from roman_assets.products.kind import KINDS, Step
from roman_assets.products.observation import ExposureType, OpticalElement, Survey
from roman_assets.registry.registry import Registry
from roman_assets.simulation.telescope.detector_geometry import detector_wcs
from roman_assets.simulation.telescope.observing import observe
from roman_assets.simulation.telescope.planned_exposure import PlannedExposure, Pointing
from roman_assets.simulation.telescope.response import DetectorResponse
from roman_assets.simulation.telescope.survey_plan import VisitPlan, VisitRequest
from roman_assets.simulation.telescope.telescope import DEFAULT_SEED, velocity_aberration
from roman_assets.simulation.telescope.truth import read_truth
from roman_assets.ssc.command import commission, deliver
from roman_assets.ssc.handover import hand_over, ready_images
from roman_assets.ssc.intake import take_in
from roman_assets_tests.support.own_crds_cache import own_crds_cache
from roman_assets_tests.support.spectral_truth import (
    ISOLATED,
    SpectralTruth,
    flux_ratio,
    line_shift,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

DETECTOR, WINDOW = "WFI01", 1024
POINTING = Pointing(269.8288, 65.8622, 0.0)
SPECTRAL = (OpticalElement.GRISM, OpticalElement.PRISM)
DIRECT_OFFSET = 50.0
"""Arcsec up and down, so that direct images show all that has a spectrum in the window."""
FIVE_MINUTES = 1038
LEAST_SIGNAL = 5.0
"""S/N of the median row from which on a spectrum is compared."""
LEAST_ROWS = 60
"""Rows of a spectrum from which on it is compared; of others the window has next to nothing."""
CLEAR_LINES = 100.0
"""Chi squared by which lines must show for their place to be compared."""
FEWEST = 8


@pytest.fixture(scope="module")
def environment() -> Iterator[None]:
    with own_crds_cache():
        yield


@dataclass
class Field:
    root: DataRoot
    plan: VisitPlan

    def exposures(self, element: OpticalElement) -> list[PlannedExposure]:
        return [one for one in self.plan.exposures if one.optical_element is element]

    def truth(self, planned: PlannedExposure) -> SpectralTruth:
        sources = read_truth(self.root, planned.exposure.visit)
        pointing = sources.meta["true_pointing"][str(planned.exposure)]
        wcs = detector_wcs(
            DETECTOR, pointing["ra"], pointing["dec"], pointing["pa"], WINDOW,
            velocity_aberration=velocity_aberration(planned),
        )  # fmt: skip
        response = DetectorResponse(DETECTOR, WINDOW, DEFAULT_SEED)
        return SpectralTruth.of(sources, wcs, response, planned.optical_element)

    def table(self, kind: str, **search: str) -> pd.DataFrame:
        """Read a table as anybody can."""
        with roman_assets.open_archive(self.root.path) as archive:
            (name,) = archive.find(kind=kind, **search)["name"]
            return pq.read_table(archive.path(name, verify=True)).to_pandas()


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory, environment: None) -> Field:
    root = DataRoot(tmp_path_factory.mktemp("field") / "data")
    requests = [
        VisitRequest(
            Survey.HLWAS, 1, OpticalElement.F158, POINTING.offset(0.0, up), "NONE", 4
        )
        for up in (-DIRECT_OFFSET, DIRECT_OFFSET)
    ]  # fmt: skip
    requests += [
        VisitRequest(Survey.HLWAS, 1, element, POINTING, "SUB2", FIVE_MINUTES)
        for element in SPECTRAL
    ]
    plan = VisitPlan.from_requests(requests, detectors=(DETECTOR,))
    exposures = observe(plan, root, window=WINDOW)
    LandingArea(root).scan()
    for exposure in exposures:
        assert not format_exposure(root, exposure).failures
        assert not calibrate_exposure(root, exposure, workers=1).failures
    command = json.dumps([sys.executable, "-m", "roman_assets.simulation.ssc"])
    (root.path / "ssc.toml").write_text(
        "version = 1\n"
        + "".join(f'[[command]]\nmode = "{mode.lower()}"\nrun = {command}\n' for mode in SPECTRAL)
    )
    compute(root, plan)
    return Field(root, plan)


def compute(root: DataRoot, plan: VisitPlan) -> None:
    """Do what sensors and runs do, one after the other."""
    visits = [
        visit
        for visit, exposures in plan.visits.items()
        if exposures[0].exposure_type is ExposureType.WFI_SPECTRAL
    ]
    with Registry(root) as registry:
        manifests = visit_manifests(root, registry, visits)
    for visit in visits:
        for ready in ready_images(manifests[visit]):
            assert hand_over(root, [ready])
            run_command(root, ready.kinds[0].step, ready.partition)


def run_command(root: DataRoot, step: Step, partition: str) -> None:
    scratch = root.path / "work" / partition
    scratch.mkdir(parents=True)
    work = commission(root, step, partition, scratch)
    assert work is not None
    subprocess.run(
        work.command,
        env={**os.environ, **work.environment, DATA_ROOT_VARIABLE: str(root.path)},
        cwd=Path(roman_assets.__file__).parents[1],
        check=True,
    )
    deliver(root, work)
    result = take_in(root, step, partition)
    assert not result.failures, result.failures
    assert len(result.made) == sum(kind.step is step for kind in KINDS)


@dataclass
class Compared:
    """One delivered spectrum and its truth."""

    exposure: str
    source: int
    kind: str
    signal: float
    contamination: float
    stated_contamination: float
    flux_ratio: float
    worst_wavelength: float
    line_shift: float
    line_clearness: float

    @property
    def isolated(self) -> bool:
        return self.contamination < ISOLATED


def compared(field: Field, element: OpticalElement) -> list[Compared]:
    """Compare all individual spectra of an element that are clear enough."""
    found = []
    for planned in field.exposures(element):
        truth = field.truth(planned)
        exposure = str(planned.exposure)
        places = field.table("spec_location_table", exposure=exposure).set_index("source_id")
        for source, rows in field.table("spec_individual_1d", exposure=exposure).groupby(
            "source_id"
        ):
            place = places.loc[source]
            true = truth.row_at(place["x"], place["y"])
            signal = float((rows["flux"] / rows["flux_error"]).median())
            if true is None or signal < LEAST_SIGNAL or len(rows) < LEAST_ROWS:
                continue
            found.append(comparison(truth, true, rows, exposure, signal))
    return found


def comparison(
    truth: SpectralTruth, true: int, rows: pd.DataFrame, exposure: str, signal: float
) -> Compared:
    row, wavelength = rows["row"].to_numpy(), rows["wavelength"].to_numpy()
    flux, error = rows["flux"].to_numpy(), rows["flux_error"].to_numpy()
    true_flux = truth.flux(true, wavelength)
    off = np.abs(wavelength - truth.wavelength(true, row)) / np.abs(np.gradient(wavelength))
    shift, clearness = line_shift(wavelength, flux, error, true_flux)
    return Compared(
        exposure, int(rows["source_id"].iloc[0]), str(truth.sources["kind"][true]), signal,
        truth.contamination(true, row), float(rows["contamination"].mean()),
        flux_ratio(flux, error, true_flux), float(off.max()), shift, clearness,
    )  # fmt: skip


@pytest.fixture(scope="module", params=SPECTRAL)
def spectra(request: pytest.FixtureRequest, field: Field) -> list[Compared]:
    found = compared(field, request.param)
    table = pd.DataFrame([vars(one) | {"isolated": one.isolated} for one in found])
    table.to_csv(field.root.path.parent / f"{request.param}.csv")  # for who looks after a failure
    return found


def test_fluxes_of_every_isolated_source_are_within_a_tenth_of_the_truth(
    spectra: list[Compared],
) -> None:
    isolated = [one for one in spectra if one.isolated]
    assert len({one.source for one in isolated}) >= FEWEST
    wrong = [one for one in isolated if abs(one.flux_ratio - 1) > 0.1]
    assert not wrong, wrong


def test_wavelengths_are_within_one_pixel_of_the_truth(spectra: list[Compared]) -> None:
    wrong = [one for one in spectra if one.worst_wavelength > 1.0]
    assert not wrong, wrong


def test_lines_are_found_within_one_pixel_of_their_true_wavelengths(
    spectra: list[Compared],
) -> None:
    clear = [one for one in spectra if one.isolated and one.line_clearness > CLEAR_LINES]
    assert len({one.source for one in clear}) >= 3
    assert all(abs(one.line_shift) < 1.0 for one in clear), clear


def test_spectra_with_a_wrong_flux_are_said_to_be_contaminated(spectra: list[Compared]) -> None:
    wrong = [one for one in spectra if abs(one.flux_ratio - 1) > 0.1]
    silent = [one for one in wrong if one.stated_contamination < 0.05]
    assert not silent, silent


def test_the_visit_has_a_combined_spectrum_of_what_both_exposures_have(field: Field) -> None:
    for element in SPECTRAL:
        first, second = (
            set(field.table("spec_individual_1d", exposure=str(one.exposure))["source_id"])
            for one in field.exposures(element)
        )
        visit = str(field.exposures(element)[0].exposure.visit)
        both = field.table("spec_combined_1d", visit=visit)
        assert set(both["source_id"]) == first | second
        catalog = field.table("spec_catalog", visit=visit)
        assert set(catalog["source_id"]) == first | second
        assert len(first & second) >= FEWEST


def test_spectra_name_the_direct_images_that_they_were_found_by(field: Field) -> None:
    with roman_assets.open_archive(field.root.path) as archive:
        direct = set(archive.find(kind="exposure_catalog")["name"])
        for row in archive.find(kind="spec_individual_1d").to_dict("records"):
            (newest,) = archive.history(row["name"]).tail(1)["inputs"]
            assert direct <= {one["name"] for one in newest}


def test_none_of_it_is_among_the_soc_s_products(field: Field) -> None:
    with Registry(field.root) as registry:
        made = registry.products.find(
            level=["L3", "L4"], optical_element=[str(one) for one in SPECTRAL]
        )
    assert len(made)
    assert all(kind.startswith("spec_") for kind in made["kind"])
