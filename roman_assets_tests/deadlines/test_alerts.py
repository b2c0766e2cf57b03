from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from roman_assets.deadlines.alerts import (
    MOST_LINES,
    Alert,
    AlertLog,
    MailSender,
    MailServer,
    Setup,
    WebhookSender,
    deliver,
    senders_from_environment,
)
from roman_assets.errors import PassingFaultError
from roman_assets_tests.support.platform import free_port
from roman_assets_tests.support.web_server import Quiet, serving

OVERDUE = Alert(
    "r0001001001001001001_0001", "formatting", "L1", "overdue", "ERROR", 37,
    due="2027-06-01T00:00:00+00:00", margin_hours=-2.5, blame="queue",
    survey="HLWAS", optical_element="F158",
)  # fmt: skip
AT_RISK = replace(OVERDUE, level="L2", state="at risk", severity="WARN", margin_hours=3.0)


class Mailbox:
    """What a mail server received."""

    def __init__(self, answer: str = "250 OK", refused: str = "") -> None:
        self.answer = answer
        self.refused = refused
        self.messages: list[EmailMessage] = []

    async def handle_RCPT(  # noqa: N802
        self, server: Any, session: Any, envelope: Any, address: str, options: Any
    ) -> str:
        if address == self.refused:
            return "550 no such user here"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        if self.answer.startswith("250"):
            self.messages.append(BytesParser(policy=default).parsebytes(envelope.content))
        return self.answer


@contextmanager
def mail_server(box: Mailbox, **options: Any) -> Iterator[str]:
    port = free_port()
    controller = Controller(box, hostname="127.0.0.1", port=port, **options)
    controller.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        controller.stop()


@dataclass
class Posts:
    """What a web server received, and how it answers."""

    status: int = 200
    location: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    gets: int = 0


@contextmanager
def web_server(posts: Posts) -> Iterator[str]:
    class Handler(Quiet, BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.headers["Content-Type"] == "application/json"
            if posts.status == 200:
                posts.bodies.append(json.loads(body))
            self.send_response(posts.status)
            if posts.location:
                self.send_header("Location", posts.location)
            self.end_headers()

        def do_GET(self) -> None:
            posts.gets += 1
            self.send_response(200)
            self.end_headers()

    with serving(Handler) as port:
        yield f"http://127.0.0.1:{port}/alerts"


@pytest.fixture
def log(tmp_path: Path) -> AlertLog:
    return AlertLog(tmp_path / "alerts" / "delivered.json")


def mail(address: str, *recipients: str, user: str | None = None, password: str = "") -> list[Any]:
    host, port = address.split(":")
    server = MailServer("smtp", host, int(port), user, password or None)
    return [MailSender(server, "soc@example.org", one) for one in recipients or ("a@example.org",)]


def delivered(alerts: Sequence[Alert], senders: Sequence[Any], log: AlertLog) -> dict[str, int]:
    """Deliver alerts that are all that hold; nothing may fail."""
    done = deliver(alerts, senders, log, all_known=True)
    assert done.faults == ()
    return dict(done.sent)


def faults(alerts: Sequence[Alert], senders: Sequence[Any], log: AlertLog) -> str:
    return "; ".join(deliver(alerts, senders, log, all_known=True).faults)


def test_a_mail_tells_all_alerts_of_a_tick_at_once(log: AlertLog) -> None:
    box = Mailbox()
    with mail_server(box) as address:
        delivered([OVERDUE, AT_RISK], mail(address, "a@example.org", "b@example.org"), log)
    assert {message["To"] for message in box.messages} == {"a@example.org", "b@example.org"}
    message = box.messages[0]
    assert message["Subject"] == "[roman-assets] 1 overdue, 1 at risk"
    first, second = message.get_content().strip().splitlines()
    assert first == (
        "L1 of r0001001001001001001_0001 (HLWAS F158): 37 products overdue, "
        "due 2027-06-01T00:00:00+00:00, 2.5 h late, mostly queue"
    )
    assert "3.0 h left" in second


def test_a_mail_server_may_ask_for_a_password(log: AlertLog) -> None:
    box = Mailbox()

    def check(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        good = (data.login, data.password) == (b"soc", b"p@ss")
        return AuthResult(success=good, handled=False)

    with mail_server(box, authenticator=check, auth_require_tls=False, auth_required=True) as at:
        assert "535" in faults([OVERDUE], mail(at, user="soc", password="wrong-one"), log)
        delivered([OVERDUE], mail(at, user="soc", password="p@ss"), log)
    assert len(box.messages) == 1


def test_a_refused_recipient_is_told_when_he_is_accepted_and_the_others_at_once(
    log: AlertLog,
) -> None:
    box = Mailbox(refused="gone@example.org")
    with mail_server(box) as address:
        senders = mail(address, "a@example.org", "gone@example.org")
        assert "mail to gone@example.org" in faults([OVERDUE], senders, log)
        assert [message["To"] for message in box.messages] == ["a@example.org"]
        box.refused = ""
        assert delivered([OVERDUE], senders, log) == {"mail to gone@example.org": 1}
    assert [message["To"] for message in box.messages] == ["a@example.org", "gone@example.org"]


def test_a_webhook_is_posted_text_for_people_and_alerts_for_programs() -> None:
    posts = Posts()
    with web_server(posts) as url:
        WebhookSender(url).send([OVERDUE, AT_RISK])
    (body,) = posts.bodies
    assert body["text"].startswith("1 overdue, 1 at risk\n")
    assert [alert["alert_id"] for alert in body["alerts"]] == [OVERDUE.alert_id, AT_RISK.alert_id]
    assert body["alerts"][0]["blame"] == "queue"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 400, 404, 500])
