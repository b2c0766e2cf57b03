import pytest

from roman_assets.products.observation import OpticalElement
from roman_assets.simulation.telescope.crds_cache import build_crds_cache
from roman_assets.simulation.telescope.scene import SkyCircle

SEED = 5
FIELD = SkyCircle(270.0, 66.0, 0.5)


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """A cache of one detector and one filter at window size."""
    path = tmp_path_factory.mktemp("crds")
    build_crds_cache(
        path,
        detectors=["WFI02"],
        optical_elements=[OpticalElement.F158],
        seed=SEED,
        sky_fields=[FIELD],
    )
    return path
