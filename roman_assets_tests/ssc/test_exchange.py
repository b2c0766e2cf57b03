"""What the SSC does to its directories never reaches beyond them."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

import pytest

from roman_assets.errors import AccessDeniedError, BadInputError
from roman_assets.ssc.delivery import deliveries, strays
from roman_assets.ssc.exchange import (
    DEEPEST,
    FROM_SSC,
    DirectoryExchange,
    ExchangedFile,
    ObjectExchange,
)
from roman_assets_tests.support.s3_server import PUBLIC_KEY, put_object

SECRET = b"a packet nobody but the operator may see"


@pytest.fixture
def landing(tmp_path: Path) -> Path:
    """A directory that is not the SSC's."""
    directory = tmp_path / "landing"
    directory.mkdir()
    (directory / "a").write_bytes(SECRET)
    (directory / "b").write_bytes(SECRET)
    return directory


@pytest.fixture
def exchange(tmp_path: Path) -> DirectoryExchange:
    delivery = tmp_path / "ssc" / "from_ssc" / "D"
    delivery.mkdir(parents=True)
    for name in ("a", "b"):
        (delivery / name).write_bytes(b"x")
    return DirectoryExchange(tmp_path / "ssc")


def listed(exchange: DirectoryExchange) -> list[ExchangedFile]:
    return list(exchange.files(FROM_SSC))


@contextmanager
def swapping(delivery: Path, landing: Path) -> Iterator[None]:
    """Put a link in the place of a directory, and the directory back, all the time."""
    stop, link, aside = threading.Event(), delivery.with_name("link"), delivery.with_name("aside")

    def swap() -> None:
        while not stop.is_set():
            with suppress(OSError):
                delivery.rename(aside)
                link.symlink_to(landing)
                link.rename(delivery)
            with suppress(OSError):
                delivery.unlink()
            with suppress(OSError):
                aside.rename(delivery)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_a_directory_swapped_for_a_link_meanwhile_leads_nowhere(
    exchange: DirectoryExchange, landing: Path, tmp_path: Path
) -> None:
    delivery = tmp_path / "ssc" / "from_ssc" / "D"
    copies = 0
    with swapping(delivery, landing):
        for number in range(300):
            found = listed(exchange)
            for file in found:
                copy = tmp_path / f"copy_{number}_{file.key.name}"
                with suppress(OSError):
                    exchange.fetch(file, copy)
                    copies += 1
                    assert copy.read_bytes() != SECRET
                copy.unlink(missing_ok=True)
            with suppress(OSError):
                exchange.remove(found)
            with suppress(OSError):
                (tmp_path / "ssc/from_ssc/aside/a").write_bytes(b"x")
    assert copies
    assert [(landing / name).read_bytes() for name in ("a", "b")] == [SECRET, SECRET]


def test_a_link_put_in_place_after_the_look_is_not_removed_through(
    exchange: DirectoryExchange, landing: Path, tmp_path: Path
) -> None:
    found = listed(exchange)
    delivery = tmp_path / "ssc" / "from_ssc" / "D"
    delivery.rename(tmp_path / "aside")
    delivery.symlink_to(landing)
    exchange.remove(found)
    with pytest.raises(OSError, match="Not a directory"):
        exchange.fetch(found[0], tmp_path / "copy")
    assert sorted(path.name for path in landing.iterdir()) == ["a", "b"]


def test_a_pipe_in_the_place_of_a_file_keeps_nobody_waiting(
    exchange: DirectoryExchange, tmp_path: Path
) -> None:
    (first, _) = listed(exchange)
    place = tmp_path / "ssc" / str(first.key)
    place.unlink()
    os.mkfifo(place)
    with pytest.raises(OSError, match="not a regular file"):
        exchange.fetch(first, tmp_path / "copy")
    assert [file.obstacle != "" for file in listed(exchange)] == [True, False]


def test_a_file_that_grows_is_copied_no_further_than_tells_so(
    exchange: DirectoryExchange, tmp_path: Path
) -> None:
    (first, _) = listed(exchange)
    (tmp_path / "ssc" / str(first.key)).write_bytes(b"y" * 1000)
    exchange.fetch(first, tmp_path / "copy")
    assert (tmp_path / "copy").stat().st_size == first.size + 1


def test_directories_below_a_stated_depth_are_named_and_not_looked_into(
    exchange: DirectoryExchange, tmp_path: Path
) -> None:
    deep = tmp_path.joinpath("ssc", "from_ssc", *["d"] * (DEEPEST + 3))
    deep.mkdir(parents=True)
    (deep / "x").write_bytes(b"x")
    (found,) = [file for file in listed(exchange) if file.key.parts[1] == "d"]
    assert "levels deep" in found.obstacle


def test_what_the_platform_writes_appears_whole_and_leaves_no_draft(
    exchange: DirectoryExchange, tmp_path: Path
) -> None:
    exchange.write(PurePosixPath("reports/D/x.json"), b"first")
    exchange.write(PurePosixPath("reports/D/x.json"), b"second")
    exchange.upload(tmp_path / "ssc/reports/D/x.json", PurePosixPath("from_ssc/E/x"))
    assert exchange.read(PurePosixPath("from_ssc/E/x"), 100) == b"second"
    assert list((tmp_path / "ssc").rglob(".*")) == []


def test_an_object_with_an_odd_key_is_named_hides_no_other_and_can_be_removed(
    object_store: str, tmp_path: Path
) -> None:
    exchange = ObjectExchange(object_store)
    for key in ("good/a", f"long/{'x' * 300}", "odd//b", "odd/a", "up/../b", "c/\x01", "/x", "./b"):
        put_object(object_store, f"from_ssc/{key}")
    for key in ("from_ssc/", "from_ssc//", "from_ssc/good/", "from_ssc/marker/"):
        put_object(object_store, key, b"")
    found = {delivery.name: delivery for delivery in deliveries(exchange)}
    odd = {name: [file.obstacle != "" for file in found[name].files] for name in sorted(found)}
    assert odd == {
        "c": [True], "good": [False], "long": [False], "odd": [True, False], "up": [True]
    }  # fmt: skip
    assert "'from_ssc/odd//b'" in found["odd"].files[0].obstacle
    copies, faults = found["long"].fetch(tmp_path)
    assert (len(copies), faults) == (1, [])
    for delivery in found.values():
        delivery.remove()
    assert deliveries(exchange) == []
    assert [file.raw for file in strays(exchange)] == ["from_ssc/./b", "from_ssc//x"]


def test_without_credentials_a_listing_says_that_none_are_set(
    object_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(BadInputError, match="none are set"):
        list(ObjectExchange(object_store).files(FROM_SSC))


@pytest.mark.parametrize(
    ("variable", "value", "error", "message"),
    [
        ("AWS_ACCESS_KEY_ID", "stranger", BadInputError, "does not know them"),
        ("AWS_ACCESS_KEY_ID", PUBLIC_KEY, AccessDeniedError, "refuses this"),
    ],
)
def test_a_listing_that_is_refused_says_why(
    object_store: str,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
    error: type[Exception],
    message: str,
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(error, match=message):
        list(ObjectExchange(object_store).files(FROM_SSC))


def test_a_listing_of_a_bucket_that_is_not_there_says_so(object_store: str) -> None:
    with pytest.raises(BadInputError, match="no such bucket"):
        list(ObjectExchange("s3://nowhere/x").files(FROM_SSC))
