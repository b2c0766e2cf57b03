"""What only an archive in an object store has to promise."""

import os
import threading

import obstore
import pytest
from obstore.store import S3Store

from roman_assets.archive import object_store as object_store_module
from roman_assets.archive.object_archive import ObjectArchive
from roman_assets.archive.object_store import ConflictError, ObjectStore
from roman_assets.archive.set_aside import SetAside
from roman_assets.archive.store import Archive
from roman_assets.archive.watched_lock import Fence
from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError, PassingFaultError, PlatformError
from roman_assets.products.name import ProductName
from roman_assets_tests.archive.test_store import written
from roman_assets_tests.support.small_products import VISIT, cal, sha256

NAME = ProductName.parse(cal())


@pytest.fixture
def root(tmp_path, object_store):
    return DataRoot(tmp_path / "data", object_store)


@pytest.fixture
def archive(root):
    return ObjectArchive(root)


@pytest.fixture
def plain(object_store):
    """A plain S3 client, as general users have."""
    return S3Store.from_url(object_store, client_options={"allow_http": True})


def staged(archive, tmp_path, content):
    return archive.stage(written(tmp_path / "new", content)).sha256


def test_the_setting_alone_moves_the_archive(tmp_path, object_store, monkeypatch):
    monkeypatch.setenv("ROMAN_ASSETS_DATA", str(tmp_path))
    monkeypatch.setenv("ROMAN_ASSETS_ARCHIVE", object_store)
    assert isinstance(Archive.of(DataRoot.from_environment()), ObjectArchive)
    monkeypatch.setenv("ROMAN_ASSETS_ARCHIVE", "")
    assert not isinstance(Archive.of(DataRoot.from_environment()), ObjectArchive)


def test_plain_tools_fetch_products_under_their_official_names(tmp_path, archive, plain):
    archive.show({NAME: staged(archive, tmp_path, b"one")})
    key = f"archive/public/L2/00010/{VISIT}/{cal()}"
    assert archive.location(NAME).endswith(key)
    assert bytes(obstore.get(plain, key).bytes()) == b"one"


def test_a_reader_in_the_middle_of_a_download_keeps_the_bytes_it_began_with(
    tmp_path, archive, plain
):
    old = os.urandom(16 << 20)
    archive.show({NAME: staged(archive, tmp_path, old)})
    key = f"archive/public/{Archive.public_key(NAME)}"
    chunks = obstore.get(plain, key).stream(min_chunk_size=1)
    first = bytes(next(chunks))
    archive.show({NAME: staged(archive, tmp_path, b"new")})
    assert archive.path(NAME).read_bytes() == b"new"
    assert first + b"".join(map(bytes, chunks)) == old


def fence_of(confirm):
    fence = Fence("lock", (), "token")
    fence.also(confirm)
    return fence


def test_a_stalled_process_does_not_roll_a_name_back(tmp_path, archive):
    old, new = staged(archive, tmp_path, b"old"), staged(archive, tmp_path, b"new")
    archive.show({NAME: staged(archive, tmp_path, b"older")})

    def stall_until_another_has_shown_the_new_content():
        archive.show({NAME: new})

    with pytest.raises(PassingFaultError, match="changed by another process"):
        archive.show({NAME: old}, fence_of(stall_until_another_has_shown_the_new_content))
    assert archive.path(NAME).read_bytes() == b"new"


def test_who_has_lost_the_lock_changes_no_name(tmp_path, archive):
    def lost():
        raise PassingFaultError("the lock is lost")

    with pytest.raises(PassingFaultError, match="lock is lost"):
        archive.show({NAME: staged(archive, tmp_path, b"one")}, fence_of(lost))
    assert not archive.is_public(NAME)


