"""stdout and stderr that are closed or full hide nothing that was done, and let no file of ours take their place."""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from deployments import NEWS, Loreg

LOREG = Path(sys.executable).with_name("loreg")
Shell = Callable[[str], subprocess.CompletedProcess[str]]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """Run a line of shell, with the settings of the fixture ``local``."""

    def run(line: str) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "LOREG_HOME": str(tmp_path / "home"),
            "PATH": f"{LOREG.parent}:{os.environ['PATH']}",
        }
        return subprocess.run(
            line, shell=True, env=environment, capture_output=True, text=True, check=False, timeout=120
        )

    return run


PUSH = f"loreg push {shlex.quote(str(NEWS))} team/news"


def versions(local: Loreg) -> int:
    return len(json.loads(local("search", "--all-versions", "--format", "json").stdout)["items"])


def test_a_push_with_stdout_closed_is_done_and_said_on_stderr(shell: Shell, local: Loreg):
    done = shell(f"{PUSH} >&-")
    assert done.returncode == 0
    assert done.stderr.startswith("pushed team/news:v1@sha256:")
    assert versions(local) == 1


def test_a_push_with_stdout_full_is_done_and_said_on_stderr(shell: Shell, local: Loreg):
    done = shell(f"{PUSH} --format quiet >/dev/full")
    assert done.returncode == 1  # who reads stdout has not got it
    assert done.stderr == "team/news:v1\nerror: stdout: No space left on device; what it was to get is said above\n"
    assert versions(local) == 1


@pytest.mark.parametrize("closed", ["2>&-", "2>/dev/full", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_push_that_can_say_nothing_is_done_all_the_same(shell: Shell, local: Loreg, closed: str):
    assert shell(f"{PUSH} {closed}").returncode == 0
    assert versions(local) == 1
    assert all(check["ok"] for check in json.loads(local("doctor", "--format", "json").stdout))


def test_a_file_of_ours_never_gets_the_number_of_a_closed_stream(shell: Shell):
    """Whatever writes to stdout or stderr later, a library for instance, would write into it."""
    code = """
import os, sys
from loreg_cli.main import cli
try: cli(["ls"])
except SystemExit: pass
with open(sys.argv[1], "w") as file: file.write(" ".join(os.readlink(f"/proc/self/fd/{fd}") for fd in range(3)))
"""
    path = "numbers.txt"
    shell(f"{shlex.quote(sys.executable)} -c {shlex.quote(code)} {path} <&- >&- 2>&-")
    assert Path(path).read_text() == "/dev/null /dev/null /dev/null"


@pytest.mark.parametrize("closed", [">&-", ">/dev/full"])
@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        ("ls", 0, "team/news"),
        ("ls --format json", 0, '"team/news"'),
        ("show team/news", 0, "team/news"),
        ("doctor", 0, "database_url"),
        ("tag team/news prod", 0, "prod"),
        ("yank team/news:v1", 0, "team/news:v1"),
        ("pull team/news ./out", 0, "pulled team/news:v1"),
        ("methods", 0, "linear"),
        ("completion bash", 0, "_LOREG_COMPLETE"),
        ("--help", 0, "Usage:"),
        ("show team/none", 3, "error: "),
        ("nonsense", 2, "error: "),
        ("check ./nowhere", 5, "LR000"),
    ],
)
def test_every_command_says_what_it_has_to_say(shell: Shell, command: str, code: int, message: str, closed: str):
    shell(PUSH)
    done = shell(f"loreg {command} {closed}")
    assert "Traceback" not in done.stderr
    assert message in done.stderr
    is_lost = closed == ">/dev/full" and not done.stderr.startswith("error: ")
    assert done.returncode == (code or (1 if is_lost else 0))


@pytest.mark.parametrize(
    ("command", "code"),
    [(PUSH, 0), ("loreg --help", 0), ("loreg ls", 0), ("loreg check ./nowhere", 5), ("loreg show team/none", 3)],
)
def test_a_reader_that_has_left_changes_no_exit_code(shell: Shell, local: Loreg, command: str, code: int):
    gone = "import os, sys; r, w = os.pipe(); os.close(r); os.dup2(w, 1); os.execvp('sh', ['sh', '-c', sys.argv[1]])"
    done = shell(f"{shlex.quote(sys.executable)} -c {shlex.quote(gone)} {shlex.quote(command)}")
    assert done.returncode == code
    assert "Traceback" not in done.stderr and "Broken pipe" not in done.stderr
    assert versions(local) == (1 if command == PUSH else 0)


def test_a_server_that_does_not_start_says_so(shell: Shell):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = shell(f"loreg serve --port {taken.getsockname()[1]} >&-")
    assert done.returncode == 4
    assert "nobody can listen on" in done.stderr


def test_a_token_that_nobody_can_be_asked_for_is_none(shell: Shell):
    done = shell("loreg login http://127.0.0.1:9 --token - <&-")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
