"""Every error that S3 can answer becomes one of ours: shown with answers that a real server cannot be made to give."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from botocore import exceptions
from botocore.exceptions import ClientError

from loreg.errors import IntegrityError, LoregError, NotAllowedError, NotFoundError, UnavailableError
from loreg.storage import Blob, open_store
from loreg.storage.s3 import S3Store

ANSWERS = {
    ("AccessDenied", 403): NotAllowedError,
    ("SignatureDoesNotMatch", 403): NotAllowedError,
    ("ExpiredToken", 401): NotAllowedError,
    ("NoSuchKey", 404): NotFoundError,
    ("NoSuchBucket", 404): NotFoundError,
    ("BadDigest", 400): IntegrityError,
    ("InvalidDigest", 400): IntegrityError,
    ("SlowDown", 503): UnavailableError,
    ("InternalError", 500): UnavailableError,
    ("InsufficientStorage", 507): UnavailableError,
    ("NewError", 418): UnavailableError,
}


@pytest.mark.parametrize(("code", "status"), ANSWERS)
def test_every_answer_has_a_meaning(code: str, status: int):
    store = S3Store("bucket", "x", "http://127.0.0.1:9")
    answer = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    with pytest.raises(ANSWERS[code, status]) as error, store._translate_errors():
        raise ClientError(answer, "PutObject")
    assert error.value.hint


def test_no_exception_of_the_library_passes_through():
    store = S3Store("bucket", "x", "http://127.0.0.1:9")
    kinds = [
        kind
        for kind in vars(exceptions).values()
        if isinstance(kind, type) and issubclass(kind, exceptions.BotoCoreError)
    ]
    assert len(kinds) > 50
    for kind in kinds:
        error = kind.__new__(kind)
        Exception.__init__(error, "broken")
        with pytest.raises(LoregError), store._translate_errors():
            raise error


class _CutsOff(BaseHTTPRequestHandler):
    """Sends at most 1000 bytes of an object at a time and then hangs up, as a bad network does."""

    content = bytes(range(256)) * 12  # 3072 bytes
    ranges: list[str]

    def do_GET(self) -> None:
        range_ = self.headers["Range"]
        self.ranges.append(range_)
        rest = self.content[int(range_.removeprefix("bytes=").rstrip("-")) :]
        self.send_response(206)
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        self.wfile.write(rest[:1000])

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def bad_network() -> Iterator[str]:
    _CutsOff.ranges = []
    server = HTTPServer(("127.0.0.1", 0), _CutsOff)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_a_download_that_breaks_off_is_taken_up_again_at_the_same_byte(bad_network: str, tmp_path: Path):
    content = _CutsOff.content
    store = open_store("s3://bucket/x", bad_network)
    store.get(Blob(hashlib.sha256(content).hexdigest(), len(content)), tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == content
    assert _CutsOff.ranges == ["bytes=0-", "bytes=1000-", "bytes=2000-", "bytes=3000-"]
