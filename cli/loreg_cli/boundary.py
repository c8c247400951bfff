"""Turn errors into one line on stderr and an exit code."""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

import click

from loreg.single_line import single_line
from loreg_cli.streams import take_over, what_stopped_stdout

INTERRUPTED = 130
#: The variable by which a shell asks how a word goes on.
COMPLETE = "_LOREG_COMPLETE"
_NEW_OBJECTS = 10_000  # between two searches for garbage, not 700: imports make many objects and no garbage
_STOP_SIGNALS = [signal.Signals[name] for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]  # Windows has no HUP


class StopRequested(BaseException):  # as KeyboardInterrupt, which is no error either
    """Raised when a signal asks the process to end: temporary files are removed on the way out, as with Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextlib.contextmanager
def handle_stop_signals() -> Iterator[None]:
    """Let the signals that ask a process to end raise StopRequested; a second one ends it at once.

    A signal that the process was started to ignore (``nohup``), or that something handles already, is left as it is.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handled = [number for number in _STOP_SIGNALS if signal.getsignal(number) is signal.SIG_DFL]

    def stop(number: int, frame: FrameType | None) -> None:
        for other in handled:
            signal.signal(other, signal.SIG_DFL)
        raise StopRequested(number)

    for number in handled:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, signal.SIG_DFL)


class ErrorReportingGroup(click.Group):
    """A group whose every error is one line with a hint; a traceback is always a bug of loreg."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run the command line and leave with its exit code."""
        extra["standalone_mode"] = False
        extra["prog_name"] = "loreg"
        if COMPLETE in os.environ:
            from loreg_cli.completing import add_shells

            add_shells()
        words = args[0] if args and args[0] is not None else extra.get("args") or sys.argv[1:]
        gc.set_threshold(_NEW_OBJECTS)
        atexit.register(gc.freeze)  # the system takes back the memory of a process that ends; no search goes before
        take_over()
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")  # a terminal of another encoding still shows the rest
        try:
            _refuse_non_utf8(words)
            with handle_stop_signals():
                result = super().main(*args, obj=tuple(words), **extra)
            sys.stdout.flush()
            code = result if isinstance(result, int) else 0
        except StopRequested as stopped:
            code = _print_error(f"stopped by {signal.Signals(stopped.number).name}", 128 + stopped.number)
            sys.stdout.flush()
            os.kill(os.getpid(), stopped.number)  # as without us: the parent process sees which signal ended it
        except BaseException as error:
            code = _report(error, functools.partial(_find_correction, self, words), functools.partial(_hide, words))
        if (stopped_by := what_stopped_stdout()) is not None:
            _print_error(f"stdout: {stopped_by.strerror}; what it was to get is said above", 1)
            code = code or 1
        sys.exit(code)


def _find_correction(group: click.Group, words: Sequence[str], error: BaseException) -> str | None:
    from loreg_cli.corrections import find_correction

    try:
        return find_correction(group, words, error)
    except Exception:  # what went wrong is to be said, whatever happens to the advice
        return None


def _hide(words: Sequence[str], text: str) -> str:
    from loreg_cli.typed_secrets import TypedSecrets

    return TypedSecrets(words).hide(text)


def _report(error: BaseException, correct: Callable[[BaseException], str | None], hide: Callable[[str], str]) -> int:
    """Print the one line that the error is to the user, and return the exit code. Raises what is a bug of loreg.

    Its hint is the command that ``correct`` finds, if it finds one; ``hide`` takes out the secrets that were typed.
    """
    from loreg.errors import LoregError

    match error:
        case click.exceptions.NoArgsIsHelpError():
            click.echo(error.ctx.get_help() if error.ctx else "", err=True)
            return error.exit_code
        case LoregError():
            line = _with_hint(error.message, correct(error) or error.hint)
            return _print_error(line, error.exit_code, error, hide)
        case click.UsageError():
            message = error.format_message().rstrip(".")
            line = _with_hint(message, correct(error) or "loreg --help")
            return _print_error(line, error.exit_code, hide=hide)
        case click.ClickException():
            return _print_error(error.format_message(), error.exit_code, hide=hide)
        case click.Abort() | KeyboardInterrupt():
            how_to_go_on = "; ".join(getattr(error.__cause__ or error, "__notes__", ()))
            return _print_error(_with_hint("interrupted", how_to_go_on), INTERRUPTED)
        case SystemExit():
            return error.code if isinstance(error.code, int) else 0
        case OSError():
            place = f"{error.filename}: " if error.filename else ""
            return _print_error(f"{place}{error.strerror or error}. Hint: loreg doctor", 1, error, hide)
    raise error


def _with_hint(message: str, hint: str) -> str:
    if not hint:
        return message
    return f"{message}{'' if message.endswith('?') else '.'} Hint: {hint}"


def _refuse_non_utf8(arguments: Sequence[str]) -> None:
    for argument in arguments:
        if any("\ud800" <= character <= "\udfff" for character in argument):
            raise click.UsageError(f"the argument {argument!a} is not UTF-8")


def _print_error(
    message: str, exit_code: int, error: BaseException | None = None, hide: Callable[[str], str] = str
) -> int:
    """Print the error line and return ``exit_code``; with ``--debug`` the traceback of ``error`` comes before it."""
    import logging

    if error is not None and logging.getLogger("loreg").isEnabledFor(logging.DEBUG):
        from loreg_cli.debug import format_chain

        click.echo(hide(format_chain(error)), err=True)
    click.echo(f"{click.style('error:', fg='red', bold=True)} {single_line(hide(message))}", err=True)
    return exit_code
