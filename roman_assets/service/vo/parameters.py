"""Parameters of DALI: names without regard to case, from the query and from forms."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from roman_assets.service.archive_service import service_of
from roman_assets.service.request_error import UsageError

MOST_PARAMETERS = 20_000
_FORM = "application/x-www-form-urlencoded"
_MULTIPART = "multipart/form-data"


@dataclass(frozen=True)
class Parameters:
    """Parameters of one request.

    Parameters
    ----------
    values
        By name in upper case, in order.
    files
        Contents of uploaded files, by the name of their part.
    """

    values: Mapping[str, list[str]]
    files: Mapping[str, bytes] = field(default_factory=dict)

    def one(self, name: str) -> str | None:
        """Return the value of a parameter that may be given once, None without one.

        Raises
        ------
        UsageError
            If it is given more often.
        """
        found = [value for value in self.values.get(name, ()) if value]
        if len(found) > 1:
            raise UsageError(f"{name} is given {len(found)} times; give one value")
        return found[0] if found else None

    def all(self, name: str) -> list[str]:
        """Return all values of a parameter."""
        return [value for value in self.values.get(name, ()) if value]


def maxrec(parameters: Parameters, most: int) -> int:
    """Return how many rows an answer may have.

    Raises
    ------
    UsageError
        If MAXREC is not a number.
    """
    given = parameters.one("MAXREC")
    if given is None:
        return most
    if not (given.isascii() and given.isdigit() and len(given) < 20):
        raise UsageError(f"MAXREC: {given[:50]!r} is not a number of rows")
    return min(int(given), most)


async def parameters_of(request: Request) -> Parameters:
    """Read the parameters of a request.

    Raises
    ------
    UsageError
        If they cannot be read.
    TooLargeError
        If the form is too large.
    """
    pairs = list(request.query_params.multi_items())
    files: dict[str, bytes] = {}
    if request.method == "POST":
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        body = await service_of(request).body(request)
        if kind == _MULTIPART:
            more, files = await _multipart(request, body)
            pairs += more
        elif kind == _FORM or body:
            pairs += _urlencoded(body)
    if len(pairs) > MOST_PARAMETERS:
        raise UsageError(f"there are more than {MOST_PARAMETERS} parameters")
    values: dict[str, list[str]] = {}
    for name, value in pairs:
        values.setdefault(name.upper(), []).append(value)
    return Parameters(values, files)


def _urlencoded(body: bytes) -> list[tuple[str, str]]:
    try:
        text = body.decode()
        return parse_qsl(text, keep_blank_values=True, max_num_fields=MOST_PARAMETERS)
    except ValueError as error:
        raise UsageError("the form cannot be read") from error


async def _multipart(
    request: Request, body: bytes
) -> tuple[list[tuple[str, str]], dict[str, bytes]]:
    async def parts() -> AsyncGenerator[bytes, None]:
        yield body

    try:
        form = await MultiPartParser(request.headers, parts()).parse()
    except (MultiPartException, KeyError, ValueError) as error:
        raise UsageError("the form cannot be read") from error
    pairs, files = [], {}
    for name, value in form.multi_items():
        if isinstance(value, str):
            pairs.append((name, value))
        else:
            files[name] = await value.read()
    await form.close()
    return pairs, files
