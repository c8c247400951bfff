"""Survive standard streams that are closed or full: results are still reported, and no file takes their place."""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys
from typing import TextIO

_STDIN, _STDOUT, _STDERR = range(3)


class Output(io.FileIO):
    """A standard stream; once it cannot be written to, the rest goes to the file descriptor ``spare``.

    ``error`` says why, unless the stream was closed from the beginning: the user wanted that. When the reader leaves,
    as in ``loreg ls | head``, the rest is dropped, and the command ends as it would have.
    """

    def __init__(self, descriptor: int, spare: int | None, *, is_open: bool) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self._spare = spare
        self._works = is_open
        self.error: OSError | None = None

    @property
    def works(self) -> bool:
        """Whether what is written still reaches the stream."""
        return self._works

    def write(self, data: bytes, /) -> int | None:  # type: ignore[override]
        """Write to the stream, or else to ``spare``."""
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
    """Make stdin, stdout and stderr usable, whatever the process was started with.

    Otherwise the next file that is opened, a database for instance, would get the number of one that is closed.
    """
    closed = [descriptor for descriptor in (_STDIN, _STDOUT, _STDERR) if not _is_open(descriptor)]
    for _ in closed:
        os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    if sys.stdin is None:
        sys.stdin = open(_STDIN, closefd=False)  # noqa: SIM115
    if sys.stderr is sys.__stderr__:
        sys.stderr = _wrap_text(sys.stderr, Output(_STDERR, None, is_open=_STDERR not in closed))
    if sys.stdout is sys.__stdout__:
        sys.stdout = _wrap_text(sys.stdout, Output(_STDOUT, _STDERR, is_open=_STDOUT not in closed))


def flush_stdout() -> None:
    """Send what was printed to the reader now."""
    sys.stdout.flush()


def is_stdout_read() -> bool:
    """Return whether what is printed gets anywhere: not if the reader of a pipe has gone, or the disk is full."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    if not isinstance(raw, Output):
        return True
    if not raw.works:
        return False
    if not hasattr(select, "poll"):  # Windows
        return True
    poll = select.poll()
    poll.register(raw.fileno(), 0)  # of a pipe without a reader POLLERR is told, whatever is asked for
    return not any(state & select.POLLERR for _, state in poll.poll(0))


def what_stopped_stdout() -> OSError | None:
    """Return why stdout did not get all of the output; None if it did."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw.error if isinstance(raw, Output) else None


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _wrap_text(before: TextIO | None, raw: Output) -> TextIO:
    """Return a text stream on ``raw`` with the encoding of ``before``."""
    if before is not None:
        before.flush()
    encoding = before.encoding if before is not None else "utf-8"
    stream = io.BufferedWriter(raw)  # type: ignore[type-var]
    return io.TextIOWrapper(stream, encoding, "replace", line_buffering=raw.isatty() or raw.name == _STDERR)
