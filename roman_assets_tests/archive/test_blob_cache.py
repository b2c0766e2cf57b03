import multiprocessing
import os
import time

import pytest

from roman_assets.archive.blob_cache import REST, BlobCache
from roman_assets.errors import BadInputError, PassingFaultError
from roman_assets_tests.support.small_products import sha256

SIZE = 1000


def content(number):
    return b"%04d" % number * (SIZE // 4)


def fetched(cache, number):
    return cache.get(sha256(content(number)), lambda path: write(path, content(number)))


def write(path, data):
    path.write_bytes(data)
    return sha256(data)


def unused_for(path, seconds):
    moment = time.time() - seconds
    os.utime(path, (moment, moment))


def test_a_copy_is_fetched_once(tmp_path):
    cache = BlobCache(tmp_path, SIZE)
    fetched(cache, 1)
    copy = cache.get(sha256(content(1)), lambda path: pytest.fail("it is there"))
    assert copy.read_bytes() == content(1)


def test_what_was_not_used_for_longest_goes_first(tmp_path):
    cache = BlobCache(tmp_path, 3 * SIZE)
    copies = [fetched(cache, number) for number in range(3)]
    for copy, hours in zip(copies, (2, 3, 4), strict=True):
        unused_for(copy, hours * 3600)
    fetched(cache, 2)
    fetched(cache, 3)
    assert [copy.exists() for copy in copies] == [True, False, True]


def test_a_name_of_a_copy_goes_with_it(tmp_path):
    cache = BlobCache(tmp_path, SIZE)
    copy = fetched(cache, 1)
    for _ in range(2):
        named = cache.named(copy, "official.asdf")
        assert named.name == "official.asdf"
        assert named.read_bytes() == content(1)
    unused_for(copy, 2 * REST)
    fetched(cache, 2)
    assert not copy.exists()
    assert not named.exists()
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1


def test_what_was_used_a_moment_ago_stays_beyond_the_bound(tmp_path):
    cache = BlobCache(tmp_path, SIZE)
    copies = [fetched(cache, number) for number in range(4)]
    assert all(copy.exists() for copy in copies)
    unused_for(copies[1], 2 * REST)
    cache.trim()
    assert [copy.exists() for copy in copies] == [True, False, True, True]


def test_other_content_than_was_asked_for_is_refused(tmp_path):
    cache = BlobCache(tmp_path, SIZE)
    with pytest.raises(PassingFaultError, match="arrived with the sha256"):
        cache.get(sha256(b"photons"), lambda path: write(path, b"snotohp"))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def use(directory, step):
    cache = BlobCache(directory, 0)
    for number in range(101):
        wanted = number * step % 101
        assert fetched(cache, wanted).read_bytes() == content(wanted)


def test_processes_share_it_and_none_loses_what_it_was_given(tmp_path):
    roomy = BlobCache(tmp_path, 1000 * SIZE)
    for number in range(101):
        unused_for(fetched(roomy, number), 2 * REST)
    processes = [
        multiprocessing.get_context("fork").Process(target=use, args=(tmp_path, step))
        for step in (1, 2, 3, 50)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0


def test_a_size_that_is_no_number_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("ROMAN_ASSETS_CACHE_GIB", "much")
    with pytest.raises(BadInputError, match="ROMAN_ASSETS_CACHE_GIB"):
        BlobCache(tmp_path)
