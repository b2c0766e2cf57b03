"""Subscribers are told what happened to the products of their program, once each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from roman_assets.access import Role
from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError
from roman_assets.products.kind import Step
from roman_assets.registry.store.fold import fold
from roman_assets.settings.subscription_settings import subscriptions_of
from roman_assets.subscriptions.subscription_notice import LOOK_BACK, Post, tell_subscribers
from roman_assets_tests.support.sky_archive import FIRST, OTHER
from roman_assets_tests.support.small_archive import publish
from roman_assets_tests.support.web_server import Quiet, serving

NOW = datetime.now(UTC).replace(microsecond=0)
CAL, OTHERS_CAL = f"{FIRST}_cal.asdf", f"{OTHER}_cal.asdf"
SERVICE = Post(service="http://archive.example")


@contextmanager
def webhook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield the address of a webhook, and the messages that it got."""
    got: list[dict[str, Any]] = []

    class Handler(Quiet, BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["content-length"]))
            got.append(json.loads(content))
            self.send_response(204)
            self.end_headers()

    with serving(Handler) as port:
        yield f"http://127.0.0.1:{port}/secret-hook", got


def subscribe(root: DataRoot, text: str) -> None:
    (root.path / "subscriptions.toml").write_text(f"version = 1\n[subscriptions.team]\n{text}\n")


def add(root: DataRoot, name: str, content: bytes, when: datetime, **fields: object) -> None:
    exposure = "_".join(name.split("_")[:2])
    publish(
        root, {name: content}, 0, step=Step.EXPOSURE, partition=exposure, committed_at=when,
        **fields,
    )  # fmt: skip
    fold(root)


@pytest.fixture
def root(tmp_path: Path) -> DataRoot:
    made = DataRoot(tmp_path)
    add(made, CAL, b"one", NOW - timedelta(hours=2))
    add(made, OTHERS_CAL, b"other", NOW - timedelta(hours=1))
    return made


def titles(message: dict[str, Any]) -> list[str]:
    return [alert["title"] for alert in message["alerts"]]


def tell(root: DataRoot, now: datetime = NOW) -> tuple[str, ...]:
    return tell_subscribers(root, subscriptions_of(root), SERVICE, now).faults


def test_a_subscriber_is_told_once_of_each_thing_that_happened_to_a_program(
    root: DataRoot,
) -> None:
    with webhook() as (url, got):
        subscribe(root, f'program = 10\nwebhook = "{url}"')
        assert tell(root) == tell(root) == ()
        (first,) = got
        exposure = "_".join(FIRST.split("_")[:2])
        assert titles(first) == [f"L2 of {exposure} new (HLWAS, F158)"]
        assert first["alerts"][0]["url"] == f"http://archive.example/products/{CAL}"
        add(root, CAL, b"two", NOW - timedelta(hours=1))
        tell(root)
        assert [titles(message) for message in got[1:]] == [
            [f"L2 of {exposure} reprocessed (HLWAS, F158)"]
        ]


def test_levels_and_events_narrow_a_subscription(root: DataRoot) -> None:
    with webhook() as (url, got):
        subscribe(root, f'level = "L2"\nevents = ["reprocessed"]\nwebhook = "{url}"')
        tell(root)
        assert got == []
        add(root, CAL, b"two", NOW)
        tell(root)
        assert len(got) == 1 and len(titles(got[0])) == 1


def test_what_could_not_be_delivered_is_told_at_the_next_look(root: DataRoot) -> None:
    with webhook() as (url, _):
        pass
    subscribe(root, f'webhook = "{url}"')
    (fault,) = tell(root)
    assert "team" in fault and "secret" not in fault
    with webhook() as (url, got):
        subscribe(root, f'webhook = "{url}"')
        assert tell(root) == ()
        assert len(titles(got[0])) == 2


def test_what_is_not_public_is_told_to_nobody(root: DataRoot) -> None:
    add(root, f"{FIRST}_uncal.asdf", b"hidden", NOW, access=Role.OPERATIONS)
    with webhook() as (url, got):
        subscribe(root, f'program = 10\nwebhook = "{url}"')
        tell(root)
    assert "uncal" not in json.dumps(got)


def test_old_arrivals_are_not_told_to_a_new_subscriber(root: DataRoot) -> None:
    with webhook() as (url, got):
        subscribe(root, f'webhook = "{url}"')
        tell(root, NOW + LOOK_BACK)
    assert got == []


def test_a_subscription_by_mail_needs_a_mail_server(root: DataRoot) -> None:
    subscribe(root, 'mail = ["team@example.org"]')
    (fault,) = tell(root)
    assert "subscriptions.team.mail" in fault and "ROMAN_ASSETS_ALERT_SMTP" in fault


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("program = 100000", "program"),
        ('survey = "X"', "survey"),
        ("events = []", "events"),
        ('mail = ["nobody"]', "mail"),
        ('webhok = "http://x"', "webhok"),
    ],
)
def test_an_invalid_subscription_is_an_error_that_names_the_field(
    tmp_path: Path, text: str, field: str
) -> None:
    subscribe(DataRoot(tmp_path), text)
    with pytest.raises(BadInputError, match=field):
        subscriptions_of(DataRoot(tmp_path))


def test_an_address_that_is_no_webhook_is_not_repeated(root: DataRoot) -> None:
    subscribe(root, 'webhook = "file:///secret"')
    (fault,) = tell(root)
    assert "subscriptions.team.webhook" in fault and "secret" not in fault
