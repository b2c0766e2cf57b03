"""One place in an S3 bucket: conditional writes, transfers that are verified, faults explained.

Endpoint, region and credentials are those of the usual ``AWS_*`` variables (or of the machine's
role), as obstore reads them.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    InvalidPathError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import S3Store

from roman_assets.data_root import ARCHIVE_VARIABLE
from roman_assets.errors import AccessDeniedError, BadInputError, PassingFaultError

SHA256_ATTRIBUTE = "sha256"
"""User-defined metadata of every blob and public object."""

_CHUNK = 8 << 20
_CLIENT: dict[str, Any] = {"allow_http": True, "connect_timeout": "10s", "timeout": "5min"}
RETRIES: dict[str, Any] = {"max_retries": 6, "retry_timeout": timedelta(minutes=1)}
"""How long a request that fails is tried again."""

_METADATA_SERVICE = "169.254.169.254"
_WRONG = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken")
_REQUEST = re.compile(r"(?:GET|HEAD|PUT|POST|DELETE) \S+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_CODE = re.compile("<Code>([^<]*)</Code>")
_REFUSED = ("AccessDenied", "403 Forbidden", "401 Unauthorized")


class ConflictError(Exception):
    """Somebody else has written the object since it was looked at."""


@dataclass(frozen=True)
class StoredObject:
    """An object as S3 lists it, with its key below the prefix of the store."""

    key: str
    size: int
    e_tag: str
    changed: datetime


def is_odd(key: str) -> bool:
    """Return whether only `ObjectStore.list_any` and `ObjectStore.delete_odd` take a key.

    obstore refuses empty parts, ``.``, ``..`` and control characters, and a whole listing that
    contains one.
    """
    return _CONTROL.search(key) is not None or not {"", ".", ".."}.isdisjoint(key.split("/"))


class ObjectStore:
    """A prefix of an S3 bucket.

    Every method raises `PassingFaultError` if the service cannot be reached or fails,
    `BadInputError` if the bucket does not exist or the credentials are invalid, and
    `AccessDeniedError` if they are not sufficient.

    Parameters
    ----------
    url
        ``s3://bucket/prefix``.

    Raises
    ------
    BadInputError
        If that is not the URL of a bucket.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._store = _connected(self.url)

    def read(self, key: str) -> tuple[bytes, str]:
        """Return an object's content and e-tag; raise `FileNotFoundError` if it is missing."""
        with self._explained():
            result = obstore.get(self._store, key)
            return bytes(result.bytes()), _e_tag(result.meta)

    def put_new(self, key: str, content: bytes, sha256: str | None = None) -> str:
        """Write an object that is not there yet; gives its e-tag.

        Raises
        ------
        ConflictError
            If there is an object of this key with another content.
        """
        return self._put(key, content, "create", sha256)

    def replace(self, key: str, content: bytes, e_tag: str) -> str:
        """Replace an object whose e-tag is still this one; gives the new e-tag.

        Raises
        ------
        ConflictError
            If it is not, or the object is gone.
        """
        return self._put(key, content, {"e_tag": e_tag})

    def put(self, key: str, content: bytes) -> None:
        """Write an object, in the place of another if there is one."""
        with self._explained():
            obstore.put(self._store, key, content)

    def size(self, key: str) -> int | None:
        """Return an object's size in bytes, None if it is missing."""
        meta = self.meta(key)
        return None if meta is None else int(meta["size"])

    def meta(self, key: str) -> Any:
        """Return obstore's metadata of an object (size, e_tag, last_modified), None without one."""
        with self._explained():
            try:
                return obstore.head(self._store, key)
            except FileNotFoundError:
                return None

    def sha256(self, key: str) -> tuple[str | None, str] | None:
        """Return the sha256 stored with an object and its e-tag, None without an object."""
        with self._explained():
            try:
                result = obstore.get(self._store, key, options={"head": True})
            except FileNotFoundError:
                return None
            return result.attributes.get(SHA256_ATTRIBUTE), _e_tag(result.meta)

    def list(self, prefix: str) -> Iterator[Any]:
        """Go through the metadata of all objects below a prefix, by key."""
        with self._explained():
            for batch in obstore.list(self._store, prefix):
                yield from batch

    def list_any(self, prefix: str) -> Iterator[StoredObject]:
        """Yield all objects below a prefix, by key, including those with odd keys (`is_odd`)."""
        from botocore.exceptions import BotoCoreError, ClientError

        bucket, above = self._place()
        pages = _any_key_client(_settings()).get_paginator("list_objects_v2")
        try:
            for page in pages.paginate(Bucket=bucket, Prefix=f"{above}{prefix}/"):
                for found in page.get("Contents", ()):
                    key = found["Key"].removeprefix(above)
                    yield StoredObject(key, found["Size"], found["ETag"], found["LastModified"])
        except (BotoCoreError, ClientError) as error:
            raise _fault(self.url, error) from error

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects; those that are not there do not matter."""
        gone = list(keys)
        if gone:
            with self._explained():
                obstore.delete(self._store, gone)

    def delete_odd(self, key: str) -> None:
        """Remove an object with an odd key (`is_odd`)."""
        from botocore.exceptions import BotoCoreError, ClientError

        bucket, above = self._place()
        try:
            _any_key_client(_settings()).delete_object(Bucket=bucket, Key=f"{above}{key}")
        except (BotoCoreError, ClientError) as error:
            raise _fault(self.url, error) from error

    def _place(self) -> tuple[str, str]:
        """Return the bucket, and what all keys in it begin with."""
        prefix = self._store.prefix
        return str(self._store.config["bucket"]), f"{prefix}/" if prefix else ""

    def upload(self, path: Path, key: str, sha256: str) -> None:
        """Write a file's content under a key that follows from it, with its sha256 beside it.

        Nobody sees the object before it is whole. Large files go in parts, which a store cannot
        make conditional: an object of the same key is then overwritten, by the same content.

        Raises
        ------
        BadInputError
            If the file has another content; nothing is written.
        """
        if path.stat().st_size <= _CHUNK:
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest() != sha256:
                raise _changed(path)
            with suppress(ConflictError):  # what is there is damaged
                self.put_new(key, content, sha256)
                return
        with self._explained(), path.open("rb") as stream:
            obstore.put(
                self._store,
                key,
                _verified_chunks(stream, path, sha256),
                attributes={SHA256_ATTRIBUTE: sha256},
                chunk_size=_CHUNK,
            )

    def download(self, key: str, path: Path) -> str:
        """Write an object's content to a new file and give its sha256.

        Raises
        ------
        FileNotFoundError
            If there is no such object.
        """
        digest = hashlib.sha256()
        with self._explained():
            result = obstore.get(self._store, key)
            with path.open("xb") as target:
                for chunk in result.stream(min_chunk_size=_CHUNK):
                    digest.update(chunk)
                    target.write(chunk)
        return digest.hexdigest()

    def content_hash(self, key: str) -> str:
        """Read an object and give the sha256 of its content."""
        digest = hashlib.sha256()
        with self._explained():
            for chunk in obstore.get(self._store, key).stream(min_chunk_size=_CHUNK):
                digest.update(chunk)
        return digest.hexdigest()

    def copy(self, source: str, target: str, e_tag: str | None) -> None:
        """Copy an object within the store, in one step for every reader.

        Parameters
        ----------
        source, target
            Keys.
        e_tag
            What the target has to be for the copy to happen; None if it must not be there.

        Raises
        ------
        ConflictError
            If the target is another by now. A store that does not know conditional copies copies
            nevertheless.
        FileNotFoundError
            If there is no such source.
        """
        # S3's own headers of a conditional copy, which obstore takes from a configuration only.
        if e_tag is None:
            store = _connected(self.url, "header:if-none-match:*")
        else:
            store = _opened(self.url, f"header:if-match:{e_tag}")
        with self._explained():
            try:
                obstore.copy(store, source, target, overwrite=False)
            except (AlreadyExistsError, PreconditionError) as error:
                raise ConflictError(target) from error

    def _put(self, key: str, content: bytes, mode: Any, sha256: str | None = None) -> str:
        attributes = {SHA256_ATTRIBUTE: sha256} if sha256 else None
        with self._explained():
            try:
                result = obstore.put(self._store, key, content, mode=mode, attributes=attributes)
            except (AlreadyExistsError, PreconditionError) as error:
                # An attempt whose answer was lost has been repeated, and met its own work.
                return self._own_write(key, content, error)
            return str(result["e_tag"])

    def _own_write(self, key: str, content: bytes, error: Exception) -> str:
        try:
            found, e_tag = self.read(key)
        except FileNotFoundError:
            found = None
        if found != content:
            raise ConflictError(key) from error
        return e_tag

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error):
                raise _no_bucket(self.url) from error
            raise
        except (AlreadyExistsError, PreconditionError):
            raise
        except BaseError as error:
            raise _fault(self.url, error) from error


def _connected(url: str, copy_if_not_exists: str | None = None) -> S3Store:
    """Return a store whose connections all of this process share."""
    return _shared(url, copy_if_not_exists, _settings())


def _settings() -> frozenset[tuple[str, str]]:
    return frozenset(item for item in os.environ.items() if item[0].startswith("AWS_"))


@functools.lru_cache(maxsize=16)
def _any_key_client(settings: frozenset[tuple[str, str]]) -> Any:
    """Return a client that takes any key, with the settings and patience of obstore's."""
    import botocore.session
    from botocore.config import Config

    given = dict(settings)
    return botocore.session.get_session().create_client(
        "s3",
        region_name=given.get("AWS_REGION") or given.get("AWS_DEFAULT_REGION") or "us-east-1",
        endpoint_url=given.get("AWS_ENDPOINT_URL") or given.get("AWS_ENDPOINT"),
        config=Config(
            connect_timeout=10,
            read_timeout=60,
            retries={"mode": "standard", "total_max_attempts": 7},
            s3={"addressing_style": "path"},
        ),
    )


