"""The catalogues against the truth: the promises the demo makes to scientists."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from roman_assets.mosaic.coadd import MosaicResult
from roman_assets.simulation.telescope.scene import SourceKind
from roman_assets.simulation.telescope.truth import (
    APERTURE,
    PSF,
    Residuals,
    compare_catalog,
    read_catalog,
    read_truth,
)
from roman_assets_tests.support.observed_visit import Calibrated, Observed

GAIA_MAGNITUDES = (16.0, 20.8)


def residuals(observed: Observed, kind: str, **options: Any) -> Iterator[Residuals]:
    truth = read_truth(observed.root, observed.visit)
    for entry in observed.current(visit=str(observed.visit), kind=kind).values():
        element = entry.product_name.file_set.optical_element
        catalog = read_catalog(observed.path(entry.name))
        yield compare_catalog(catalog, truth, element, **options)


def test_stars_of_l2_lie_within_2_mas_of_gaia_though_the_pointing_was_wrong(
    calibrated: Calibrated,
) -> None:
    found = list(
        residuals(
            calibrated.observed,
            "exposure_catalog",
            kinds={SourceKind.GAIA},
            magnitudes=GAIA_MAGNITUDES,
        )
    )
    assert found
    for image in found:
        assert image.n >= 2
        assert image.position_rms_mas < 2.0


def test_fluxes_of_isolated_stars_in_l2_are_right_within_5_mmag(calibrated: Calibrated) -> None:
    found = list(residuals(calibrated.observed, "exposure_catalog", measurement=PSF))
    assert found
    for image in found:
        assert image.n >= 8
        assert image.median_flux_error_mmag < 5.0


def test_fluxes_of_isolated_stars_in_l3_are_right_within_10_mmag(
    calibrated: Calibrated, mosaicked: MosaicResult
) -> None:
    found = [
        skycell
        for skycell in residuals(calibrated.observed, "visit_catalog", measurement=APERTURE)
        if skycell.n >= 5
    ]
    assert found
    for skycell in found:
        assert skycell.median_flux_error_mmag < 10.0


def test_stars_of_native_l3_lie_within_5_mas_and_their_psf_fluxes_are_some_hundredths_low(
    calibrated: Calibrated, mosaicked: MosaicResult
) -> None:
    (skycell,) = residuals(calibrated.observed, "visit_catalog", measurement=PSF)
    assert skycell.n >= 5
    assert skycell.position_rms_mas < 5.0
    assert -10.0 < skycell.flux_bias_mmag < 45.0
