"""An S3 server as a program of its own: moto, with what the tests rely on and moto leaves out.

S3 decides each request as a whole, copies on condition, and refuses unknown keys; moto's server
looks and writes in separate steps, copies whatever the condition, and knows no keys.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

ACCESS_KEY, SECRET_KEY = "tester", "testing"
PUBLIC_KEY = "visitor"
"""May read what a bucket's policy gives to general users, and nothing else."""
PUBLIC_TREES = ("archive/public", "archive/registry")
BUCKET = "archive"
PROJECT = Path(__file__).parents[2]

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


@contextmanager
def running_s3_server() -> Iterator[str]:
    """Run the server; gives its endpoint."""
    process = subprocess.Popen(
        [sys.executable, "-m", __name__], stdout=subprocess.PIPE, text=True, cwd=PROJECT
    )
    try:
        assert process.stdout is not None
        endpoint = process.stdout.readline().strip()
        assert endpoint, "the S3 server did not start"
        yield endpoint
    finally:
        process.kill()
        process.wait()


def environment(endpoint: str) -> dict[str, str]:
    """Give the variables by which clients find the server."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_REGION": "us-east-1",
    }


def put_object(url: str, key: str, content: bytes = b"x") -> None:
    """Write an object with any key below a URL, as clients of the SSC can."""
    import boto3

    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    client.put_object(Bucket=bucket, Key=f"{prefix}/{key}", Body=content)


def serve() -> None:
    from moto.core.models import DEFAULT_ACCOUNT_ID
    from moto.s3.models import s3_backends
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log_request(self, *_: Any) -> None: ...

    backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
    backend.create_bucket(BUCKET, "us-east-1")
    moto = DomainDispatcherApplication(create_backend_app)
    server = make_server(
        "127.0.0.1", 0, as_s3_decides(moto, backend), threaded=True, request_handler=Quiet
    )
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


def as_s3_decides(moto: Application, backend: Any) -> Application:
    one_by_one = threading.Lock()

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        refusal = None
        with one_by_one:
            user = _user(environ)
            if user not in (ACCESS_KEY, PUBLIC_KEY):
                refusal = ("403 Forbidden", "InvalidAccessKeyId")
            elif user == PUBLIC_KEY and not _is_public(environ):
                refusal = ("403 Forbidden", "AccessDenied")
            elif "HTTP_X_AMZ_COPY_SOURCE" in environ and not _may_copy(environ, backend):
                refusal = ("412 Precondition Failed", "PreconditionFailed")
            else:
                return list(moto(environ, start_response))
        status, code = refusal
        start_response(status, [("Content-Type", "application/xml")])
        return [f"<Error><Code>{code}</Code></Error>".encode()]

    return application


def _user(environ: dict[str, Any]) -> str:
    match = re.search(r"Credential=([^/]+)/", environ.get("HTTP_AUTHORIZATION", ""))
    return match[1] if match else ""


def _is_public(environ: dict[str, Any]) -> bool:
    prefix = "".join(parse_qs(environ["QUERY_STRING"]).get("prefix", ""))
    _, _, key = f"{environ['PATH_INFO']}/{prefix}".removeprefix(f"/{BUCKET}/").partition("/")
    return environ["REQUEST_METHOD"] in ("GET", "HEAD") and key.strip("/").startswith(PUBLIC_TREES)


def _may_copy(environ: dict[str, Any], backend: Any) -> bool:
    match = re.fullmatch(r"/([^/]+)/(.+)", environ["PATH_INFO"])
    assert match is not None
    target = backend.get_object(*match.groups())
    if "HTTP_IF_MATCH" in environ:
        return target is not None and target.etag == environ["HTTP_IF_MATCH"]
    return target is None or "HTTP_IF_NONE_MATCH" not in environ


if __name__ == "__main__":
    serve()
