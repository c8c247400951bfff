"""The store as a worker reaches it: by itself, or on another machine through a server."""

from __future__ import annotations

import functools
import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from loreg.errors import NotAllowedError
from loreg.remote.backend import RemoteBackend
from loreg.remote.http import Server
from loreg.remote.store import RemoteStore
from loreg.storage import Blob, BlobStore, BlobTransfer, open_store
from loreg.storage.blobs import download_checked


@dataclass(frozen=True)
class StorePlace:
    """Where the blobs are; keys and tokens are those of the worker's own environment.

    Workers that are ``elsewhere``, on the machines of a cluster, ask the server that ``LOREG_ENDPOINT`` names there, if
    it is set, with ``LOREG_TOKEN``.
    """

    url: str
    endpoint: str
    elsewhere: bool

    def open(self) -> BlobTransfer:
        """Return the store, opened once in each worker. Raises what opening one raises."""
        server = os.environ.get("LOREG_ENDPOINT", "") if self.elsewhere else ""
        if server:
            return _open_server(server, os.environ.get("LOREG_TOKEN", ""))
        return _open_store(self.url, self.endpoint)


def checked_file(store: BlobTransfer, blob: Blob) -> AbstractContextManager[Path]:
    """Return a file with the blob's bytes: the store's own, or one that is removed afterwards."""
    if isinstance(
        store, RemoteStore
    ):  # to ask whether it has all methods of a BlobStore takes as long as to hash 50 KB
        return download_checked(store, blob)
    return cast(BlobStore, store).checked_file(blob)


def require_own_store(store: BlobTransfer) -> None:
    """Raise NotAllowedError if the store is a server: what is made is written to the store itself."""
    if not isinstance(store, BlobStore):
        raise NotAllowedError(
            f"this worker reaches the store through {store.url}, and cannot write what it makes to it",
            hint="start the node with the store's own keys, and without LOREG_ENDPOINT",
        )


@functools.cache
def _open_server(endpoint: str, token: str) -> RemoteStore:
    """Open a server. Raises NotAllowedError unless all may be read: what may not would seem to be lost."""
    server = Server(endpoint.rstrip("/"), token, "worker")
    store = RemoteStore(server)
    if "*" not in RemoteBackend(server, store).whoami().permissions:
        raise NotAllowedError(
            f"this worker may not read all that {endpoint} has",
            hint="set LOREG_TOKEN where nodes are started: loreg token create nodes --scope 'read:*'",
        )
    return store


@functools.cache
def _open_store(url: str, endpoint: str) -> BlobStore:
    return open_store(url, endpoint, is_new=lambda: False)
