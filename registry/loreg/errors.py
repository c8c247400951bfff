"""What can go wrong, by meaning. Every error names the thing, what was found, what was expected, what to do.

    LoregError                     exit code 1
    ├── UsageError                 2   the call itself is wrong
    ├── NotFoundError              3   there is no such thing, or the caller may not see it
    │   └── YankedError            3   ... for what it means was yanked
    ├── NotAllowedError            4   the caller may not do that
    │   ├── UnauthenticatedError   4   ... without a token, or with one that does not hold
    │   └── QuotaError             4   ... now: too much at once, or in all
    ├── CheckFailedError           5   an adapter breaks a rule, a policy, or does not fit its base
    ├── IntegrityError             6   bytes are not what their digest says
    ├── ConflictError              7   what is there is in the way
    │   ├── StaleError             7   ... for it is not what the caller had seen
    │   │   └── CollectedError     7   ... a blob was removed that the caller had seen in the store
    │   └── UnderWayError          7   ... for another process is at it
    ├── AdapterFormatError         1   a file is no adapter that loreg can read
    ├── MergeError                 1   these adapters cannot be combined so
    ├── EvaluationError            1   a program that should say how good an adapter is did not
    ├── UnavailableError           1   a database, store or server does not answer
    └── MissingExtraError          1   an optional dependency is not installed

The error that was translated is kept as the cause (``raise … from error``); ``loreg --debug`` prints it.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from loreg.suggestions import Suggestion


class LoregError(Exception):
    """Any error that loreg raises on purpose.

    ``code`` is stable and machine-readable, ``exit_code`` is what the command line leaves with, ``hint`` is
    the next command to type (may be empty). ``outside`` and ``hint_outside`` are for who only reaches a server: they
    name nothing of what lies behind. ``suggestion`` is what the caller may have meant; the message then ends with it.

    >>> error = NotFoundError("there is no adapter 'team/science'", hint="loreg ls")
    >>> str(error)
    "there is no adapter 'team/science'. Hint: loreg ls"
    >>> isinstance(error, LoregError), error.code, error.exit_code
    (True, 'not-found', 3)
    """

    code = "error"
    exit_code = 1
    _outside = ""

    def __init__(
        self, message: str, *, hint: str = "", outside: str = "", suggestion: Suggestion | None = None
    ) -> None:
        asks = "" if suggestion is None or message.endswith("?") else f"; did you mean {suggestion.meant!r}?"
        message += asks
        super().__init__(message)
        self.suggestion = suggestion
        self.message = message
        self.hint = hint
        self.outside = outside or self._outside or message
        anybody_can = self.outside == message or isinstance(self, IntegrityError)
        self.hint_outside = hint if anybody_can else "try again; whoever runs the server finds the cause in its log"

    def __str__(self) -> str:
        if not self.hint:
            return self.message
        return f"{self.message}{'' if self.message.endswith('?') else '.'} Hint: {self.hint}"


class UsageError(LoregError):
    """The call itself is wrong: a malformed ref, a count that does not match."""

    code = "usage"
    exit_code = 2


class NotFoundError(LoregError):
    """No such adapter, version, alias, base or file."""

    code = "not-found"
    exit_code = 3


class YankedError(NotFoundError):
    """What the ref means was yanked; by its number it can still be pulled."""

    code = "yanked"


class NotAllowedError(LoregError):
    """The system or the registry's rules forbid it."""

    code = "not-allowed"
    exit_code = 4


class UnauthenticatedError(NotAllowedError):
    """Nobody knows who asks: the token is unknown, expired or revoked."""

    code = "unauthenticated"


class QuotaError(NotAllowedError):
    """There is as much of it already as one may have."""

    code = "quota"


class CheckFailedError(LoregError):
    """The adapter breaks a rule."""

    code = "check-failed"
    exit_code = 5


class IntegrityError(LoregError):
    """Bytes are not what their name or header promises."""

    code = "integrity"
    exit_code = 6


class ConflictError(LoregError):
    """The state of the registry or of a folder forbids it: something else is already there."""

    code = "conflict"
    exit_code = 7


class StaleError(ConflictError):
    """What was to be changed is not any more what whoever asked had seen."""

    code = "stale"


class CollectedError(StaleError):
    """A blob that was in the store was removed since, or is being removed, because nothing referred to it."""

    code = "collected"


class UnderWayError(ConflictError):
    """Another process is doing it at this moment."""

    code = "under-way"


class AdapterFormatError(LoregError):
    """A folder is not an adapter that loreg reads."""

    code = "adapter-format"


class MergeError(LoregError):
    """These adapters cannot be merged as asked."""

    code = "merge"


class EvaluationError(LoregError):
    """A program or function that should say how good an adapter is failed, hung, or said something else."""

    code = "evaluation"


class UnavailableError(LoregError):
    """The database or the store does not answer."""

    code = "unavailable"
    _outside = "what the server stands on does not answer"


class MissingExtraError(LoregError):
    """An optional dependency is not installed."""

    code = "missing-extra"


def of_code(code: str) -> type[LoregError]:
    """Return the class of errors with that code, as servers and jobs tell it; LoregError for one that is not known."""
    kinds = [kind for kind in globals().values() if isinstance(kind, type) and issubclass(kind, LoregError)]
    return next((kind for kind in kinds if kind.code == code), LoregError)


@contextlib.contextmanager
def explain_os_errors(place: Path | str, hint: str) -> Iterator[None]:
    """Turn the operating system's errors into ours: NotAllowedError for permissions, else UnavailableError.

    ``place`` is named where the system names no file.
    """
    try:
        yield
    except OSError as error:
        name = error.filename or place
        reason = error.strerror or str(error)
        if isinstance(error, PermissionError) or error.errno == errno.EROFS:
            raise NotAllowedError(f"no permission for {name}: {reason}", hint=hint, outside="no permission") from error
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            hint = "free some space and try again"
        raise UnavailableError(f"{name} cannot be used: {reason}", hint=hint) from error
