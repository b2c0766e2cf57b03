"""What an attacker tries: to see what is not public, and to take the service from others."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from urllib.parse import urljoin, urlsplit

import pytest
import requests

from roman_assets.access import Role
from roman_assets.data_root import DataRoot
from roman_assets.products.kind import Step
from roman_assets.records.journal import Journal
from roman_assets.records.record import WorkFailure
from roman_assets.registry.store.fold import fold
from roman_assets.service.mast.column import columns
from roman_assets.service.patience import PatientProtocol
from roman_assets.service.tap.tap_schema import tap_tables
from roman_assets_tests.support.image_archive import image_archive
from roman_assets_tests.support.service_server import running_service
from roman_assets_tests.support.sky_archive import FIRST
from roman_assets_tests.support.small_archive import CAL, UNCAL, publish, small_archive
from roman_assets_tests.support.small_products import cal, record_of, skycell_set

HIDDEN = cal(8, 8)
SECRETS = (
    "secret-run", "secret-failure", "secret-packets", "secret-hidden", "secret-scratch", HIDDEN,
)  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> DataRoot:
    """An installation with much that is not public."""
    root = small_archive(tmp_path_factory.mktemp("attacked") / "data")
    image_archive(root.path, start=20)
    hidden = skycell_set(3, "r0")[1]
    publish(
        root, {HIDDEN: b"secret-hidden", hidden: b"secret-hidden"}, 60, step=Step.EXPOSURE,
        access=Role.OPERATIONS, run_id="secret-run",
    )  # fmt: skip
    failure = WorkFailure(file_set="x", error="E", message="secret-failure")
    Journal(root).write(
        record_of(root, {cal(9): b"image"}, run_id="secret-run", failures=(failure,))
    )
    fold(root)
    for path in (root.landing / "secret-packets.bin", root.scratch / "secret-scratch"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"secret-packets")
    return root


@pytest.fixture(scope="module")
def url(root: DataRoot) -> Iterator[str]:
    with running_service(root) as served:
        yield served


def record_ids(root: DataRoot) -> set[str]:
    segments = root.registry.glob("records/**/*.json*")
    return {path.stem for path in segments} | {
        word
        for path in segments
        for word in path.read_text().split('"')
        if len(word) == 32 and word.isalnum()
    }


class Links(HTMLParser):
    """Collects the addresses of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if name in ("href", "src") and value]


def crawled(url: str, starts: list[str]) -> Iterator[requests.Response]:
    """Follow all links from some addresses."""
    seen, todo = set(), [urljoin(url, start) for start in starts]
    while todo:
        address = todo.pop().partition("#")[0]
        if address in seen or urlsplit(address).netloc != urlsplit(url).netloc:
            continue
        seen.add(address)
        answer = requests.get(address)
        yield answer
        if "html" in answer.headers.get("content-type", ""):
            todo += [urljoin(address, link) for link in Links(answer.text).found]


def asked(url: str) -> Iterator[requests.Response]:
    """Ask every interface for all that it has."""
    for table in tap_tables():
        query = {"LANG": "ADQL", "QUERY": f"SELECT * FROM {table.full_name}"}
        yield requests.get(f"{url}/tap/sync", params=query)
    everything = {"conditions": [], "select_cols": list(columns())[:-2], "limit": 10_000}
    yield requests.post(f"{url}/search/roman/api/v0.1/search", json=everything)
    sets = [FIRST, HIDDEN.rpartition("_")[0], cal().rpartition("_")[0]]
    listing = f"{url}/search/roman/api/v0.1/post_list_products"
    yield requests.post(listing, json={"dataset_ids": sets})
    names = [CAL, HIDDEN, f"{FIRST}_cal.asdf", skycell_set(3, "r0")[1]]
    yield requests.post(f"{url}/datalink/links", data={"ID": names})
    yield requests.get(f"{url}/sia/query")
    for name in (HIDDEN, skycell_set(3, "r0")[1]):
        for path in ("files", "products", "previews"):
            refused = requests.get(f"{url}/{path}/{name}")
            assert refused.status_code == 404
        retrieved = requests.get(
            f"{url}/search/roman/api/v0.1/retrieve_product", params={"product_name": name}
        )
        cut = requests.get(f"{url}/soda/sync", params={"ID": name, "CIRCLE": "270 66 0.01"})
        assert {retrieved.status_code, cut.status_code} == {404}


