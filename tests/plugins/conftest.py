"""A vLLM that asks loreg's resolver, and the registry that this asks: a real server with two versions of an adapter."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from pathlib import Path

import pytest

import vllm_stub
from deployments import HISTORY, SCIENCE, empty_folders
from live_server import live_server
from loreg.registry import Registry, connect
from vllm_requests import Line
from vllm_stub import LoRAResolverRegistry


@pytest.fixture
def resolvers(monkeypatch: pytest.MonkeyPatch) -> LoRAResolverRegistry:
    resolvers = vllm_stub.install(monkeypatch)
    (entry,) = importlib.metadata.entry_points(group="vllm.general_plugins", name="loreg")
    entry.load()()
    return resolvers


@pytest.fixture
def endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with live_server(empty_folders(tmp_path / "server")) as endpoint:
        monkeypatch.setenv("LOREG_ENDPOINT", endpoint)
        monkeypatch.setenv("LOREG_HOME", str(tmp_path / "home"))
        yield endpoint


@pytest.fixture
def registry(endpoint: str) -> Iterator[Registry]:
    with connect(endpoint=endpoint) as registry:
        yield registry


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    line = Line(monkeypatch)
    yield line
    line.open.set()


@pytest.fixture
def news(registry: Registry) -> Registry:
    """Two versions of one adapter, of which v1 is prod."""
    registry.push(SCIENCE, "team/news", aliases=["prod"])
    registry.push(HISTORY, "team/news")
    return registry
