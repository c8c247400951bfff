"""Store blobs and commit what refers to them, once more if a garbage collection removed one of them in between."""

from __future__ import annotations

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from loreg.errors import CollectedError

#: A garbage collection may remove a blob that was stored for long, and that an attempt found there.
_IF_COLLECTED = Retrying(
    retry=retry_if_exception_type(CollectedError), stop=stop_after_attempt(6), wait=wait_exponential(0.2), reraise=True
)


def attempts_to_commit() -> Retrying:
    """Return the attempts to store blobs and to commit what refers to them, for some seconds.

    ``for attempt in attempts_to_commit(): with attempt: …`` goes on with the next while one raises CollectedError.
    Each leases the blobs, stores those that are not there, and commits then: what it found in the store stays there
    for the grace of a collection.
    """
    return _IF_COLLECTED.copy()
