"""Store blobs and commit what refers to them, once more if a garbage collection removed one of them in between."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from loreg.errors import CollectedError

T = TypeVar("T")
#: A garbage collection may remove a blob that was stored for long, and that an attempt found there.
_IF_COLLECTED = Retrying(
    retry=retry_if_exception_type(CollectedError), stop=stop_after_attempt(6), wait=wait_exponential(0.2), reraise=True
)


def retry_if_collected(action: Callable[[], T]) -> T:
    """Return what ``action`` returns; it is called again, for some seconds, while it raises CollectedError.

    Each call leases the blobs, stores those that are not there, and commits then: what it found in the store stays
    there for the grace of a collection.
    """
    return _IF_COLLECTED.copy()(action)
