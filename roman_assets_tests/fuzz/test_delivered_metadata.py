"""Door: notifications of the SSC and the metadata in them."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from roman_assets.errors import BadInputError
from roman_assets.products.name import ProductName
from roman_assets.registry.catalog.delivered_schema import schema_faults
from roman_assets.registry.catalog.metadata import delivered_metadata
from roman_assets.ssc.notification import Notification, metadata_of
from roman_assets_tests.support.ssc_center import bulge, metadata

EVENTS = ProductName.parse(bulge("event_catalog"))
GOOD = metadata(str(EVENTS))
SINGLE = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text()
    | st.sampled_from([10**400, 1e300, -999999, "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:60"])
    | st.datetimes().map(str)
)  # fmt: skip
VALUES = st.recursive(
    SINGLE, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5
)
FIELDS = st.dictionaries(st.sampled_from(sorted(GOOD)) | st.text(), VALUES, max_size=5)


def notification(metadata: dict[str, Any], **about: Any) -> bytes:
    file = {
        "filename": str(EVENTS),
        "fileSize": 1,
        "sha256": "0" * 64,
        "fileCreationTimestamp": "2027-06-02T11:20:00Z",
        "inputs": [{"name": "x", "sha256": "0" * 64}],
        "softwareVersions": {"msos": "3.3.0"},
        "metadata": {**GOOD, **metadata},
        **about,
    }
    return json.dumps({"version": 1, "files": [file]}).encode()


@example({"exptime": [1]})
@example({"exptime": {"a": 1}})
@example({"exptime": 10**400})
@example({"expstart": "0001-01-01T00:00:00+14:00"})
@example({"visit_start_time_mjd": 1e300, "expstart": "?"})
@example({"s_region": "POLYGON ICRS 0 0 90 0 180 0 270 0"})
@given(FIELDS)
def test_metadata_are_such_as_the_registry_can_hold_or_are_refused(
    fields: dict[str, Any],
) -> None:
    try:
        (file,) = Notification.parse(notification(fields), "first").files
        assert isinstance(schema_faults(str(EVENTS.kind.rad_schema), metadata_of(file)), list)
        found = delivered_metadata(EVENTS, metadata_of(file))
    except BadInputError:
        return
    assert found.archived is not None
    json.dumps([dict(found.facts), dict(found.archived.values)], allow_nan=False).encode()


@example(b'{"version": 1, "files": ' + b"[" * 100_000)
@example(b'{"version": ' + b"1" * 100_000 + b"}")
@example(b'{"version": 1, "files": [' + b"{}," * 100_000 + b"{}]}")
@given(st.binary() | FIELDS.map(lambda about: notification({}, **about)))
def test_a_notification_is_read_or_refused(content: bytes) -> None:
    try:
        read = Notification.parse(content, "first")
    except BadInputError:
        return
    assert Notification.parse(read.as_json(), "again") == read