@functools.lru_cache(maxsize=16)
def _shared(
    url: str, copy_if_not_exists: str | None, settings: frozenset[tuple[str, str]]
) -> S3Store:
    return _opened(url, copy_if_not_exists)


def _opened(url: str, copy_if_not_exists: str | None) -> S3Store:
    scheme, _, place = url.partition("://")
    if scheme != "s3" or not place.split("/")[0]:
        raise BadInputError(
            ARCHIVE_VARIABLE, "URL", f"{url!r} names no bucket", "write it as s3://bucket/prefix"
        )
    if not _endpoint().startswith(("http://", "https://", "AWS")):
        raise BadInputError(
            "AWS_ENDPOINT_URL",
            "URL",
            f"{_endpoint()!r} is not one",
            "write it as https://host:port",
        )
    config = {} if copy_if_not_exists is None else {"copy_if_not_exists": copy_if_not_exists}
    try:
        return S3Store.from_url(
            url,
            config=config,  # type: ignore[arg-type]
            client_options=_CLIENT,  # type: ignore[arg-type]
            retry_config=RETRIES,  # type: ignore[arg-type]
        )
    except BaseError as error:
        raise BadInputError(
            f"{ARCHIVE_VARIABLE}={url}",
            "settings",
            _cause(str(error)),
            "correct the AWS_ variables",
        ) from error