def test_no_answer_but_success_is_a_delivery_and_no_redirection_is_followed(
    status: int, log: AlertLog
) -> None:
    elsewhere, posts = Posts(), Posts(status=status)
    with web_server(elsewhere) as other, web_server(posts) as url:
        posts.location = other
        assert str(status) in faults([OVERDUE], [WebhookSender(url)], log)
        assert (elsewhere.gets, elsewhere.bodies) == (0, [])
        posts.status, posts.location = 200, ""
        assert delivered([OVERDUE], [WebhookSender(url)], log) == {"webhook 127.0.0.1": 1}


def test_each_alert_is_delivered_once_by_each_sender(log: AlertLog) -> None:
    posts, box = Posts(), Mailbox()
    with web_server(posts) as url, mail_server(box) as address:
        senders = [WebhookSender(url), *mail(address)]
        for alerts in ([OVERDUE], [OVERDUE], [OVERDUE, AT_RISK]):
            delivered(alerts, senders, log)
    assert [len(body["alerts"]) for body in posts.bodies] == [1, 1]
    assert posts.bodies[1]["alerts"][0]["state"] == "at risk"
    assert len(box.messages) == 2


def test_what_holds_anew_is_told_anew(log: AlertLog) -> None:
    listener = Listener()
    for alerts in ([OVERDUE, AT_RISK], [AT_RISK], [OVERDUE, AT_RISK], [OVERDUE, AT_RISK]):
        delivered(alerts, [listener], log)
    assert listener.sent == [[OVERDUE, AT_RISK], [OVERDUE]]


def test_a_second_failure_is_told_though_no_tick_saw_it_work_in_between(log: AlertLog) -> None:
    listener = Listener()
    first = replace(OVERDUE, state="failed", failed="2027-06-01T00:00:00+00:00")
    second = replace(first, failed="2027-06-01T00:00:50+00:00")
    for alert in (first, first, second, second):
        delivered([alert], [listener], log)
    assert listener.sent == [[first], [second]]


