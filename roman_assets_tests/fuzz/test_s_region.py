"""Door: the footprints that products state and that people search in."""

from __future__ import annotations

import time
from contextlib import suppress

from hypothesis import example, given
from hypothesis import strategies as st

from roman_assets.registry.catalog.footprint import WIDEST_PRODUCT, Footprint

WORDS = (
    st.floats().map(str)
    | st.sampled_from(["POLYGON", "ICRS", "CIRCLE", "nan", "inf", "1_0", "66.08deg", "٣", "1e400"])
    | st.from_regex(r"[-+.0-9eE]{1,30}", fullmatch=True)
    | st.text(max_size=5)
)
NEARLY_REGIONS = st.lists(WORDS, max_size=30).map(lambda words: f"POLYGON {' '.join(words)}")
ON_SKY = st.tuples(st.floats(-360, 360), st.floats(-90, 90))
POLYGONS = st.lists(ON_SKY, min_size=3, max_size=9).map(
    lambda corners: f"POLYGON ICRS {' '.join(f'{ra} {dec}' for ra, dec in corners)}"
)


@example("POLYGON ICRS " + "1" * 40 + "x")
@example("POLYGON ICRS 269.912345678 65.912345678 270.1 65.9 270.1 66.1 nan nan")
@example("POLYGON ICRS 0 0 180 0 0 0 180 0")
@example("POLYGON ICRS -1.1 2.4e-26 1.2e-07 1.2e-07 -1.1 2.4e-26 1.2e-07 1.2e-07")
@given(st.text() | NEARLY_REGIONS | POLYGONS)
def test_a_footprint_is_one_that_every_search_can_use_or_is_refused(text: str) -> None:
    began = time.process_time()
    try:
        footprint = Footprint.of_product(text)
    except ValueError:
        pass
    else:
        assert 0 <= footprint.radius <= WIDEST_PRODUCT
        assert footprint.meets_cone(*footprint.centre, 2 * WIDEST_PRODUCT)
        assert footprint.meets(footprint)
    with suppress(ValueError):
        Footprint.of_region(text)
    assert time.process_time() - began < 1
