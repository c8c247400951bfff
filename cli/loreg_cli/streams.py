"""Standard streams that may be closed or full: neither hides what was done, nor lets a file of ours take its place."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import TextIO

_STDIN, _STDOUT, _STDERR = range(3)


class Output(io.FileIO):
    """A standard stream; from where it cannot be written on, what it was to get goes to ``spare``.

    ``error`` says why that happened, unless the stream was closed from the beginning: that was somebody's wish. So it
    is when the reader leaves, as in ``loreg ls | head``: the rest goes nowhere, and the verb ends as it would have.
    """

    def __init__(self, descriptor: int, spare: int | None, *, is_open: bool) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self._spare = spare
        self._works = is_open
        self.error: OSError | None = None

    def write(self, data: bytes, /) -> int | None:  # type: ignore[override]
        """Write to the stream, or else to the other one."""
        if self._works:
            try:
                return super().write(data)
            except BrokenPipeError:
                self._works, self._spare = False, None
            except OSError as error:
                self._works, self.error = False, error
        if self._spare is not None:
            with contextlib.suppress(OSError):
                os.write(self._spare, data)
        return len(data)


def take_over() -> None:
    """Make stdin, stdout and stderr such that they can be used, whatever the process was started with.

    Without that the next file that is opened, a database for instance, would get the number of one that is closed.
    """
    closed = [descriptor for descriptor in (_STDIN, _STDOUT, _STDERR) if not _is_open(descriptor)]
    for _ in closed:
        os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    if sys.stdin is None:
        sys.stdin = open(_STDIN, closefd=False)  # noqa: SIM115
    if sys.stderr is sys.__stderr__:
        sys.stderr = _text(sys.stderr, Output(_STDERR, None, is_open=_STDERR not in closed))
    if sys.stdout is sys.__stdout__:
        sys.stdout = _text(sys.stdout, Output(_STDOUT, _STDERR, is_open=_STDOUT not in closed))


def what_stopped_stdout() -> OSError | None:
    """Why stdout did not get all that it was to get; None if it did."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw.error if isinstance(raw, Output) else None


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _text(before: TextIO | None, raw: Output) -> TextIO:
    """A text stream like the one ``before``."""
    if before is not None:
        before.flush()
    encoding = before.encoding if before is not None else "utf-8"
    stream = io.BufferedWriter(raw)  # type: ignore[type-var]
    return io.TextIOWrapper(stream, encoding, "replace", line_buffering=raw.isatty() or raw.name == _STDERR)