def test_nothing_is_forgotten_before_all_is_known_again(log: AlertLog) -> None:
    listener = Listener()
    delivered([OVERDUE, AT_RISK], [listener], log)
    for alerts in ([], [AT_RISK], [OVERDUE, AT_RISK]):
        assert deliver(alerts, [listener], log, all_known=False).sent == {}


def test_what_is_remembered_does_not_grow(log: AlertLog) -> None:
    alerts = [replace(OVERDUE, partition=f"r{number:019d}_0001") for number in range(300)]
    for number in range(0, 300, 10):
        delivered(alerts[number : number + 10], [Listener()], log)
    assert log.path.stat().st_size < 1000
    delivered([], [Listener("another")], log)
    assert log.read() == {}


def test_a_failing_sender_loses_nothing_and_stops_no_other(log: AlertLog) -> None:
    posts, box = Posts(status=503), Mailbox()
    with web_server(posts) as url, mail_server(box) as address:
        senders = [Broken(), WebhookSender(url), *mail(address)]
        told = faults([OVERDUE], senders, log)
        assert "webhook 127.0.0.1: it answered 503" in told
        assert "broken: KeyError" in told
        assert len(box.messages) == 1
        posts.status = 200
        assert delivered([OVERDUE], senders[1:], log) == {"webhook 127.0.0.1": 1}
    assert len(posts.bodies) == 1
    assert len(box.messages) == 1


def test_senders_wait_for_no_other(log: AlertLog) -> None:
    meet = threading.Barrier(3, timeout=20)
    delivered([OVERDUE], [Listener(str(number), meet=meet) for number in range(3)], log)


def test_a_mail_that_is_refused_is_sent_again(log: AlertLog) -> None:
    box = Mailbox("451 try later")
    with mail_server(box) as address:
        assert "try later" in faults([OVERDUE], mail(address), log)
        box.answer = "250 OK"
        assert delivered([OVERDUE], mail(address), log) == {"mail to a@example.org": 1}


def test_nobody_listening_is_a_passing_fault() -> None:
    with pytest.raises(PassingFaultError, match="refused"):
        WebhookSender("http://127.0.0.1:1/").send([OVERDUE])
    with pytest.raises(PassingFaultError, match="refused"):
        mail("127.0.0.1:1")[0].send([OVERDUE])


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:1/s3cret", "http://127.0.0.1/s3 cret", "http://s3cret@[::1/"]
)
def test_no_error_of_a_webhook_tells_its_secret(address: str, log: AlertLog) -> None:
    sender = WebhookSender(address)
    assert "cret" not in repr(sender)
    done = deliver([OVERDUE], [Named(sender)], log, all_known=True)
    assert done.faults
    assert "cret" not in str(done)


def test_no_error_of_a_mail_server_tells_its_password(log: AlertLog) -> None:
    box = Mailbox("554 you said s3cret")
    with mail_server(box) as address:
        (sender,) = mail(address, password="s3cret")
        assert "s3cret" not in repr(sender)
        done = deliver([OVERDUE], [sender], log, all_known=True)
    assert "554" in str(done)
    assert "s3cret" not in str(done)


@dataclass
class Listener:
    """A sender that keeps what it is given."""

    name: str = "listener"
    sent: list[Sequence[Alert]] = field(default_factory=list)
    meet: threading.Barrier | None = None

    def send(self, alerts: Sequence[Alert]) -> None:
        if self.meet is not None:
            self.meet.wait()
        self.sent.append(alerts)


class Broken:
    """A sender with a mistake in it."""

    name = "broken"

    def send(self, alerts: Sequence[Alert]) -> None:
        raise KeyError("s3cret")


@dataclass(frozen=True)
class Named:
    """Another sender under a name of its own."""

    sender: WebhookSender
    name: str = "named"

    def send(self, alerts: Sequence[Alert]) -> None:
        self.sender.send(alerts)


