"""Workers that are tasks on Ray: it places them on the machines of a cluster, and sees which of these are gone.

Ray is told what to do, and where the store is; keys and tokens are in the environment in which its nodes were started,
and never in a task, a runtime environment or a log. It retries nothing: the catalog says what is left to do.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

from loreg.errors import LoregError, MissingExtraError, UnavailableError, UsageError
from loreg.fleet.environment import ONE_THREAD, set_environment
from loreg.fleet.executor import PATIENCE, AnyWorkItem, Executor, Lost, WorkItem

SCHEME = "ray"
_PORT = 6379
_CONNECT = 10.0  # seconds
_AHEAD = 2  # tasks for each processor: one that runs, and one that waits beside it
_OBJECT_STORE = 100 * 1024**2  # bytes, of which tasks and answers take few
#: With it every port of a Ray that is started here is on loopback; without it, on all interfaces (Ray 2.60).
_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_enable_metrics_collection": "0"}


def parse_cluster(text: str) -> str:
    """Return the address of the cluster that ``ray://HOST[:PORT]`` means, empty for ``ray``: one that is started here.

    Raises UsageError for anything else.
    """
    if text == SCHEME:
        return ""
    try:
        parts = urlsplit(text)
        port = parts.port or _PORT
    except ValueError:
        parts, port = urlsplit(""), 0
    if parts.scheme != SCHEME or not parts.hostname or parts.path.strip("/") or parts.username or parts.query:
        raise UsageError(f"{text!r} is no place where tasks run", hint="--on ray, or --on ray://HOST:6379")
    return f"{parts.hostname}:{port}"


def require_cluster(text: str) -> None:
    """Raise UsageError unless ``text`` means a cluster that somebody else starts."""
    if not parse_cluster(text):
        raise UsageError("a worker starts no Ray of its own: expected a cluster", hint="--on ray://127.0.0.1:6379")


class RayExecutor(Executor[AnyWorkItem]):
    """Tasks on the cluster at ``address``, or on one that is started on this machine if that is empty.

    A task has one processor, and ``gpus``. Raises MissingExtraError without Ray, UnavailableError for a cluster that
    does not answer.
    """

    def __init__(self, address: str, gpus: int = 0) -> None:
        self._gpus = gpus
        self._stack = contextlib.ExitStack()
        self._tasks: dict[Any, AnyWorkItem] = {}
        try:
            if not address:
                _refuse_imported_ray()
                self._stack.enter_context(set_environment(_local_environment(self._stack)))
            self._ray = _import_ray()
            self._connect(address)
            self._run = self._ray.remote(num_cpus=1, num_gpus=gpus, max_retries=0)(_run)
        except BaseException:
            self._stack.close()
            raise

    def room(self) -> int:
        """Return how many more tasks keep the cluster busy, as large as it is now."""
        return max(_AHEAD * max(self.capacity(), 1) - len(self._tasks), 0)

    def capacity(self) -> int:
        """Return how many tasks the cluster runs at once, as large as it is now."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if not self._gpus:
            return sum(int(node.get("CPU", 0)) for node in nodes)
        return sum(min(int(node.get("CPU", 0)), int(node.get("GPU", 0)) // self._gpus) for node in nodes)

    def require_capacity(self) -> None:
        """Raise UnavailableError if no machine of the cluster has what one task needs: it would wait for ever."""
        if not self.capacity():
            what = "a processor and a GPU" if self._gpus else "a processor"
            raise UnavailableError(f"no machine of the Ray cluster has {what}", hint="ray status")

    def submit(self, task: AnyWorkItem) -> None:
        """Hand a task to Ray."""
        self._tasks[self._run.remote(task)] = task

    def wait(self) -> Sequence[tuple[AnyWorkItem, Any]]:
        """Wait until some task ended, its node with it or not; or a second."""
        try:
            ready, _ = self._ray.wait(list(self._tasks), num_returns=1, timeout=PATIENCE)
            return [(self._tasks.pop(reference), self._answer(reference)) for reference in ready]
        except (ConnectionError, self._ray.exceptions.RaySystemError) as error:
            raise UnavailableError(
                f"the Ray cluster does not answer any more: {error}", hint="the same command goes on where it was"
            ) from error

    def close(self) -> None:
        """End the tasks that run, and let go of the cluster; one that was started here ends."""
        for reference in self._tasks:
            with contextlib.suppress(ConnectionError, self._ray.exceptions.RayError):
                self._ray.cancel(reference, force=True)
        self._stack.close()

    def _connect(self, address: str) -> None:
        options: dict[str, Any] = {
            "logging_level": logging.ERROR, "log_to_driver": False, "include_dashboard": False,
            "object_store_memory": _OBJECT_STORE, "_temp_dir": os.environ.get("RAY_TMPDIR"),
        }  # fmt: skip
        if address:
            _require_listener(address)
            options = {"address": address, "logging_level": logging.ERROR, "log_to_driver": False}
        self._stack.enter_context(_keep_stdout(self._ray))
        try:
            self._ray.init(**options)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            place = address or "this machine"
            raise UnavailableError(
                f"there is no Ray at {place}: {_first_line(error)}",
                hint=f"ray status --address {address}" if address else "leave --on out",
            ) from error
        self._stack.callback(self._ray.shutdown)

    def _answer(self, reference: Any) -> Any:
        """Return what a task returned, or why it is lost."""
        exceptions = self._ray.exceptions
        try:
            return self._ray.get(reference)
        except exceptions.WorkerCrashedError:
            return Lost.WORKER
        except (exceptions.NodeDiedError, exceptions.OutOfMemoryError, exceptions.ObjectLostError):
            return Lost.MACHINE  # Ray ends a worker where others take the memory, too
        except exceptions.RayError as error:
            raise LoregError(
                f"a node of the cluster cannot do it: {_reason(error)}",
                hint="pip install the loreg of this machine on every node, and the packages that are used there",
            ) from error


def pickle_function(function: Callable[..., object]) -> bytes:
    """Return a function as a node loads it with pickle: by its module, or with its code if it is of the program itself.

    Raises UsageError for one that carries what cannot be pickled.
    """
    try:
        return bytes(import_module("ray.cloudpickle").dumps(function))
    except Exception as error:  # what an object raises that refuses is its own
        raise UsageError(
            f"the function that evaluates cannot be sent to other machines: {_first_line(error)}",
            hint="open there what it needs; or --eval MODULE:FUNCTION",
        ) from error


def _run(task: WorkItem) -> Any:
    return task.run()


@contextlib.contextmanager
def _keep_stdout(ray: Any) -> Iterator[None]:
    """Let Ray print nothing until the context ends: what it says of nodes that end would stand among the results.

    ``log_to_driver`` is for workers alone (Ray 2.60). Its logs have the same.
    """
    worker = ray._private.worker
    print_to_stdstream = worker.print_to_stdstream
    worker.print_to_stdstream = lambda *_, **__: None
    try:
        yield
    finally:
        worker.print_to_stdstream = print_to_stdstream


def _require_listener(address: str) -> None:
    """Raise UnavailableError if nobody listens there: Ray itself goes on asking for minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT).close()
    except OSError as error:
        raise UnavailableError(
            f"there is no Ray at {address}: {error.strerror or error}",
            hint="ray start --head there, or --on ray for one on this machine",
        ) from error


def _import_ray() -> Any:
    try:
        return import_module("ray")
    except ImportError as error:
        raise MissingExtraError("Ray is not installed", hint="pip install 'loreg[ray]'") from error


def _refuse_imported_ray() -> None:
    """Raise UsageError if Ray was imported before: it has read its environment, and would listen to everybody."""
    if sys.modules.get("ray") is not None:
        raise UsageError(
            "this program has imported Ray already, which cannot be put on loopback any more",
            hint="ray start --head, and --on ray://127.0.0.1:6379",
        )


def _local_environment(stack: contextlib.ExitStack) -> Mapping[str, str]:
    """Return what a Ray that is started here finds in its environment: loopback, a token, a folder of its own."""
    folder = tempfile.mkdtemp(prefix="loreg-ray-")
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    return {
        **_LOOPBACK, **_QUIET, **ONE_THREAD,
        "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_TMPDIR": folder,
    }  # fmt: skip


def _reason(error: Exception) -> str:
    """Return what a task raised, or the last line of what Ray says: what comes before are the calls that led there."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, Exception) and not hasattr(cause, "traceback_str"):
        return f"{type(cause).__name__}: {_first_line(cause)}"
    return next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
