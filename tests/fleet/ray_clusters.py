"""A Ray of two nodes on loopback, and what a Ray shows to others: ports, logs, state."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest

from services import ACCESS_KEY, SECRET_KEY

#: A node counts as dead after two seconds: the default is a quarter of a minute.
HASTE = {
    "RAY_health_check_initial_delay_ms": "1000", "RAY_health_check_period_ms": "500",
    "RAY_memory_monitor_refresh_ms": "0",  # others on this machine may take its memory
    "RAY_health_check_timeout_ms": "2000", "RAY_health_check_failure_threshold": "4",
}  # fmt: skip
TOKEN = "0123456789abcdef" * 4


#: What Ray reads once in each process, when its first part is imported, by whatever test.
if find_spec("ray") is not None:
    os.environ |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}

_NODE = {"node_ip_address": "127.0.0.1", "object_store_memory": 100 << 20, "include_dashboard": False}


def on_ray(test: Any) -> Any:
    """Mark a test that starts a cluster, which takes a quarter of a minute."""
    needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="needs pip install 'loreg[ray]'")
    return pytest.mark.slow(needs_ray(test))


@contextlib.contextmanager
def two_nodes() -> Iterator[Any]:
    """Start a head without processors, and two nodes with one each; nothing of them is left in the end."""
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder, pytest.MonkeyPatch.context() as patch:
        Path(folder, "ray").mkdir()
        variables = {
            "RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": folder, "HOME": folder, "OMP_NUM_THREADS": "1", **HASTE,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        }  # fmt: skip
        for name, value in variables.items():
            patch.setenv(name, value)
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args={**_NODE, "num_cpus": 0})
        try:
            replace_nodes(cluster)
            yield cluster
        finally:
            cluster.shutdown()


def replace_nodes(cluster: Any) -> None:
    """Put two new nodes, with the environment of now, in the place of those that there are, killed or not."""
    for node in list(cluster.worker_nodes):
        cluster.remove_node(node, allow_graceful=False)
    for _ in range(2):
        add_node(cluster)


def add_node(cluster: Any, processors: int = 1, gpus: int = 0) -> None:
    """Start a node, with as many GPUs as it is said to have.

    It starts in a folder that outlives the test: MKL ends a process whose folder is gone.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(os.environ["RAY_TMPDIR"])
        cluster.add_node(**_NODE, num_cpus=processors, num_gpus=gpus)


def kill_node(cluster: Any, raylet: int) -> None:
    """Kill the node whose raylet has this process id, and wait for its end: as long as it is a zombie workers stay."""
    node = next(
        node for node in cluster.worker_nodes if raylet in {info.process.pid for info in node.all_processes["raylet"]}
    )
    cluster.remove_node(node, allow_graceful=False)


def listening_addresses() -> set[str]:
    """Return the addresses that the processes below this one listen at."""
    addresses = set()
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            connections = process.net_connections(kind="inet")
            addresses |= {c.laddr.ip.removeprefix("::ffff:") for c in connections if c.status == psutil.CONN_LISTEN}
    return addresses


def files_with(folder: str, *secrets: str) -> list[str]:
    """Return the files below a folder in which a secret stands."""
    paths = [Path(place, name) for place, _, names in os.walk(folder) for name in names]
    readable = (path for path in paths if path.is_file())
    return [str(path) for path in readable if any(secret.encode() in path.read_bytes() for secret in secrets)]


def state_with(*secrets: str) -> list[bytes]:
    """Return the keys in the state of the cluster with whose values a secret stands."""
    from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_list

    keys = {
        (space, key)
        for space in (None, b"fun", b"session", b"serve")
        for key in _internal_kv_list(b"", namespace=space)
    }
    assert keys
    values = {key: _internal_kv_get(key, namespace=space) or b"" for space, key in keys}
    return [key for key, value in values.items() if any(secret.encode() in key + value for secret in secrets)]
