"""Keep for a while what took a server long to count: a twentieth of its time at most goes into counting anew.

Among a million adapters the tasks, bases and metrics take seconds to count. An answer that took a fifth of a second or
longer is given again to whoever may read the same, for twenty times as long as it took and five minutes at most;
anything quicker is never kept. What was pushed meanwhile is not in it. What was made private must not be: so the
namespaces that the caller may read are a part of the question.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

if TYPE_CHECKING:
    from loreg.catalog import Transaction

T = TypeVar("T")
_LONG = 0.2  # seconds
_TIMES = 20
_MAX_AGE = 300.0  # seconds
_MAX_ANSWERS = 256


class _Answer(msgspec.Struct, frozen=True):
    value: Any
    until: float


class RecentAnswers:
    """The answers of one process. Threads may share it. ``clock`` returns seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._answers: dict[Hashable, _Answer] = {}
        self._being_counted: set[Hashable] = set()

    def get(self, tx: Transaction, question: Hashable, count: Callable[[], T]) -> T:
        """Return the answer to ``question`` for whoever reads what the caller of ``tx`` may: a recent one, or a new.

        While somebody counts it anew, the others get the one before.
        """
        from loreg.catalog import namespaces

        key = (question, None if tx.sees_all else namespaces.readable(tx))
        answer = self._answers.get(key)
        if answer is not None and (self._clock() < answer.until or key in self._being_counted):
            value: T = answer.value
            return value
        self._being_counted.add(key)
        try:
            begin = self._clock()
            value = count()
            self._keep(key, value, begin)
        finally:
            self._being_counted.discard(key)
        return value

    def _keep(self, key: Hashable, value: object, begin: float) -> None:
        now = self._clock()
        self._answers.pop(key, None)
        if now - begin >= _LONG:
            self._answers[key] = _Answer(value, now + min(_TIMES * (now - begin), _MAX_AGE))
            while len(self._answers) > _MAX_ANSWERS:  # the one that was counted longest ago
                self._answers.pop(next(iter(self._answers)), None)
