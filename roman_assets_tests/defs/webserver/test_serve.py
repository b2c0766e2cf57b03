from __future__ import annotations

import socket
from pathlib import Path

import pytest

from roman_assets.defs.webserver.ui_server import Listening, open_socket, read_token
from roman_assets.errors import BadInputError
from roman_assets_tests.support.other_user import another_user, as_root, open_directory


def test_a_missing_token_is_written_for_the_owner_alone(tmp_path: Path) -> None:
    token = read_token(tmp_path / "token")
    assert len(token) > 40
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600
    assert read_token(tmp_path / "token") == token


def test_a_token_that_others_may_read_or_guess_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("x" * 40)
    path.chmod(0o640)
    with pytest.raises(BadInputError, match=r"chmod 600"):
        read_token(path)
    path.write_text("secret")
    path.chmod(0o600)
    with pytest.raises(BadInputError, match="fewer than 20"):
        read_token(path)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "gateway.internal"])
def test_other_machines_are_let_in_with_a_token_only(host: str, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="--token-file"):
        Listening(host)
    assert Listening(host, token_file=tmp_path / "token").known_names >= {host, "localhost"}
    assert Listening(host, socket=tmp_path / "socket")
    assert Listening("127.0.0.9")


def test_a_socket_is_for_its_owner_and_replaces_a_dead_one(tmp_path: Path) -> None:
    path = tmp_path / "ui"
    open_socket(path).close()
    assert path.stat().st_mode & 0o777 == 0o600
    with open_socket(path) as alive:
        alive.listen()
        with pytest.raises(BadInputError, match="another server"):
            open_socket(path)


def test_a_socket_takes_no_files_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(BadInputError, match="cannot listen"):
        open_socket(tmp_path / "file")
    with pytest.raises(BadInputError, match="short path"):
        open_socket(tmp_path / ("x" * 120))
    assert (tmp_path / "file").read_text() == "mine"


@as_root
def test_another_user_cannot_connect_to_the_socket() -> None:
    with open_directory() as directory, open_socket(directory / "ui") as server:
        server.listen()
        with (
            another_user(),
            socket.socket(socket.AF_UNIX) as client,
            pytest.raises(PermissionError),
        ):
            client.connect(str(directory / "ui"))
