"""The resolver against a stub of vLLM's interface with the signatures that vLLM documents."""

from __future__ import annotations

import abc
import asyncio
import importlib.metadata
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from loreg.registry import Registry, connect
from making import change_config, copy, write_base
from places import HISTORY, SCIENCE

BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"


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


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> LoRAResolver:
    registry = LoRAResolverRegistry()
    for name, members in {
        "vllm": {},
        "vllm.lora": {},
        "vllm.lora.request": {"LoRARequest": LoRARequest},
        "vllm.lora.resolver": {"LoRAResolver": LoRAResolver, "LoRAResolverRegistry": registry},
    }.items():
        module = ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
    (entry,) = importlib.metadata.entry_points(group="vllm.general_plugins", name="loreg")
    register = entry.load()
    monkeypatch.setenv("LOREG_ENDPOINT", "http://127.0.0.1:9")  # nobody: registering must contact nothing
    register()
    register()  # vLLM does it in every process, and sometimes twice
    monkeypatch.delenv("LOREG_ENDPOINT")
    monkeypatch.setenv("LOREG_HOME", str(tmp_path / "home"))
    return registry.resolvers["loreg"]


@pytest.fixture
def here(resolver: LoRAResolver, tmp_path: Path) -> Registry:
    return connect(home=str(tmp_path / "home"))


def ask(resolver: LoRAResolver, name: str, base: str = BASE) -> LoRARequest | None:
    return asyncio.run(resolver.resolve_lora(base_model_name=base, lora_name=name))


def test_a_ref_is_pulled_to_a_path_with_its_digest(resolver: LoRAResolver, here: Registry):
    version = here.push(SCIENCE, "team/science", aliases=["prod"]).version
    found = ask(resolver, "team/science:prod")
    assert found is not None
    assert found.lora_name == "team/science:prod"
    assert version.digest in found.lora_path
    assert 0 < found.lora_int_id < 2**31
    weights = "adapter_model.safetensors"
    assert (Path(found.lora_path) / weights).read_bytes() == (SCIENCE / weights).read_bytes()
    assert ask(resolver, "team/science:prod") == found


def test_an_alias_that_moved_is_another_path_and_number(resolver: LoRAResolver, here: Registry):
    here.push(SCIENCE, "team/science", aliases=["prod"])
    before = ask(resolver, "team/science:prod")
    here.push(HISTORY, "team/science", aliases=["prod"])
    after = ask(resolver, "team/science:prod")
    assert before is not None
    assert after is not None
    assert before.lora_path != after.lora_path
    assert before.lora_int_id != after.lora_int_id


def test_another_base_is_refused_with_the_reason(
    resolver: LoRAResolver, here: Registry, caplog: pytest.LogCaptureFixture, tmp_path: Path
):
    here.push(SCIENCE, "team/science")
    assert ask(resolver, "team/science", "meta-llama/Llama-3.1-8B") is None
    assert f"it was trained on {BASE}, not meta-llama/Llama-3.1-8B" in caplog.text
    other = write_base(tmp_path / "other")
    assert ask(resolver, "team/science", str(other)) is None
    assert "the base has no model.layers.0.self_attn.q_proj.weight" in caplog.text


def test_what_is_no_ref_or_not_there_is_none(resolver: LoRAResolver, here: Registry, tmp_path: Path):
    here.push(change_config(copy(SCIENCE, tmp_path / "x"), base_model_name_or_path=None), "team/unknown")
    for name in ("../etc", "a b", "team/nothing", "team/unknown"):
        assert ask(resolver, name) is None


def test_a_registry_that_does_not_answer_is_none_and_a_line_in_the_log(
    resolver: LoRAResolver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv("LOREG_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("loreg.client.http.pause", lambda *_: None)
    assert ask(resolver, "team/science") is None
    assert "does not answer" in caplog.text
