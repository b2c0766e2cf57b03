"""Door: requests to the guard before Dagster's web server."""

from __future__ import annotations

from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from roman_assets.defs.webserver.guard import Guard

TOKEN = "a-token-of-some-length"
NAMES = st.sampled_from(
    ["host", "origin", "authorization", "content-type", "sec-fetch-site", "sec-fetch-mode",
     "sec-fetch-dest"]
)  # fmt: skip
VALUES = st.binary(max_size=40) | st.sampled_from(
    [b"127.0.0.1:3000", b"[::1", b"localhost", b"http://127.0.0.1:3000", b"http://[", b"null",
     b"Basic ", b"Basic OnN4", b"Bearer \xff", b"application/json", b"same-origin", b"navigate"]
)  # fmt: skip


async def _app(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError


@example([(b"host", b"[::1")], "GET", "/", b"")
@example([(b"host", b"localhost"), (b"origin", b"http://[")], "POST", "/graphql", b"")
@given(
    st.lists(st.tuples(NAMES.map(str.encode), VALUES), max_size=6),
    st.sampled_from(["GET", "POST", "HEAD", "PUT", "OPTIONS"]),
    st.text(max_size=12) | st.just("/graphql"),
    st.binary(max_size=30) | st.just(b"query=mutation"),
)
def test_whoever_does_not_know_the_token_gets_no_further(
    headers: list[tuple[bytes, bytes]], method: str, path: str, query: bytes
) -> None:
    scope = {
        "type": "http", "method": method, "path": path, "query_string": query, "headers": headers,
    }  # fmt: skip
    refusal = Guard(_app, token=TOKEN).refusal(scope)
    assert refusal is not None
    assert refusal.status in (401, 421)
    without = Guard(_app).refusal(scope)
    assert without is None or without.status in (403, 405, 415, 421)
    if method == "POST" and b"application/json" not in dict(headers).get(b"content-type", b""):
        assert without is not None
