"""What each server does to an adapter, from its profile: every rule is shown an adapter that it is about."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file, save_file

from deployments import SCIENCE, empty_home
from factories import change_config, change_tensors, copy, train, write_base
from loreg.checking.conditions import CONDITIONS
from loreg.checking.explain import explain
from loreg.checking.profile import list_profiles, read_profile
from loreg.errors import CheckFailedError, NotFoundError, UsageError
from loreg.merging.ranks import SERVERS, needs_one_rank, read_rank_rule
from loreg.registry import Registry, connect
from module_kinds import train as train_everything

Make = Callable[[Path], Path]


@pytest.fixture
def local_registry(tmp_path: Path) -> Registry:
    return connect(home=empty_home(tmp_path / "home"))


def codes(local_registry: Registry, adapter: Path, profile: str, **options: Any) -> dict[str, str]:
    (report,) = local_registry.check([str(adapter)], profiles=[profile], **options)
    return {f.code: f.severity for f in report.findings if f.code[:2] not in ("LR", "LB")}


def plain(folder: Path) -> Path:
    """An adapter that every server takes: one rank, one alpha, the four projections of attention."""
    return copy(SCIENCE, folder)


def pattern(folder: Path, **options: Any) -> Path:
    return train(folder, 1, **options)


def ranks_only_in_patterns(folder: Path) -> Path:
    """r is 64, and patterns bring every tensor down to 8."""
    return change_config(plain(folder), r=64, rank_pattern={"q_proj": 8, "v_proj": 8, "k_proj": 8, "o_proj": 8})


#: A profile, a rule of it, an adapter that the rule is about.
CASES: dict[str, tuple[str, str, Make]] = {
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
    "vllm, rank of the configuration alone": ("vllm", "VL001", ranks_only_in_patterns),
    "vllm, rank of a pattern for nothing": ("vllm", "VL001", lambda f: change_config(plain(f), rank_pattern={"x": 64})),
    "vllm, norm that nobody named": ("vllm", "VL003", lambda f: with_tensor(plain(f), "model.norm.weight")),
    "vllm, embeddings that nobody named": ("vllm", "VL003", lambda f: with_tensor(plain(f), "lm_head.weight")),
    "vllm, hidden biases": ("vllm", "VL004", lambda f: change_config(train(f, 1, bias="all"), bias="none")),
    "vllm, hidden biases of LoRA": (
        "vllm", "VL004", lambda f: change_config(train(f, 1, lora_bias=True), lora_bias=False),
    ),
    "vllm, an unknown start": ("vllm", "VL005", lambda f: change_config(plain(f), init_lora_weights="PiSSA")),
    "vllm, biases for nothing": ("vllm", "VL010", lambda f: change_config(plain(f), bias="all")),
    "vllm, null for biases": ("vllm", "VL010", lambda f: change_config(plain(f), bias=None)),
    "vllm, a head for nothing": (
        "vllm", "VL010", lambda f: change_config(head(f, "score"), modules_to_save=["score", "lm_head"]),
    ),
    "vllm, no targets": ("vllm", "VL011", lambda f: without_field(plain(f), "target_modules")),
    "vllm, copies of the base": (
        "vllm", "VL012", lambda f: with_tensor(plain(f), "transformer.wte.base_layer.weight"),
    ),
    "vllm, a head that nobody named": ("vllm", "VL013", lambda f: with_tensor(plain(f), "score.weight")),
    "sglang, rank": ("sglang:max_lora_rank=7", "SG001", plain),
    "sglang, rank of the configuration alone": (
        "sglang:max_lora_rank=32", "SG013", ranks_only_in_patterns,
    ),
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
    "ollama, alpha": ("ollama", "OL001", lambda f: change_config(plain(f), lora_alpha=12.5)),
    "ollama, rslora": ("ollama", "OL002", lambda f: train(f, 1, use_rslora=True)),
    "ollama, alphas": ("ollama", "OL003", lambda f: pattern(f, alpha_pattern={"v_proj": 2})),
    "ollama, dora": ("ollama", "OL004", lambda f: train(f, 1, use_dora=True)),
    "ollama, head": ("ollama", "OL005", lambda f: train(f, 1, head=True)),
    "ollama, bias": ("ollama", "OL006", lambda f: train(f, 1, lora_bias=True)),
    "ollama, tokens": ("ollama", "OL007", lambda f: tokens(plain(f))),
    "ollama, experts": (
        "ollama", "OL008", lambda f: train_everything(f, 1, [], target_parameters=["experts.down_proj"]),
    ),
    "ollama, pissa": ("ollama", "OL009", lambda f: change_config(plain(f), init_lora_weights="pissa")),
    "ollama, no alpha": ("ollama", "OL010", lambda f: without_field(plain(f), "lora_alpha")),
    "ollama, a type": ("ollama", "OL011", lambda f: train(f, 1, target_modules=["head", "q_proj"])),
    "sglang, no rank": ("sglang", "SG014", lambda f: without_field(plain(f), "r")),
    "llama.cpp, alora": ("llama.cpp", "LC011", lambda f: change_config(plain(f), alora_invocation_tokens=[1])),
    "llama.cpp, no alpha": ("llama.cpp", "LC012", lambda f: without_field(plain(f), "lora_alpha")),
    "transformers, dora": ("transformers", "TF001", lambda f: train(f, 1, use_dora=True)),
    "transformers, alora": ("transformers", "TF002", lambda f: change_config(plain(f), alora_invocation_tokens=[1])),
    "peft 0.10, ranks": ("peft:0.10", "PE005", lambda f: train(f, 1, rank_pattern={r"(layers\.0)\.q_proj": 2})),
    "peft 0.10, alphas": (
        "peft:0.10", "PE006", lambda f: train(f, 1, rank_pattern={"q_proj": 2}, alpha_pattern={"layers.0.q_proj": 2}),
    ),
    "peft 0.10, pissa": ("peft:0.10", "PE009", lambda f: change_config(plain(f), init_lora_weights="pissa")),
    "peft 0.10, starts": ("peft:0.10", "PE007", lambda f: change_config(plain(f), init_lora_weights="eva")),
    "llama.cpp, norm": ("llama.cpp", "LC010", lambda f: with_tensor(plain(f), "model.norm.weight")),
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


def with_tensor(folder: Path, name: str) -> Path:
    return change_tensors(folder, {f"base_model.model.{name}": torch.ones(3)})


def head(folder: Path, name: str) -> Path:
    return change_config(with_tensor(plain(folder), f"{name}.weight"), modules_to_save=[name])


def without_field(folder: Path, name: str) -> Path:
    path = folder / "adapter_config.json"
    document = json.loads(path.read_text())
    del document[name]
    path.write_text(json.dumps(document))
    return folder


def tokens(folder: Path) -> Path:
    return change_config(folder, trainable_token_indices=[1])


def renamed(folder: Path, old: str, new: str) -> Path:
    path = folder / "adapter_model.safetensors"
    save_file({name.replace(old, new): tensor for name, tensor in load_file(path).items()}, path, {"format": "pt"})
    return folder


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES)
def test_a_server_is_known_to_mind(local_registry: Registry, tmp_path: Path, case: str):
    profile, code, make = CASES[case]
    severities = codes(local_registry, make(tmp_path / "a"), profile)
    assert code in severities
    assert severities[code] == ("warning" if code == "LX001" else "error")


@pytest.mark.parametrize("profile", ["vllm", "sglang", "lorax", "tgi", "tensorrt-llm", "llama.cpp", "ollama", "peft"])
def test_no_server_minds_a_plain_adapter(local_registry: Registry, tmp_path: Path, profile: str):
    assert codes(local_registry, plain(tmp_path / "a"), profile) == {}


@pytest.mark.parametrize(("profile", "code"), [("vllm", "VL007"), ("lorax", "LX009"), ("tgi", "TG009")])
def test_names_that_only_the_adapter_has_are_silently_wrong(
    local_registry: Registry, tmp_path: Path, profile: str, code: str
):
    adapter, base = train(tmp_path / "a", 1), write_base(tmp_path / "base")
    assert code not in codes(local_registry, adapter, profile, base=str(base))
    (tmp_path / "wrapped").mkdir()
    tensors = {f"wrapper.{module}.weight": torch.ones(24, 20) for module in ("layers.0.q_proj", "layers.1.q_proj")}
    save_file(tensors, tmp_path / "wrapped" / "model.safetensors")
    assert code in codes(local_registry, adapter, profile, base=str(tmp_path / "wrapped"))


WRAPPED, DECODER = "model.language_model.", "model."


def llama(folder: Path, prefix: str = "model.", head: bool = True, more: tuple[str, ...] = ()) -> Path:
    """The names of a base like Llama: two layers, with the shapes of a real adapter of SmolLM2."""
    folder.mkdir()
    shapes = {"q_proj": (576, 576), "k_proj": (192, 576), "v_proj": (192, 576), "o_proj": (576, 576)}
    tensors = {
        f"{prefix}layers.{layer}.self_attn.{kind}.weight": torch.zeros(shape, dtype=torch.bfloat16)
        for layer in range(30)
        for kind, shape in shapes.items()
    }
    names = [f"{prefix}embed_tokens.weight", *(["lm_head.weight"] if head else []), *more]
    save_file(
        tensors | {name: torch.zeros(49152, 576, dtype=torch.bfloat16) for name in names}, folder / "model.safetensors"
    )
    return folder


class TestNames:
    """Servers neither add a prefix nor take one away: what is called otherwise is dropped, the base answers alone."""

    CODES: ClassVar = {
        "vllm": "VL007",
        "lorax": "LX009",
        "peft": "PE021",
        "peft:0.10": "PE008",
        "transformers": "TF003",
    }

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("model.layers", "model.language_model.layers"),
            ("model.layers", "language_model.model.layers"),
            ("model.layers", "layers"),
        ],
    )
    @pytest.mark.parametrize("server", ["vllm", "lorax", "peft", "peft:0.10", "transformers"])
    def test_a_prefix_more_or_less_is_wrong_and_mended(
        self, local_registry: Registry, tmp_path: Path, old: str, new: str, server: str
    ):
        base, code = str(llama(tmp_path / "base")), self.CODES[server]
        if server == "transformers" and new == "layers":
            return  # load_adapter adds the prefix of the class by itself
        assert code not in codes(local_registry, plain(tmp_path / "right"), server, base=base)
        wrong = renamed(plain(tmp_path / "a"), old, new)
        assert code in codes(local_registry, wrong, server, base=base)
        local_registry.export(str(wrong), server, tmp_path / "out", base=base)
        right = load_file(SCIENCE / "adapter_model.safetensors").keys()
        assert load_file(tmp_path / "out" / "adapter_model.safetensors").keys() == right

    def test_a_wrapper_is_right_where_the_base_has_towers(self, local_registry: Registry, tmp_path: Path):
        base = llama(tmp_path / "base", WRAPPED, more=("model.visual.blocks.0.attn.qkv.weight",))
        adapter = renamed(plain(tmp_path / "a"), DECODER + "layers", WRAPPED + "layers")
        assert codes(local_registry, adapter, "vllm", base=str(base)) == {}

    @pytest.mark.parametrize("has_head", [True, False])
    def test_a_head_is_right_tied_or_not(self, local_registry: Registry, tmp_path: Path, has_head: bool):
        adapter = plain(tmp_path / "a")
        factors = {"A": torch.ones(8, 576), "B": torch.ones(49152, 8)}
        change_tensors(adapter, {f"base_model.model.lm_head.lora_{part}.weight": t for part, t in factors.items()})
        base = llama(tmp_path / "base", head=has_head)
        assert codes(local_registry, adapter, "vllm", base=str(base)) == {}
        assert codes(local_registry, adapter, "llama.cpp", base=str(base)).keys() == (set() if has_head else {"LC013"})

    def test_two_names_of_one_module_are_not_exported(self, local_registry: Registry, tmp_path: Path):
        adapter = plain(tmp_path / "a")
        tensors = load_file(adapter / "adapter_model.safetensors")
        change_tensors(
            adapter, {n.replace("model.layers", "layers"): t for n, t in tensors.items() if ".layers.3." in n}
        )
        with pytest.raises(CheckFailedError, match=r"are one module of the base, model\.layers\.3\.self_attn"):
            local_registry.export(str(adapter), "vllm", tmp_path / "out", base=str(llama(tmp_path / "base")))


@pytest.mark.parametrize(
    ("case", "fields"),
    [
        ("vllm, rank of the configuration alone", {"r": 8, "rank_pattern": None}),
        ("vllm, rank of a pattern for nothing", {"r": 8, "rank_pattern": None}),
        ("sglang, rank of the configuration alone", {"r": 8}),
        ("vllm, biases for nothing", {"bias": "none"}),
        ("vllm, null for biases", {"bias": "none"}),
        ("vllm, a head for nothing", {"modules_to_save": ["score"]}),
        ("vllm, a head that nobody named", {"modules_to_save": ["score"]}),
        ("vllm, no targets", {"target_modules": ["q_proj", "v_proj"]}),
    ],
)
def test_a_configuration_that_says_too_much_or_too_little_is_mended(
    local_registry: Registry, tmp_path: Path, case: str, fields: dict[str, Any]
):
    server, code, make = CASES[case]
    adapter = make(tmp_path / "a")
    result = local_registry.export(str(adapter), server, tmp_path / "out")
    document = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert {name: document.get(name) for name in fields} == fields
    assert code not in codes(local_registry, tmp_path / "out", server)
    assert result.fitted.moved == 0
    before, after = (load_file(folder / "adapter_model.safetensors") for folder in (adapter, tmp_path / "out"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_every_rule_of_every_profile_is_shown_to_find_something():
    shown = {code for _, code, _ in CASES.values()} | {"VL007", "LX009", "TG009", "PE008", "PE021", "TF003", "LC013"}
    all_codes = {rule.code for name in list_profiles() for rule in read_profile(name.replace("-0", ":0")).rules}
    # TGI runs LoRAX's code: its rules are the same but for their codes.
    assert {code for code in all_codes if not code.startswith("TG")} <= shown


def test_every_condition_is_asked_by_some_profile_or_by_a_users_own():
    conditions = {rule.condition for name in list_profiles() for rule in read_profile(name.replace("-0", ":0")).rules}
    assert conditions <= CONDITIONS.keys()
    assert CONDITIONS.keys() - conditions == {"ranks_differ"}


def test_every_code_is_explained_and_stands_for_one_thing():
    rules = [rule for name in list_profiles() for rule in read_profile(name.replace("-0", ":0")).rules]
    assert len({rule.code for rule in rules}) == len(rules)
    for rule in rules:
        explanation = explain(rule.code)
        assert explanation.about
        assert "``" not in explanation.about
        condition = explanation.about.partition(" if ")[2]
        assert condition[0].islower() or condition.split()[0].isupper(), explanation.about
        assert explanation.remedy
        assert explanation.source
    over = "r or a rank in rank_pattern is over 16 (max_lora_rank), whatever ranks the tensors have."
    assert explain("VL001").about == f"vLLM 0.33 refuses an adapter if {over}"
    assert explain("VL002").about == "vLLM 0.33 refuses an adapter if it has DoRA magnitudes."
    assert explain("VL003").about.endswith("accepted: classifier, score.")
    assert explain("SG005").about.endswith("named in modules_to_save or not.")
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


def test_a_users_own_profile_works_the_same_way(local_registry: Registry, tmp_path: Path):
    (tmp_path / "mine.toml").write_text(MINE)
    adapter = train(tmp_path / "a", 1, r=5, rank_pattern={"v_proj": 2})
    (report,) = local_registry.check([str(adapter)], profiles=[str(tmp_path / "mine.toml")])
    messages = {finding.code: finding.message for finding in report.findings}
    assert messages["MY001"].startswith("our server 3 refuses it: rank 5")
    assert messages["MY002"] == "our server 3 loads it, and is slower for it: ranks from 2 to 5"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[", "is not valid TOML"),
        (f"name = {'9' * 5000}", "is not valid TOML"),
        (f"name = {'[' * 100_000}", "is not valid TOML"),
        ("title = 'x'\nrelease = '1'\nrules = []", "is no profile: it lacks 'name'"),
        (MINE.replace("rank_over", "rank_odd"), "there is no condition 'rank_odd'"),
        (MINE.replace("slow", "odd"), r"rules\[1\]\.effect is 'odd', expected refuses, wrong or slow"),
        (MINE.replace('value = "most"', 'value = "least"'), "MY001 takes 'least', which is no parameter"),
        (MINE.replace('value = "most"', ""), "MY001: the value of rank_over is None, expected a whole number"),
        (
            MINE.replace('value = "most"', 'value = ["a"]'),
            r"MY001: the value of rank_over is \['a'\], expected",
        ),
        (MINE.replace("most = 4", "most = '4'"), "parameters is {'most': '4'}, expected an object of whole numbers"),
        (MINE.replace("remedy", "remedies"), r"rules\[0\]\.remedies is not known; there are code, effect, if, message"),
        (MINE.replace('release = "3"', "release = 0.10"), r"release is 0\.1, expected text"),
        (MINE.replace('"rank_over"', "1"), r"rules\[0\]\.if is 1, expected text"),
        (MINE.replace("[[rules]]", "[[rule]]"), "rule is not known"),
        ("reads = 1\n" + MINE, "reads is 1, expected a list"),
        ("rules = 1", "rules is 1, expected a list"),
    ],
)
def test_a_wrong_profile_is_one_clear_line(local_registry: Registry, tmp_path: Path, text: str, message: str):
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(UsageError, match=message):
        local_registry.check([str(SCIENCE)], profiles=[str(tmp_path / "mine.toml")])


def test_wrong_names_releases_and_parameters_are_refused(local_registry: Registry):
    for profile, kind in (
        ("nobody", NotFoundError),
        ("vllm:0.1", NotFoundError),
        ("vllm:rank=4", UsageError),
        ("vllm:max_lora_rank=many", UsageError),
        ("./none.toml", NotFoundError),
    ):
        with pytest.raises(kind):
            local_registry.check([str(SCIENCE)], profiles=[profile])


@pytest.mark.parametrize(("profile", "code"), [("lorax", "LX008"), ("tgi", "TG008")])
def test_layers_of_the_base_without_factors_are_found(
    local_registry: Registry, tmp_path: Path, profile: str, code: str
):
    """By the adapter alone one layer is all there is; the base says that there are two."""
    adapter = train(tmp_path / "a", 1, target_modules=["layers.0.q_proj", "layers.0.v_proj"])
    assert code not in codes(local_registry, adapter, profile)
    assert code in codes(local_registry, adapter, profile, base=str(write_base(tmp_path / "base")))


@pytest.mark.parametrize(("rank", "minded"), [(1, True), (8, False), (16, False), (24, True), (48, False)])
def test_ranks_that_the_kernels_take_are_not_padded(local_registry: Registry, tmp_path: Path, rank: int, minded: bool):
    assert ("LX012" in codes(local_registry, train(tmp_path / "a", 1, r=rank), "lorax")) is minded
    alone = train(tmp_path / "b", 1, r=rank, target_modules=["q_proj"])
    assert "LX012" not in codes(local_registry, alone, "lorax"), "there is no next module type"


def test_which_servers_need_one_rank_for_all_modules():
    assert {name: needs_one_rank(read_profile(name)) for name in SERVERS} == {
        "vllm": False,
        "sglang": True,
        "lorax": True,
        "tensorrt-llm": False,
    }


def test_ranks_that_vllm_can_be_started_with_are_those_of_rerank():
    for rank in (1, 8, 16, 32, 64, 128, 256, 320, 512):
        assert read_rank_rule({"fit": f"vllm:{rank}"}).max_rank == rank
    with pytest.raises(UsageError, match=r"vllm cannot be started with rank 20: expected one of 1, 8, 16") as error:
        read_rank_rule({"fit": "vllm:20"})
    assert error.value.hint == "--fit vllm:16"
    with pytest.raises(UsageError, match=r"vLLM cannot be started with max_lora_rank 20: expected one of 1, 8, 16"):
        read_profile("vllm:max_lora_rank=20")
    with pytest.raises(UsageError, match="expected 1 or more"):
        read_profile("sglang:max_lora_rank=0")


def test_lora_ga_trains_an_adapter_for_the_unchanged_base(local_registry: Registry, tmp_path: Path):
    adapter = change_config(plain(tmp_path / "a"), init_lora_weights="lora_ga")
    assert "VL005" not in codes(local_registry, adapter, "vllm")
    for server in ("sglang", "lorax", "llama.cpp"):  # they use the base as it is, and so does PEFT
        assert codes(local_registry, adapter, server) == {}


def test_a_head_that_vllm_takes(local_registry: Registry, tmp_path: Path):
    adapter = change_config(plain(tmp_path / "a"), modules_to_save=["score"])
    change_tensors(adapter, {"base_model.model.score.weight": torch.ones(2, 576)})
    assert "VL003" not in codes(local_registry, adapter, "vllm")
