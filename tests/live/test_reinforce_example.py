"""examples/reinforce.py beside a stand-in for vLLM that samples with PEFT from the files that vLLM would have loaded.

``make truth-live`` runs the same script against a real vLLM.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from peft import PeftModel
from starlette.testclient import TestClient
from transformers import LlamaForCausalLM

from loreg.plugins.vllm_middleware import FollowAliases
from loreg.registry import Registry
from plugins.conftest import endpoint, registry, resolvers
from vllm_requests import Unchanged
from vllm_stub import LoRAResolverRegistry, Vllm

__all__ = ["endpoint", "registry", "resolvers"]
SCRIPT = Path(__file__).parents[2] / "examples" / "reinforce.py"


class SamplingVllm(Vllm):
    """One that answers as vLLM does a request for completions of token ids."""

    def answer(self, model: str, path: str, body: bytes) -> dict[str, Any]:
        asked = json.loads(body)
        adapted = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(self.models.base), path).eval()
        words = torch.tensor(asked["prompt"]).expand(asked["n"], -1)
        for _ in range(asked["max_tokens"]):
            with torch.no_grad():
                probabilities = torch.softmax(adapted(input_ids=words).logits[:, -1] / asked["temperature"], -1)
            words = torch.cat([words, torch.multinomial(probabilities, 1)], dim=1)
        sampled = words[:, len(asked["prompt"]) :].tolist()
        return {"model": model, "choices": [{"token_ids": numbers} for numbers in sampled]}


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reinforce", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def base(script: ModuleType, tmp_path: Path) -> Iterator[Path]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the same numbers on every machine
    script.make_base(tmp_path / "tiny")
    yield tmp_path / "tiny"
    torch.set_num_threads(threads)


def test_each_step_is_published_and_sampled_from_and_the_policy_learns(
    script: ModuleType, base: Path, resolvers: LoRAResolverRegistry, registry: Registry
):
    with TestClient(SamplingVllm(str(base), resolvers, FollowAliases).app) as vllm:
        rewards = script.train(base, vllm)
    assert rewards[-1] > 0.9 > 0.6 > rewards[0]
    versions = registry.versions("team/policy").items
    assert [(v.number, v.labels["step"]) for v in versions] == [(n, str(n - 1)) for n in range(len(rewards), 0, -1)]
    assert versions[0].aliases == ("live",)


def test_a_server_that_does_not_follow_is_told(
    script: ModuleType, base: Path, resolvers: LoRAResolverRegistry, registry: Registry
):
    with (
        TestClient(SamplingVllm(str(base), resolvers, Unchanged).app) as vllm,
        pytest.raises(SystemExit, match=r"published team/policy:v1@sha256:.* but the samples are of team/policy:live"),
    ):
        script.train(base, vllm)
