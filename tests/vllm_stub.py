"""A stand-in for vLLM: its modules that the plugin imports, and its server's handling of model names, as in vLLM 0.32.

It runs no model: an answer says which name and folder vLLM would have computed with, and repeats the body.
"""

from __future__ import annotations

import abc
import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send


@dataclass
class LoRARequest:
    """vllm/lora/request.py"""

    lora_name: str
    lora_int_id: int
    lora_path: str = ""


class LoRAResolver(abc.ABC):
    """vllm/lora/resolver.py"""

    @abc.abstractmethod
    async def resolve_lora(self, base_model_name: str, lora_name: str) -> LoRARequest | None: ...


class LoRAResolverRegistry:
    def __init__(self) -> None:
        self.resolvers: dict[str, LoRAResolver] = {}

    def get_supported_resolvers(self) -> set[str]:
        return set(self.resolvers)

    def register_resolver(self, resolver_name: str, resolver: LoRAResolver) -> None:
        assert resolver_name not in self.resolvers
        self.resolvers[resolver_name] = resolver

    def get_resolver(self, resolver_name: str) -> LoRAResolver:
        return self.resolvers[resolver_name]


def install(monkeypatch: pytest.MonkeyPatch) -> LoRAResolverRegistry:
    """Put the modules where ``import vllm`` finds them; returns the registry of resolvers."""
    registry = LoRAResolverRegistry()
    envs = SimpleNamespace(VLLM_ALLOW_RUNTIME_LORA_UPDATING=True)
    for name, members in {
        "vllm": {"envs": envs},
        "vllm.lora": {},
        "vllm.lora.request": {"LoRARequest": LoRARequest},
        "vllm.lora.resolver": {"LoRAResolver": LoRAResolver, "LoRAResolverRegistry": registry},
    }.items():
        module = ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(__import__("sys").modules, name, module)
    return registry


@dataclass
class Models:
    """vllm/entrypoints/openai/models/serving.py, OpenAIServingModels."""

    base: str
    resolvers: LoRAResolverRegistry
    lora_requests: dict[str, LoRARequest] = field(default_factory=dict)
    locks: dict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))

    def __post_init__(self) -> None:
        self.model_config = SimpleNamespace(model=self.base)
        self.lora_resolvers = list(self.resolvers.resolvers.values())

    def is_base_model(self, model_name: str) -> bool:
        return model_name == self.base

    async def unload_lora_adapter(self, request: Any) -> None:
        async with self.locks[request.lora_name]:
            self.lora_requests.pop(request.lora_name, None)

    async def resolve_lora(self, lora_name: str) -> LoRARequest | None:
        async with self.locks[lora_name]:
            if lora_name in self.lora_requests:
                return self.lora_requests[lora_name]
            for resolver in self.lora_resolvers:
                request = await resolver.resolve_lora(self.base, lora_name)
                if request is not None:
                    self.lora_requests[lora_name] = request
                    return request
        return None


class Authentication:
    """vllm/entrypoints/serve/middleware/authenticate.py: it stands inside of what ``--middleware`` adds."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self.app, self.key = app, key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope.get("headers", ()))
        if self.key and headers.get(b"authorization") != f"Bearer {self.key}".encode():
            await JSONResponse({"error": "Unauthorized"}, 401)(scope, receive, send)
            return

        async def with_id(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-request-id", b"7")]
            await send(message)

        await self.app(scope, receive, with_id)


class Vllm:
    """The application, with ``middleware`` outermost. Requests wait at ``gate`` once they have their adapter."""

    def __init__(self, base: str, resolvers: LoRAResolverRegistry, middleware: Any, key: str = "") -> None:
        self.models = Models(base, resolvers)
        self.gate, self.arrived = asyncio.Event(), asyncio.Queue[str]()
        self.gate.set()
        routes = [
            Route(path, self._complete, methods=["POST"])
            for path in ("/v1/completions", "/v1/chat/completions", "/v1/embeddings", "/tokenize", "/v2/rerank")
        ]
        self.app = Starlette(routes=routes, middleware=[Middleware(middleware), Middleware(Authentication, key=key)])
        self.app.state.openai_serving_models = self.models
        lora_config = SimpleNamespace(max_lora_rank=16, max_loras=1, max_cpu_loras=2)
        self.app.state.vllm_config = SimpleNamespace(lora_config=lora_config)

    async def _complete(self, request: Request) -> Response:
        body = await request.body()
        assert int(request.headers.get("content-length", len(body))) == len(body)
        try:
            document = await request.json()
            model = document["model"]
        except (ValueError, KeyError, TypeError):
            return JSONResponse({"error": {"message": "no such request"}}, 400)
        path = ""
        if not self.models.is_base_model(model):
            if model not in self.models.lora_requests and await self.models.resolve_lora(model) is None:
                return JSONResponse({"error": {"message": f"The model `{model}` does not exist."}}, 404)
            path = self.models.lora_requests[model].lora_path
        await self.arrived.put(model)
        await self.gate.wait()
        if document.get("stream"):
            return StreamingResponse(self._stream(model), media_type="text/event-stream")
        return JSONResponse(self.answer(model, path, body))

    def answer(self, model: str, path: str, body: bytes) -> dict[str, Any]:
        """Return what a request for the model gets, whose adapter lies in ``path``."""
        return {"model": model, "path": path, "body": body.decode("latin-1")}

    async def _stream(self, model: str) -> AsyncIterator[str]:
        for number in range(3):
            self.gate.clear()
            yield f"data: {json.dumps({'model': model, 'number': number})}\n\n"
            await self.gate.wait()
