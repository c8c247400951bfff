"""vLLM finds adapters in the registry: a request for the model ``team/news:prod`` loads that version.

Interface: ``vllm/lora/resolver.py`` (LoRAResolver, LoRAResolverRegistry), loaded by the entry point group
``vllm.general_plugins`` in every process of vLLM; with VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 it asks for names that it
does not know. The registry is that of LOREG_ENDPOINT or of the other settings.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from loreg.errors import LoregError, UsageError
from loreg.refs import parse_ref

if TYPE_CHECKING:
    from vllm.lora.request import LoRARequest

    from loreg.records import Version
    from loreg.registry import Registry

NAME = "loreg"
_log = logging.getLogger("loreg.vllm")


def register() -> None:
    """Tell vLLM of the resolver. Twice does no harm, and nothing is contacted."""
    from vllm.lora.resolver import LoRAResolver, LoRAResolverRegistry

    class Resolver(LoRAResolver):  # type: ignore[misc]  # vLLM has its types
        """Adapters of the registry, by ref."""

        async def resolve_lora(self, base_model_name: str, lora_name: str) -> LoRARequest | None:
            """The adapter on this machine; None if the registry has none of that name for this base."""
            return await asyncio.to_thread(resolve, base_model_name, lora_name)

    if NAME not in LoRAResolverRegistry.get_supported_resolvers():
        LoRAResolverRegistry.register_resolver(NAME, Resolver())


def resolve(base_model_name: str, lora_name: str) -> LoRARequest | None:
    """Pull the version that the name means, unless its base is another one than that which is served.

    It lies in a folder named by its digest: vLLM's prefix cache is keyed by name and path, and an alias that moves must
    not meet what was cached for the version before.
    """
    from vllm.lora.request import LoRARequest

    from loreg.registry import connect

    try:
        parse_ref(lora_name)
    except UsageError:  # no ref: a name for somebody else
        return None
    try:
        with connect() as registry:
            version = registry.show(lora_name).version
            if reason := _why_not_on(registry, version, base_model_name):
                _log.warning("loreg: %s is not loaded: %s", version.ref, reason)
                return None
            folder = registry.settings.home / "cache" / "served" / version.digest
            if not folder.exists():
                registry.pull(f"{version.ref}@sha256:{version.digest}", folder)
    except LoregError as error:
        _log.warning("loreg: %s is not loaded: %s", lora_name, error)
        return None
    identity = int(version.digest[:8], 16) % (2**31 - 1) + 1
    return LoRARequest(lora_name=lora_name, lora_int_id=identity, lora_path=str(folder))


def _why_not_on(registry: Registry, version: Version, base: str) -> str:
    """Why the version is not for the base that is served, a path or a name; empty if it is."""
    if Path(base).is_dir():
        (report,) = registry.check([version.ref], base=str(Path(base).absolute()), header_only=True)
        return next((finding.message for finding in report.findings if finding.severity == "error"), "")
    known = version.base.names if version.base else ()
    names = {*known, version.facts.base_hint} - {""}
    return "" if base in names else f"it was trained on {', '.join(sorted(names)) or 'an unknown base'}, not {base}"
