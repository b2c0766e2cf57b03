"""Alerts: who is told, and how, that products are late or about to be, or the registry damaged.

`Alert` and `DamageAlert` inform a person; an `AlertSender` brings several of them to
someone, by mail or to a webhook. `AlertLog` remembers what each sender has delivered of what holds.
An alert is sent at least once by every sender, and again only after a crash between its delivery
and its record, or when it holds anew. A sender that fails holds up no other, and tries again at the
next tick.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import smtplib
import ssl
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid
from pathlib import Path
from typing import Any, ClassVar, Protocol
from urllib.parse import SplitResult, unquote, urlsplit

from pydantic import TypeAdapter, ValidationError

from roman_assets.archive.durability import private_directory, write_durably
from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError, PassingFaultError

SMTP_VARIABLE = "ROMAN_ASSETS_ALERT_SMTP"
"""Mail server for alerts: ``smtp://``, ``smtps://`` or ``smtp+starttls://``. None by default."""
MAIL_FROM_VARIABLE = "ROMAN_ASSETS_ALERT_MAIL_FROM"
"""Sender of alert mails, the first recipient by default."""
MAIL_TO_VARIABLE = "ROMAN_ASSETS_ALERT_MAIL_TO"
"""Recipients of alert mails, separated by commas."""
WEBHOOK_VARIABLE = "ROMAN_ASSETS_ALERT_WEBHOOK"
"""URL that takes alerts as JSON by POST. None by default."""

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
    failed
        When the attempt ended that failed, UTC, ISO 8601; None of other states.
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
    failed: str | None = None

    @property
    def alert_id(self) -> str:
        """The same as long as the alert holds: it is told once to everyone."""
        return ":".join(
            filter(None, (self.partition, self.step, self.level, self.state, self.failed))
        )

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


@dataclass(frozen=True)
class DamageAlert:
    """Damage to the registry that a person must know of.

    Parameters
    ----------
    case
        Name of its case among those set aside.
    source
        The damaged file or part.
    reason
        Findings, and actions taken.
    remedy
        The remedy for a person.
    when
        When it was found, UTC, ISO 8601.
    state, severity
        As in `Alert`.
    """

    case: str
    source: str
    reason: str
    remedy: str
    when: str
    state: str = "damaged"
    severity: str = "ERROR"

    @property
    def alert_id(self) -> str:
        """The case: damage that recurs has another."""
        return f"registry:{self.case}"

    @property
    def line(self) -> str:
        """The alert in one line for people."""
        return f"registry: {self.source}: {self.reason}. Remedy: {self.remedy} ({self.when})"


