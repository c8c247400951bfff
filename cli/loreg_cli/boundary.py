"""Where errors become one line on stderr and an exit code."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from loreg_cli.output import printable

INTERRUPTED = 130


class Commands(click.Group):
    """A group whose every error is one line with a hint; a traceback is always a bug of loreg."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run the command line and leave with its exit code."""
        extra["standalone_mode"] = False
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")  # a terminal of another encoding still shows the rest
        sys.exit(self._run(*args, **extra))

    def _run(self, *args: Any, **extra: Any) -> int:
        from loreg.errors import LoregError

        try:
            _refuse_what_is_not_utf8(args[0] if args and args[0] is not None else extra.get("args") or sys.argv[1:])
            result = super().main(*args, **extra)
            sys.stdout.flush()
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.ctx.get_help() if error.ctx else "", err=True)
            return error.exit_code
        except LoregError as error:
            return _say(str(error), error.exit_code)
        except click.UsageError as error:
            command = error.ctx.command_path if error.ctx else "loreg"
            return _say(f"{error.format_message().rstrip('.')}. Hint: {command} --help", error.exit_code)
        except click.ClickException as error:
            return _say(error.format_message(), error.exit_code)
        except (click.Abort, KeyboardInterrupt):
            return _say("interrupted", INTERRUPTED)
        except SystemExit as end:  # click leaves this way when the reader of our output has seen enough
            if isinstance(end.__context__, BrokenPipeError):
                return 0
            return end.code if isinstance(end.code, int) else 0
        except BrokenPipeError:  # the reader of our output has seen enough, as in `loreg ls | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except OSError as error:
            place = f"{error.filename}: " if error.filename else ""
            return _say(f"{place}{error.strerror or error}. Hint: loreg doctor", 1)
        return result if isinstance(result, int) else 0


def _refuse_what_is_not_utf8(arguments: Sequence[str]) -> None:
    for argument in arguments:
        if any("\ud800" <= character <= "\udfff" for character in argument):
            raise click.UsageError(f"the argument {argument!a} is not UTF-8")


def _say(message: str, exit_code: int) -> int:
    click.echo(f"{click.style('error:', fg='red', bold=True)} {printable(message)}", err=True)
    return exit_code
