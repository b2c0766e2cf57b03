"""Dagster's web server behind the guard, asked by programs and by a browser's pages."""

from __future__ import annotations

import base64
import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from dagster import DagsterInstance

from roman_assets.data_root import DataRoot
from roman_assets.defs.webserver.ui_server import read_token
from roman_assets_tests.support.browser import needs_browser, open_browser
from roman_assets_tests.support.platform import (
    default_places,
    free_port,
    kill_group,
    start_program,
    wait_until,
)
from roman_assets_tests.support.web_server import Quiet, serving

MUTATION = """mutation ($key: String!) { addDynamicPartition(
  partitionsDefName: "exposure", partitionKey: $key,
  repositorySelector: {repositoryName: "__repository__", repositoryLocationName: "roman_assets"}
) { __typename } }"""

ATTACKS = """<!doctype html><title>at work</title><iframe name="hidden"></iframe>
<script>
const ui = "%(ui)s", mutation = %(mutation)s;
const url = (key) => ui + "/graphql?query=" + encodeURIComponent(mutation)
  + "&variables=" + encodeURIComponent(JSON.stringify({key}));
const body = (key) => JSON.stringify({query: mutation, variables: {key}});
const settled = (promise) => Promise.race(
  [promise.catch(() => {}), new Promise((resolve) => setTimeout(resolve, 3000))]);
const form = (key) => new Promise((resolve) => {
  const form = document.createElement("form");
  Object.assign(form, {method: "post", action: url(key), target: "hidden"});
  document.body.append(form); document.querySelector("iframe").onload = resolve; form.submit();
});
const image = (key) => new Promise((resolve) => {
  const image = new Image(); image.onload = image.onerror = resolve; image.src = url(key);
});
const opened = () => new Promise((resolve) => {
  const channel = new WebSocket(ui.replace("http", "ws") + "/graphql", "graphql-ws");
  channel.onopen = () => resolve("opened"); channel.onerror = () => resolve("refused");
});
window.onload = async () => {
  await settled(form("form"));
  await settled(image("image"));
  await settled(fetch(url("fetch"), {method: "POST", mode: "no-cors"}));
  await settled(fetch(ui + "/graphql", {method: "POST", mode: "no-cors", body: body("text"),
    headers: {"Content-Type": "text/plain; x=application/json"}}));
  await settled(fetch(ui + "/graphql", {method: "POST", body: body("json"),
    headers: {"Content-Type": "application/json"}}));
  document.title = "done: " + await opened();
};
</script>"""
"""A page of another site that tries whatever a browser lets it try."""

FROM_ITS_OWN_PAGE = """
const [mutation, done] = arguments;
fetch("/graphql", {
  method: "POST", headers: {"Content-Type": "application/json"},
  body: JSON.stringify({query: mutation, variables: {key: "own"}}),
}).catch(done).then(() => {
  const channel = new WebSocket(`ws://${location.host}/graphql`, "graphql-ws");
  channel.onopen = () => done("opened"); channel.onerror = () => done("refused");
});
"""


@dataclass(frozen=True)
class Server:
    """A running web server, on a port or on a socket."""

    root: DataRoot
    port: int = 0
    socket: Path | None = None

    @property
    def keys(self) -> set[str]:
        """What mutations have added."""
        with DagsterInstance.from_config(str(self.root.dagster_home)) as instance:
            return set(instance.get_dynamic_partitions("exposure"))

    def status(self, method: str, path: str, body: str = "", **headers: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        if self.socket is not None:
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.connect(str(self.socket))
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, names)
        with closing(connection), connection.getresponse() as response:
            response.read()
            return response.status

    def mutate(self, key: str, **headers: str) -> int:
        body = json.dumps({"query": MUTATION, "variables": {"key": key}})
        return self.status("POST", "/graphql", body, content_type="application/json", **headers)


@contextmanager
def running_server(directory: Path, *options: str, socket: Path | None = None) -> Iterator[Server]:
    root, port = DataRoot(directory / "data"), free_port()
    place = ["--port", str(port)] if socket is None else ["--socket", str(socket)]
    with default_places(), (directory / "log").open("ab") as output:
        process = start_program(["roman-assets", "webserver", *place, *options], root, output)
    try:
        server = Server(root, port, socket)
        wait_until(lambda: server.status("GET", "/server_info"), "an answer", process)
        yield server
    finally:
        kill_group(process)


@contextmanager
def foreign_page(content: str) -> Iterator[str]:
    """Serve a page as a site of another origin; give its address."""

    class Handler(Quiet, BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(content.encode())

    with serving(Handler) as port:
        yield f"http://localhost:{port}/"


@needs_browser
def test_a_page_of_another_site_changes_nothing_but_the_own_pages_may(tmp_path: Path) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    with running_server(tmp_path) as server, open_browser(tmp_path / "profile") as browser:
        ui = f"http://127.0.0.1:{server.port}"
        attacks = ATTACKS % {"ui": ui, "mutation": json.dumps(MUTATION)}
        with foreign_page(attacks) as address:
            browser.get(address)
            WebDriverWait(browser, 30).until(lambda driver: driver.title.startswith("done"))
            assert browser.title == "done: refused"
        assert server.keys == set()
        assert server.mutate("rebound", host="rebound.example") == 421
        assert server.keys == set()
        browser.get(f"{ui}/runs")
        assert browser.execute_async_script(FROM_ITS_OWN_PAGE, MUTATION) == "opened"
        assert server.mutate("program") == 200
        assert server.keys == {"own", "program"}


@needs_browser
def test_without_the_token_nothing_is_answered_and_a_browser_works_with_it(tmp_path: Path) -> None:
    path = tmp_path / "token"
    with (
        running_server(tmp_path, "--token-file", str(path)) as server,
        open_browser(tmp_path / "profile") as browser,
    ):
        for asked in ("/", "/graphql", "/server_info", "/favicon.png", "/logs/x", "/notebook"):
            assert server.status("GET", asked) == 401, asked
        assert server.mutate("none") == 401
        assert server.mutate("wrong", authorization="Bearer wrong") == 401
        token = read_token(path)
        password = base64.b64encode(f"operator:{token}".encode()).decode()
        assert server.mutate("right", authorization=f"Basic {password}") == 200
        assert server.keys == {"right"}
        # as typed in the browser's login, which keeps it for this port
        browser.get(f"http://operator:{token}@127.0.0.1:{server.port}/")
        browser.get(f"http://127.0.0.1:{server.port}/runs")
        assert browser.execute_async_script(FROM_ITS_OWN_PAGE, MUTATION) == "opened"
        assert server.keys == {"right", "own"}


def test_the_ui_is_served_on_a_socket(tmp_path: Path) -> None:
    place = tmp_path / "ui"
    with running_server(tmp_path, socket=place) as server:
        assert place.stat().st_mode & 0o777 == 0o600
        assert server.status("GET", "/") == 200
        assert server.mutate("through", host="localhost") == 200
        assert server.keys == {"through"}
