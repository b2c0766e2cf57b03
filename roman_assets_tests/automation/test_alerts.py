from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from roman_assets.automation.alerts import (
    MOST_LINES,
    Alert,
    AlertLog,
    MailSender,
    WebhookSender,
    deliver,
    senders_from_environment,
)
from roman_assets.errors import BadInputError, PassingFaultError
from roman_assets_tests.automation.platform import free_port

NOW = datetime(2027, 6, 1, tzinfo=UTC)
OVERDUE = Alert(
    "r0001001001001001001_0001", "formatting", "L1", "overdue", "ERROR", 37,
    due="2027-06-01T00:00:00+00:00", margin_hours=-2.5, blame="queue",
    survey="HLWAS", optical_element="F158",
)  # fmt: skip
AT_RISK = replace(OVERDUE, level="L2", state="at risk", severity="WARN", margin_hours=3.0)


class Mailbox:
    """What a mail server received."""

    def __init__(self, answer: str = "250 OK") -> None:
        self.answer = answer
        self.messages: list[EmailMessage] = []

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
    bodies: list[dict[str, Any]] = field(default_factory=list)


@contextmanager
def web_server(posts: Posts) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.headers["Content-Type"] == "application/json"
            if posts.status == 200:
                posts.bodies.append(json.loads(body))
            self.send_response(posts.status)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/alerts"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def log(tmp_path: Path) -> AlertLog:
    return AlertLog(tmp_path / "alerts" / "delivered.jsonl")


def test_a_mail_tells_all_alerts_of_a_tick_at_once() -> None:
    box = Mailbox()
    with mail_server(box) as address:
        MailSender(f"smtp://{address}", "soc@example.org", ("a@example.org", "b@example.org")).send(
            [OVERDUE, AT_RISK]
        )
    (message,) = box.messages
    assert message["Subject"] == "[roman-assets] 1 overdue, 1 at risk"
    assert message["To"] == "a@example.org, b@example.org"
    first, second = message.get_content().strip().splitlines()
    assert first == (
        "L1 of r0001001001001001001_0001 (HLWAS F158): 37 products overdue, "
        "due 2027-06-01T00:00:00+00:00, 2.5 h late, mostly queue"
    )
    assert "3.0 h left" in second