@pytest.mark.parametrize("content", [b'{"listener": ["r00', b"[1]", b'{"listener": 3}', b"\xff"])
def test_a_damaged_memory_is_named_and_what_holds_is_told_again(
    content: bytes, log: AlertLog
) -> None:
    delivered([OVERDUE], [Listener()], log)
    log.path.write_bytes(content)
    done = deliver([OVERDUE], [Listener()], log, all_known=True)
    assert "delivered.json" in "".join(done.faults)
    assert done.sent == {"listener": 1}
    assert delivered([OVERDUE], [Listener()], log) == {}


def test_a_storm_is_one_message_of_bounded_length() -> None:
    storm = [replace(OVERDUE, partition=f"r{number:019d}_0001") for number in range(500)]
    posts = Posts()
    with web_server(posts) as url:
        WebhookSender(url).send(storm)
    lines = posts.bodies[0]["text"].splitlines()
    assert len(lines) == MOST_LINES + 2
    assert lines[0] == "500 overdue"
    assert lines[-1].startswith("... and 450 more")


SMTP, TO, WEBHOOK = (
    f"ROMAN_ASSETS_ALERT_{name}" for name in ("SMTP", "MAIL_TO", "WEBHOOK")
)  # fmt: skip


def test_senders_are_set_up_by_the_environment() -> None:
    assert senders_from_environment({}) == Setup()
    setup = senders_from_environment(
        {
            SMTP: "smtp+starttls://so%2Fc:p%40ss@mail.example.org:2525/",
            TO: "a@example.org, b@example.org,",
            WEBHOOK: "https://chat.example.org/hook/secret",
        }
    )
    web, *mails = setup.senders
    assert (web.name, setup.errors) == ("webhook chat.example.org", ())
    assert [sender.name for sender in mails] == ["mail to a@example.org", "mail to b@example.org"]
    server = MailServer("smtp+starttls", "mail.example.org", 2525, "so/c", "p@ss")
    assert mails[0] == MailSender(server, "a@example.org", "a@example.org")


@pytest.mark.parametrize(
    ("settings", "variable"),
    [
        ({SMTP: "s3cret.example.org"}, SMTP),
        ({SMTP: "smtp://mail"}, TO),
        ({SMTP: "smtp://mail", TO: " , "}, TO),
        ({SMTP: "smtp://mail", TO: "a@example.org\nBcc: all@example.org"}, TO),
        ({SMTP: "smtp://user:pa/s3cret@mail", TO: "a@example.org"}, SMTP),
        ({SMTP: "smtp://user:s3#cret@mail", TO: "a@example.org"}, SMTP),
        ({SMTP: "smtp://user:s3cret@mail:port", TO: "a@example.org"}, SMTP),
        ({SMTP: "smtp://user:s3cret@[mail", TO: "a@example.org"}, SMTP),
        ({SMTP: "smtp://user:s3cret@mail/inbox", TO: "a@example.org"}, SMTP),
        ({SMTP: "smtp://user:s3cret ä@mail", TO: "a@example.org"}, SMTP),
        ({WEBHOOK: "file:///etc/s3cret"}, WEBHOOK),
        ({WEBHOOK: "https:///s3cret"}, WEBHOOK),
        ({WEBHOOK: "https://chat.example.org/s3 cret"}, WEBHOOK),
        ({WEBHOOK: "https://chat.example.org:hook/s3cret"}, WEBHOOK),
    ],
)
def test_a_setting_that_cannot_be_used_is_named_without_its_secret(
    settings: dict[str, str], variable: str
) -> None:
    (error,) = senders_from_environment(settings).errors
    assert f"environment: {variable}: " in str(error)
    assert "s3" not in str(error)
    assert "cret" not in str(error)


def test_a_setting_that_cannot_be_used_keeps_no_other_from_being_told() -> None:
    good = {WEBHOOK: "https://chat.example.org/hook"}
    setup = senders_from_environment({SMTP: "smtp://user:pa/ss@host", TO: "a@example.org"} | good)
    assert [sender.name for sender in setup.senders] == ["webhook chat.example.org"]
    assert len(setup.errors) == 1
