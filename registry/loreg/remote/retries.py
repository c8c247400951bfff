"""When a request is sent again, and after how long a pause: one policy for the server and for its store."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeVar

import tenacity

from loreg.errors import LoregError
from loreg.remote.haste import time_limit

T = TypeVar("T")
MAX_ATTEMPTS = 5
_FIRST_WAIT = 0.2  # seconds; each further pause is twice as long
_MAX_WAIT = 30.0  # seconds


class RetryableError(Exception):
    """An attempt failed, and another may not. ``error`` is what the caller gets when no attempt is left.

    ``retry_after`` is the value of the header of that name: seconds that the server asks to wait, empty if it does not.
    """

    def __init__(self, error: LoregError, retry_after: str = "") -> None:
        super().__init__(str(error))
        self.error = error
        self.retry_after = retry_after


def with_retries(attempt: Callable[[], T]) -> T:
    """Return what ``attempt`` returns, called again after each RetryableError, five times in all; in haste twice."""
    seconds = time_limit()
    in_haste = tenacity.stop_after_attempt(2) | tenacity.stop_after_delay(seconds or 0)
    policy = _POLICY.copy() if seconds is None else _POLICY.copy(stop=in_haste, wait=tenacity.wait_none())
    try:
        return policy(attempt)
    except RetryableError as last:
        raise last.error from last.__cause__


def _pause(state: tenacity.RetryCallState) -> float:
    """Return as many seconds as the server asks for, else more each time; a random share keeps clients apart."""
    failure = state.outcome.exception() if state.outcome else None
    asked = failure.retry_after if isinstance(failure, RetryableError) else ""
    seconds = float(asked) if asked.isdecimal() else _FIRST_WAIT * 2 ** (state.attempt_number - 1)
    return min(seconds, _MAX_WAIT) * random.uniform(0.5, 1.0)  # noqa: S311  nothing secret


_POLICY = tenacity.Retrying(
    retry=tenacity.retry_if_exception_type(RetryableError),
    stop=tenacity.stop_after_attempt(MAX_ATTEMPTS),
    wait=_pause,
    reraise=True,
)
