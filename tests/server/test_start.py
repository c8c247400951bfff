"""loreg serve as a process: it does not start open by accident, and being killed loses nothing."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest

from deployments import SCIENCE, Deployment, Loreg, command_line
from loreg.errors import LoregError, UnauthenticatedError
from loreg.registry import connect

LOREG = Path(sys.executable).with_name("loreg")


@dataclass
class Running:
    """A server's process and where it answers."""

    process: subprocess.Popen[str]
    endpoint: str


@contextlib.contextmanager
def running(deployment: Deployment, *options: str, port: int = 0, **environment: str) -> Iterator[Running]:
    chosen = port or free_port()
    command = [str(LOREG), "serve", "--port", str(chosen), *options]
    process = subprocess.Popen(
        command, env={**os.environ, **deployment.environment, **environment}, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if "running on" in line:
                break
        yield Running(process, f"http://127.0.0.1:{chosen}")
    finally:
        process.kill()
        process.wait()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_it_does_not_start_open_on_a_public_address(local: Loreg):
    refused = local("serve", "--host", "0.0.0.0")
    assert refused.exit_code == 4
    assert refused.stderr == (
        "error: on 0.0.0.0 everybody needs a token, and there is none yet. "
        "Hint: loreg serve --init makes the first one; --allow-anonymous lets everybody do everything\n"
    )


_WATCHES_IMPORTS = """
import sys, threading
class Watcher:
    def find_spec(self, name, path=None, target=None):
        if name == "sqlalchemy.ext.asyncio":
            open({seen!r}, "a").write(repr([thread.name for thread in threading.enumerate()]))
sys.meta_path.insert(0, Watcher())
"""


def test_sqlalchemy_is_whole_before_threads_use_it(postgres_and_s3: Deployment, tmp_path: Path):
    """A thread that makes a statement while its engine for event loops is imported finds half of SQLAlchemy."""
    seen = tmp_path / "seen"
    (tmp_path / "sitecustomize.py").write_text(_WATCHES_IMPORTS.format(seen=str(seen)), encoding="utf-8")
    with running(postgres_and_s3, "--allow-anonymous", PYTHONPATH=str(tmp_path)) as server:
        assert httpx.get(f"{server.endpoint}/api/v1/adapters").status_code == 200
    assert seen.read_text(encoding="utf-8") == "['MainThread']"


def test_several_processes_answer_and_count_as_one(tmp_path: Path):
    deployment = Deployment(f"sqlite:///{tmp_path}/catalog.db", str(tmp_path / "store"))
    with running(deployment, "--processes", "2") as server:
        with connect(endpoint=server.endpoint) as registry:
            registry.push(SCIENCE, "team/science")
        answered_by = Counter(httpx.get(f"{server.endpoint}/api/v1/adapters").status_code for _ in range(50))
        counted = httpx.get(f"{server.endpoint}/metrics").text
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
        commands = [Path(f"/proc/{child}/cmdline").read_text() for child in children]
        server.process.terminate()
        server.process.wait()
    assert answered_by == {200: 50}
    assert 'loreg_requests_total{method="GET",route="/api/v1/adapters",status="200"} 50.0' in counted
    assert sum("spawn_main" in command for command in commands) == 2
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.endpoint}/healthz")


def test_an_address_that_is_taken(local: Loreg):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = local("serve", "--port", str(port))
    assert refused.exit_code == 4
    assert refused.stderr == (
        f"error: nobody can listen on 127.0.0.1:{port}: Address already in use. "
        "Hint: loreg serve --port 0 takes a free one\n"
    )


def test_the_first_token_is_made_once(local: Loreg):
    made = local("serve", "--init")
    assert re.fullmatch(r"lrg_[A-Za-z0-9_-]{43}\n", made.stdout)
    again = local("serve", "--init")
    assert (again.exit_code, again.stdout) == (4, "")
    assert "loreg token create" in again.stderr
    assert "first administrator" in local("token", "ls").stdout
    malformed = local("serve", "--init", LOREG_ADMIN_TOKEN="short")
    assert malformed.exit_code == 2


