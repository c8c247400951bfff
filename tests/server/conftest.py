"""A server that asks for tokens, on PostgreSQL and S3, with one private namespace and who may do what there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import httpx
import pytest

from deployments import SCIENCE, Deployment, empty_folders
from live_server import live_server
from loreg.registry import Registry, connect

SCOPES = {
    "reader": ["read:team"],
    "writer": ["write:team"],
    "owner": ["admin:team"],
    "stranger": ["write:other"],
    "root": ["admin:*"],
}
ROLES = ("anonymous", *SCOPES)


@dataclass(frozen=True)
class Guarded:
    """A server, a token for each role, and the registry behind it."""

    endpoint: str
    tokens: dict[str, str]
    behind: Registry

    def http(self, role: str) -> httpx.Client:
        token = self.tokens.get(role)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.Client(base_url=self.endpoint, headers=headers, timeout=30)

    def registry(self, role: str) -> Registry:
        return connect(endpoint=self.endpoint, token=self.tokens.get(role))


@pytest.fixture
def guarded(postgres_and_s3: Deployment) -> Iterator[Guarded]:
    yield from _guarded(postgres_and_s3)


@pytest.fixture
def guarded_folder(tmp_path) -> Iterator[Guarded]:
    yield from _guarded(empty_folders(tmp_path))


def _guarded(deployment: Deployment) -> Iterator[Guarded]:
    with (
        connect(
            database_url=deployment.database_url,
            storage_url=deployment.storage_url,
            storage_endpoint=deployment.storage_endpoint,
        ) as behind,
        live_server(replace(deployment), is_open=False) as endpoint,
    ):
        tokens = {role: behind.tokens.create(role, scopes)[1] for role, scopes in SCOPES.items()}
        behind.push(SCIENCE, "team/science", aliases=["prod"], tasks=["qa"])
        yield Guarded(endpoint, tokens, behind)
