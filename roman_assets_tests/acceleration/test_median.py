import hypothesis.extra.numpy as npst
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from roman_assets.acceleration.median import nanmedian3d


@given(
    npst.arrays(
        np.float32,
        npst.array_shapes(min_dims=3, max_dims=3, max_side=6),
        elements=st.one_of(st.just(np.nan), st.floats(-4, 4, width=32), st.just(np.inf)),
    )
)
def test_the_median_is_that_of_stcal(cube):
    from stcal.outlier_detection.median import nanmedian3D

    np.testing.assert_array_equal(nanmedian3d(cube.copy()), nanmedian3D(cube.copy()), strict=True)
