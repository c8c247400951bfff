"""A command that is asked to end ends in order: nothing half is left, and it ends by that very signal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deployments import NEWS
from factories import train, write_base

#: Runs a command line and sends the signal to itself at the nth call of ``os.fsync``, ``os.rename`` or ``os.mkdir``.
PROGRAM = """
import os, signal, sys
number, name, count = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
real = getattr(os, name)
def call(*arguments, **more):
    global count
    count -= 1
    if count == 0:
        os.kill(os.getpid(), number)
    return real(*arguments, **more)
from loreg_cli.main import cli
setattr(os, name, call)
cli(sys.argv[4:])
"""


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return train(tmp_path / "adapter", 1)


def run(tmp_path: Path, number: int, call: str, count: int, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    (tmp_path / "tmp").mkdir(exist_ok=True)
    environment = {**os.environ, "LOREG_HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "tmp")}
    command = [sys.executable, "-c", PROGRAM, str(number), call, str(count), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def left_over(tmp_path: Path) -> list[str]:
    """Temporary files, wherever they may lie; not what a later call goes on with."""
    beside = [path for path in tmp_path.rglob("*") if path.name.startswith((".put-", ".new-", ".loreg-merge-"))]
    return [str(path) for path in (*(tmp_path / "tmp").iterdir(), *beside)]


@pytest.mark.parametrize("call, count", [("mkdir", 1), ("fsync", 1)])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_push_leaves_no_temporary_file(tmp_path: Path, number: int, call: str, count: int):
    done = run(tmp_path, number, call, count, "push", NEWS, "news")
    assert done.returncode == (130 if number == signal.SIGINT else -number), done.stderr
    assert "Traceback" not in done.stderr
    assert left_over(tmp_path) == []
    assert run(tmp_path, number, call, 10**6, "push", NEWS, "news").returncode == 0


def test_no_verb_leaves_a_temporary_file(tmp_path: Path, adapter: Path):
    base = write_base(tmp_path / "base")
    assert run(tmp_path, 15, "mkdir", 10**6, "push", adapter, "mine").returncode == 0
    for arguments in (
        ("pull", "mine", tmp_path / "a"),
        ("merge", "mine", "mine", "--weights", "0.5,0.5", "--to", tmp_path / "b"),
        ("merge", "mine", "mine", "--weights", "0.5,0.5", "--push", "merged"),
        ("export", "mine", "--profile", "vllm", "--to", tmp_path / "c"),
        ("bake", "mine", "--base", base, "--to", tmp_path / "d"),
        ("check", "mine"),
    ):
        done = run(tmp_path, signal.SIGTERM, "mkdir", 2, *arguments)
        if done.returncode == 0:
            done = run(tmp_path, signal.SIGTERM, "mkdir", 1, *arguments)
        assert done.returncode in (0, -signal.SIGTERM), (arguments, done.stderr)
        assert left_over(tmp_path) == [], arguments


def test_a_signal_that_is_to_be_ignored_is(tmp_path: Path):
    program = PROGRAM.replace("import os, signal, sys", "import os, signal, sys; signal.signal(1, signal.SIG_IGN)", 1)
    environment = {**os.environ, "LOREG_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", program, str(int(signal.SIGHUP)), "fsync", "1", "push", NEWS, "news"]
    assert subprocess.run(command, env=environment, check=False).returncode == 0


def test_a_second_signal_ends_it_at_once(tmp_path: Path):
    """Who waits for a command that cleans up for long need not."""
    program = PROGRAM.replace(
        "cli(sys",
        "import tempfile; tempfile.TemporaryDirectory.cleanup = lambda self: os.kill(os.getpid(), number); cli(sys",
    )
    environment = {**os.environ, "LOREG_HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", program, str(int(signal.SIGTERM)), "fsync", "1", "push", NEWS, "news"]
    done = subprocess.run(command, env=environment, check=False)
    assert done.returncode == -signal.SIGTERM


def test_handlers_of_a_program_that_calls_the_command_line_come_back(tmp_path: Path):
    from deployments import command_line

    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)]
    command_line({"LOREG_HOME": str(tmp_path)})("ls")
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)] == before
