"""Telling subscribers, by mail or to a webhook, of products: new, reprocessed or removed.

Each subscriber is told at least once of what happened in the last `LOOK_BACK`, and again only after
a crash between the delivery and its record. What could not be delivered is told at the next look.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import quote

from roman_assets.access import Role
from roman_assets.data_root import DataRoot
from roman_assets.deadlines.alerts import (
    AlertLog,
    AlertSender,
    Deliveries,
    MailSender,
    MailServer,
    deliver,
    webhook_sender,
)
from roman_assets.errors import BadInputError
from roman_assets.registry.registry import Registry
from roman_assets.registry.search.arrivals import Arrival, arrivals
from roman_assets.settings.subscription_settings import FILE_NAME, Subscription

LOOK_BACK = timedelta(days=3)
"""Older arrivals are not told any more."""
_MOST_ARRIVALS = 5000
_CLOCK_SKEW = timedelta(days=1)


@dataclass(frozen=True)
class ArrivalNotice:
    """What a subscriber is told of one arrival.

    Parameters
    ----------
    alert_id
        The same whenever it is repeated.
    state
        ``new``, ``reprocessed`` or ``removed``.
    time
        UTC, ISO 8601.
    title
        It in words.
    program, level, subject
        As in `Arrival`.
    products, size
        Number of products and their size, bytes.
    names
        The first of them.
    url
        Page of the first, None if the archive service has no address.
    """

    alert_id: str
    state: str
    time: str
    title: str
    program: int | None
    level: str
    subject: str
    products: int
    size: int
    names: tuple[str, ...]
    url: str | None

    @property
    def line(self) -> str:
        """The notice in one line for people."""
        told = f"{self.title}: {self.products} products"
        return f"{told} {self.url}" if self.url else told


def notice_of(arrival: Arrival, service: str | None) -> ArrivalNotice:
    """Return what is told of an arrival.

    Parameters
    ----------
    arrival
        What happened.
    service
        Address of the archive service, if it has one.
    """
    url = None if service is None else f"{service}/products/{quote(arrival.names[0])}"
    return ArrivalNotice(
        arrival.arrival_id, arrival.event.value, arrival.time.isoformat(), arrival.title,
        arrival.program, arrival.level, arrival.subject, arrival.products, arrival.size,
        arrival.names, url,
    )  # fmt: skip


@dataclass(frozen=True)
class Post:
    """How messages leave: what mails need, and the address that links begin with.

    Parameters
    ----------
    server, sender
        Mail server, and address that mails come from; None if none is set up.
    service
        Address of the archive service, None if it has none.
    """

    server: MailServer | None = None
    sender: str | None = None
    service: str | None = None


def tell_subscribers(
    root: DataRoot, subscriptions: Mapping[str, Subscription], post: Post, now: datetime
) -> Deliveries:
    """Send each subscriber what happened and was not sent before.

    Parameters
    ----------
    root
        The installation.
    subscriptions
        By name.
    post
        How messages leave.
    now
        UTC.
    """
    sent: dict[str, int] = {}
    faults: list[str] = []
    with Registry(root, Role.PUBLIC) as registry:
        for name, subscription in subscriptions.items():
            try:
                senders = list(_senders(name, subscription, post))
            except BadInputError as error:
                faults.append(str(error))
                continue
            found = _arrived(registry, subscription, now)
            notices = [notice_of(one, post.service) for one in found]
            log = AlertLog(root.alerts / "subscriptions" / f"{name}.json")
            done = deliver(notices, senders, log, all_known=True)
            sent |= {f"{name}: {sender}": number for sender, number in done.sent.items()}
            faults += [f"{name}: {fault}" for fault in done.faults]
    return Deliveries(sent, tuple(faults))


def _arrived(registry: Registry, subscription: Subscription, now: datetime) -> list[Arrival]:
    with registry.snapshot.connection() as connection:
        return arrivals(
            connection, subscription.interest, now - LOOK_BACK, now + _CLOCK_SKEW, _MOST_ARRIVALS
        )


def _senders(name: str, subscription: Subscription, post: Post) -> Iterator[AlertSender]:
    if subscription.webhook is not None:
        yield webhook_sender(FILE_NAME, f"subscriptions.{name}.webhook", subscription.webhook)
    if not subscription.mail:
        return
    if post.server is None:
        raise BadInputError(
            FILE_NAME, f"subscriptions.{name}.mail", "no mail server is set up",
            "set ROMAN_ASSETS_ALERT_SMTP (docs/operating.md)",
        )  # fmt: skip
    for address in subscription.mail:
        yield MailSender(post.server, post.sender or address, address)