def test_nothing_that_is_not_public_is_in_any_answer(url: str, root: DataRoot) -> None:
    starts = [
        "/", "/products", "/interfaces", "/health", "/tap/tables", "/tap/capabilities",
        "/tap/examples", "/sia/capabilities", "/datalink/capabilities", "/soda/capabilities",
        "/search/util/api/v0.1/column_list?mission=roman", "/tap/async",
        f"/products/{HIDDEN}", "/products?name=*", "/nowhere",
    ]  # fmt: skip
    answers = [*crawled(url, starts), *asked(url)]
    assert len(answers) > 50
    assert sum(answer.status_code == 200 for answer in answers) > 45
    hidden = {HIDDEN.encode(), skycell_set(3, "r0")[1].encode()}
    for answer in answers:
        body = answer.content.replace(answer.url.encode(), b"")
        for secret in map(str.encode, SECRETS):
            if secret not in hidden:
                assert secret not in body, answer.url
        assert str(root.path).encode() not in body, answer.url
        for identifier in record_ids(root):
            assert identifier.encode() not in body, answer.url
    listed = b"".join(
        answer.content for answer in answers if answer.status_code == 200
        and "datalink" not in answer.url
    )  # fmt: skip
    assert not any(name in listed for name in hidden)


ENTITIES = ["<!ENTITY a0 'aaaaaaaaaa'>"] + [
    f"<!ENTITY a{number} '{f'&a{number - 1};' * 10}'>" for number in range(1, 10)
]
BOMB = (
    f"<!DOCTYPE b [{''.join(ENTITIES)}]>"
    "<VOTABLE><RESOURCE><TABLE><FIELD name='&a9;'/></TABLE></RESOURCE></VOTABLE>"
)
TABLE = (
    "<VOTABLE><RESOURCE><TABLE><FIELD name='x' datatype='int' {field}/><DATA>{data}</DATA>"
    "</TABLE></RESOURCE></VOTABLE>"
)


def table(data: str, field: str = "") -> str:
    return TABLE.format(data=data, field=field)


@pytest.mark.parametrize(
    "content",
    [
        BOMB,
        '<!DOCTYPE x SYSTEM "file:///etc/passwd"><VOTABLE/>',
        table("<TABLEDATA/>", "arraysize='1000000000'"),
        table("<TABLEDATA/>", "/><FIELD name='y' datatype='char' arraysize='9999999'"),
        table("<BINARY><STREAM href='file:///etc/passwd'/></BINARY>"),
        table("<BINARY><STREAM encoding='base64'>AA</STREAM></BINARY>"),
        table("<TABLEDATA><TR><TD>many</TD></TR></TABLEDATA>"),
        table("<TABLEDATA><TR/></TABLEDATA>"),
        "<a>" * 500_000,
        "\x00\x01",
        "",
    ],
    ids=range(11),
)
def test_hostile_uploads_are_refused_at_once(url: str, content: str) -> None:
    started = time.monotonic()
    answer = requests.post(
        f"{url}/tap/sync",
        data={"LANG": "ADQL", "QUERY": "SELECT * FROM tap_upload.t", "UPLOAD": "t,param:t"},
        files={"t": content.encode()},
    )
    assert answer.status_code == 400 and 'value="ERROR"' in answer.text
    assert time.monotonic() - started < 10


def test_a_request_larger_than_the_limit_is_refused(url: str) -> None:
    for path in ("tap/sync", "sia/query", "datalink/links", "soda/sync"):
        answer = requests.post(f"{url}/{path}", data={"ID": "x" * (5 << 20)})
        assert answer.status_code == 413


