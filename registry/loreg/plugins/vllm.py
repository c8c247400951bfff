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

from loreg.errors import LoregError, NotFoundError, UnavailableError, UsageError, explain_os_errors
from loreg.file_modes import make_folder
from loreg.plugins.resolved import recall, remember
from loreg.refs import Ref, parse_ref

if TYPE_CHECKING:
    from vllm.lora.request import LoRARequest

    from loreg.entities import Version
    from loreg.registry import Registry

NAME = "loreg"
#: Of the rank vLLM says itself what it was started with: the largest that it can be started with is asked for.
PROFILE = "vllm:max_lora_rank=512"
# vLLM gives loggers below its own a handler, and the root none that shows a warning.
_log = logging.getLogger("vllm.loreg")


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
    """Pull the version that the name means, unless the served base or vLLM would not take it.

    It lies in a folder named by its digest: vLLM's prefix cache is keyed by name and path, and an alias that moves must
    not meet what was cached for the version before. Where the registry does not answer, the version is served that the
    name meant last.
    """
    from vllm.lora.request import LoRARequest

    from loreg.registry import connect

    try:
        ref = parse_ref(lora_name)
    except UsageError:  # no ref: a name for somebody else
        return None
    try:
        with connect() as registry:
            folder = _folder(registry, ref, base_model_name)
    except LoregError as error:
        _log.warning("loreg: %s is not loaded: %s: %s", lora_name, error.code, error)
        return None
    if folder is None:
        return None
    identity = int(folder.name[:8], 16) % (2**31 - 1) + 1
    return LoRARequest(lora_name=lora_name, lora_int_id=identity, lora_path=str(folder))


def _folder(registry: Registry, ref: Ref, base: str) -> Path | None:
    """Where the version lies; None, and a line in the log, if it is not to be served."""
    served = registry.settings.home / "cache" / "served"
    asked = f"{registry.settings.endpoint or registry.settings.database_url}\n{base}\n{ref}"
    try:
        version = registry.show(str(ref)).version
        if reason := _why_not_on(registry, version, base):
            _log.warning("loreg: %s is not loaded: %s", version.ref, reason)
            return None
        folder = served / version.digest
        if not folder.exists():
            with explain_os_errors(served, "export LOREG_HOME=… to a folder you may write"):
                make_folder(served)
            registry.pull(f"{version.ref}@sha256:{version.digest}", folder)
    except NotFoundError as error:
        _log.warning("loreg: %s is not loaded: %s: %s", ref, _yanked_or_unknown(registry, ref), error)
        return None
    except UnavailableError as error:
        digest = recall(served, asked)
        if digest is None or not (served / digest).exists():
            _log.warning("loreg: %s is not loaded: unreachable: %s", ref, error)
            return None
        _log.warning("loreg: %s is sha256:%s, as it was last: unreachable: %s", ref, digest[:12], error)
        return served / digest
    remember(served, asked, version.digest)
    return folder


def _yanked_or_unknown(registry: Registry, ref: Ref) -> str:
    """Whether there is something of that name, only that it was yanked."""
    try:
        versions = registry.versions(str(ref.adapter)).items
    except NotFoundError:
        return "unknown"
    if ref.alias is not None:
        meant = [version for version in versions if ref.alias in version.aliases]
    else:
        meant = [] if ref.number is not None or ref.digest is not None else list(versions)
    return "yanked" if meant and all(version.yanked for version in meant) else "unknown"


def _why_not_on(registry: Registry, version: Version, base: str) -> str:
    """Why vLLM cannot serve the version on that base, a path or a name; empty if it can."""
    path = Path(base)
    known = version.base.names if version.base else ()
    names = {*known, version.facts.base_hint} - {""}
    if not path.is_dir() and base not in names:
        trained = ", ".join(sorted(names)) or "an unknown base"
        return f"wrong base: it was trained on {trained}, not {base}"
    candidate = str(path.absolute()) if path.is_dir() else version.base.digest if version.base else None
    (report,) = registry.check([version.ref], base=candidate, profiles=[PROFILE], header_only=True)
    errors = [finding for finding in report.findings if finding.severity == "error"]
    if not errors:
        return ""
    first = next((finding for finding in errors if finding.code.startswith("LB")), errors[0])
    kind = "wrong base" if first.code.startswith("LB") else "unfit"
    return f"{kind}: {first.code} {first.message}. Hint: {first.remedy}"
