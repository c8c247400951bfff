"""vLLM's resolver: a request for the model ``team/news:prod`` loads that version from the registry.

Interface: ``vllm/lora/resolver.py`` (LoRAResolver, LoRAResolverRegistry), loaded by the entry point group
``vllm.general_plugins`` in every process of vLLM; with VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 it asks for names that it
does not know. The registry is that of LOREG_ENDPOINT or of the other settings.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from loreg.base_names import public_base_name
from loreg.entities import Severity
from loreg.errors import LoregError, NotFoundError, UnavailableError, UsageError, explain_os_errors
from loreg.file_modes import make_folder
from loreg.plugins.resolved import recall, remember
from loreg.refs import Ref, parse_ref

if TYPE_CHECKING:
    from vllm.lora.request import LoRARequest

    from loreg.entities import Version
    from loreg.registry import Registry

NAME = "loreg"
#: With the largest rank that vLLM can be started with: it refuses larger ones than it was started with itself.
PROFILE = "vllm:max_lora_rank=512"
# vLLM gives loggers below its own a handler, and the root none that shows a warning.
_log = logging.getLogger("vllm.loreg")


def register() -> None:
    """Register the resolver with vLLM. May be called twice; contacts nothing."""
    from vllm.lora.resolver import LoRAResolver, LoRAResolverRegistry

    class Resolver(LoRAResolver):  # type: ignore[misc]  # vLLM has its types
        """Resolves refs to adapters of the registry."""

        async def resolve_lora(self, base_model_name: str, lora_name: str) -> LoRARequest | None:
            """Return the adapter on this machine; None if the registry has none of that name for this base."""
            return await asyncio.to_thread(resolve, base_model_name, lora_name)

    if NAME not in LoRAResolverRegistry.get_supported_resolvers():
        LoRAResolverRegistry.register_resolver(NAME, Resolver())


def resolve(base_model_name: str, lora_name: str) -> LoRARequest | None:
    """Pull the version that the name means, unless the served base or vLLM would not take it.

    The version is pulled to a folder named by its digest: vLLM's prefix cache is keyed by name and path, and an alias
    that moves must not hit what was cached for the previous version. Where the registry does not answer, the version
    that the name meant last is served.
    """
    from vllm.lora.request import LoRARequest

    from loreg.registry import connect

    try:
        ref = parse_ref(lora_name)
    except UsageError:  # not a ref: the name may be another resolver's
        return None
    try:
        with connect() as registry:
            folder = _fetch(registry, ref, base_model_name)
    except LoregError as error:
        _log.warning("loreg: %s is not loaded: %s: %s", lora_name, error.code, error)
        return None
    if folder is None:
        return None
    identity = int(folder.name[:8], 16) % (2**31 - 1) + 1
    return LoRARequest(lora_name=lora_name, lora_int_id=identity, lora_path=str(folder))


def _fetch(registry: Registry, ref: Ref, base: str) -> Path | None:
    """Return the folder of the version, pulled if it is not there; log and return None if it is not to be served."""
    served = registry.settings.home / "cache" / "served"
    request = f"{registry.settings.endpoint or registry.settings.database_url}\n{base}\n{ref}"
    try:
        version = registry.show(str(ref)).version
        if reason := _why_refused(registry, version, base):
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
        digest = recall(served, request)
        if digest is None or not (served / digest).exists():
            _log.warning("loreg: %s is not loaded: unreachable: %s", ref, error)
            return None
        _log.warning("loreg: %s is sha256:%s, as it was last: unreachable: %s", ref, digest[:12], error)
        return served / digest
    remember(served, request, version.digest)
    return folder


def _yanked_or_unknown(registry: Registry, ref: Ref) -> str:
    """Return "yanked" if all versions that the ref could mean are, else "unknown"."""
    try:
        versions = registry.versions(str(ref.adapter)).items
    except NotFoundError:
        return "unknown"
    if ref.alias is not None:
        matches = [version for version in versions if ref.alias in version.aliases]
    else:
        matches = [] if ref.number is not None or ref.digest is not None else list(versions)
    return "yanked" if matches and all(version.yanked for version in matches) else "unknown"


def _why_refused(registry: Registry, version: Version, base: str) -> str:
    """Return why vLLM cannot serve the version on that base, a path or a name; empty if it can."""
    path = Path(base)
    base_names = version.base.names if version.base else ()
    names = {*base_names, version.facts.base_hint} - {""}
    if not path.is_dir() and names.isdisjoint((base, public_base_name(base))):
        trained_on = ", ".join(sorted(names)) or "an unknown base"
        return f"wrong base: it was trained on {trained_on}, not {base}"
    candidate = str(path.absolute()) if path.is_dir() else version.base.digest if version.base else None
    (report,) = registry.check([version.ref], base=candidate, profiles=[PROFILE], header_only=True)
    errors = [finding for finding in report.findings if finding.severity == Severity.ERROR]
    if not errors:
        return ""
    first = next((finding for finding in errors if finding.code.startswith("LB")), errors[0])
    kind = "wrong base" if first.code.startswith("LB") else "unfit"
    return f"{kind}: {first.code} {first.message}. Hint: {first.remedy}"