def test_a_mail_server_may_ask_for_a_password() -> None:
    box = Mailbox()

    def check(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        good = (data.login, data.password) == (b"soc", b"p@ss")
        return AuthResult(success=good, handled=False)

    with mail_server(box, authenticator=check, auth_require_tls=False, auth_required=True) as at:
        MailSender(f"smtp://soc:p%40ss@{at}", "soc@example.org", ("a@example.org",)).send([OVERDUE])
        with pytest.raises(PassingFaultError, match="535"):
            MailSender(f"smtp://soc:no@{at}", "soc@example.org", ("a@example.org",)).send([OVERDUE])
    assert len(box.messages) == 1


def test_a_webhook_is_posted_text_for_people_and_alerts_for_programs() -> None:
    posts = Posts()
    with web_server(posts) as url:
        WebhookSender(url).send([OVERDUE, AT_RISK])
    (body,) = posts.bodies
    assert body["text"].startswith("1 overdue, 1 at risk\n")
    assert [alert["alert_id"] for alert in body["alerts"]] == [OVERDUE.alert_id, AT_RISK.alert_id]
    assert body["alerts"][0]["blame"] == "queue"


def test_each_alert_is_delivered_once_by_each_sender(log: AlertLog) -> None:
    posts, box = Posts(), Mailbox()
    with web_server(posts) as url, mail_server(box) as address:
        senders = [
            WebhookSender(url),
            MailSender(f"smtp://{address}", "soc@example.org", ("a@example.org",)),
        ]
        for alerts in ([OVERDUE], [OVERDUE], [OVERDUE, AT_RISK]):
            deliver(alerts, senders, log, NOW)
    assert [len(body["alerts"]) for body in posts.bodies] == [1, 1]
    assert posts.bodies[1]["alerts"][0]["state"] == "at risk"
    assert len(box.messages) == 2


def test_a_failing_sender_loses_nothing_and_stops_no_other(log: AlertLog) -> None:
    posts, box = Posts(status=503), Mailbox()
    with web_server(posts) as url, mail_server(box) as address:
        senders = [
            WebhookSender(url),
            MailSender(f"smtp://{address}", "soc@example.org", ("a@example.org",)),
        ]
        with pytest.raises(PassingFaultError, match=r"webhook 127\.0\.0\.1.*503"):
            deliver([OVERDUE], senders, log, NOW)
        assert len(box.messages) == 1
        posts.status = 200
        assert deliver([OVERDUE], senders, log, NOW) == {"webhook 127.0.0.1": 1}
    assert len(posts.bodies) == 1
    assert len(box.messages) == 1


def test_a_mail_that_is_refused_is_sent_again(log: AlertLog) -> None:
    box = Mailbox("451 try later")
    with mail_server(box) as address:
        sender = MailSender(f"smtp://{address}", "soc@example.org", ("a@example.org",))
        with pytest.raises(PassingFaultError, match="try later"):
            deliver([OVERDUE], [sender], log, NOW)
        box.answer = "250 OK"
        assert deliver([OVERDUE], [sender], log, NOW) == {sender.name: 1}


def test_nobody_listening_is_a_passing_fault() -> None:
    with pytest.raises(PassingFaultError):
        WebhookSender("http://127.0.0.1:1/").send([OVERDUE])
    with pytest.raises(PassingFaultError):
        MailSender("smtp://127.0.0.1:1", "soc@example.org", ("a@example.org",)).send([OVERDUE])


@dataclass
class Listener:
    """A sender that keeps what it is given."""

    name: str = "listener"
    sent: list[Sequence[Alert]] = field(default_factory=list)

    def send(self, alerts: Sequence[Alert]) -> None:
        self.sent.append(alerts)


def test_a_line_torn_by_a_crash_repeats_its_alerts_and_spoils_no_other(log: AlertLog) -> None:
    listener = Listener()
    deliver([OVERDUE], [listener], log, NOW)
    deliver([AT_RISK], [listener], log, NOW)
    content = log.path.read_bytes()
    log.path.write_bytes(content[:-20])
    third = replace(OVERDUE, level="L4")
    deliver([third], [listener], log, NOW)
    deliver([OVERDUE, AT_RISK, third], [listener], log, NOW)
    assert listener.sent[-1] == [AT_RISK]


def test_a_storm_is_one_message_of_bounded_length() -> None:
    storm = [replace(OVERDUE, partition=f"r{number:019d}_0001") for number in range(500)]
    posts = Posts()
    with web_server(posts) as url:
        WebhookSender(url).send(storm)
    lines = posts.bodies[0]["text"].splitlines()
    assert len(lines) == MOST_LINES + 2
    assert lines[0] == "500 overdue"
    assert lines[-1].startswith("... and 450 more")


def test_senders_are_set_up_by_the_environment() -> None:
    assert senders_from_environment({}) == []
    mail, web = senders_from_environment(
        {
            "ROMAN_ASSETS_ALERT_SMTP": "smtp+starttls://mail.example.org",
            "ROMAN_ASSETS_ALERT_MAIL_TO": "a@example.org, b@example.org",
            "ROMAN_ASSETS_ALERT_WEBHOOK": "https://chat.example.org/hook/secret",
        }
    )
    assert mail.name == "mail to a@example.org, b@example.org"
    assert web.name == "webhook chat.example.org"


@pytest.mark.parametrize(
    ("settings", "variable"),
    [
        ({"ROMAN_ASSETS_ALERT_SMTP": "mail.example.org"}, "ROMAN_ASSETS_ALERT_SMTP"),
        ({"ROMAN_ASSETS_ALERT_SMTP": "smtp://mail"}, "ROMAN_ASSETS_ALERT_MAIL_TO"),
        ({"ROMAN_ASSETS_ALERT_WEBHOOK": "file:///etc/passwd"}, "ROMAN_ASSETS_ALERT_WEBHOOK"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(settings: dict[str, str], variable: str) -> None:
    with pytest.raises(BadInputError, match=variable):
        senders_from_environment(settings)
