"""loreg installed beside vLLM, without a constraints file: no version of vLLM's environment may move."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import environment

_LOADS = """
import importlib.metadata
(entry,) = importlib.metadata.entry_points(group="vllm.general_plugins", name="loreg")
entry.load()()
from vllm.lora.resolver import LoRAResolverRegistry
assert "loreg" in LoRAResolverRegistry.get_supported_resolvers()
"""


def install() -> list[str]:
    """Install the checkout with the server's extra, too; what moved of vLLM's packages, in words. Empty if nothing did.

    Raises SystemExit where vLLM then does not find the resolver.
    """
    python = environment.vllm_python()
    before = environment.frozen_at_first()
    _run(python, "-m", "pip", "install", "--quiet", f"{environment.ROOT}[server]")
    after = environment.frozen(python)
    _run(python, "-c", _LOADS)
    return [f"{name} {was} → {after.get(name, 'gone')}" for name, was in before.items() if after.get(name) != was]


def _run(python: Path, *arguments: str) -> None:
    done = subprocess.run([python, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{python} {' '.join(arguments)[:200]}\n{done.stdout[-1000:]}\n{done.stderr[-3000:]}")


if __name__ == "__main__":
    sys.exit("\n".join(install()))