class Message(Protocol):
    """What a sender delivers: a dataclass; a webhook receives each of its fields."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def alert_id(self) -> str:
        """The same as long as it holds: it is told once to everyone."""

    @property
    def line(self) -> str:
        """It in one line for people."""

    @property
    def state(self) -> str:
        """What messages are counted by."""


class AlertSender(Protocol):
    """Brings alerts to someone."""

    @property
    def name(self) -> str:
        """Whom it tells: what it has delivered is remembered by this name."""

    def send(self, alerts: Sequence[Message]) -> None:
        """Deliver alerts in one message; must not return before they are.

        Raises
        ------
        PassingFaultError
            If they could not be delivered; they will be given again. The message names no secret.
        """


def summary(alerts: Sequence[Message]) -> str:
    """Return one line that counts alerts by state."""
    counts = Counter(alert.state for alert in alerts)
    return ", ".join(f"{number} {state}" for state, number in counts.most_common())


def text(alerts: Sequence[Message]) -> str:
    """Return the body of a message."""
    lines = [alert.line for alert in alerts[:MOST_LINES]]
    if left := len(alerts) - len(lines):
        lines.append(f"... and {left} more")
    return "\n".join(lines)


@dataclass(frozen=True)
class MailServer:
    """A mail server and how to log in to it.

    Parameters
    ----------
    scheme
        ``smtp``, ``smtps`` for TLS from the start, ``smtp+starttls`` for TLS after the greeting.
    host, port
        Where it is; a port of None is the usual one.
    user, password
        None if it asks for none.
    """

    scheme: str
    host: str
    port: int | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    @contextmanager
    def connected(self) -> Iterator[smtplib.SMTP]:
        """Connect and log in, and quit at the end."""
        context = ssl.create_default_context()
        if self.scheme == "smtps":
            server: smtplib.SMTP = smtplib.SMTP_SSL(
                self.host, self.port or 465, timeout=TIMEOUT_S, context=context
            )
        else:
            server = smtplib.SMTP(self.host, self.port or 25, timeout=TIMEOUT_S)
        with server:
            if self.scheme == "smtp+starttls":
                server.starttls(context=context)
            if self.user is not None:
                server.login(self.user, self.password or "")
            yield server


@dataclass(frozen=True)
class MailSender:
    """Sends alerts by mail to one person, so that an address that is refused concerns no other.

    Parameters
    ----------
    server
        Takes the mail.
    sender
        Address of the sender.
    recipient
        Address that is told.
    """

    server: MailServer
    sender: str
    recipient: str

    @property
    def name(self) -> str:
        """Whom it tells."""
        return f"mail to {self.recipient}"

    def send(self, alerts: Sequence[Message]) -> None:
        """Send one message."""
        message = EmailMessage()
        message["Subject"] = f"[roman-assets] {summary(alerts)}"
        message["From"] = self.sender
        message["To"] = self.recipient
        message["Date"] = format_datetime(datetime.now(UTC))
        message["Message-ID"] = make_msgid(domain=self.sender.rpartition("@")[2] or None)
        message.set_content(text(alerts))
        try:
            with self.server.connected() as server:
                server.send_message(message, to_addrs=[self.recipient])
        except (OSError, smtplib.SMTPException) as error:
            # what the server answers may repeat what it was told
            raise PassingFaultError(f"{self.name}: {self._without_secret(error)}") from None

    def _without_secret(self, error: Exception) -> str:
        secret = self.server.password
        return str(error).replace(secret, "...") if secret else str(error)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Does not follow redirections: such an answer delivers nothing."""

    def redirect_request(self, *_: object) -> None:
        """Follow nowhere; the answer becomes an error."""


