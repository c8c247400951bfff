"""Run the person's own command lines, several side by side, so that none outlives the process that started it.

Each command is in a group of processes of its own, and beside it waits one that kills the group at the end of a pipe
whose other end only the process that started them has: it ends when that process does, however it does.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from typing import Any

from loreg.errors import EvaluationError

TAIL = 300  # characters of what a failed program said
_MAX_OUTPUT = 1 << 28  # bytes
#: Standard input is the pipe. The command itself, ``$1``, has neither the pipe nor any other input.
_GUARDED = """\
exec 3<&0 </dev/null
{ read -r _; kill -KILL 0; } <&3 >/dev/null 2>&1 &
exec 3<&- /bin/sh -c "$1"
"""


class CommandRunner:
    """Runs shell commands from several threads; each may take ``timeout`` seconds, any time where that is None."""

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._ended = False

    def run(self, command: str) -> str:
        """Run a shell command and return what it printed; a hanging one is ended with all that it started.

        Raises EvaluationError for one that fails, or that runs longer than the timeout.
        """
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as messages:
            with self._start(command, output, messages) as process:
                try:
                    code = process.wait(self._timeout)
                except subprocess.TimeoutExpired as error:
                    message = f"no answer after {self._timeout:g} seconds"
                    raise EvaluationError(message, hint="--timeout with more seconds") from error
            if code:
                lines = (_read_tail(messages, TAIL).strip() or _read_tail(output, TAIL).strip()).splitlines()
                last = lines[-1] if lines else "it printed nothing"
                raise EvaluationError(f"exit code {code}: {last}", hint="run the command by hand")
            return _read_tail(output, _MAX_OUTPUT)

    def end(self) -> None:
        """End all that runs; nothing starts any more."""
        with self._lock:
            self._ended = True
            for process in self._running:
                _kill_group(process)

    @contextlib.contextmanager
    def _start(self, command: str, output: Any, messages: Any) -> Iterator[subprocess.Popen[bytes]]:
        """Yield the process; end it, with what it has started, when the context ends, however it does."""
        with self._lock:
            if self._ended:
                raise EvaluationError("the sweep was ended", hint="run it again: what was measured is kept")
            process, pipe = _start_guarded(command, output, messages)
            self._running.add(process)
        try:
            yield process
        finally:
            with self._lock:
                self._running.remove(process)
            _kill_group(process)
            process.wait()
            os.close(pipe)


def _start_guarded(command: str, output: Any, messages: Any) -> tuple[subprocess.Popen[bytes], int]:
    """Start a shell command; return it, and the descriptor at whose end it is killed with all that it started."""
    theirs, ours = os.pipe()
    try:
        process = subprocess.Popen(  # noqa: S603  the person's own command line
            ("/bin/sh", "-c", _GUARDED, "sh", command),
            stdin=theirs, stdout=output, stderr=messages, start_new_session=True,
        )  # fmt: skip
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    return process, ours


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _read_tail(file: Any, size: int) -> str:
    file.seek(0, os.SEEK_END)
    file.seek(max(0, file.tell() - size))
    return str(file.read().decode("utf-8", "replace"))
