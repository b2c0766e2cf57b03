"""The command that serves the archive."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import requests

from roman_assets.cli.daemon import dagster_program, services
from roman_assets.data_root import DataRoot
from roman_assets_tests.support.platform import free_port
from roman_assets_tests.support.small_archive import CAL


def serve(root: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, dagster_program("roman-assets"), "--data", str(root), "--role"]
    return subprocess.Popen([*command, "public", "serve", *options], stderr=subprocess.PIPE)


def test_anyone_serves_an_archive_with_one_command(shared_root: DataRoot) -> None:
    port = free_port()
    process = serve(shared_root.path, "--port", str(port))
    try:
        for _ in range(300):
            try:
                answer = requests.get(f"http://127.0.0.1:{port}/files/{CAL}")
                break
            except requests.ConnectionError:
                assert process.poll() is None
                time.sleep(0.1)
        assert answer.content == b"image 2"
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(20) in (0, 130, -signal.SIGINT)


def test_a_missing_data_root_is_named(tmp_path: Path) -> None:
    process = serve(tmp_path / "nowhere")
    _, told = process.communicate(timeout=60)
    assert process.returncode == 1
    assert b"nowhere" in told and b"--data" in told


def test_dev_names_the_option_when_the_port_of_the_archive_is_taken(tmp_path: Path) -> None:
    program = dagster_program("roman-assets")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, program, "--data", str(tmp_path), "dev", "--archive-port", port]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert port in done.stderr and "--archive-port" in done.stderr


def test_dev_serves_the_archive_as_the_public_sees_it() -> None:
    with services(["--port", "1"]) as (commands, _):
        assert not any("serve" in command for command in commands)
    with services(["--port", "1"], ["--port", "2"]) as (commands, _):
        (archive,) = [command for command in commands if "serve" in command]
    assert archive[1:] == ["--role", "public", "serve", "--port", "2"]
