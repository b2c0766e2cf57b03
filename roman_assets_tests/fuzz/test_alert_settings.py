"""Door: the addresses of mail server and webhook, which hold secrets."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from roman_assets.deadlines.alerts import (
    MAIL_TO_VARIABLE,
    SMTP_VARIABLE,
    WEBHOOK_VARIABLE,
    senders_from_environment,
)

SECRET = "S3CRET"
PIECES = st.sampled_from(
    ["smtp", "smtps", "https", "http", "ftp", "://", "user", ":", "@", "/", "?", "#", "[", "]",
     "%2F", "%", " ", "\n", "127.0.0.1", "::1", "1", "99999", "ä", "\ud800", "\0", ".", SECRET]
)  # fmt: skip
ADDRESSES = st.lists(PIECES, max_size=12).map("".join) | st.text(max_size=40)


@example("http://127.0.0.1:1/S3CRET x")
@example("smtp://user:S3/CRET@127.0.0.1")
@example("http://[S3CRET]/")
@given(ADDRESSES)
def test_an_address_is_used_or_its_variable_is_named_and_no_error_holds_the_secret(
    address: str,
) -> None:
    for variable in (SMTP_VARIABLE, WEBHOOK_VARIABLE):
        setup = senders_from_environment({variable: address, MAIL_TO_VARIABLE: "a@example.org"})
        assert len(setup.senders) + len(setup.errors) == (1 if address else 0)
        for error in setup.errors:
            assert variable in str(error)
            assert SECRET not in str(error)
