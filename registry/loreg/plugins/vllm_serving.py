"""What the plugin knows of a running vLLM: its base, the names that it has loaded, and how it forgets one.

Interface: of the application's state ``vllm_config`` and ``openai_serving_models``
(``vllm/entrypoints/openai/models/serving.py``, OpenAIServingModels), as vLLM 0.32 has them.
"""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

from loreg.errors import UsageError
from loreg.plugins.vllm import NAME

_log = logging.getLogger("vllm.loreg")


def find_resolver() -> Any:
    """Return the resolver that :func:`loreg.plugins.vllm.register` has registered in this process.

    Raises UsageError where vLLM is set to ask no resolver, or not this one.
    """
    from vllm import envs
    from vllm.lora.resolver import LoRAResolverRegistry

    if not envs.VLLM_ALLOW_RUNTIME_LORA_UPDATING:
        raise UsageError(
            "the middleware needs a vLLM that asks resolvers", hint="export VLLM_ALLOW_RUNTIME_LORA_UPDATING=1"
        )
    if NAME not in LoRAResolverRegistry.get_supported_resolvers():
        raise UsageError(
            f"the middleware needs the plugin {NAME!r}, which VLLM_PLUGINS leaves out", hint="unset VLLM_PLUGINS"
        )
    return LoRAResolverRegistry.get_resolver(NAME)


class VllmServing:
    """The vLLM of this process, by the ``state`` of its application."""

    def __init__(self, state: Any) -> None:
        self._models = state.openai_serving_models
        self._lora = state.vllm_config.lora_config
        if self._lora is None:
            _log.warning("loreg: vLLM was started without --enable-lora: refs are left as they are")

    @property
    def loads_adapters(self) -> bool:
        """Whether it was started with --enable-lora, and is no server that only prepares prompts."""
        return self._lora is not None and hasattr(self._models, "lora_resolvers")

    @property
    def base(self) -> str:
        """The folder or the name of the base, as the resolver is told it."""
        return str(self._models.model_config.model)

    @property
    def profile(self) -> str:
        """The profile of what it accepts, with the rank that it was started with."""
        return f"vllm:max_lora_rank={self._lora.max_lora_rank}"

    @property
    def max_loaded(self) -> int:
        """How many adapters it holds in memory."""
        return int(self._lora.max_cpu_loras or self._lora.max_loras)

    @property
    def has_other_resolvers(self) -> bool:
        """Whether it asks others than loreg for names that it does not know."""
        from vllm.lora.resolver import LoRAResolverRegistry

        return bool(set(LoRAResolverRegistry.get_supported_resolvers()) - {NAME})

    def serves(self, name: str) -> bool:
        """Return whether the name is that of the base, or of an adapter that is loaded."""
        return self._models.is_base_model(name) or name in self._models.lora_requests

    async def unload(self, name: str) -> None:
        """Have it forget the name: a request that comes later loads it again. Requests under way go on."""
        await self._models.unload_lora_adapter(SimpleNamespace(lora_name=name))
