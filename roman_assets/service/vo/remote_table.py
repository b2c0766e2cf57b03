"""Tables that users name by address: fetched from the open internet, and from nowhere else."""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import time
from urllib.parse import SplitResult, urlsplit

from roman_assets.service.request_error import UsageError

_SECONDS = 10.0
_CHUNK = 1 << 16
_PORTS = {"http": 80, "https": 443}


def fetch_table(url: str, most_bytes: int) -> bytes:
    """Fetch a document that a user names.

    Only public addresses are asked, and no redirections followed, so that nobody reaches through
    this service what is behind its walls.

    Parameters
    ----------
    url
        With ``http`` or ``https``, at the usual port.
    most_bytes
        Size of the document at most.

    Raises
    ------
    UsageError
        If it is not there, not public, or too large.
    """
    place = _place(url)
    deadline = time.monotonic() + _SECONDS
    connection = _connected(place)
    try:
        target = f"{place.path or '/'}{'?' + place.query if place.query else ''}"
        connection.request("GET", target, headers={"Host": place.netloc, "Connection": "close"})
        answer = connection.getresponse()
        if answer.status != 200:
            raise UsageError(f"UPLOAD: {url[:200]} answers {answer.status}")
        parts, size = [], 0
        while part := answer.read(_CHUNK):
            size += len(part)
            if size > most_bytes or time.monotonic() > deadline:
                raise UsageError(f"UPLOAD: {url[:200]} is too large or too slow")
            parts.append(part)
        return b"".join(parts)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise UsageError(f"UPLOAD: {url[:200]} cannot be fetched: {error}") from error
    finally:
        connection.close()


def _place(url: str) -> SplitResult:
    try:
        place = urlsplit(url)
        usual = place.port in (None, _PORTS.get(place.scheme))
    except ValueError as error:
        raise UsageError(f"UPLOAD: {url[:200]!r} is not an address") from error
    if place.scheme not in _PORTS or not place.hostname or place.username or not usual:
        raise UsageError(f"UPLOAD: {url[:200]!r} is not a public address of the web")
    if not url.isascii() or any(letter <= " " for letter in url):
        raise UsageError(f"UPLOAD: {url[:200]!r} is not an address")
    return place


def _connected(place: SplitResult) -> http.client.HTTPConnection:
    """Connect to an address that was looked at, whatever its name means a moment later."""
    host, port = place.hostname or "", _PORTS[place.scheme]
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise UsageError(f"UPLOAD: there is no host {host[:100]!r}") from error
    addresses = [str(entry[4][0]) for entry in found]
    if not addresses or not all(ipaddress.ip_address(one).is_global for one in addresses):
        raise UsageError(f"UPLOAD: {host[:100]!r} is not a public host")
    connection = http.client.HTTPConnection(host, port, timeout=_SECONDS)
    try:
        plain = socket.create_connection((addresses[0], port), _SECONDS)
        if place.scheme == "https":
            context = ssl.create_default_context()
            connection.sock = context.wrap_socket(plain, server_hostname=host)
        else:
            connection.sock = plain
    except OSError as error:
        raise UsageError(f"UPLOAD: {host[:100]!r} cannot be reached: {error}") from error
    return connection
