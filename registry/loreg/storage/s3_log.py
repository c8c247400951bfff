"""Log the requests that an S3 client sends, with their times: ``loreg --debug`` shows them."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_log = logging.getLogger("loreg.storage")
_STARTED = "loreg-started"


def log_calls(client: S3Client) -> None:
    """Log every request of ``client`` when it has been answered: operation, key, range, status and milliseconds.

    Nothing is registered, and a request costs nothing more, unless the log is on when the client is made. The events
    are botocore's: https://docs.aws.amazon.com/boto3/latest/guide/events.html
    """
    if _log.isEnabledFor(logging.DEBUG):
        client.meta.events.register("before-call.s3", _start)
        client.meta.events.register("after-call.s3", _finish)
        client.meta.events.register("after-call-error.s3", _fail)


def _start(params: Mapping[str, Any], context: dict[str, Any], **_: object) -> None:
    range_ = params["headers"].get("Range", "")
    context[_STARTED] = (time.perf_counter(), f"{params['url_path']} {range_}".rstrip())


def _finish(http_response: Any, model: Any, context: Mapping[str, Any], **_: object) -> None:
    _write(model.name, context, str(http_response.status_code))


def _fail(exception: Exception, context: Mapping[str, Any], event_name: str, **_: object) -> None:
    _write(event_name.rpartition(".")[2], context, f"{type(exception).__name__}: {exception}")


def _write(operation: str, context: Mapping[str, Any], outcome: str) -> None:
    started, target = context[_STARTED]
    _log.debug("%s %s: %s, %.1f ms", operation, target, outcome, (time.perf_counter() - started) * 1e3)
