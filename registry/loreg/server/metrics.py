"""What Prometheus asks for: requests by route and status, and how long they took."""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
from collections.abc import Iterator

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.multiprocess import MultiProcessCollector

_TOGETHER = "PROMETHEUS_MULTIPROC_DIR"  # what prometheus_client calls it
_LABELS = ("method", "route", "status")
_requests = Counter("loreg_requests_total", "Requests that were answered.", _LABELS)
_seconds = Histogram("loreg_request_seconds", "Seconds from a request to the end of its answer.", ("method", "route"))


def count_request(method: str, route: str, status: int, seconds: float) -> None:
    """Count one request."""
    requests, latency = _of(method, route, status)
    requests.inc()
    latency.observe(seconds)


@functools.cache
def _of(method: str, route: str, status: int) -> tuple[Counter, Histogram]:
    return _requests.labels(method, route, str(status)), _seconds.labels(method, route)


def render_metrics() -> tuple[bytes, str]:
    """All measures as text, with its media type: those of all processes that are measured together."""
    registry = REGISTRY
    if _TOGETHER in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry), CONTENT_TYPE_LATEST


@contextlib.contextmanager
def share_between_processes() -> Iterator[None]:
    """Processes that are started meanwhile count in files that each of them can read."""
    with tempfile.TemporaryDirectory(prefix="loreg-measures-") as folder:
        os.environ[_TOGETHER] = folder
        try:
            yield
        finally:
            del os.environ[_TOGETHER]
