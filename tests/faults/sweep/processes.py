"""Children of one process that has everything imported already: a command in a room, counted, killed or left alone."""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import os
import pkgutil
import re
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deployments import Deployment
from faults.sweep.points import Point, Watch

TIMEOUT = 120.0  # seconds after which a command hangs
_UNEXPECTED = 70
_FOREIGN = (
    "alembic.command",
    "boto3",
    "huggingface_hub.hf_api",
    "psycopg",
    "sqlalchemy.dialects.postgresql.psycopg",
    "sqlalchemy.ext.asyncio",
    "torch",
    "uvicorn.lifespan.on",
    "uvicorn.protocols.http.httptools_impl",
)


@dataclass(frozen=True)
class Room:
    """A folder for one registry and what is done with it; ``work`` is where commands are typed.

    ``second`` is where nothing is yet, and a second registry may come to be.
    """

    folder: Path
    inputs: Path
    second: Deployment | None = None

    @property
    def work(self) -> Path:
        return self.folder / "work"

    def prepare(self) -> None:
        """Make the folders that every process expects."""
        for name in ("work", "tmp", "home"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)

    def environment(self, deployment: Deployment) -> dict[str, str]:
        """What a command in this room reads of its environment."""
        return {
            **deployment.environment,
            "LOREG_HOME": str(self.folder / "home"),
            "HOME": str(self.folder / "home"),
            "XDG_CONFIG_HOME": str(self.folder / "home" / "config"),
            "XDG_DATA_HOME": str(self.folder / "home" / "data"),
            "TMPDIR": str(self.folder / "tmp"),
        }

    def typed(self, command: Sequence[str]) -> list[str]:
        """The command with the folders and addresses of this room in it."""
        names = {"{in}": str(self.inputs), "{work}": str(self.work)}
        if self.second is not None:
            names |= {"{database}": self.second.database_url, "{storage}": self.second.storage_url}
            names |= {"{endpoint}": self.second.storage_endpoint}
        return [functools.reduce(lambda text, name: text.replace(*name), names.items(), part) for part in command]


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit status, or the negative of the signal; what it said; the points that it passed."""

    status: int
    output: str
    labels: list[str] = field(default_factory=list)

    @property
    def killed(self) -> bool:
        return self.status == -signal.SIGKILL


class Process:
    """A forked child that runs ``call``."""

    def __init__(self, call: Callable[[], object], room: Room, environment: Mapping[str, str]) -> None:
        self._log = room.folder / f"said-{time.monotonic_ns()}"
        self._report = self._log.with_suffix(".points")
        self._log.touch()
        self._report.touch()
        if len(list(Path("/proc/self/task").iterdir())) != 1:
            raise RuntimeError("a process that forks has only one thread")
        self.pid = os.fork()
        if self.pid == 0:
            self._be(call, room, environment)
        self._descriptor = os.pidfd_open(self.pid)
        self._status: int | None = None

    @classmethod
    def start(
        cls,
        call: Callable[[], object],
        room: Room,
        deployment: Deployment,
        *,
        counted: bool = False,
        fatal: Point | None = None,
    ) -> Process:
        """Start it; ``counted`` or killed at the point ``fatal``, if one is given."""
        if not counted and fatal is None:
            return cls(call, room, room.environment(deployment))

        def watched() -> None:
            report = os.open(cls._report_of_child, os.O_WRONLY | os.O_APPEND)
            watch = Watch(room.folder, report, fatal)
            watch.begin()
            try:
                call()
            finally:
                watch.end()

        return cls(watched, room, room.environment(deployment))

    _report_of_child = ""

    def _be(self, call: Callable[[], object], room: Room, environment: Mapping[str, str]) -> None:
        """Be the child: never return."""
        status = _UNEXPECTED
        try:
            log = os.open(self._log, os.O_WRONLY | os.O_APPEND)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.environ.update(environment)
            os.chdir(room.work)
            Process._report_of_child = str(self._report)
            call()
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)

    def wait(self, seconds: float = TIMEOUT) -> Ended | None:
        """How it ended; None if it goes on for longer."""
        if self._status is None:
            if not select.select([self._descriptor], [], [], seconds)[0]:
                return None
            self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            os.close(self._descriptor)
        return Ended(self._status, self.read_output(), self._report.read_text().splitlines())

    def end(self) -> Ended:
        """Kill it if it goes on still."""
        if self._status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        ended = self.wait()
        assert ended is not None
        return ended

    def read_output(self) -> str:
        return self._log.read_text(errors="replace").strip()


def first_to_end(processes: Sequence[Process], seconds: float = TIMEOUT) -> None:
    """Wait until one of them has ended."""
    select.select([process._descriptor for process in processes], [], [], seconds)


def address_of(server: Process) -> str | None:
    """Where a server that was just started answers; None if it ended before."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        if match := re.search(r"running on (http://[\d.:]+)", server.read_output()):
            return match[1]
        if server.wait(0.005) is not None:
            return None
    return None


def command(arguments: Sequence[str]) -> Callable[[], object]:
    """What is done where these words are typed."""
    return {"hub": _hub, "hub-file": _hub_file}.get(arguments[0], _loreg)(list(arguments))


def _loreg(arguments: list[str]) -> Callable[[], object]:
    def run() -> None:
        from loreg_cli.main import cli

        cli.main(args=arguments, prog_name="loreg")

    return run


def _hub(arguments: list[str]) -> Callable[[], object]:
    _, folder, name = arguments

    def run() -> None:
        from huggingface_hub import HfApi

        api = HfApi(endpoint=os.environ["LOREG_ENDPOINT"], token=False)
        api.create_repo(name, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder)

    return run


def _hub_file(arguments: list[str]) -> Callable[[], object]:
    _, file, name = arguments

    def run() -> None:
        from huggingface_hub import HfApi

        api = HfApi(endpoint=os.environ["LOREG_ENDPOINT"], token=False)
        api.create_repo(name, exist_ok=True)
        api.upload_file(repo_id=name, path_or_fileobj=file, path_in_repo=Path(file).name)

    return run


def import_everything() -> None:
    """Import what any command needs, so that a child begins at once; no thread may be running afterwards."""
    import loreg
    import loreg_cli

    for package in (loreg, loreg_cli):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if ".plugins" not in module.name and ".migrations" not in module.name:
                importlib.import_module(module.name)
    for name in _FOREIGN:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
