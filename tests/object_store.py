"""An S3 store over real HTTP on the loopback, and what tests may do to the storage behind the service's back.

The server is moto's, an implementation of S3 that shares nothing with the client under test. It is not AWS: it takes
any key, checks no signature, and lets no presigned URL expire.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from uuid import uuid4

import boto3
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "a secret of the store"}


class Backing(Protocol):
    """A storage as whoever runs it sees it; its URI is what the service gets."""

    uri: str

    def stored(self) -> list[str]: ...
    def read(self, key: str) -> bytes: ...
    def write(self, key: str, content: bytes) -> None: ...
    def remove(self, key: str) -> None: ...


class Folder:
    """The storage of `file:///…`."""

    def __init__(self, folder: Path) -> None:
        self.uri = folder.as_uri()
        self.folder = folder

    def stored(self) -> list[str]:
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file())

    def read(self, key: str) -> bytes:
        return (self.folder / key).read_bytes()

    def write(self, key: str, content: bytes) -> None:
        (self.folder / key).write_bytes(content)

    def remove(self, key: str) -> None:
        (self.folder / key).unlink()


class Request(NamedTuple):
    """What the store was asked."""

    method: str
    path: str
    query: str
    headers: dict[str, str]


class _Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"  # connections stay open, as a real store's do

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - werkzeug's name
        pass


class ObjectStore:
    """The server.

    Attributes:
        requests: What it was asked, in order.
        refuse: Says of a request with which status it fails, or None.
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.refuse: Callable[[Request], str | None] = lambda _: None
        self._s3 = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=_Quiet)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.variables = KEYS | {"AWS_ENDPOINT_URL": self.url, "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1"}

    @contextmanager
    def serving(self) -> Iterator[None]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Any:
        headers = {name[5:].lower(): value for name, value in environ.items() if name.startswith("HTTP_")}
        request = Request(environ["REQUEST_METHOD"], environ["PATH_INFO"], environ["QUERY_STRING"], headers)
        self.requests.append(request)
        status = self.refuse(request)
        if status is None:
            return self._s3(environ, start_response)
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        start_response(status, [("Content-Length", "0")])
        return [b""]


class Bucket:
    """The storage of `s3://…`, through AWS's own client."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self.name, self._prefix = f"bucket-{uuid4().hex}", "a/prefix/"
        self.uri = f"s3://{self.name}/{self._prefix}"
        self.client = boto3.client(
            "s3",
            endpoint_url=store.url,
            region_name="us-east-1",
            aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        )
        self.client.create_bucket(Bucket=self.name)

    def stored(self) -> list[str]:
        listed = self.client.list_objects_v2(Bucket=self.name).get("Contents", [])
        return sorted(entry["Key"].removeprefix(self._prefix) for entry in listed)

    def read(self, key: str) -> bytes:
        return self.client.get_object(Bucket=self.name, Key=self._prefix + key)["Body"].read()

    def write(self, key: str, content: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=self._prefix + key, Body=content)

    def remove(self, key: str) -> None:
        self.client.delete_object(Bucket=self.name, Key=self._prefix + key)

    def unfinished_uploads(self) -> list[str]:
        listed = self.client.list_multipart_uploads(Bucket=self.name).get("Uploads", [])
        return [upload["Key"] for upload in listed]
