"""Count requests by route and status and measure their time, for Prometheus."""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
from collections.abc import Iterator

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.multiprocess import MultiProcessCollector

_MULTIPROCESS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # the variable that prometheus_client reads
_LABELS = ("method", "route", "status")
_requests = Counter("loreg_requests_total", "Requests that were answered.", _LABELS)
_seconds = Histogram("loreg_request_seconds", "Seconds from a request to the end of its answer.", ("method", "route"))


def count_request(method: str, route: str, status: int, seconds: float) -> None:
    """Count one request and its time."""
    requests, latency = _labelled(method, route, status)
    requests.inc()
    latency.observe(seconds)


@functools.cache
def _labelled(method: str, route: str, status: int) -> tuple[Counter, Histogram]:
    return _requests.labels(method, route, str(status)), _seconds.labels(method, route)


def render_metrics() -> tuple[bytes, str]:
    """Return all metrics as text and its media type; within :func:`share_between_processes`, those of all processes."""
    registry = REGISTRY
    if _MULTIPROCESS_FOLDER in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry), CONTENT_TYPE_LATEST


@contextlib.contextmanager
def share_between_processes() -> Iterator[None]:
    """Let processes that are started in this context count in files that each of them can read."""
    with tempfile.TemporaryDirectory(prefix="loreg-measures-") as folder:
        os.environ[_MULTIPROCESS_FOLDER] = folder
        try:
            yield
        finally:
            del os.environ[_MULTIPROCESS_FOLDER]
