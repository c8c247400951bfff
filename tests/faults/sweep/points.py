"""The points at which a process may be killed, counted inside it; and the kill at one of them.

A point is what changes something that outlives the process: a file opened for writing, renamed, linked, flushed or
removed, a folder made or removed, a database commit, a request to S3 that is no reading. The kill comes before it. A
file that is opened for writing has a second point after it, when it is there and empty; the last point is the end.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_STATEMENT = re.compile(r"\s*(INSERT|UPDATE|DELETE|CREATE|ALTER|DROP)\b", re.IGNORECASE)
_VARYING = (
    (re.compile(r"\d{8}T\d{6}\.\d{6}Z"), "*"),  # of a snapshot
    (re.compile(r"[0-9a-f]{12,64}"), "…"),
    (re.compile(r"(?<=[-.])[A-Za-z0-9_]{8}(?=/|$)"), "*"),  # of tempfile
    (re.compile(r"(?<=sha256/)[0-9a-f]{2}(?=/|$)"), "…"),
    (re.compile(r"(?<=incoming/)[\w-]+"), "*"),
    (re.compile(r"(?<=\.)\d+$"), "*"),  # of a process
    (re.compile(r"#\d+ \(deleted\)"), "*"),  # of a file that has no name yet
)


@dataclass(frozen=True)
class Point:
    """The ``occurrence``-th (from 1) time that a process comes to do what ``label`` says."""

    label: str
    occurrence: int


@dataclass
class Watch:
    """Counts, in this process, the points whose files lie below ``room``, and writes their labels to ``report``.

    With ``fatal`` the process ends there.
    """

    room: Path
    report: int
    fatal: Point | None = None

    def begin(self) -> None:
        """Count from now on."""
        self._seen: Counter[str] = Counter()
        self._lock = threading.RLock()
        self._itself = threading.local()
        self._count_flushes()
        self._count_weights()
        self._count_commits()
        self._count_requests()
        sys.addaudithook(self._audit)

    def end(self) -> None:
        """Count the last point: all is done, and nobody was told."""
        self._reach("the end")

    def _reach(self, label: str, on_the_way: Callable[[], object] = lambda: None) -> None:
        """Write the label down; if this is where the process ends, do what is ``on_the_way`` and end it."""
        label = general(label)
        with self._lock:
            self._seen[label] += 1
            if self.fatal is None:
                os.write(self.report, f"{label}\n".encode())
            elif self.fatal == Point(label, self._seen[label]):
                self._itself.busy = True
                on_the_way()
                os.write(self.report, f"{label}\n".encode())
                os.kill(os.getpid(), signal.SIGKILL)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Python tells of every file operation before it does it, whoever asks for it."""
        if (name := _EVENTS.get(event)) is None or getattr(self._itself, "busy", False):
            return
        self._itself.busy = True
        try:
            place = self._place(event, arguments)
        finally:
            self._itself.busy = False
        if place is None:
            return
        path, short = place
        if event == "open":
            self._open(path, arguments[2])
        else:
            self._reach(f"{name} {short}")

    def _open(self, path: str, flags: int) -> None:
        short = path.removeprefix(f"{self.room}/")
        self._reach(f"open {short}")

        def leave_it_open() -> None:
            with contextlib.suppress(IsADirectoryError):  # tempfile names the folder first, and the flags for it then
                os.open(path, flags, 0o600)

        self._reach(f"opened {short}", leave_it_open)

    def _place(self, event: str, arguments: tuple[Any, ...]) -> tuple[str, str] | None:
        """The path of an operation, whole and below the room; None if it changes nothing there."""
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & _WRITES):
            return None
        position = 1 if event in ("os.rename", "os.link", "os.symlink") else 0
        folder = arguments[-1] if event in ("os.remove", "os.rmdir", "os.mkdir") else -1
        path = _absolute(arguments[position], folder)
        if path is None or not path.startswith(f"{self.room}/"):
            return None
        if (event == "os.mkdir") == os.path.lexists(path) and event in ("os.mkdir", "os.remove", "os.rmdir"):
            return None  # it is there already, or not there any more
        return path, path.removeprefix(f"{self.room}/")

    def _count_flushes(self) -> None:
        for name in ("fsync", "fdatasync"):
            flush = getattr(os, name)

            def counted(file: Any, flush: Callable[[Any], None] = flush) -> None:
                number = file if isinstance(file, int) else file.fileno()
                path = str(Path(f"/proc/self/fd/{number}").readlink())
                if path.startswith(str(self.room)):
                    self._reach(f"fsync {path.removeprefix(str(self.room)).strip('/')}")
                flush(file)

            setattr(os, name, counted)

    def _count_weights(self) -> None:
        """Python hears nothing of the files that safetensors opens."""
        import safetensors.torch

        write = safetensors.torch.serialize_file

        def counted(tensors: Any, path: Any, *more: Any, **options: Any) -> None:
            if (absolute := os.path.abspath(path)).startswith(f"{self.room}/"):  # noqa: PTH100
                self._open(absolute, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            write(tensors, path, *more, **options)

        safetensors.torch.serialize_file = counted

    def _count_commits(self) -> None:
        """Only those that change something: on SQLite what only reads commits as well."""
        from sqlalchemy import event
        from sqlalchemy.engine import Engine

        alone: set[int] = set()  # connections with a statement that the driver does not count as a change

        def record_statement(connection: Any, cursor: Any, statement: str, *more: Any) -> None:
            if _STATEMENT.match(statement):
                if getattr(connection.connection.dbapi_connection, "autocommit", None) is True:
                    self._reach("commit")
                alone.add(id(connection))

        def commit(connection: Any) -> None:
            changes = getattr(connection.connection.dbapi_connection, "total_changes", None)
            known = connection.info.get("changes", 0)
            if changes is None or changes != known or id(connection) in alone:
                self._reach("commit")
            connection.info["changes"] = changes
            alone.discard(id(connection))

        event.listen(Engine, "before_cursor_execute", record_statement)
        event.listen(Engine, "commit", commit)
        event.listen(Engine, "rollback", lambda connection: alone.discard(id(connection)))

    def _count_requests(self) -> None:
        from botocore.httpsession import URLLib3Session

        send = URLLib3Session.send

        def counted(session: Any, request: Any) -> Any:
            if request.method in ("PUT", "POST", "DELETE"):
                self._reach(f"S3 {_operation(request)}")
            return send(session, request)

        URLLib3Session.send = counted


_EVENTS = {
    "open": "open",
    "os.rename": "rename to",
    "os.link": "link",
    "os.symlink": "link",
    "os.remove": "unlink",
    "os.mkdir": "mkdir",
    "os.rmdir": "rmdir",
    "os.truncate": "truncate",
}


def general(label: str) -> str:
    """A label without what differs from run to run: digests and the names of temporary files."""
    for pattern, sign in _VARYING:
        label = pattern.sub(sign, label)
    return label


def numbered(labels: list[str]) -> list[Point]:
    """The points in the order in which they were counted."""
    seen: Counter[str] = Counter()
    points = []
    for label in labels:
        seen[label] += 1
        points.append(Point(label, seen[label]))
    return points


def _absolute(path: Any, folder: Any) -> str | None:
    """The path, from the folder with that descriptor if it is one; None for an open file."""
    if isinstance(path, int):
        return None
    text = os.fsdecode(path)
    if isinstance(folder, int) and folder >= 0 and not text.startswith("/"):
        with contextlib.suppress(OSError):
            return f"{Path(f'/proc/self/fd/{folder}').readlink()}/{text}"
    return os.path.abspath(text)  # noqa: PTH100 (the last part may be a link that is renamed or removed itself)


def _operation(request: Any) -> str:
    """What a request to S3 does, in S3's words, and the key without the registry's prefix."""
    parts = urlsplit(request.url)
    query = parse_qs(parts.query, keep_blank_values=True)
    name = {"PUT": "put", "POST": "post", "DELETE": "delete"}[request.method]
    if "x-amz-copy-source" in {header.lower() for header in request.headers}:
        name = "copy"
    elif "uploads" in query:
        name = "multipart create"
    elif "partNumber" in query:
        name = "multipart part"
    elif "uploadId" in query:
        name = "multipart complete" if request.method == "POST" else "multipart abort"
    match = re.search(r"((sha256|incoming|named|snapshots)/.*|owner$)", unquote(parts.path))
    return f"{name} {match[0] if match else '…'}"