@pytest.mark.parametrize("form", ["json", "form", "text"])
def test_bodies_that_are_something_else_are_refused(url: str, form: str) -> None:
    bodies = {"json": b"{\xff}", "form": b"%ff=%ff&" * 30_000, "text": b"\x00" * 1000}
    kinds = {"json": "application/json", "form": "application/x-www-form-urlencoded",
             "text": "multipart/form-data"}  # fmt: skip
    for path in ("tap/sync", "search/roman/api/v0.1/search", "sia/query", "soda/sync"):
        answer = requests.post(
            f"{url}/{path}", data=bodies[form], headers={"content-type": kinds[form]}
        )
        assert answer.status_code < 500


def test_slow_clients_are_let_down_while_others_are_served(
    root: DataRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PatientProtocol, "head_seconds", 1.0)
    with running_service(root, body_seconds=1.0) as served:
        place = (urlsplit(served).hostname, urlsplit(served).port)
        heads = [socket.create_connection(place, timeout=30) for _ in range(60)]
        for head in heads:
            head.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")
        body = socket.create_connection(place, timeout=30)
        body.sendall(b"POST /tap/sync HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nLANG=")
        reader = socket.create_connection(place, timeout=30)
        reader.sendall(f"GET /files/{UNCAL} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert requests.get(f"{served}/files/{UNCAL}", timeout=10).content == b"ramp"
        assert b"400" in body.recv(100)
        for head in heads:
            assert _is_closed(head)
        for opened in (*heads, body, reader):
            opened.close()


def _is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


def test_many_cutouts_at_once_are_put_off_while_others_are_served(root: DataRoot) -> None:
    with running_service(root, cutouts=1, waiting_seconds=0.2) as served:
        asked = {"ID": f"{FIRST}_cal.asdf", "CIRCLE": "270 66 0.002"}
        assert requests.get(f"{served}/soda/sync", params=asked).status_code == 200
        slowest, done = 0.0, threading.Event()

        def others() -> None:
            nonlocal slowest
            while not done.is_set():
                started = time.monotonic()
                assert requests.get(f"{served}/files/{UNCAL}").status_code == 200
                slowest = max(slowest, time.monotonic() - started)

        user = threading.Thread(target=others)
        user.start()
        with ThreadPoolExecutor(24) as clients:
            answers = list(
                clients.map(lambda _: requests.get(f"{served}/soda/sync", params=asked), range(150))
            )
        done.set()
        user.join()
    assert {answer.status_code for answer in answers} == {200, 503}
    refused = [answer for answer in answers if answer.status_code == 503]
    assert all("retry-after" in answer.headers for answer in refused)
    assert all(answer.text.startswith("TransientFault") for answer in refused)
    assert slowest < 10


def test_endless_queries_are_ended_while_others_are_served(root: DataRoot) -> None:
    endless = "SELECT COUNT(*) FROM " + ", ".join(f"tap_schema.columns AS c{n}" for n in range(5))
    with running_service(root, seconds=1.5, queries=2, waiting_seconds=30) as served:
        query = {"LANG": "ADQL", "QUERY": endless}
        with ThreadPoolExecutor(4) as clients:
            answers = clients.map(
                lambda _: requests.get(f"{served}/tap/sync", params=query), range(4)
            )
            assert requests.get(f"{served}/health", timeout=30).status_code == 200
            assert {answer.status_code for answer in answers} == {400}
        assert requests.get(served).status_code == 200


@pytest.mark.parametrize("path", ["/../../registry/snapshot.json", "//etc/passwd", "/files/../x"])
def test_raw_paths_lead_nowhere(url: str, path: str) -> None:
    with socket.create_connection((urlsplit(url).hostname, urlsplit(url).port)) as raw:
        raw.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        assert b" 404 " in raw.recv(1000).split(b"\r\n")[0]
