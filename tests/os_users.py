"""Other people of this machine: the command line as they would run it. Needs root.

A process imports loreg once and forks for every command; the child becomes the person. Nobody needs to be able to read
the interpreter, which may lie below a home that is root's alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from deployments import NEWS, Outcome


@dataclass(frozen=True)
class Person:
    """A user with his own group, and the others that he is in."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


_ENVIRONMENT = {"XDG_CONFIG_HOME": "/nonexistent", "TMPDIR": "/tmp", "LOREG_AUTHOR": "somebody"}
TEAM = 54_300
ANN = Person(54_301, 54_301, (TEAM,))
BOB = Person(54_302, 54_302, (TEAM,))
EVE = Person(54_303, 54_303)


class People:
    """Runs commands as this or that person, one after the other; as a context manager it ends with it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(
        self,
        person: Person,
        *arguments: str | Path,
        umask: int = 0o022,
        times: int = 1,
        folder: Path = Path("/"),
        **environment: str | Path,
    ) -> Outcome:
        """What the person sees of the command, of the last one if it is run several ``times``; the worst exit code."""
        request = {
            "uid": person.uid,
            "gid": person.gid,
            "groups": person.groups,
            "umask": umask,
            "times": times,
            "folder": str(folder),
            "arguments": [str(argument) for argument in arguments],
            "environment": {**_ENVIRONMENT, **{name: str(value) for name, value in environment.items()}},
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return Outcome(**json.loads(self._process.stdout.readline()))

    def __enter__(self) -> People:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.communicate()


@contextlib.contextmanager
def commons() -> Iterator[Path]:
    """A folder that everybody may pass through, with an adapter that everybody may read in ``news``."""
    with tempfile.TemporaryDirectory(prefix="loreg-people-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        (folder / "news").mkdir(0o755)
        (folder / "news").chmod(0o755)
        for path in NEWS.iterdir():
            (folder / "news" / path.name).write_bytes(path.read_bytes())
            (folder / "news" / path.name).chmod(0o644)
        yield folder


def folder_of(person: Person, path: Path, mode: int, group: int | None = None) -> Path:
    """Make a folder of that person with exactly that mode."""
    path.mkdir()
    os.chown(path, person.uid, group if group is not None else person.gid)
    path.chmod(mode)
    return path


def permissions_below(folder: Path) -> dict[str, int]:
    """The permissions of the folder and of all that lies in it."""
    return {str(path.relative_to(folder)): path.lstat().st_mode & 0o777 for path in (folder, *folder.rglob("*"))}


def _serve() -> None:
    with tempfile.TemporaryDirectory() as name:  # whatever is imported late is imported now
        for arguments in (
            ["push", str(NEWS), "a"],
            ["pull", "a", f"{name}/a"],
            ["ls"],
            ["ls", "a"],
            ["show", "a"],
            ["doctor"],
        ):
            assert _command(["--home", f"{name}/home", *arguments], Path(name) / "said") == 0
        assert _command(["--home", f"{name}/home", "show", "b"], Path(name) / "said") == 3
    for line in sys.stdin:
        request = json.loads(line)
        with tempfile.TemporaryDirectory() as name:
            output = Path(name) / "said"
            child = os.fork()
            if child == 0:
                _become_and_run(request, output)
            exit_code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            stdout, stderr = (output.with_suffix(suffix).read_text() for suffix in (".out", ".err"))
        print(json.dumps({"exit_code": exit_code, "stdout": stdout, "stderr": stderr}), flush=True)


def _become_and_run(request: dict[str, Any], output: Path) -> NoReturn:
    """In the child: nothing of it goes on in the code of its parent."""
    try:
        os._exit(_as(request, output))
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(99)


def _as(request: dict[str, Any], output: Path) -> int:
    streams = [os.open(output.with_suffix(suffix), os.O_WRONLY | os.O_CREAT, 0o600) for suffix in (".out", ".err")]
    os.environ.update(request["environment"])
    tempfile.tempdir = None
    os.umask(request["umask"])
    os.chdir("/")
    os.setgroups(request["groups"])
    os.setgid(request["gid"])
    os.setuid(request["uid"])
    os.chdir(request["folder"])
    return max(_command(request["arguments"], output, streams) for _ in range(request["times"]))


def _command(arguments: list[str], output: Path, streams: list[int] | None = None) -> int:
    """Run a command line; what it says replaces what an earlier one said."""
    from loreg_cli.main import cli

    if streams is None:
        streams = [os.open(output.with_suffix(suffix), os.O_WRONLY | os.O_CREAT) for suffix in (".out", ".err")]
    for stream in streams:
        os.ftruncate(stream, 0)
        os.lseek(stream, 0, os.SEEK_SET)
    out, err = (os.fdopen(os.dup(stream), "w") for stream in streams)
    with out, err, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main(arguments)
        except SystemExit as end:
            return int(end.code or 0)
    return 0


if __name__ == "__main__":
    _serve()
