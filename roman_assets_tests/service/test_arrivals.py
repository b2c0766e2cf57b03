"""What is new, was reprocessed or removed: a page for each day, and a feed."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import requests

from roman_assets.data_root import DataRoot
from roman_assets.products.kind import Step
from roman_assets.products.lifecycle import Transition
from roman_assets.records.journal import Journal
from roman_assets.records.record import ProductTransition
from roman_assets.registry.store.fold import fold
from roman_assets_tests.support.service_server import running_service
from roman_assets_tests.support.sky_archive import FIRST, OTHER, add_detector
from roman_assets_tests.support.small_archive import publish
from roman_assets_tests.support.small_products import moment, record_of, sha256

NOW = datetime.now(UTC).replace(microsecond=0)
ATOM = "{http://www.w3.org/2005/Atom}"
CAL, EXPOSURE = f"{FIRST}_cal.asdf", "_".join(FIRST.split("_")[:2])


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service of two programs: one old, one of which an image was reprocessed just now."""
    root = DataRoot(tmp_path_factory.mktemp("arrivals") / "data")
    add_detector(root, OTHER, 10.0, -40.0, 2000, survey="HLTDS")
    about = {"step": Step.EXPOSURE, "partition": EXPOSURE}
    publish(root, {CAL: b"one"}, 0, committed_at=NOW - timedelta(days=3), **about)
    publish(root, {CAL: b"two"}, 0, committed_at=NOW - timedelta(minutes=2), **about)
    fold(root)
    with running_service(root) as served:
        yield served


def entries(url: str, query: str = "") -> list[ET.Element]:
    answer = requests.get(f"{url}/feed.atom{query}")
    assert answer.headers["content-type"].startswith("application/atom+xml")
    return ET.fromstring(answer.text).findall(f"{ATOM}entry")


def titles(url: str, query: str = "") -> list[str]:
    return [str(entry.findtext(f"{ATOM}title")) for entry in entries(url, query)]


def test_the_feed_tells_what_is_new_and_what_was_reprocessed(url: str) -> None:
    assert [title for title in titles(url) if EXPOSURE in title] == [
        f"L2 of {EXPOSURE} reprocessed (HLWAS, F158)",
        f"L2 of {EXPOSURE} new (HLWAS, F158)",
    ]


def test_the_feed_follows_one_program(url: str) -> None:
    assert len(titles(url, "?program=10")) == 2
    assert titles(url, "?program=10&event=new") == [f"L2 of {EXPOSURE} new (HLWAS, F158)"]
    assert titles(url, "?program=10&level=L1") == titles(url, "?program=77") == []


def test_entries_keep_their_identity_and_lead_to_pages(url: str) -> None:
    first, again = entries(url, "?program=10"), entries(url)
    identities = [entry.findtext(f"{ATOM}id") for entry in first]
    assert len(set(identities)) == 2
    assert set(identities) <= {entry.findtext(f"{ATOM}id") for entry in again}
    for entry in first:
        link = entry.find(f"{ATOM}link")
        assert link is not None and CAL in requests.get(link.attrib["href"]).text


def test_a_day_shows_what_arrived_and_leads_to_the_days_before_and_after(url: str) -> None:
    today = requests.get(
        f"{url}/arrivals", params={"day": f"{NOW - timedelta(minutes=2):%Y-%m-%d}"}
    ).text
    before = f"{NOW - timedelta(days=3):%Y-%m-%d}"
    assert "<td>reprocessed</td>" in today and f"day={before}" in today
    earlier = requests.get(f"{url}/arrivals", params={"day": before}).text
    assert "<td>reprocessed</td>" not in earlier and "<td>new</td>" in earlier
    assert f"/products/{CAL}" in earlier
    assert "Nothing arrived" in requests.get(f"{url}/arrivals?day=2020-01-01").text


def test_products_that_are_removed_are_told(tmp_path: Path) -> None:
    root = DataRoot(tmp_path / "data")
    when = {"committed_at": NOW - timedelta(days=1)}
    publish(root, {CAL: b"one"}, 0, step=Step.EXPOSURE, partition=EXPOSURE, **when)
    made_by = Journal(root)
    fold(root)
    from roman_assets.registry.registry import Registry

    (made,) = Registry(root).generations.of([CAL])[CAL]
    gone = ProductTransition(
        transition=Transition.WITHDRAWN, name=CAL, made_by=made.record_id, sha256=sha256(b"one"),
        reason="stray light", cause="operator",
    )  # fmt: skip
    made_by.write(record_of(root, {}, committed_at=NOW, transitions=(gone,)))
    fold(root)
    with running_service(root) as url:
        assert titles(url)[0] == f"L2 of {EXPOSURE} removed (HLWAS, F158)"
        assert titles(url, "?event=removed") == titles(url)[:1]


@pytest.mark.parametrize("query", ["program=x", "level=L9", "survey=X", "event=x", "day=x"])
def test_what_cannot_be_followed_is_explained(url: str, query: str) -> None:
    answer = requests.get(f"{url}/arrivals?{query}")
    assert answer.status_code == 400 and query.partition("=")[0] in answer.text


def test_moments_of_the_simulated_night_are_days_too(url: str) -> None:
    page = requests.get(f"{url}/arrivals", params={"day": f"{moment(2000):%Y-%m-%d}"}).text
    assert "r0002001001001001001_0001" in page
