"""The resolver against a stub of vLLM's interface with the signatures that vLLM documents."""

from __future__ import annotations

import asyncio
import importlib.metadata
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import vllm_stub
from deployments import DORA, HISTORY, SCIENCE, empty_home
from factories import change_config, copy, write_base
from loreg.errors import UnavailableError
from loreg.registry import Registry, connect
from vllm_stub import LoRARequest, LoRAResolver

BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> LoRAResolver:
    registry = vllm_stub.install(monkeypatch)
    (entry,) = importlib.metadata.entry_points(group="vllm.general_plugins", name="loreg")
    register = entry.load()
    monkeypatch.setenv("LOREG_ENDPOINT", "http://127.0.0.1:9")  # nobody: registering must contact nothing
    register()
    register()  # vLLM does it in every process, and sometimes twice
    monkeypatch.delenv("LOREG_ENDPOINT")
    monkeypatch.setenv("LOREG_HOME", str(tmp_path / "home"))
    return registry.resolvers["loreg"]


@pytest.fixture
def local_registry(resolver: LoRAResolver, tmp_path: Path) -> Registry:
    return connect(home=empty_home(tmp_path / "home"))


def ask(resolver: LoRAResolver, name: str, base: str = BASE) -> LoRARequest | None:
    return asyncio.run(resolver.resolve_lora(base_model_name=base, lora_name=name))


def test_a_ref_is_pulled_to_a_path_with_its_digest(resolver: LoRAResolver, local_registry: Registry):
    version = local_registry.push(SCIENCE, "team/science", aliases=["prod"]).version
    request = ask(resolver, "team/science:prod")
    assert request is not None
    assert request.lora_name == "team/science:prod"
    assert version.digest in request.lora_path
    assert 0 < request.lora_int_id < 2**31
    weights = "adapter_model.safetensors"
    assert (Path(request.lora_path) / weights).read_bytes() == (SCIENCE / weights).read_bytes()
    assert ask(resolver, "team/science:prod") == request


def test_an_alias_that_moved_is_another_path_and_number(resolver: LoRAResolver, local_registry: Registry):
    local_registry.push(SCIENCE, "team/science", aliases=["prod"])
    before = ask(resolver, "team/science:prod")
    local_registry.push(HISTORY, "team/science", aliases=["prod"])
    after = ask(resolver, "team/science:prod")
    assert before is not None
    assert after is not None
    assert before.lora_path != after.lora_path
    assert before.lora_int_id != after.lora_int_id  # vLLM asks once per name, and counts by itself


def test_another_base_is_refused_with_the_reason(
    resolver: LoRAResolver, local_registry: Registry, caplog: pytest.LogCaptureFixture, tmp_path: Path
):
    local_registry.push(SCIENCE, "team/science")
    assert ask(resolver, "team/science", "meta-llama/Llama-3.1-8B") is None
    assert f"wrong base: it was trained on {BASE}, not meta-llama/Llama-3.1-8B" in caplog.text
    other = write_base(tmp_path / "other")
    assert ask(resolver, "team/science", str(other)) is None
    assert "wrong base: LB001 the base has no model.layers.0.self_attn.q_proj.weight" in caplog.text