def test_only_one_of_many_makes_a_new_object_and_only_one_replaces_it(object_store):
    def race(write):
        won, start = [], threading.Barrier(8)

        def attempt(number):
            start.wait()
            try:
                write(b"%d" % number)
                won.append(number)
            except ConflictError:
                pass

        threads = [threading.Thread(target=attempt, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return won

    store = ObjectStore(object_store)
    (first,) = race(lambda content: store.put_new("key", content))
    content, e_tag = store.read("key")
    assert content == b"%d" % first
    (second,) = race(lambda content: store.replace("key", b"new" + content, e_tag))
    assert store.read("key")[0] == b"new%d" % second


def test_a_write_that_is_repeated_since_its_answer_was_lost_succeeds(object_store):
    store = ObjectStore(object_store)
    e_tag = store.put_new("key", b"one")
    assert store.put_new("key", b"one") == e_tag
    second = store.replace("key", b"two", e_tag)
    assert store.replace("key", b"two", e_tag) == second


def test_content_that_changes_while_it_is_uploaded_is_refused(tmp_path, object_store):
    store = ObjectStore(object_store)
    for size in (10, 20 << 20):
        with pytest.raises(BadInputError, match="changed while"):
            store.upload(written(tmp_path / "a", bytes(size)), "key", sha256(b"another"))
        assert store.size("key") is None


def test_a_blob_that_arrives_damaged_is_not_used(tmp_path, root, archive, plain):
    blob = staged(archive, tmp_path, b"one")
    obstore.put(plain, f"archive/blobs/{blob[:2]}/{blob}", b"eno")
    elsewhere = ObjectArchive(DataRoot(tmp_path / "elsewhere", root.object_store))
    assert elsewhere.content_hash(blob) == sha256(b"eno")
    with pytest.raises(PassingFaultError, match="arrived with the sha256"):
        elsewhere.local(blob)
    damage = BadInputError(blob, "content", "wrong", "make it again")
    elsewhere.set_aside(blob, damage, NAME)
    (case,) = SetAside(elsewhere._root).list()
    assert case.content is not None
    assert case.content.read_bytes() == b"eno"
    assert not elsewhere.has_blob(blob, 3)


def test_damaged_content_is_replaced_when_the_product_is_made_again(tmp_path, archive, plain):
    blob = staged(archive, tmp_path, b"one")
    obstore.put(plain, f"archive/blobs/{blob[:2]}/{blob}", b"cut")
    obstore.put(plain, f"archive/blobs/{blob[:2]}/{blob}", b"on")
    assert staged(archive, tmp_path, b"one") == blob
    assert archive.content_hash(blob) == blob


def test_a_missing_bucket_is_named_with_its_setting_and_remedy(tmp_path, object_store):
    archive = Archive.of(DataRoot(tmp_path / "data", "s3://no-such-bucket/archive"))
    for work in (
        lambda: archive.stage(written(tmp_path / "a", b"one")),
        lambda: list(archive.blobs()),
    ):
        with pytest.raises(BadInputError) as error:
            work()
        assert "ROMAN_ASSETS_ARCHIVE=s3://no-such-bucket/archive: bucket" in str(error.value)
        assert "create the bucket" in str(error.value)


def test_refused_credentials_are_named_with_their_settings(tmp_path, object_store, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "stranger")
    archive = Archive.of(DataRoot(tmp_path / "data", object_store))
    for work in (
        lambda: archive.stage(written(tmp_path / "a", b"one")),
        lambda: list(archive.blobs()),
        lambda: archive.is_public(NAME),
    ):
        with pytest.raises(PlatformError, match=r"credentials.*AWS_ACCESS_KEY_ID"):
            work()
    assert (tmp_path / "a").exists()


@pytest.mark.parametrize("url", ["bucket/prefix", "s3://", "gs://bucket", "s3:///prefix"])
def test_a_setting_that_names_no_bucket_says_how_to_write_one(tmp_path, url):
    with pytest.raises(BadInputError, match="s3://bucket/prefix"):
        Archive.of(DataRoot(tmp_path, url))


def test_an_endpoint_that_is_no_url_is_named(tmp_path, object_store, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "127.0.0.1:9000")
    with pytest.raises(BadInputError, match=r"AWS_ENDPOINT_URL: URL: '127.0.0.1:9000'"):
        Archive.of(DataRoot(tmp_path, object_store))


def test_half_of_the_credentials_is_named(tmp_path, object_store, monkeypatch):
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(BadInputError, match=r"Missing SecretAccessKey.*AWS_ variables"):
        Archive.of(DataRoot(tmp_path, object_store))


def test_a_service_that_cannot_be_reached_is_a_passing_fault(tmp_path, object_store, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(object_store_module, "RETRIES", {"max_retries": 1})
    archive = Archive.of(DataRoot(tmp_path / "data", object_store))
    with pytest.raises(PassingFaultError, match=r"127.0.0.1:9 fails.*Remedy"):
        archive.stage(written(tmp_path / "a", b"one"))
    assert (tmp_path / "a").read_bytes() == b"one"
