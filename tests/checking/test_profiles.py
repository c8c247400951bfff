"""What each server does to an adapter, from its profile: every rule is shown an adapter that it is about."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from everything import train as train_everything
from loreg.checking.conditions import CONDITIONS
from loreg.checking.explain import explain
from loreg.checking.profile import known_profiles, read_profile
from loreg.errors import NotFoundError, UsageError
from loreg.merging.ranks import SERVERS
from loreg.registry import Registry, connect
from making import change_config, change_tensors, copy, train, write_base
from places import SCIENCE

Made = Callable[[Path], Path]


@pytest.fixture
def here(tmp_path: Path) -> Registry:
    return connect(home=str(tmp_path / "home"))


def codes(here: Registry, adapter: Path, profile: str, **options: Any) -> dict[str, str]:
    (report,) = here.check([str(adapter)], profiles=[profile], **options)
    return {f.code: f.severity for f in report.findings if f.code[:2] not in ("LR", "LB")}


def plain(folder: Path) -> Path:
    """An adapter that every server takes: one rank, one alpha, the four projections of attention."""
    return copy(SCIENCE, folder)


def pattern(folder: Path, **options: Any) -> Path:
    return train(folder, 1, **options)


#: A profile, a rule of it, an adapter that the rule is about.
CASES: dict[str, tuple[str, str, Made]] = {
    "vllm, rank": ("vllm:max_lora_rank=1", "VL001", plain),
    "vllm, dora": ("vllm", "VL002", lambda f: train(f, 1, use_dora=True)),
    "vllm, head": ("vllm", "VL003", lambda f: train(f, 1, head=True)),
    "vllm, bias": ("vllm", "VL004", lambda f: train(f, 1, bias="all")),
    "vllm, lora_bias": ("vllm", "VL004", lambda f: train(f, 1, lora_bias=True)),
    "vllm, pissa": ("vllm", "VL005", lambda f: change_config(plain(f), init_lora_weights="pissa")),
    "vllm, loftq": ("vllm", "VL005", lambda f: change_config(plain(f), init_lora_weights="loftq")),
    "vllm, alora": ("vllm", "VL006", lambda f: change_config(plain(f), alora_invocation_tokens=[1])),
    "vllm, convolution": ("vllm", "VL008", lambda f: train_everything(f, 1, ["image"])),
    "vllm, tokens": ("vllm", "VL009", lambda f: tokens(plain(f))),
    "sglang, rank": ("sglang:max_lora_rank=7", "SG001", plain),
    "sglang, rslora": ("sglang", "SG002", lambda f: train(f, 1, use_rslora=True)),
    "sglang, ranks": ("sglang", "SG003", lambda f: pattern(f, rank_pattern={"v_proj": 2})),
    "sglang, alphas": ("sglang", "SG003", lambda f: pattern(f, alpha_pattern={"v_proj": 2})),
    "sglang, dora": ("sglang", "SG004", lambda f: train(f, 1, use_dora=True)),
    "sglang, head": ("sglang", "SG005", lambda f: train(f, 1, head=True)),
    "sglang, bias": ("sglang", "SG006", lambda f: train(f, 1, bias="lora_only")),
    "sglang, olora": ("sglang", "SG007", lambda f: change_config(plain(f), init_lora_weights="olora")),
    "sglang, q alone": ("sglang", "SG008", lambda f: train(f, 1, target_modules=["q_proj"])),
    "sglang, embedding": ("sglang", "SG009", lambda f: train_everything(f, 1, ["words"])),
    "sglang, two files": ("sglang", "SG010", lambda f: second_file(plain(f))),
    "sglang, a pattern": ("sglang", "SG011", lambda f: change_config(plain(f), target_modules=r".*\.(q|v)_proj")),
    "sglang, tokens": ("sglang", "SG012", lambda f: tokens(plain(f))),
    "lorax, rank": ("lorax", "LX001", lambda f: train(f, 1, r=130)),
    "lorax, alphas": ("lorax", "LX002", lambda f: pattern(f, alpha_pattern={"v_proj": 2})),
    "lorax, ranks": ("lorax", "LX003", lambda f: pattern(f, rank_pattern={"layers.0.v_proj": 2})),
    "lorax, dora": ("lorax", "LX004", lambda f: train(f, 1, use_dora=True)),
    "lorax, head": ("lorax", "LX005", lambda f: train(f, 1, head=True)),
    "lorax, bias": ("lorax", "LX006", lambda f: train(f, 1, bias="all")),
    "lorax, corda": ("lorax", "LX007", lambda f: change_config(plain(f), init_lora_weights="corda")),
    "lorax, a layer less": ("lorax", "LX008", lambda f: train(f, 1, target_modules=["layers.0.q_proj", "v_proj"])),
    "lorax, embedding": ("lorax", "LX010", lambda f: train_everything(f, 1, ["words"])),
    "lorax, two files": ("lorax", "LX011", lambda f: second_file(plain(f))),
    "lorax, a rank that is padded": ("lorax", "LX012", lambda f: train(f, 1, r=4)),
    "lorax, padded for two GPUs": ("lorax:tensor_parallel=2", "LX012", lambda f: train(f, 1, r=8)),
    "lorax, experts": (
        "lorax", "LX013", lambda f: train_everything(f, 1, [], target_parameters=["experts.down_proj"]),
    ),
    "lorax, tokens": ("lorax", "LX014", lambda f: tokens(plain(f))),
    "tgi, dora": ("tgi", "TG004", lambda f: train(f, 1, use_dora=True)),
    "tensorrt-llm, rank": ("tensorrt-llm:max_lora_rank=7", "TR001", plain),
    "tensorrt-llm, alpha": ("tensorrt-llm", "TR002", lambda f: pattern(f, alpha_pattern={"v_proj": 2})),
    "tensorrt-llm, bias": ("tensorrt-llm", "TR003", lambda f: train(f, 1, lora_bias=True)),
    "tensorrt-llm, types": ("tensorrt-llm", "TR004", lambda f: train(f, 1, target_modules=["head", "q_proj"])),
    "tensorrt-llm, embedding": ("tensorrt-llm", "TR005", lambda f: train_everything(f, 1, ["words"])),
    "tensorrt-llm, head": ("tensorrt-llm", "TR006", lambda f: train(f, 1, head=True)),
    "tensorrt-llm, experts": (
        "tensorrt-llm", "TR007", lambda f: renamed(train(f, 1, use_dora=True), "q_proj", "experts.0.w1"),
    ),
    "tensorrt-llm, tokens": ("tensorrt-llm", "TR008", lambda f: tokens(plain(f))),
    "llama.cpp, alpha": ("llama.cpp", "LC001", lambda f: change_config(plain(f), lora_alpha=12.5)),
    "llama.cpp, rslora": ("llama.cpp", "LC002", lambda f: train(f, 1, use_rslora=True)),
    "llama.cpp, alphas": ("llama.cpp", "LC003", lambda f: pattern(f, alpha_pattern={"v_proj": 2})),
    "llama.cpp, dora": ("llama.cpp", "LC004", lambda f: train(f, 1, use_dora=True)),
    "llama.cpp, head": ("llama.cpp", "LC005", lambda f: train(f, 1, head=True)),
    "llama.cpp, bias": ("llama.cpp", "LC006", lambda f: train(f, 1, lora_bias=True)),
    "llama.cpp, tokens": ("llama.cpp", "LC007", lambda f: tokens(plain(f))),
    "llama.cpp, experts": (
        "llama.cpp", "LC008", lambda f: train_everything(f, 1, [], target_parameters=["experts.down_proj"]),
    ),
    "llama.cpp, pissa": ("llama.cpp", "LC009", lambda f: change_config(plain(f), init_lora_weights="pissa")),
    "peft 0.10, tokens": ("peft:0.10", "PE003", lambda f: tokens(plain(f))),
    "peft 0.10, lora_bias": ("peft:0.10", "PE004", lambda f: train(f, 1, lora_bias=True)),
    "peft 0.10, new fields": ("peft:0.10", "PE001", plain),
    "peft 0.10, experts": (
        "peft:0.10", "PE002", lambda f: train_everything(f, 1, [], target_parameters=["experts.down_proj"]),
    ),
}  # fmt: skip


def second_file(folder: Path) -> Path:
    save_file({"x": torch.ones(1)}, folder / "more.safetensors")
    return folder


def tokens(folder: Path) -> Path:
    return change_config(folder, trainable_token_indices=[1])


def renamed(folder: Path, old: str, new: str) -> Path:
    path = folder / "adapter_model.safetensors"
    save_file({name.replace(old, new): tensor for name, tensor in load_file(path).items()}, path, {"format": "pt"})
    return folder


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES)
def test_a_server_is_known_to_mind(here: Registry, tmp_path: Path, case: str):
    profile, code, made = CASES[case]
    found = codes(here, made(tmp_path / "a"), profile)
    assert code in found
    assert found[code] == ("warning" if code == "LX001" else "error")


@pytest.mark.parametrize("profile", ["vllm", "sglang", "lorax", "tgi", "tensorrt-llm", "llama.cpp", "peft"])
def test_no_server_minds_a_plain_adapter(here: Registry, tmp_path: Path, profile: str):
    assert codes(here, plain(tmp_path / "a"), profile) == {}


@pytest.mark.parametrize(("profile", "code"), [("vllm", "VL007"), ("lorax", "LX009"), ("tgi", "TG009")])
def test_names_that_only_the_adapter_has_are_silently_wrong(here: Registry, tmp_path: Path, profile: str, code: str):
    adapter, base = train(tmp_path / "a", 1), write_base(tmp_path / "base")
    assert code not in codes(here, adapter, profile, base=str(base))
    (tmp_path / "wrapped").mkdir()
    tensors = {f"wrapper.{module}.weight": torch.ones(24, 20) for module in ("layers.0.q_proj", "layers.1.q_proj")}
    save_file(tensors, tmp_path / "wrapped" / "model.safetensors")
    assert code in codes(here, adapter, profile, base=str(tmp_path / "wrapped"))


def test_every_rule_of_every_profile_is_shown_to_find_something():
    shown = {code for _, code, _ in CASES.values()} | {"VL007", "LX009", "TG009"}
    every = {rule.code for name in known_profiles() for rule in read_profile(name.replace("-0", ":0")).rules}
    # TGI runs LoRAX's code: its rules are the same but for their codes.
    assert {code for code in every if not code.startswith("TG")} <= shown


def test_every_condition_is_asked_by_some_profile_or_by_a_users_own():
    asked = {rule.condition for name in known_profiles() for rule in read_profile(name.replace("-0", ":0")).rules}
    assert asked <= CONDITIONS.keys()
    assert CONDITIONS.keys() - asked == {"ranks_differ"}


def test_every_code_is_explained_and_stands_for_one_thing():
    every = [rule for name in known_profiles() for rule in read_profile(name.replace("-0", ":0")).rules]
    assert len({rule.code for rule in every}) == len(every)
    for rule in every:
        told = explain(rule.code)
        assert told.about
        assert "``" not in told.about
        assert told.remedy
        assert told.source
    assert explain("VL001").about == "vLLM 0.33 refuses it if: A module has a higher rank than 16 (max_lora_rank)."
    assert explain("VL003").about.endswith("accepted: classifier, score.")
    assert explain("SG005").about.endswith("accepted: none.")
    with pytest.raises(NotFoundError, match="there is no rule 'XX001'"):
        explain("XX001")


MINE = """
name = "mine"
title = "our server"
release = "3"
[parameters]
most = 4
[[rules]]
code = "MY001"
if = "rank_over"
value = "most"
effect = "refuses"
remedy = "ask Ada"
source = "the wiki"
[[rules]]
code = "MY002"
if = "ranks_differ"
effect = "slow"
remedy = "ask Ben"
source = "the wiki"
"""


def test_a_users_own_profile_works_the_same_way(here: Registry, tmp_path: Path):
    (tmp_path / "mine.toml").write_text(MINE)
    adapter = train(tmp_path / "a", 1, r=5, rank_pattern={"v_proj": 2})
    (report,) = here.check([str(adapter)], profiles=[str(tmp_path / "mine.toml")])
    told = {finding.code: finding.message for finding in report.findings}
    assert told["MY001"].startswith("our server 3 refuses it: rank 5")
    assert told["MY002"] == "our server 3 loads it, and is slower for it: ranks from 2 to 5"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[", "is not valid TOML"),
        ("name = 'x'", "is no profile: it lacks 'rules'"),
        (MINE.replace("rank_over", "rank_odd"), "there is no condition 'rank_odd'"),
        (MINE.replace("slow", "odd"), "there is no effect 'odd'"),
        (MINE.replace('value = "most"', 'value = "least"'), "is no profile: it lacks 'least'"),
    ],
)
def test_a_wrong_profile_is_one_clear_line(here: Registry, tmp_path: Path, text: str, said: str):
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(UsageError, match=said):
        here.check([str(SCIENCE)], profiles=[str(tmp_path / "mine.toml")])


def test_wrong_names_releases_and_parameters_are_refused(here: Registry):
    for profile, kind in (
        ("nobody", NotFoundError),
        ("vllm:0.1", NotFoundError),
        ("vllm:rank=4", UsageError),
        ("vllm:max_lora_rank=many", UsageError),
        ("./none.toml", NotFoundError),
    ):
        with pytest.raises(kind):
            here.check([str(SCIENCE)], profiles=[profile])


@pytest.mark.parametrize(("profile", "code"), [("lorax", "LX008"), ("tgi", "TG008")])
def test_layers_of_the_base_without_factors_are_found(here: Registry, tmp_path: Path, profile: str, code: str):
    """By the adapter alone one layer is all there is; the base says that there are two."""
    adapter = train(tmp_path / "a", 1, target_modules=["layers.0.q_proj", "layers.0.v_proj"])
    assert code not in codes(here, adapter, profile)
    assert code in codes(here, adapter, profile, base=str(write_base(tmp_path / "base")))


@pytest.mark.parametrize(("rank", "minded"), [(1, True), (8, False), (16, False), (24, True), (48, False)])
def test_ranks_that_the_kernels_take_are_not_padded(here: Registry, tmp_path: Path, rank: int, minded: bool):
    assert ("LX012" in codes(here, train(tmp_path / "a", 1, r=rank), "lorax")) is minded
    alone = train(tmp_path / "b", 1, r=rank, target_modules=["q_proj"])
    assert "LX012" not in codes(here, alone, "lorax"), "there is no next module type"


def test_ranks_that_vllm_can_be_started_with_are_those_of_rerank(here: Registry):
    assert tuple(read_profile("vllm").among["max_lora_rank"]) == SERVERS["vllm"].ranks
    with pytest.raises(UsageError, match=r"vLLM cannot be started with max_lora_rank 20: expected one of 1, 8, 16"):
        read_profile("vllm:max_lora_rank=20")
    with pytest.raises(UsageError, match="expected 1 or more"):
        read_profile("sglang:max_lora_rank=0")


def test_vllm_takes_what_lora_ga_trained(here: Registry, tmp_path: Path):
    adapter = change_config(plain(tmp_path / "a"), init_lora_weights="lora_ga")
    assert "VL005" not in codes(here, adapter, "vllm")
    assert "SG007" in codes(here, adapter, "sglang")


def test_a_head_that_vllm_takes(here: Registry, tmp_path: Path):
    adapter = change_config(plain(tmp_path / "a"), modules_to_save=["score"])
    change_tensors(adapter, {"base_model.model.score.weight": torch.ones(2, 576)})
    assert "VL003" not in codes(here, adapter, "vllm")
