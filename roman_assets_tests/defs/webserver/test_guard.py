from __future__ import annotations

import base64
from typing import Any

import pytest

from roman_assets.defs.webserver.guard import Guard

TOKEN = "a-token-of-some-length"
JSON = {"content-type": "application/json"}


async def _unreachable(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("nothing is to reach it here")


OPEN = Guard(_unreachable)
LOCKED = Guard(_unreachable, token=TOKEN)


def status(
    headers: dict[str, str],
    method: str = "POST",
    path: str = "/graphql",
    query: str = "",
    guard: Guard = OPEN,
    kind: str = "http",
) -> int | None:
    """Return the status of the refusal, None if the request may pass."""
    given = {"host": "127.0.0.1:3000"} | headers
    refusal = guard.refusal(
        {
            "type": kind,
            "method": method,
            "path": path,
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in given.items()],
        }
    )
    return None if refusal is None else refusal.status


def basic(text: str) -> dict[str, str]:
    return JSON | {"authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost:3000", None), ("LOCALHOST", None), ("[::1]:3000", None),
        ("rebound.example:3000", 421), ("127.0.0.1.example", 421), ("", 421), ("[::1", 421),
        ("127.0.0.1@rebound.example", 421),
    ],
)  # fmt: skip
def test_only_its_own_names_are_answered(host: str, expected: int | None) -> None:
    assert status(JSON | {"host": host}) == expected


def test_a_name_may_be_added_for_a_proxy() -> None:
    guard = Guard(_unreachable, frozenset({"roman.example"}))
    assert status(JSON | {"host": "roman.example"}, guard=guard) is None
    assert status(
        JSON | {"host": "roman.example", "origin": "https://roman.example"}, guard=guard
    ) is None  # fmt: skip


@pytest.mark.parametrize(
    "given",
    [
        {}, {"authorization": ""}, {"authorization": TOKEN}, {"authorization": "Bearer "},
        {"authorization": f"Bearer {TOKEN}x"}, {"authorization": "Basic !!!"},
        {"authorization": "Digest x"}, {"cookie": f"token={TOKEN}"}, basic(TOKEN),
        basic(f"{TOKEN}:"), basic("operator:"), basic("operator:ä"),
    ],
)  # fmt: skip
def test_without_the_token_nothing_passes(given: dict[str, str]) -> None:
    assert status(JSON | given, guard=LOCKED) == 401
    assert status(given, "GET", "/", guard=LOCKED) == 401
    assert status(given, kind="websocket", guard=LOCKED) == 401


@pytest.mark.parametrize(
    "given", [basic(f"operator:{TOKEN}"), {"authorization": f"bearer {TOKEN}"}]
)
def test_the_token_passes_as_a_password_or_bearer(given: dict[str, str]) -> None:
    assert status(JSON | given, guard=LOCKED) is None


@pytest.mark.parametrize(
    "given",
    [
        {"origin": "http://evil.example"}, {"origin": "null"}, {"origin": "http://127.0.0.1:4000"},
        {"origin": "http://["}, {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"},
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_pages_of_other_sites_are_refused(given: dict[str, str], kind: str) -> None:
    assert status(JSON | given, kind=kind) == 403


def test_its_own_pages_and_programs_pass() -> None:
    own = {"origin": "http://127.0.0.1:3000", "sec-fetch-site": "same-origin"}
    assert status(JSON | own) is None
    assert status(own, kind="websocket") is None
    assert status(JSON) is None


def test_a_link_on_another_site_opens_the_ui_but_no_frame_does() -> None:
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert status(link | {"sec-fetch-dest": "document"}, "GET", "/runs") is None
    assert status(link | {"sec-fetch-dest": "iframe"}, "GET", "/runs") == 403
    assert status(link | {"sec-fetch-dest": "document"}, "POST") == 403


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "text/plain; x=application/json", "application/x-www-form-urlencoded", ""],
)
def test_a_post_that_a_form_could_send_is_refused(content_type: str) -> None:
    assert status({"content-type": content_type}) == 415
    assert status({}) == 415
    assert status({"content-type": content_type}, path="/report_asset_check/cal") == 415


@pytest.mark.parametrize("path", ["/graphql", "/graphql/"])
@pytest.mark.parametrize("query", ["query=mutation{a}", "x=1&%71uery=mutation{a}"])
def test_a_get_executes_nothing(path: str, query: str) -> None:
    assert status({}, "GET", path, query) == 405
