"""Door: executed visits and MA tables."""

from __future__ import annotations

import json
import random
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from roman_assets.errors import BadInputError
from roman_assets.formatting.ancillary import content_hash, parse_document
from roman_assets.formatting.executed_visit import ExecutedVisit
from roman_assets.products.observation import ExposureId
from roman_assets_tests.support.telemetry_samples import MA_TABLE, executed_visit

ODD = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.datetimes().map(lambda time: f"{time.isoformat()}Z")
    | st.sampled_from(
        ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", 2**63, 10_000, "\ud800", 1e308]
    )
    | st.lists(st.integers(), max_size=3)
    | st.dictionaries(st.text(max_size=5), st.integers(), max_size=3)
)


@st.composite
def _documents(draw: st.DrawFn) -> Any:
    """A good document with some values changed or removed."""
    good = draw(st.sampled_from([executed_visit(), MA_TABLE]))
    document = good.model_dump(mode="json")
    rng = random.Random(draw(st.integers(0, 2**32)))
    for _ in range(draw(st.integers(0, 3))):
        part: Any = document
        while True:
            keys = list(part) if isinstance(part, dict) else list(range(len(part)))
            if not keys:
                break
            key = rng.choice(keys)
            if isinstance(part[key], dict | list) and rng.random() < 0.9:
                part = part[key]
                continue
            if rng.random() < 0.1:
                del part[key]
            else:
                part[key] = draw(ODD)
            break
    return document


@example(executed_visit().model_dump(mode="json") | {"nexposures": 10_000})
@example(executed_visit().model_dump(mode="json") | {"start_time": "0001-01-01T00:00:00+14:00"})
@given(_documents() | ODD)
def test_a_document_can_be_kept_and_used_or_a_field_is_named(content: Any) -> None:
    try:
        document = parse_document(content, "fuzz.json")
    except BadInputError as error:
        assert error.field
        str(error).encode()
        return
    kept = json.dumps(document.model_dump(mode="json"))
    kept.encode()
    assert parse_document(json.loads(kept), "index") == document
    assert content_hash(document)
    assert 1 <= document.revision < 2**31
    if isinstance(document, ExecutedVisit):
        last = ExposureId(document.visit, document.nexposures)
        assert document.executed(last) is None or last in document.exposure_ids
    else:
        assert document.effective_exposure_time <= document.exposure_time
