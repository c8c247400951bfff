"""What Prometheus asks for: requests by route and status, and how long they took."""

from __future__ import annotations

import functools

from prometheus_client import Counter, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

_LABELS = ("method", "route", "status")
_requests = Counter("loreg_requests_total", "Requests that were answered.", _LABELS)
_seconds = Histogram("loreg_request_seconds", "Seconds from a request to the end of its answer.", ("method", "route"))


def measured(method: str, route: str, status: int, seconds: float) -> None:
    """Count one request."""
    requests, latency = _of(method, route, status)
    requests.inc()
    latency.observe(seconds)


@functools.cache
def _of(method: str, route: str, status: int) -> tuple[Counter, Histogram]:
    return _requests.labels(method, route, str(status)), _seconds.labels(method, route)


def exposition() -> tuple[bytes, str]:
    """All measures as text, with its media type."""
    return generate_latest(), CONTENT_TYPE_LATEST
