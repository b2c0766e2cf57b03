"""Access to Dagster's web server: for holders of the token, and only from its own pages.

Dagster's web server has no login, executes a GET or a POST of any content type, and
answers for any name. So every user of the machine could start runs, and so could any web page in
an operator's browser. `Guard` stands before it.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers, QueryParams
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})

_JSON_TYPES = frozenset({"application/json", "application/graphql"})
"""Content types that a page of another site cannot send without this server's consent."""

_OWN_PAGES = frozenset({None, "same-origin", "none"})
"""``Sec-Fetch-Site`` of requests by this server's pages, by the address bar, by programs."""


@dataclass(frozen=True)
class Refusal:
    """The answer to a request that goes no further."""

    status: int
    reason: str

    @property
    def response(self) -> PlainTextResponse:
        """The answer; a browser asks for the token if it is missing."""
        login = {"WWW-Authenticate": 'Basic realm="roman-assets", charset="UTF-8"'}
        headers = login if self.status == 401 else None
        return PlainTextResponse(f"{self.reason}\n", self.status, headers)


@dataclass(frozen=True)
class Guard:
    """An ASGI application that passes on only what may reach another one.

    Every request needs a ``Host`` that is known (DNS rebinding), the token if there is one, and, if
    a browser sent it, a page of this server as its origin. A POST must be JSON, and a GET executes
    no query (CSRF). Following a link from another site is possible.

    Parameters
    ----------
    app
        The application to guard.
    names
        Host names it answers for.
    token
        Password of HTTP's Basic scheme (any user name), or token of the Bearer scheme; None asks
        for none.
    """

    app: ASGIApp
    names: frozenset[str] = LOOPBACK_NAMES
    token: str | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        refusal = self.refusal(scope) if scope["type"] in ("http", "websocket") else None
        await (self.app if refusal is None else refusal.response)(scope, receive, send)

    def refusal(self, scope: Scope) -> Refusal | None:
        """Return why a request goes no further; None if it may."""
        headers = Headers(scope=scope)
        if _name(headers.get("host", "")) not in self.names:
            names = ", ".join(sorted(self.names))
            return Refusal(
                421, f"This server answers for {names}. Start it with --allow-host for other names."
            )
        if not self._knows_token(headers.get("authorization", "")):
            return Refusal(401, "The password is in the file that --token-file names.")
        if _foreign(scope, headers):
            return Refusal(403, "Pages of other sites may not ask this server.")
        if scope["type"] == "http":
            return _forgeable(scope, headers)
        return None

    def _knows_token(self, authorization: str) -> bool:
        if self.token is None:
            return True
        return secrets.compare_digest(_given_token(authorization), self.token.encode())


def _given_token(authorization: str) -> bytes:
    scheme, _, given = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return given.strip().encode()
    if scheme.lower() != "basic":
        return b""
    try:
        return base64.b64decode(given.strip(), validate=True).partition(b":")[2]
    except (binascii.Error, ValueError):
        return b""


def _name(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _place(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


def _foreign(scope: Scope, headers: Headers) -> bool:
    """Return whether a browser sent the request for a page of another site."""
    origin = headers.get("origin")
    if origin is not None and _place(origin) != headers["host"].lower():
        return True
    follows_link = (
        scope["type"] == "http"
        and scope["method"] == "GET"
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest") == "document"
    )
    return headers.get("sec-fetch-site") not in _OWN_PAGES and not follows_link


def _forgeable(scope: Scope, headers: Headers) -> Refusal | None:
    """Refuse requests that a page of another site could send even without naming its origin."""
    if scope["method"] == "POST":
        kinds = [kind.partition(";")[0].strip().lower() for kind in headers.getlist("content-type")]
        if len(kinds) != 1 or kinds[0] not in _JSON_TYPES:
            return Refusal(415, "Send JSON, with Content-Type: application/json.")
    elif scope["path"].rstrip("/") == "/graphql" and "query" in QueryParams(scope["query_string"]):
        return Refusal(405, "Send queries by POST.")
    return None