def test_login_use_and_logout(tmp_path: Path, local: Loreg):
    deployment = Deployment(f"sqlite:///{tmp_path}/catalog.db", str(tmp_path / "store"))
    root = "lrg_" + "r" * 43
    with running(deployment, "--require-tokens", LOREG_ADMIN_TOKEN=root) as server:
        anywhere = command_line({"LOREG_HOME": str(tmp_path / "elsewhere")})
        assert anywhere("login", server.endpoint, "--token", "lrg_" + "x" * 43).exit_code == 4
        assert anywhere("login", server.endpoint, "--token", root).stdout == (
            f"first administrator at {server.endpoint}: admin:*\n"
        )
        credentials = tmp_path / "config" / "loreg" / "credentials.toml"
        assert credentials.stat().st_mode & 0o777 == 0o600
        assert anywhere("push", SCIENCE, "team/science").exit_code == 0
        secret = anywhere("token", "create", "ci", "--scope", "read:team", "--expires", "1d").stdout.strip()
        assert "team/science" in anywhere("ls", LOREG_TOKEN=secret).stdout
        assert anywhere("tag", "team/science", "prod", LOREG_TOKEN=secret).exit_code == 4
        assert "private" not in anywhere("namespace", "set", "team", "--public").stdout
        assert anywhere("namespace", "ls").stdout.split()[-3:] == ["team", "everyone", "1"]
        assert "token create" in anywhere("events").stdout
        assert anywhere("token", "revoke", "2").exit_code == 0
        assert anywhere("ls", LOREG_TOKEN=secret).exit_code == 4
        # A token goes to the server that it was given for, and to no other.
        other = anywhere("ls", LOREG_ENDPOINT="http://127.0.0.1:9")
        assert "does not answer" in other.stderr
        assert "(none)" in anywhere("doctor", LOREG_ENDPOINT="http://127.0.0.1:9").stdout
        assert anywhere("logout").stdout == "logged out\n"
        assert anywhere("ls").stdout.count("science") == 0


def test_killed_in_the_middle_of_a_push_leaves_no_version_and_the_push_goes_on(postgres_and_s3: Deployment):
    deployment, port = postgres_and_s3, free_port()
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(running(deployment, port=port))
        registry = stack.enter_context(connect(endpoint=first.endpoint))

        def kill(what: str, done: int, total: int) -> None:
            if what == "storing" and first.process.poll() is None:
                first.process.send_signal(signal.SIGKILL)
                first.process.wait()

        with pytest.raises(LoregError, match="does not answer"):
            registry.push(SCIENCE, "team/science", progress=kill)
        stack.enter_context(running(deployment, port=port))
        assert registry.adapters().items == ()
        assert registry.push(SCIENCE, "team/science").created


def test_a_plain_page_of_another_server_is_told_apart(local: Loreg, tmp_path: Path):
    script = [sys.executable, "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(tmp_path)]
    with subprocess.Popen(
        [*script], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    ) as other:
        assert other.stdout is not None
        port = re.search(r"port (\d+)", other.stdout.readline())
        assert port is not None
        endpoint = f"http://127.0.0.1:{port[1]}"
        assert httpx.get(endpoint).is_success
        done = local("ls", LOREG_ENDPOINT=endpoint)
        other.kill()
    assert done.exit_code == 1
    assert "not like a loreg server" in done.stderr


def test_who_has_no_token_is_told_to_log_in(postgres_and_s3: Deployment):
    deployment = replace(postgres_and_s3)
    with running(deployment, "--require-tokens", LOREG_ADMIN_TOKEN="lrg_" + "r" * 43) as server:
        with connect(endpoint=server.endpoint) as registry, pytest.raises(UnauthenticatedError) as error:
            registry.push(SCIENCE, "team/science")
        assert error.value.hint == "loreg login --help"
