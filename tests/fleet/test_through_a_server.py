"""Workers on other machines that have no key of the store: they read through a server, and say the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from deployments import Deployment
from live_server import live_server
from loreg import Registry
from loreg.entities import MapOptions, MapRun, MapSelection
from loreg.errors import NotAllowedError
from loreg.fleet.chunk import ChunkTask
from loreg.fleet.worker_store import StorePlace
from loreg.probes.probe import find_probe

NOWHERE = StorePlace("s3://no-such-bucket/x", "http://127.0.0.1:1", elsewhere=True)


@pytest.fixture
def server(filled: Registry, local_deployment: Deployment) -> Iterator[str]:
    with live_server(local_deployment) as endpoint:
        yield endpoint


def claim(registry: Registry, probe: str, options: MapOptions = MapOptions()) -> ChunkTask:
    mapped = find_probe(probe, options)
    maps = registry.context.backend.upkeep().maps()
    run = maps.begin(MapRun(mapped.name, mapped.release, MapSelection(("*",)), True, options), reads_weights=True)
    (chunk,) = maps.claim(run, 1)
    return ChunkTask(chunk, probe, mapped.release, NOWHERE, options)


def read_itself(registry: Registry, task: ChunkTask) -> ChunkTask:
    settings = registry.settings
    return replace(task, store=StorePlace(settings.storage_url, settings.storage_endpoint, elsewhere=False))


@pytest.mark.parametrize("probe", ["check", "sketch", "spectra"])
def test_it_says_the_same_as_with_the_store(filled: Registry, server: str, monkeypatch: pytest.MonkeyPatch, probe: str):
    token = filled.tokens.create("nodes", ["read:*"])[1]
    monkeypatch.setenv("LOREG_ENDPOINT", server)
    monkeypatch.setenv("LOREG_TOKEN", token)
    task = claim(filled, probe)
    answer = task.run()
    assert (answer.error, len(answer.facts)) == (None, 6)
    assert answer == read_itself(filled, task).run()
    assert token not in repr(task)


@pytest.mark.parametrize("scopes", [[], ["read:team", "admin:other"]], ids=["no token", "another's"])
def test_a_token_that_reads_not_all_is_refused_and_no_version_is_blamed(
    filled: Registry, server: str, monkeypatch: pytest.MonkeyPatch, scopes: list[str]
):
    filled.tokens.create("root", ["admin:*"])
    monkeypatch.setenv("LOREG_ENDPOINT", server)
    monkeypatch.setenv("LOREG_TOKEN", filled.tokens.create("nodes", scopes)[1] if scopes else "")
    error = claim(filled, "spectra").run().error
    assert isinstance(error, NotAllowedError)
    assert "may not read all" in error.message


def test_what_is_made_needs_the_store_itself(filled: Registry, server: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LOREG_ENDPOINT", server)
    monkeypatch.setenv("LOREG_TOKEN", filled.tokens.create("nodes", ["read:*"])[1])
    error = claim(filled, "export", MapOptions("vllm")).run().error
    assert isinstance(error, NotAllowedError)
    assert "cannot write what it makes" in error.message


def test_processes_of_this_machine_never_ask_a_server(filled: Registry, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LOREG_ENDPOINT", "http://127.0.0.1:1")
    assert filled.map("spectra", processes=1).recorded == 6
