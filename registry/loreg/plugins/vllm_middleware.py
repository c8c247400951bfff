"""vLLM's middleware: an alias means, at each request, what it means in the registry.

vLLM asks a resolver once for a name, and never again. So the middleware puts the pinned ref in place of the alias
before vLLM sees it: each version is a name of its own, with its own blocks in the prefix cache, which the
resolver loads when vLLM asks for it. Start vLLM with ``--middleware loreg.plugins.vllm_middleware.FollowAliases``.

Interface: ``vllm/entrypoints/serve/middleware/register.py``; that of ASGI.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from loreg.errors import UsageError
from loreg.plugins.deployment_reports import DeploymentReports
from loreg.plugins.followed_refs import FollowedRefs, PinnedVersion
from loreg.plugins.loaded_names import LoadedNames
from loreg.plugins.model_field import read_model, replace_model
from loreg.plugins.named_request import NamedRequest, names_a_model
from loreg.plugins.served_versions import NotServedError, ServedVersions
from loreg.plugins.vllm_serving import VllmServing, find_resolver
from loreg.refs import Ref, parse_ref
from loreg.registry import Registry, connect

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

_log = logging.getLogger("vllm.loreg")
_MIN_REFS = 256  # so many are followed, or as many as vLLM holds adapters in memory


class FollowAliases:
    """ASGI middleware: where a request names a ref of the registry, vLLM reads the pinned version that it means."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap ``app``, vLLM's. Contacts nothing; raises UsageError for settings under which it could not work."""
        self._app, self._resolver, self._registry = app, find_resolver(), connect()
        self._followed: _Followed | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if not names_a_model(scope):
            await self._app(scope, receive, send)
            return
        if self._followed is None:  # vLLM's state is complete when the first request comes
            port = str((scope.get("server") or ("", 0))[1] or os.getpid())
            self._followed = _Followed(VllmServing(scope["app"].state), self._registry, self._resolver, port)
        followed, pinned = self._followed, list[str]()

        async def rewrite(body: bytes) -> bytes:
            name = await followed.begin(read_model(body))
            if name is None:
                return body
            pinned.append(name)
            return replace_model(body, name)

        request = NamedRequest(receive, send, rewrite)
        # The body that the application reads may have another length.
        scope["headers"] = [pair for pair in scope["headers"] if pair[0].lower() != b"content-length"]
        try:
            await self._app(scope, request.receive, request.send)
        finally:
            for name in pinned:
                await followed.end(name)


class _Followed:
    """The refs of a registry in one vLLM."""

    def __init__(self, serving: VllmServing, registry: Registry, resolver: Any, replica: str) -> None:
        self._serving = serving
        self._reports = DeploymentReports(
            lambda served: registry.report_deployment(socket.gethostname(), served, replica=replica, kind="vllm")
        )
        self._names = LoadedNames(serving.unload)
        self._refs: FollowedRefs | None = None
        resolver.let_through = self._names.folder
        if serving.loads_adapters:
            versions = ServedVersions(registry, serving.base, serving.profile)
            self._refs = FollowedRefs(versions, self._names, max(_MIN_REFS, serving.max_loaded), self._tell)

    async def begin(self, model: str | None) -> str | None:
        """Return the pinned name for a request that names ``model``, kept until :meth:`end`; None if it is no ref."""
        ref = self._parse(model)
        if ref is None or self._refs is None:
            return None
        try:
            version = await self._refs.current(ref)
        except NotServedError as error:
            if error.kind == "unknown" and self._serving.has_other_resolvers:
                return None
            _log.warning("loreg: %s", error)
            raise
        self._names.begin(version.name, version.folder)
        return version.name

    async def end(self, name: str) -> None:
        """Keep the name no longer for a request."""
        await self._names.end(name)

    def _tell(self, meanings: Mapping[Ref, PinnedVersion]) -> None:
        self._reports.change([(str(ref), version.name, ref.alias or "") for ref, version in meanings.items()])

    def _parse(self, model: str | None) -> Ref | None:
        """Return the ref; None for the base, for what somebody else has loaded, and for what is none."""
        if model is None or (self._serving.serves(model) and self._names.folder(model) is None):
            return None
        try:
            return parse_ref(model)
        except UsageError:
            return None