def _e_tag(meta: Any) -> str:
    return str(meta["e_tag"])


def _verified_chunks(stream: Any, path: Path, sha256: str) -> Iterator[bytes]:
    """Yield a file's chunks; the last is held back until the whole is known to be as expected."""
    digest = hashlib.sha256()
    held = b""
    while chunk := stream.read(_CHUNK):
        digest.update(chunk)
        if held:
            yield held
        held = chunk
    if digest.hexdigest() != sha256:
        raise _changed(path)
    yield held


def _changed(path: Path) -> BadInputError:
    return BadInputError(
        path, "content", "changed while it was being archived", "run the step again"
    )


def _no_bucket(url: str) -> BadInputError:
    return BadInputError(
        f"{ARCHIVE_VARIABLE}={url}",
        "bucket",
        f"there is no such bucket at {_endpoint()}",
        "create the bucket, or correct the setting or AWS_ENDPOINT_URL",
    )


def _fault(url: str, error: Exception) -> Exception:
    text = str(error)
    if isinstance(error, InvalidPathError):
        return BadInputError(url, "key", _cause(text), "remove the object of this key")
    if "NoSuchBucket" in text:
        return _no_bucket(url)
    if _METADATA_SERVICE in text or "Unable to locate credentials" in text:
        return _wrong_credentials(url, "none are set, and this machine has no role that gives some")
    if any(code in text for code in _WRONG):
        return _wrong_credentials(url, f"{_endpoint()} does not know them: {_cause(text)}")
    if isinstance(error, PermissionDeniedError | UnauthenticatedError) or any(
        word in text for word in _REFUSED
    ):
        return AccessDeniedError(
            f"{_endpoint()} refuses this to the credentials in use: {_cause(text)}. Remedy: "
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to those of somebody who may, or "
            f"correct the policy of {url}"
        )
    return PassingFaultError(
        f"the object store {url} at {_endpoint()} fails: {_cause(text)}. Remedy: see that it "
        "can be reached (AWS_ENDPOINT_URL), then run the work again"
    )


def _wrong_credentials(url: str, reason: str) -> BadInputError:
    return BadInputError(
        f"{ARCHIVE_VARIABLE}={url}",
        "credentials",
        reason,
        "correct AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN and AWS_REGION",
    )


def _cause(text: str) -> str:
    """Return what was asked for and what the service or the network says, out of a long account."""
    first = text.partition("\n")[0]
    request, code = _REQUEST.search(first), _CODE.search(text)
    said = code[1] if code else first.rpartition(" - ")[2].strip()
    return f"{request[0]}: {said}" if request else said


def _endpoint() -> str:
    return os.environ.get("AWS_ENDPOINT_URL") or os.environ.get("AWS_ENDPOINT") or "AWS"
