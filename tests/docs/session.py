"""A shell in which the commands of one page are typed, one after the other."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx

_TIMEOUT = 120.0  # seconds, for one command


class Session:
    """A bash with an environment of its own: a home, no settings, no network but this machine.

    ``stand_ins`` maps what a page says to what it is in the test: a server's address to the one that was started.
    ``programs`` is a folder whose programs come before those of the environment.
    """

    def __init__(self, folder: Path, home: Path, programs: Path | None) -> None:
        self.folder, self.home = folder, home
        self.stand_ins: dict[str, str] = {}
        self._servers: list[subprocess.Popen[bytes]] = []
        closed = "http://127.0.0.1:9"  # nothing listens there: whoever asks for another machine is told at once
        first = [programs] if programs else []
        environment = {
            "PATH": os.pathsep.join(map(str, (*first, Path(sys.executable).parent, os.environ["PATH"]))),
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "LOREG_AUTHOR": "ada",
            "HTTP_PROXY": closed, "HTTPS_PROXY": closed, "NO_PROXY": "127.0.0.1,localhost",
            "http_proxy": closed, "https_proxy": closed, "no_proxy": "127.0.0.1,localhost",
            "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        self._bash = subprocess.Popen(
            ["bash", "--norc", "--noprofile"], cwd=folder, env=environment, text=True, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.run("trap 'failed=$?' ERR")

    def run(self, command: str) -> tuple[int, list[str]]:
        """Type a command, or a script; return its exit status and the lines that it printed, in their order."""
        for shown, actual in self.stand_ins.items():
            command = command.replace(shown, actual)
        mark = uuid.uuid4().hex
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        self._bash.stdin.write(
            f'{{ {command}\n}} </dev/null 2>&1; status=$?; printf "\\n%s %d\\n" {mark} $status; (exit $status)\n'
        )
        self._bash.stdin.flush()
        watchdog = threading.Timer(_TIMEOUT, os.killpg, [self._bash.pid, signal.SIGKILL])
        watchdog.start()
        lines: list[str] = []
        try:
            for line in self._bash.stdout:
                if line.startswith(mark):
                    return int(line.split()[1]), lines[:-1] if lines and not lines[-1] else lines
                lines.append(self._as_shown(line.rstrip("\n")))
        finally:
            watchdog.cancel()
        raise AssertionError(f"{command!r} took {_TIMEOUT:.0f} s, or ended the shell: {lines}")

    def _as_shown(self, line: str) -> str:
        for shown, actual in self.stand_ins.items():
            line = line.replace(actual, shown)
        return line

    def run_script(self, script: str) -> tuple[int, list[str]]:
        """Type a script; return the status of the last command in it that failed."""
        _, lines = self.run(f"failed=0\n{script}")
        return int(self.run("echo $failed")[1][0]), lines

    def start_server(self, command: str, address: str, **environment: str) -> None:
        """Run ``loreg serve`` on a free port beside the shell; the page's ``address`` means it from now on."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        of_the_shell = dict(line.split("=", 1) for line in self.run("env")[1] if re.match(r"\w+=", line))
        arguments = [argument for argument in shlex.split(command)[1:] if argument != "0.0.0.0"]
        arguments = [argument for argument in arguments if argument != "--host"]
        self._servers.append(
            subprocess.Popen(
                [Path(sys.executable).with_name("loreg"), *arguments, "--port", str(port)],
                cwd=self.run("pwd")[1][0], env={**of_the_shell, **environment},
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
        )  # fmt: skip
        deadline = time.monotonic() + _TIMEOUT
        while time.monotonic() < deadline and self._servers[-1].poll() is None:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False).is_success:
                    self.stand_ins[address] = f"http://127.0.0.1:{port}"
                    return
            time.sleep(0.05)  # between two questions to a server that is starting, not in a test
        raise AssertionError(f"{command} did not start")

    def start_worker(self, **environment: str) -> None:
        """Run ``loreg worker`` beside the shell, with nothing of the shell's but what it needs to start."""
        needed = {"PATH": os.environ["PATH"], "HOME": str(self.home), "LANG": "C.UTF-8"}
        program = Path(sys.executable).with_name("loreg")
        self._servers.append(
            subprocess.Popen(
                [program, "worker"], cwd=self.home, env={**needed, **environment}, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )  # fmt: skip

    def close(self) -> None:
        """End the shell and the servers."""
        for server in self._servers:
            server.terminate()
        for server in self._servers:
            server.wait()
        assert self._bash.stdin is not None
        self._bash.stdin.close()
        self._bash.wait(10)


@contextlib.contextmanager
def open_session(folder: Path, home: Path, programs: Path | None = None) -> Iterator[Session]:
    """A session that is closed whatever happens."""
    session = Session(folder, home, programs)
    try:
        yield session
    finally:
        session.close()
