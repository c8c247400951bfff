"""A vLLM that follows aliases tells the registry what it serves, and no request waits for that."""

from __future__ import annotations

import asyncio
import socket
import threading

import httpx
import pytest

from concurrency import eventually
from loreg.errors import NotFoundError, UnavailableError
from loreg.plugins import deployment_reports
from loreg.plugins.deployment_reports import DeploymentReports, Served
from loreg.registry import Registry
from vllm_requests import run, version_of
from vllm_stub import LoRAResolverRegistry, Vllm


def test_what_a_server_serves_is_told_as_it_changes(resolvers: LoRAResolverRegistry, news: Registry):
    def served() -> list[tuple[str, str, str, str]]:
        return [(place.server, place.kind, place.name, place.ref) for place in news.deployments()]

    async def reported(ref: str) -> None:
        expected = [(socket.gethostname(), "vllm", "team/news:prod", ref)]
        await asyncio.to_thread(eventually, lambda: served() == expected)

    async def test(vllm: Vllm, client: httpx.AsyncClient) -> None:
        await version_of(client, "team/news:prod")
        await reported("team/news:v1")
        news.tag("team/news:v2", "prod")
        assert [place.drift for place in news.deployments()] == ["prod is v2"]
        await version_of(client, "team/news:prod")
        await reported("team/news:v2")
        assert [place.drift for place in news.deployments()] == [""]

    run(resolvers, test)


def test_what_cannot_be_told_is_told_again_and_that_nothing_changed_now_and_then(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(deployment_reports, "_INTERVAL", 0.02)
    monkeypatch.setattr(deployment_reports, "_FIRST_RETRY", 0.01)
    monkeypatch.setattr(deployment_reports, "_PAUSE", 0)
    reported: list[Served | None] = []
    answers = [UnavailableError("away"), None, None, NotFoundError("who is that?"), None]
    done = threading.Event()

    def report(served: Served | None) -> None:
        reported.append(served)
        answer = answers.pop(0) if answers else None
        if not answers:
            done.set()
        if answer is not None:
            raise answer

    served = [("team/news:prod", "team/news:v1", "prod")]
    DeploymentReports(report).change(served)
    assert done.wait(30)
    assert reported[:5] == [served, served, None, None, served]
