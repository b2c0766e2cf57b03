"""Alerts: who is told, and how, that products are late or about to be.

`Alert` says what a person must know; an `AlertSender` brings several of them to someone, by mail or
to a webhook. `AlertLog` remembers what each sender has delivered. An alert is sent at least once by
every sender, and again only after a crash between its delivery and its record; a sender that fails
holds up no other, and tries again at the next tick.
"""

from __future__ import annotations

import http.client
import json
import os
import smtplib
import ssl
import urllib.request
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from roman_assets.archive.durability import append_line, private_directory
from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError, PassingFaultError

SMTP_VARIABLE = "ROMAN_ASSETS_ALERT_SMTP"
MAIL_FROM_VARIABLE = "ROMAN_ASSETS_ALERT_MAIL_FROM"
MAIL_TO_VARIABLE = "ROMAN_ASSETS_ALERT_MAIL_TO"
WEBHOOK_VARIABLE = "ROMAN_ASSETS_ALERT_WEBHOOK"

TIMEOUT_S = 20.0
MOST_LINES = 50
"""Alerts listed one by one in a message; of more the message gives the number."""


@dataclass(frozen=True)
class Alert:
    """Products of one level of an exposure or visit that are late or about to be.

    Parameters
    ----------
    partition
        Exposure or visit.
    step
        The work that makes them.
    level
        L1 to L4.
    state
        How they stand, in the words of the deadline ledger, or ``at risk``.
    severity
        ``ERROR`` or ``WARN``.
    products
        How many.
    due
        UTC, ISO 8601; None while no clock runs.
    margin_hours
        Until due, negative after it.
    blame
        Where most of the time went, if it is late.
    reason
        What failed, if something did.
    survey, optical_element
        Of the visit, as far as known.
    """

    partition: str
    step: str
    level: str
    state: str
    severity: str
    products: int
    due: str | None = None
    margin_hours: float | None = None
    blame: str | None = None
    reason: str | None = None
    survey: str | None = None
    optical_element: str | None = None

    @property
    def alert_id(self) -> str:
        """The same whenever the alert is repeated: each is told once to everyone."""
        return f"{self.partition}:{self.step}:{self.level}:{self.state}"

    @property
    def line(self) -> str:
        """The alert in one line for people."""
        parts = [
            f"{self.level} of {self.partition}"
            + (f" ({self.survey} {self.optical_element})" if self.survey else ""),
            f"{self.products} products {self.state}",
        ]
        if self.due is not None and self.margin_hours is not None:
            early = f"{self.margin_hours:.1f} h left"
            late = f"{-self.margin_hours:.1f} h late"
            parts.append(f"due {self.due}, {early if self.margin_hours >= 0 else late}")
        if self.blame:
            parts.append(f"mostly {self.blame}")
        if self.reason:
            parts.append(self.reason)
        return ": ".join([parts[0], ", ".join(parts[1:])])


class AlertSender(Protocol):
    """Brings alerts to someone."""

    @property
    def name(self) -> str:
        """Whom it tells: what it has delivered is remembered by this name."""

    def send(self, alerts: Sequence[Alert]) -> None:
        """Deliver alerts in one message; must not return before they are.

        Raises
        ------
        PassingFaultError
            If they could not be delivered; they will be given again.
        """


def summary(alerts: Sequence[Alert]) -> str:
    """Give one line that counts alerts by state."""
    counts = Counter(alert.state for alert in alerts)
    return ", ".join(f"{number} {state}" for state, number in counts.most_common())


def text(alerts: Sequence[Alert]) -> str:
    """Give the body of a message."""
    lines = [alert.line for alert in alerts[:MOST_LINES]]
    if left := len(alerts) - len(lines):
        lines.append(f"... and {left} more: see roman-assets deadlines")
    return "\n".join(lines)


@dataclass(frozen=True)
class MailSender:
    """Sends alerts by mail.

    Parameters
    ----------
    server
        ``smtp://[user:password@]host[:port]``, with ``smtps`` for TLS from the start and
        ``smtp+starttls`` for TLS after the greeting.
    sender
        Address of the sender.
    recipients
        Addresses that are told.
    """

    server: str
    sender: str
    recipients: tuple[str, ...]

    @property
    def name(self) -> str:
        """Whom it tells."""
        return f"mail to {', '.join(self.recipients)}"

    def send(self, alerts: Sequence[Alert]) -> None:
        """Send one message to all recipients."""
        message = EmailMessage()
        message["Subject"] = f"[roman-assets] {summary(alerts)}"
        message["From"] = self.sender
        message["To"] = ", ".join(self.recipients)
        message["Date"] = format_datetime(datetime.now(UTC))
        message["Message-ID"] = make_msgid(domain=self.sender.rpartition("@")[2] or None)
        message.set_content(text(alerts))
        try:
            with self._connected() as server:
                server.send_message(message)
        except (OSError, smtplib.SMTPException) as error:
            raise PassingFaultError(f"{self.name}: {error}") from error

    def _connected(self) -> smtplib.SMTP:
        url = urlsplit(self.server)
        host = url.hostname or "localhost"
        context = ssl.create_default_context()
        if url.scheme == "smtps":
            server: smtplib.SMTP = smtplib.SMTP_SSL(
                host, url.port or 465, timeout=TIMEOUT_S, context=context
            )
        else:
            server = smtplib.SMTP(host, url.port or 25, timeout=TIMEOUT_S)
        if url.scheme == "smtp+starttls":
            server.starttls(context=context)
        if url.username:
            server.login(unquote(url.username), unquote(url.password or ""))
        return server


