"""Door: names that come from a command line, a store or a delivery."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from roman_assets.products.name import ProductName

NEARLY_NAMES = st.from_regex(
    r"r[0-9]{19}_[0-9]{4}(_wfi[0-9]{2})?_f[0-9]{3}_(uncal|cal|segm|face|gw|wcs)\.asdf"
)


@example("r0000101001001001001_0001_wfi02_f158_cal.asdf\n")
@example("r0000101001001001001_0001_wfi99_f158_cal.asdf")
@given(st.text() | NEARLY_NAMES)
def test_a_text_is_the_name_of_the_product_it_is_parsed_to_or_refused(text: str) -> None:
    try:
        name = ProductName.parse(text)
    except ValueError:
        return
    assert str(name) == text
