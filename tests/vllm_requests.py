"""Requests to the stand-in for vLLM with loreg's middleware, and the line between it and the registry."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployments import HISTORY, SCIENCE
from loreg.errors import UnavailableError
from loreg.plugins.vllm_middleware import FollowAliases
from loreg.refs import Ref
from loreg.remote.backend import RemoteBackend
from vllm_stub import LoRAResolverRegistry, Vllm

BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"
Test = Callable[[Vllm, httpx.AsyncClient], Awaitable[None]]


class Line:
    """The line to the registry: open, cut, or one that nothing comes back on until it is open again."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        self.is_cut = False
        self.open, self.heard = threading.Event(), threading.Semaphore(0)
        self.open.set()
        show = RemoteBackend.show

        def show_by_line(backend: RemoteBackend, ref: Ref) -> Any:
            if not threading.current_thread().name.startswith("loreg-question"):
                return show(backend, ref)
            self.asked.append(str(ref))
            if self.is_cut:
                raise UnavailableError("the server http://10.1.2.3 does not answer", hint="loreg doctor")
            details = show(backend, ref)
            self.heard.release()
            self.open.wait(60)
            return details

        monkeypatch.setattr(RemoteBackend, "show", show_by_line)

    async def hear(self) -> None:
        """Wait until the registry has answered a question, whether or not that has come back."""
        await asyncio.to_thread(self.heard.acquire)


class Unchanged:
    """No middleware at all."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, *arguments: Any) -> None:
        await self._app(*arguments)


def run(resolvers: LoRAResolverRegistry, test: Test, key: str = "") -> None:
    """Run ``test`` with a vLLM that has just started, and a client of it."""

    async def with_vllm() -> None:
        vllm = Vllm(BASE, resolvers, FollowAliases, key)
        transport = httpx.ASGITransport(app=vllm.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://vllm") as client:
            await test(vllm, client)

    asyncio.run(with_vllm())


async def ask(client: httpx.AsyncClient, model: str, path: str = "/v1/completions", **more: Any) -> httpx.Response:
    return await client.post(path, json={"model": model, "prompt": "Shares fell", **more})


async def version_of(client: httpx.AsyncClient, model: str) -> str:
    """The version that answers, ``v1`` say, once it is seen that its files are those that the server would load."""
    answer = (await ask(client, model)).json()
    folder, weights = Path(answer["path"]), "adapter_model.safetensors"
    number = answer["model"].partition(":")[2].partition("@")[0]
    assert (folder / weights).read_bytes() == ({"v1": SCIENCE, "v2": HISTORY}[number] / weights).read_bytes()
    return str(number)