def test_what_is_no_ref_or_not_there_is_none(
    resolver: LoRAResolver, local_registry: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    local_registry.push(change_config(copy(SCIENCE, tmp_path / "x"), base_model_name_or_path=None), "team/without")
    for name in ("../etc", "a b"):
        assert ask(resolver, name) is None
    assert caplog.text == ""
    for name, reason in (
        ("team/nothing", "unknown: there is no adapter 'team/nothing'"),
        ("team/without:prod", "unknown: "),
        ("team/without:v7", "unknown: "),
        ("team/without", "wrong base: it was trained on an unknown base"),
    ):
        assert ask(resolver, name) is None
        assert f"is not loaded: {reason}" in caplog.text
        caplog.clear()


def test_reasons_reach_the_log_of_vllm(
    resolver: LoRAResolver, local_registry: Registry, caplog: pytest.LogCaptureFixture
):
    """Its dependency sets the root logger to ERROR; what is below ``vllm`` has a handler of its own."""
    ask(resolver, "team/nothing")
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("vllm.loreg", "WARNING")


def test_what_vllm_would_refuse_or_get_wrong_is_unfit(
    resolver: LoRAResolver, local_registry: Registry, caplog: pytest.LogCaptureFixture
):
    local_registry.push(DORA, "team/dora")
    assert ask(resolver, "team/dora") is None
    assert "team/dora:v1 is not loaded: unfit: VL002 vLLM" in caplog.text


def test_of_the_rank_vllm_speaks_itself(resolver: LoRAResolver, local_registry: Registry, tmp_path: Path):
    """The resolver is not told what --max-lora-rank is: an adapter of rank 32 is right where that is 64."""
    local_registry.push(train_of_rank(copy(SCIENCE, tmp_path / "a"), 32), "team/large")
    assert ask(resolver, "team/large") is not None


def train_of_rank(folder: Path, rank: int) -> Path:
    """The same adapter with zeros to that rank: its deltas stay, but for the scale."""
    path = folder / "adapter_model.safetensors"
    padded = {
        name: torch.nn.functional.pad(t, (0, 0, 0, rank - len(t)) if "lora_A" in name else (0, rank - t.shape[1]))
        for name, t in load_file(path).items()
    }
    save_file(padded, path, {"format": "pt"})
    return change_config(folder, r=rank)


def test_a_yanked_version_is_told_from_an_unknown_one(
    resolver: LoRAResolver,
    local_registry: Registry,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
):
    """By one question: at a second one it may not be yanked any more."""
    local_registry.push(SCIENCE, "team/science", aliases=["prod"])
    local_registry.yank("team/science:v1")
    with monkeypatch.context() as patched:
        patched.delattr(Registry, "versions")
        for name in ("team/science", "team/science:prod"):
            assert ask(resolver, name) is None
            assert f"{name} is not loaded: yanked: " in caplog.text
    assert ask(resolver, "team/science:v1") is not None, "whoever asks for it by its number gets it"


class TestARegistryThatDoesNotAnswer:
    @pytest.fixture
    def gone(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
        """After it is called, the database cannot be opened any more."""

        def close() -> None:
            def unavailable(*_: object) -> None:
                raise UnavailableError("the database does not answer", hint="loreg doctor")

            monkeypatch.setattr("loreg.local.backend.LocalBackend.show", unavailable)

        return close

    def test_serves_what_the_name_meant_last(
        self,
        resolver: LoRAResolver,
        local_registry: Registry,
        gone: Callable[[], None],
        caplog: pytest.LogCaptureFixture,
    ):
        local_registry.push(SCIENCE, "team/science", aliases=["prod"])
        before = ask(resolver, "team/science:prod")
        local_registry.push(HISTORY, "team/science", aliases=["prod"])
        after = ask(resolver, "team/science:prod")
        assert before != after
        gone()
        assert ask(resolver, "team/science:prod") == after
        assert "as it was last: unreachable: the database does not answer" in caplog.text

    def test_serves_nothing_on_another_base_or_under_another_name(
        self,
        resolver: LoRAResolver,
        local_registry: Registry,
        gone: Callable[[], None],
        caplog: pytest.LogCaptureFixture,
    ):
        local_registry.push(SCIENCE, "team/science", aliases=["prod"])
        assert ask(resolver, "team/science:prod") is not None
        gone()
        assert ask(resolver, "team/science:prod", "another/base") is None
        assert ask(resolver, "team/science") is None
        assert "team/science is not loaded: unreachable: the database does not answer" in caplog.text

    def test_serves_nothing_by_a_record_that_was_spoilt(
        self, resolver: LoRAResolver, local_registry: Registry, gone: Callable[[], None]
    ):
        local_registry.push(SCIENCE, "team/science")
        assert ask(resolver, "team/science") is not None
        (record,) = (local_registry.settings.home / "cache" / "served" / "names").iterdir()
        gone()
        for content in (b"", b"../../store", b"\xff", b"0" * 64):
            record.write_bytes(content)
            assert ask(resolver, "team/science") is None

    def test_is_named_in_the_log(
        self, resolver: LoRAResolver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ):
        monkeypatch.setenv("LOREG_ENDPOINT", "http://127.0.0.1:9")
        monkeypatch.setattr("loreg.remote.retries._FIRST_WAIT", 0.0)
        assert ask(resolver, "team/science") is None
        assert "team/science is not loaded: unreachable: the server http://127.0.0.1:9 does not answer" in caplog.text
