"""The bands are those of the mission's published tables, from the package that carries them."""

from __future__ import annotations

import csv
import importlib.resources
from collections.abc import Iterator
from importlib.resources.abc import Traversable

import numpy as np
import pytest

from roman_assets.products.bandpass import BANDPASSES
from roman_assets.products.observation import OpticalElement

WFI = importlib.resources.files("roman_technical_information") / "data" / "WideFieldInstrument"
FILTERS = [element for element, band in BANDPASSES.items() if band.psf_fwhm is not None]
DISPERSERS = {OpticalElement.GRISM: "G150", OpticalElement.PRISM: "P127"}


def rows(path: Traversable) -> list[dict[str, str]]:
    lines = [line for line in path.read_text().splitlines() if line.strip() and line[0] != "#"]
    return [
        {key.strip(): value.strip() for key, value in row.items()} for row in csv.DictReader(lines)
    ]


def half_maximum(column: str) -> Iterator[tuple[float, float]]:
    for path in (WFI / "Imaging" / "EffectiveAreas").iterdir():
        if path.name.endswith(".ecsv"):
            table = rows(path)
            area = np.array([float(row[column]) for row in table])
            passing = np.flatnonzero(area > area.max() / 2)
            yield tuple(float(table[place]["Wave"]) for place in passing[[0, -1]])


def test_every_element_that_lets_light_through_has_a_band() -> None:
    assert BANDPASSES.keys() == set(OpticalElement) - {OpticalElement.DARK}


@pytest.mark.parametrize("element", FILTERS)
def test_a_filter_ends_where_half_of_its_best_light_passes(element: OpticalElement) -> None:
    limits = np.array(list(half_maximum(element.value)))
    assert limits.shape == (18, 2)
    band = BANDPASSES[element]
    assert (band.shortest, band.longest) == pytest.approx(limits.mean(axis=0), abs=5e-4)


@pytest.mark.parametrize("element", FILTERS)
def test_the_width_of_the_psf_is_that_of_the_published_model(element: OpticalElement) -> None:
    table = rows(WFI / "Imaging" / "PointSpreadFunctions" / "SummaryPSFstats_corner.ecsv")
    widths = [float(row["FWHM"]) for row in table if row["Filter"] == element.value]
    assert len(widths) == 2
    assert BANDPASSES[element].psf_fwhm == pytest.approx(np.mean(widths), abs=6e-4)


@pytest.mark.parametrize("element", DISPERSERS)
def test_a_disperser_has_the_published_range_and_resolving_power(element: OpticalElement) -> None:
    path = WFI / "Spectroscopy" / "PrismGrismSummary" / "grism_prism_parameters.ecsv"
    (row,) = (row for row in rows(path) if row["element"] == DISPERSERS[element])
    band = BANDPASSES[element]
    assert band.shortest == float(row["wavelength_min"])
    assert band.longest == float(row["wavelength_max"])
    assert band.resolving_power is not None
    if element is OpticalElement.GRISM:
        assert row["resolution"] == "R = 461 * wavelength [microns]"
        assert band.resolving_power == pytest.approx((461 * band.shortest, 461 * band.longest))
    else:
        assert row["resolution"] == "80-180"
        assert band.resolving_power == (80, 180)
