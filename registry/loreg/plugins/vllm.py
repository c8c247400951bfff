"""vLLM's resolver: a request for the model ``team/news:prod`` loads that version from the registry.

Interface: ``vllm/lora/resolver.py`` (LoRAResolver, LoRAResolverRegistry), loaded by the entry point group
``vllm.general_plugins`` in every process of vLLM; with VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 it asks for names that it
does not know. The registry is that of LOREG_ENDPOINT or of the other settings.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from loreg.errors import LoregError, UnavailableError, UsageError
from loreg.plugins.served_folders import FolderLocks
from loreg.plugins.served_versions import NotServedError, ServedVersions
from loreg.refs import Ref, parse_ref

if TYPE_CHECKING:
    from vllm.lora.request import LoRARequest

NAME = "loreg"
#: With the largest rank that vLLM can be started with: it refuses larger ones than it was started with itself.
PROFILE = "vllm:max_lora_rank=512"
_locks = FolderLocks()
# vLLM gives loggers below its own a handler, and the root none that shows a warning.
_log = logging.getLogger("vllm.loreg")


def register() -> None:
    """Register the resolver with vLLM. May be called twice; contacts nothing."""
    from vllm.lora.resolver import LoRAResolver, LoRAResolverRegistry

    class Resolver(LoRAResolver):  # type: ignore[misc]  # vLLM has its types
        """Resolves refs to adapters of the registry; with the middleware, only what that has let through.

        It has asked the registry already, and vLLM would never ask again for a name that got past it.
        """

        let_through: Callable[[str], Path | None] | None = None

        async def resolve_lora(self, base_model_name: str, lora_name: str) -> LoRARequest | None:
            """Return the adapter on this machine; None if the registry has none of that name for this base."""
            if self.let_through is None:
                request = await asyncio.to_thread(resolve, base_model_name, lora_name)
                if request is not None:  # vLLM keeps the name for good
                    _locks.lock(Path(request.lora_path))
                return request
            folder = self.let_through(lora_name)
            return None if folder is None else _lora_request(lora_name, folder)

    if NAME not in LoRAResolverRegistry.get_supported_resolvers():
        LoRAResolverRegistry.register_resolver(NAME, Resolver())


def resolve(base_model_name: str, lora_name: str) -> LoRARequest | None:
    """Pull the version that the name means, unless the served base or vLLM would not take it.

    Where the registry does not answer, the version that the name meant last is served.
    """
    from loreg.registry import connect

    try:
        ref = parse_ref(lora_name)
    except UsageError:  # not a ref: the name may be another resolver's
        return None
    try:
        with connect() as registry:
            folder = _fetch(ServedVersions(registry, base_model_name, PROFILE), ref)
    except NotServedError as error:
        _log.warning("loreg: %s", error)
        return None
    except LoregError as error:
        _log.warning("loreg: %s is not loaded: %s: %s", lora_name, error.code, error)
        return None
    return _lora_request(lora_name, folder)


def _lora_request(name: str, folder: Path) -> LoRARequest:
    from vllm.lora.request import LoRARequest

    identity = int(folder.name[:8], 16) % (2**31 - 1) + 1  # vLLM counts by itself, but wants one
    return LoRARequest(lora_name=name, lora_int_id=identity, lora_path=str(folder))


def _fetch(versions: ServedVersions, ref: Ref) -> Path:
    """Return the folder of the version, pulled if it is not there. Raises NotServedError."""
    try:
        version = versions.find(ref)
        folder = versions.prepare(version)
    except NotServedError:
        versions.record(ref, None)
        raise
    except UnavailableError as error:
        last = versions.recall(ref)
        if last is None:
            raise NotServedError(ref, "unreachable", error.message, error.hint) from error
        name, folder = last
        _log.warning("loreg: %s is %s, as it was last: unreachable: %s", ref, name, error)
        return folder
    versions.record(ref, version)
    return folder
