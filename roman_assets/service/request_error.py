"""Requests that get no answer: the reasons, with HTTP's status for each."""

from __future__ import annotations

from roman_assets.errors import PlatformError


class RequestError(PlatformError):
    """A request that gets no answer; the message is for the sender."""

    status = 400


class UsageError(RequestError):
    """A parameter is invalid: the same request will fail again."""


class NotFoundError(RequestError):
    """There is no such thing in the archive, or it is not public."""

    status = 404


class TooLargeError(RequestError):
    """The request is larger than a limit of the service."""

    status = 413


class BusyError(RequestError):
    """The service cannot answer now: too many requests, or a product being replaced."""

    status = 503


class TooExpensiveError(RequestError):
    """The query takes more time or memory than the service gives."""
