"""Product files over HTTP: the right bytes, with the right checksum, whole or in parts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from roman_assets.archive.file_archive import FileArchive
from roman_assets.data_root import DataRoot
from roman_assets.products.name import ProductName
from roman_assets.registry.store.fold import fold
from roman_assets.service import public_files
from roman_assets_tests.support.service_server import running_service
from roman_assets_tests.support.small_archive import CAL, COADD, UNCAL, publish, small_archive
from roman_assets_tests.support.small_products import cal, damage


def test_a_file_arrives_whole_with_its_sha256_as_etag(served: str) -> None:
    answer = requests.get(f"{served}/files/{CAL}")
    assert answer.content == b"image 2"
    assert answer.headers["etag"] == f'"{hashlib.sha256(answer.content).hexdigest()}"'
    assert answer.headers["content-type"] == "application/x-asdf"
    assert answer.headers["content-disposition"] == f'attachment; filename="{CAL}"'


def test_head_tells_size_and_checksum_without_the_file(served: str) -> None:
    head = requests.head(f"{served}/files/{CAL}")
    whole = requests.get(f"{served}/files/{CAL}")
    assert head.status_code == 200 and head.content == b""
    for header in ("content-length", "etag", "accept-ranges", "last-modified", "content-type"):
        assert head.headers[header] == whole.headers[header]


@pytest.mark.parametrize(
    ("asked", "status", "content"),
    [
        ("bytes=0-4", 206, b"image"),
        ("bytes=-1", 206, b"2"),
        ("bytes=6-", 206, b"2"),
        ("bytes=100-", 416, b""),
    ],
)
def test_a_range_of_a_file_can_be_read(
    served: str, asked: str, status: int, content: bytes
) -> None:
    answer = requests.get(f"{served}/files/{CAL}", headers={"range": asked})
    assert (answer.status_code, answer.content) == (status, content)


def test_a_file_that_is_known_is_not_sent_again(served: str) -> None:
    etag = requests.head(f"{served}/files/{CAL}").headers["etag"]
    known = requests.get(f"{served}/files/{CAL}", headers={"if-none-match": f'"x", {etag}'})
    assert (known.status_code, known.content) == (304, b"")
    other = requests.get(f"{served}/files/{CAL}", headers={"if-none-match": '"x"'})
    assert other.status_code == 200


def test_a_range_of_an_overwritten_file_is_answered_with_the_new_file(served: str) -> None:
    asked = {"range": "bytes=0-1", "if-range": '"checksum of the former generation"'}
    answer = requests.get(f"{served}/files/{CAL}", headers=asked)
    assert (answer.status_code, answer.content) == (200, b"image 2")


def test_files_are_never_compressed_so_that_the_etag_is_that_of_the_bytes(served: str) -> None:
    answer = requests.get(f"{served}/files/{COADD}", headers={"accept-encoding": "gzip"})
    assert "content-encoding" not in answer.headers


@pytest.mark.parametrize(
    "name",
    [
        cal(7),
        "..%2f..%2fregistry%2fsnapshot.json",
        "%2e%2e/%2e%2e/registry/snapshot.json",
        f"..%2f{CAL}",
        f"{CAL}%00",
        f"{CAL}%0a",
        "r0001001001001001001_0001_l0",
        "etc%2fpasswd",
    ],
)
def test_nothing_but_a_public_product_is_found(served: str, name: str) -> None:
    for method in (requests.get, requests.head):
        assert method(f"{served}/files/{name}").status_code == 404


def test_a_new_generation_is_served_without_a_restart(tmp_path: Path) -> None:
    root = small_archive(tmp_path / "data")
    with running_service(root) as url:
        assert requests.get(f"{url}/files/{UNCAL}").content == b"ramp"
        publish(root, {UNCAL: b"ramp 2"}, 50)
        fold(root)
        assert requests.get(f"{url}/files/{UNCAL}").content == b"ramp 2"


def test_bytes_that_differ_from_the_registry_are_not_handed_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(public_files, "PAUSES", (0.0, 0.01))
    root = small_archive(tmp_path / "data")
    path = FileArchive(root).public_path(ProductName.parse(CAL))
    damage(path, b"image X")
    with running_service(root) as url:
        answer = requests.get(f"{url}/files/{CAL}")
    assert answer.status_code == 503
    assert b"image X" not in answer.content
    assert int(answer.headers["retry-after"]) > 0


def test_a_link_out_of_the_public_tree_is_not_followed(tmp_path: Path) -> None:
    root = small_archive(tmp_path / "data")
    secret = tmp_path / "secret"
    secret.write_bytes(b"image 2")
    path = FileArchive(root).public_path(ProductName.parse(CAL))
    path.unlink()
    path.symlink_to(secret)
    with running_service(root) as url:
        assert requests.get(f"{url}/files/{CAL}").status_code == 404


def test_files_of_either_kind_of_archive_are_served(
    either_root: DataRoot, new_root: Callable[[str], DataRoot]
) -> None:
    publish(either_root, {CAL: b"image"}, 1)
    fold(either_root)
    with running_service(new_root("another host")) as url:
        assert requests.get(f"{url}/files/{CAL}").content == b"image"
        publish(either_root, {CAL: b"image again"}, 2)
        fold(either_root)
        etag = f'"{hashlib.sha256(b"image again").hexdigest()}"'
        for _ in range(30):
            answer = requests.get(f"{url}/files/{CAL}")
            if answer.headers.get("etag") == etag:
                break
        assert answer.content == b"image again"