@dataclass(frozen=True)
class WebhookSender:
    """Posts alerts as JSON: ``text`` for people, as chat services expect, and ``alerts``.

    Parameters
    ----------
    url
        Where to, http or https.
    """

    url: str

    @property
    def name(self) -> str:
        """Whom it tells, without what may be secret in the address."""
        return f"webhook {urlsplit(self.url).hostname}"

    def send(self, alerts: Sequence[Alert]) -> None:
        """Post one message; any answer but success counts as not delivered."""
        message = {
            "text": f"{summary(alerts)}\n{text(alerts)}",
            "alerts": [asdict(alert) | {"alert_id": alert.alert_id} for alert in alerts],
        }
        request = urllib.request.Request(  # noqa: S310 the scheme was checked
            self.url, json.dumps(message).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S):  # noqa: S310
                pass
        except (OSError, http.client.HTTPException) as error:
            raise PassingFaultError(f"{self.name}: {error}") from error


_SMTP_SCHEMES = ("smtp", "smtps", "smtp+starttls")
_WEB_SCHEMES = ("http", "https")


def senders_from_environment(environment: Mapping[str, str] = os.environ) -> list[AlertSender]:
    """Give the senders that the operator has set up, perhaps none.

    Raises
    ------
    BadInputError
        If a setting cannot be used; it names the variable.
    """
    senders: list[AlertSender] = []
    if server := environment.get(SMTP_VARIABLE):
        _require_scheme(SMTP_VARIABLE, server, _SMTP_SCHEMES)
        recipients = [part.strip() for part in environment.get(MAIL_TO_VARIABLE, "").split(",")]
        if not all(recipients):
            raise BadInputError(
                "environment", MAIL_TO_VARIABLE, "nobody is named",
                "set addresses, separated by commas",
            )  # fmt: skip
        sender = environment.get(MAIL_FROM_VARIABLE) or recipients[0]
        senders.append(MailSender(server, sender, tuple(recipients)))
    if url := environment.get(WEBHOOK_VARIABLE):
        _require_scheme(WEBHOOK_VARIABLE, url, _WEB_SCHEMES)
        senders.append(WebhookSender(url))
    return senders


def _require_scheme(variable: str, url: str, schemes: Sequence[str]) -> None:
    parts = urlsplit(url)
    if parts.scheme not in schemes or not parts.hostname:
        # the address itself may hold a password
        raise BadInputError(
            "environment", variable, f"its scheme is {parts.scheme!r}, its host {parts.hostname!r}",
            f"give an address that begins with {', '.join(f'{s}://' for s in schemes)}",
        )  # fmt: skip


@dataclass(frozen=True)
class AlertLog:
    """What each sender has delivered: one line of JSON for each message.

    Parameters
    ----------
    path
        The file; made when missing.
    """

    path: Path

    @classmethod
    def of(cls, root: DataRoot) -> AlertLog:
        """Give the log of an installation."""
        return cls(root.path / "alerts" / "delivered.jsonl")

    def delivered(self, sender: str) -> frozenset[str]:
        """Give the ids of the alerts that a sender has delivered."""
        try:
            lines = self.path.read_bytes().splitlines()
        except FileNotFoundError:
            return frozenset()
        entries = (entry for line in lines if (entry := _entry(line)) is not None)
        return frozenset(
            alert_id
            for entry in entries
            if entry["sender"] == sender
            for alert_id in entry["alerts"]
        )

    def add(self, sender: str, alerts: Iterable[Alert], time: datetime) -> None:
        """Note durably that alerts are delivered."""
        private_directory(self.path.parent)
        entry = {
            "sender": sender,
            "time": time.isoformat(),
            "alerts": [alert.alert_id for alert in alerts],
        }
        append_line(self.path, json.dumps(entry).encode())


def _entry(line: bytes) -> dict[str, Any] | None:
    """Read a line; one torn by a crash speaks of a delivery that will be repeated."""
    try:
        entry: dict[str, Any] = json.loads(line)
    except ValueError:
        return None
    return entry


def deliver(
    alerts: Sequence[Alert], senders: Iterable[AlertSender], log: AlertLog, now: datetime
) -> dict[str, int]:
    """Let every sender deliver what it has not delivered yet, in one message each.

    Parameters
    ----------
    alerts
        All that hold now, the most urgent first.
    senders
        Who is to deliver them.
    log
        What was delivered before.
    now
        UTC.

    Returns
    -------
    dict
        Alerts delivered by each sender.

    Raises
    ------
    PassingFaultError
        If a sender failed, after all others have had their turn.
    """
    sent: dict[str, int] = {}
    faults = []
    for sender in senders:
        known = log.delivered(sender.name)
        new = [alert for alert in alerts if alert.alert_id not in known]
        if not new:
            continue
        try:
            sender.send(new)
        except PassingFaultError as fault:
            faults.append(str(fault))
            continue
        log.add(sender.name, new, now)
        sent[sender.name] = len(new)
    if faults:
        raise PassingFaultError(
            f"{'; '.join(faults)}. What could not be delivered is sent again at the next tick"
        )
    return sent