@dataclass(frozen=True)
class WebhookSender:
    """Posts alerts as JSON: ``text`` for people, as chat services expect, and ``alerts``.

    Parameters
    ----------
    url
        The address, http or https. It is a secret: knowing it is enough to post.
    """

    url: str = field(repr=False)

    @property
    def name(self) -> str:
        """Whom it tells, without what may be secret in the address."""
        return f"webhook {urlsplit(self.url).hostname}"

    def send(self, alerts: Sequence[Message]) -> None:
        """Post one message; any answer but success counts as not delivered."""
        message = {
            "text": f"{summary(alerts)}\n{text(alerts)}",
            "alerts": [asdict(alert) | {"alert_id": alert.alert_id} for alert in alerts],
        }
        request = urllib.request.Request(  # noqa: S310 the scheme was checked
            self.url, json.dumps(message).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.build_opener(_NoRedirect).open(request, timeout=TIMEOUT_S):
                pass
        except urllib.error.HTTPError as answer:
            raise PassingFaultError(f"{self.name}: it answered {answer.code}") from None
        except (OSError, http.client.HTTPException) as error:
            # some of these errors repeat the address
            reason = getattr(error, "reason", error)
            said = reason.strerror if isinstance(reason, OSError) else None
            raise PassingFaultError(f"{self.name}: {said or type(reason).__name__}") from None


_SMTP_SCHEMES = ("smtp", "smtps", "smtp+starttls")
_WEB_SCHEMES = ("http", "https")
_PRINTABLE = re.compile(r"[!-~]+")
_ADDRESS = re.compile(r"[!-~]+@[!-~]+")


@dataclass(frozen=True)
class Setup:
    """The senders that the operator has set up.

    Parameters
    ----------
    senders
        Those that can be used.
    errors
        Settings that cannot; they keep no other from being used.
    """

    senders: tuple[AlertSender, ...] = ()
    errors: tuple[BadInputError, ...] = ()


def senders_from_environment(environment: Mapping[str, str] = os.environ) -> Setup:
    """Return the senders that the operator has set up, perhaps none."""
    senders: list[AlertSender] = []
    errors = []
    for wanted in (_webhooks, _mails):
        try:
            senders += wanted(environment)
        except BadInputError as error:
            errors.append(error)
    return Setup(tuple(senders), tuple(errors))


def _webhooks(environment: Mapping[str, str]) -> list[AlertSender]:
    url = environment.get(WEBHOOK_VARIABLE)
    return [webhook_sender("environment", WEBHOOK_VARIABLE, url)] if url else []


def webhook_sender(source: object, field: str, url: str) -> WebhookSender:
    """Return the sender to a webhook.

    Parameters
    ----------
    source, field
        Where the address is stated.
    url
        The address.

    Raises
    ------
    BadInputError
        If it cannot be used; the error does not repeat it.
    """
    _require_address(source, field, url, _WEB_SCHEMES)
    return WebhookSender(url)


def _mails(environment: Mapping[str, str]) -> list[AlertSender]:
    server = mail_server(environment)
    if server is None:
        return []
    recipients = _addresses(environment, MAIL_TO_VARIABLE)
    if not recipients:
        raise BadInputError(
            "environment", MAIL_TO_VARIABLE, "nobody is named",
            "set addresses, separated by commas",
        )  # fmt: skip
    sender = mail_sender(environment) or recipients[0]
    return [MailSender(server, sender, recipient) for recipient in recipients]


def mail_server(environment: Mapping[str, str] = os.environ) -> MailServer | None:
    """Return the mail server that the operator has set up, None without one.

    Raises
    ------
    BadInputError
        If its address cannot be used; the error does not repeat it.
    """
    address = environment.get(SMTP_VARIABLE)
    if not address:
        return None
    parts = _require_address("environment", SMTP_VARIABLE, address, _SMTP_SCHEMES)
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise _unusable("environment", SMTP_VARIABLE, "something follows its host and port")
    return MailServer(
        parts.scheme,
        str(parts.hostname),
        parts.port,
        None if parts.username is None else unquote(parts.username),
        None if parts.password is None else unquote(parts.password),
    )


def mail_sender(environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the address that mails come from, None if none is named.

    Raises
    ------
    BadInputError
        If it is not a mail address.
    """
    return next(iter(_addresses(environment, MAIL_FROM_VARIABLE)), None)


def _addresses(environment: Mapping[str, str], variable: str) -> list[str]:
    """Return the mail addresses that a variable names, each once."""
    parts = [part.strip() for part in environment.get(variable, "").split(",")]
    found = list(dict.fromkeys(filter(None, parts)))
    for address in found:
        if not _ADDRESS.fullmatch(address):
            raise BadInputError(
                "environment", variable, f"{address!r} is not a mail address",
                "set addresses, separated by commas",
            )  # fmt: skip
    return found


def _require_address(
    source: object, field: str, address: str, schemes: Sequence[str]
) -> SplitResult:
    """Return the parts of an address that can be used; an error repeats none of them."""
    if not _PRINTABLE.fullmatch(address):
        raise _unusable(source, field, "it holds a blank or a character that is not ASCII")
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError:
        raise _unusable(source, field, "its host or port cannot be read") from None
    if parts.scheme not in schemes:
        begins = " or ".join(f"{scheme}://" for scheme in schemes)
        raise _unusable(source, field, f"it does not begin with {begins}")
    if not parts.hostname:
        raise _unusable(source, field, "it names no host")
    return parts


def _unusable(source: object, field: str, reason: str) -> BadInputError:
    return BadInputError(
        source, field, f"{reason} (it is not shown, since it may hold a password)",
        "correct it; in a user name or password write / as %2F, ? as %3F, # as %23, @ as %40, "
        ": as %3A and a blank as %20",
    )  # fmt: skip


@dataclass(frozen=True)
class AlertLog:
    """Alerts that hold and were delivered: JSON, ids by sender.

    What holds no longer is forgotten, so the file stays small and an alert that holds anew is new.

    Parameters
    ----------
    path
        The file; made when missing.
    """

    path: Path

    @classmethod
    def of(cls, root: DataRoot) -> AlertLog:
        """Return the log of an installation."""
        return cls(root.alerts / "delivered.json")

    def read(self) -> dict[str, set[str]]:
        """Return the ids of the alerts that each sender has delivered.

        Raises
        ------
        BadInputError
            If the file is damaged.
        """
        try:
            entries = TypeAdapter(dict[str, set[str]]).validate_json(self.path.read_bytes())
        except FileNotFoundError:
            return {}
        except ValidationError as error:
            raise BadInputError(
                self.path, "JSON", f"it is damaged ({error.error_count()} errors)",
                "nothing is to be done: it is written anew, and what holds is told again",
            ) from None  # fmt: skip
        return entries

    def write(self, delivered: Mapping[str, Iterable[str]]) -> None:
        """Replace the log, durably."""
        private_directory(self.path.parent)
        content = {sender: sorted(ids) for sender, ids in sorted(delivered.items())}
        write_durably(self.path, json.dumps(content, indent=1).encode())


@dataclass(frozen=True)
class Deliveries:
    """The outcome of a tick's alerts.

    Parameters
    ----------
    sent
        Alerts delivered by each sender.
    faults
        What failed, for people.
    """

    sent: Mapping[str, int]
    faults: tuple[str, ...]


def deliver(
    alerts: Sequence[Message], senders: Sequence[AlertSender], log: AlertLog, *, all_known: bool
) -> Deliveries:
    """Deliver to every sender, in parallel and in one message each, the alerts it has not sent yet.

    Parameters
    ----------
    alerts
        Those that hold now, the most urgent first.
    senders
        Who is to deliver them.
    log
        What was delivered before.
    all_known
        Whether `alerts` are all that hold: others are forgotten, and told again if they come back.
    """
    faults = []
    try:
        known = log.read()
    except BadInputError as error:
        known = {}
        faults.append(str(error))
    holding = {alert.alert_id for alert in alerts}
    delivered = {
        name: ids & holding if all_known else ids
        for name, ids in known.items()
        if not all_known or name in {sender.name for sender in senders}
    }
    waiting = [
        (sender, new)
        for sender in senders
        if (new := [one for one in alerts if one.alert_id not in delivered.get(sender.name, ())])
    ]
    sent: dict[str, int] = {}
    with ThreadPoolExecutor(max_workers=max(len(waiting), 1)) as threads:
        results = threads.map(_fault, *zip(*waiting, strict=True)) if waiting else ()
        for (sender, new), fault in zip(waiting, results, strict=True):
            if fault is not None:
                faults.append(fault)
                continue
            ids = {alert.alert_id for alert in new}
            delivered[sender.name] = delivered.get(sender.name, set()) | ids
            sent[sender.name] = len(new)
            log.write(delivered)
    if not sent and (delivered != known or faults):
        log.write(delivered)
    return Deliveries(sent, tuple(faults))


def _fault(sender: AlertSender, alerts: Sequence[Message]) -> str | None:
    """Send alerts; return the fault, None if the sender delivered them."""
    try:
        sender.send(alerts)
    except PassingFaultError as fault:
        return str(fault)
    except Exception as error:  # whatever it is, the others are told
        return f"{sender.name}: {type(error).__name__}"
    return None
