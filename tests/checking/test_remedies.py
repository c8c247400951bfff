"""No remedy leads in a circle: the command that a rule names takes the adapter that breaks the rule.

Rules about servers are walked with adapters that PEFT trained on real tiny models, one for every condition.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    LlamaForSequenceClassification,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedModel,
    ViTConfig,
    ViTForImageClassification,
)

from cases.building import PREFIX, VOCABULARY, WEIGHTS, gpt2, llama, renamed, save, trained, write
from checking.corpus import ITSELF, UNREADABLE
from deployments import empty_home
from factories import change_config
from loreg.checking import policy
from loreg.checking.profile import list_profiles, read_profile
from loreg.checking.rules import RULES
from loreg.entities import MergeOptions
from loreg.registry import Registry, connect

_COMMAND = re.compile(r"loreg (?!reads)(\w+)(?: (\w+))?")
#: What a person does elsewhere, by the first words of a remedy or of its second half.
_ACTIONS = (
    "save", "train", "start", "set", "use", "serve", "mend", "remove", "rename", "name", "gather", "write", "push",
    "load", "the two files", "adapter_config.json is", "was it trained?", "was the learning rate",
    "model.save_pretrained", "loreg stores the adapter as it is", "loreg bake refuses",
)  # fmt: skip


@dataclass(frozen=True)
class Trained:
    """An adapter that breaks a rule, the model that it was trained on, and what its training started from."""

    adapter: Path
    base: Path
    initial: Path | None = None


Make = Callable[[Path], Trained]


def on(model: Callable[[], PreTrainedModel], **options: Any) -> Make:
    """Of an adapter on this model."""

    def make(folder: Path) -> Trained:
        return Trained(save(trained(model(), **options), folder / "a"), save(model(), folder / "base"))

    return make


def then(make: Make, change: Callable[[Path], object]) -> Make:
    """Of the same adapter, changed."""

    def changed(folder: Path) -> Trained:
        made = make(folder)
        change(made.adapter)
        return made

    return changed


def pissa(folder: Path) -> Trained:
    model = llama()
    base = save(model, folder / "base")
    peft = trained(model, init_lora_weights="pissa", size=0)
    initial = save(peft, folder / "initial")
    with torch.no_grad():
        for name, parameter in peft.named_parameters():
            if "lora_" in name:
                parameter.add_(torch.randn_like(parameter) * 0.01)
    return Trained(save(peft, folder / "a"), base, initial)


def without(folder: Path, name: str) -> None:
    path = folder / "adapter_config.json"
    document = json.loads(path.read_text())
    del document[name]
    path.write_text(json.dumps(document))


def whole_norm(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    write(folder, {**tensors, f"{PREFIX}model.norm.weight": torch.full((32,), 1.5)})
    change_config(folder, modules_to_save=["norm"])


def mixtral() -> PreTrainedModel:
    torch.manual_seed(1)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    return MixtralForCausalLM(MixtralConfig(vocab_size=VOCABULARY, num_key_value_heads=4, num_local_experts=4, **sizes))


def vit() -> PreTrainedModel:
    torch.manual_seed(1)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    return ViTForImageClassification(ViTConfig(image_size=16, patch_size=8, **sizes))


def biased() -> PreTrainedModel:
    return llama(attention_bias=True)


def scoring() -> PreTrainedModel:
    return LlamaForSequenceClassification(llama().config)


def with_copies_of_the_base(folder: Path) -> Trained:
    peft = trained(gpt2(), ["wte", "c_attn"])
    return Trained(save(peft, folder / "a", save_embedding_layers=True), save(gpt2(), folder / "base"))


def dora_on_single_experts(folder: Path) -> Trained:
    """As transformers 4 had Mixtral's experts, each a module of its own; its files have them so still."""
    experts = nn.ModuleList(nn.ModuleDict({"w1": nn.Linear(32, 48, bias=False)}) for _ in range(4))
    layers = nn.ModuleList(nn.ModuleDict({"block_sparse_moe": nn.ModuleDict({"experts": experts})}) for _ in range(2))
    model = nn.ModuleDict({"model": nn.ModuleDict({"layers": layers})})
    peft = trained(model, targets=["w1"], use_dora=True, task_type=None)
    return Trained(save(peft, folder / "a"), save(mixtral(), folder / "base"))


HEAD = on(llama, modules_to_save=["lm_head"])
#: Trained on the model without its head, as AutoModel loads it.
WITHOUT_A_PREFIX = then(on(llama), lambda f: renamed(f, lambda n: n.replace(f"{PREFIX}model.", PREFIX)))
#: An adapter for every condition of the profiles, with a model that it can be baked into.
CONDITIONS: dict[str, Make] = {
    "rank_over": on(llama, r=130),
    "configured_rank_over": on(llama, r=130),
    "r_over": on(llama, r=130),
    "scale_is_rslora": on(llama, use_rslora=True),
    "scales_are_not_global": on(llama, alpha_pattern={"v_proj": 3}),
    "has_alpha_pattern": on(llama, alpha_pattern={"v_proj": 3}),
    "alpha_is_no_integer": on(llama, lora_alpha=7.5),
    "ranks_differ": on(llama, rank_pattern={"v_proj": 2}),
    "ranks_differ_within_a_type": on(llama, rank_pattern={"layers.0.self_attn.v_proj": 2}),
    "rank_is_padded": on(llama, r=4),
    "is_dora": on(llama, use_dora=True),
    "has_magnitudes_on": on(llama, use_dora=True),
    "has_whole_modules": HEAD,
    "has_whole_modules_but_norms": HEAD,
    "has_whole_norms": then(on(llama), whole_norm),
    "has_whole_modules_unnamed": then(
        on(scoring, task_type="SEQ_CLS"), lambda f: change_config(f, modules_to_save=None)
    ),
    "has_biases": on(biased, bias="all"),
    "has_tokens": on(llama, trainable_token_indices=[1, 2]),
    "has_experts": on(mixtral, targets=["q_proj"], target_parameters=["experts.gate_up_proj", "experts.down_proj"]),
    "changed_the_base": pissa,
    "starts_otherwise_than": pissa,
    "type_is_missing_in_a_layer": on(llama, targets=["layers.0.self_attn.q_proj", "v_proj"]),
    "names_are_not_the_bases": WITHOUT_A_PREFIX,
    "has_embeddings": on(llama, targets=["embed_tokens", "q_proj"]),
    "has_another_safetensors": then(on(llama), lambda f: save_file({"x": torch.ones(1)}, f / "more.safetensors")),
    "has_one_without_the_other": on(llama, targets=["q_proj"]),
    "targets_are_a_pattern": on(llama, targets=r".*\.(q|v)_proj"),
    "touches_a_type_outside": on(llama, targets=["lm_head", "q_proj"]),
    "has_convolutions": on(vit, targets=["projection"], task_type=None),
    "sets_a_field": on(llama, alora_invocation_tokens=[1, 2]),
    "names_what_is_not_there": then(on(llama), lambda f: change_config(f, bias="all")),
    "lacks_a_field": then(on(llama), lambda f: without(f, "target_modules")),
    "has_copies_of_the_base": with_copies_of_the_base,
    "has_field_outside": on(llama),
    "touches_a_tied_matrix": on(partial(llama, tied=True), targets=["lm_head", "q_proj"]),
    "patterns_mean_another_rank": on(llama, rank_pattern={"^model.layers.0.self_attn.q_proj": 2}),
    "patterns_mean_another_alpha": on(llama, alpha_pattern={"^model.layers.0.self_attn.q_proj": 3}),
    "names_have_another_prefix": WITHOUT_A_PREFIX,
    "names_have_a_prefix_more": then(
        on(llama), lambda f: renamed(f, lambda n: n.replace(f"{PREFIX}model.", f"{PREFIX}policy.model."))
    ),
}  # fmt: skip
#: The same for single rules, which ask their condition for something else.
OF_RULES: dict[str, Make] = {
    "LC012": then(on(llama), lambda f: without(f, "lora_alpha")),
    "OL010": then(on(llama), lambda f: without(f, "lora_alpha")),
    "TF001": on(llama, use_dora=True),
    "PE004": on(biased, lora_bias=True),
    "PE007": then(on(llama), lambda f: change_config(f, init_lora_weights="eva")),
    "TR006": on(llama, modules_to_save=["norm"]),
    "TR007": dora_on_single_experts,
}
RULES_OF_PROFILES = [(name, rule.code) for name in list_profiles() for rule in read_profile(name).rules]


@pytest.fixture
def local_registry(tmp_path: Path) -> Registry:
    return connect(home=empty_home(tmp_path / "home"))


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Trained]:
    """One of each, made when it is first asked for."""
    made: dict[str, Trained] = {}

    def adapter(name: str) -> Trained:
        if name not in made:
            made[name] = (OF_RULES.get(name) or CONDITIONS[name])(tmp_path_factory.mktemp(name))
        return made[name]

    return adapter


def commands(remedy: str) -> Iterator[tuple[str, str]]:
    """The commands of loreg that a remedy tells to run."""
    for part in re.split(r"[;,]| or ", remedy):
        if not any(part.strip().startswith(action) for action in _ACTIONS if action.startswith("loreg")):
            yield from _COMMAND.findall(part)


def is_an_action(remedy: str) -> bool:
    return any(part.strip().startswith(_ACTIONS) for part in re.split(r"[;:] | or ", remedy))


def carry_out(local_registry: Registry, command: tuple[str, str], profile: str, subject: Trained, target: Path) -> None:
    """Run the command on the adapter; it raises if it does not take it."""
    verb, adapter = command[0], str(subject.adapter)
    if verb == "export":
        local_registry.export(adapter, profile, target, base=str(subject.base))
    elif verb == "bake":
        local_registry.bake([adapter], base=str(subject.base), folder=target)
    elif verb == "merge":
        local_registry.merge([adapter], MergeOptions(weights=[1.0], initial=[str(subject.initial)]), folder=target)
    elif verb == "rerank":
        local_registry.rerank(adapter, rank=8, folder=target)
    elif verb == "push":
        local_registry.push(adapter, "team/a", base=str(subject.base))
    elif verb == "tag":
        local_registry.push(adapter, "team/a")
        local_registry.tag("team/a", "prod")
    elif command == ("base", "match"):
        local_registry.bases.add(str(subject.base))
        local_registry.bases.match(adapter)
    elif command == ("metric", "add"):
        local_registry.push(adapter, "team/a")
        local_registry.add_metrics("team/a", ["accuracy=0.9"])
    else:
        pytest.fail(f"a remedy names loreg {' '.join(command)}, which nobody knows")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("profile", "code"), RULES_OF_PROFILES)
def test_the_remedy_of_a_profile_takes_the_adapter(
    local_registry: Registry, tmp_path: Path, adapters: Callable[[str], Trained], profile: str, code: str
):
    rules = {rule.code: rule for rule in read_profile(profile).rules}
    rule = rules[code]
    subject = adapters(code if code in OF_RULES else rule.condition)
    text = f"{profile}:{read_profile(profile).release}" if code.startswith("PE") else profile
    (report,) = local_registry.check([str(subject.adapter)], base=str(subject.base), profiles=[text])
    assert code in {finding.code for finding in report.findings}, f"{rule.condition} does not break {code}"
    remedy_commands = list(commands(rule.remedy))
    assert remedy_commands or is_an_action(rule.remedy), rule.remedy
    for number, command in enumerate(remedy_commands):
        carry_out(local_registry, command, text, subject, tmp_path / f"out-{number}")
        if command[0] == "export":
            (again,) = local_registry.check([str(tmp_path / f"out-{number}")], base=str(subject.base), profiles=[text])
            assert code not in {finding.code for finding in again.findings}


@pytest.mark.parametrize("code", sorted(RULES))
def test_the_remedy_of_a_rule_takes_the_adapter(local_registry: Registry, tmp_path: Path, code: str):
    remedy = RULES[code].remedy
    remedy_commands = list(commands(remedy))
    assert remedy_commands or is_an_action(remedy), remedy
    case = next((case for case in ITSELF.values() if case.codes == code), None)
    for number, command in enumerate(remedy_commands):
        if case is None:  # LB: an adapter on its own base; LR017: one that is pushed twice
            subject = on(llama)(tmp_path)
        else:
            shutil.copytree(case.start, tmp_path / "a")
            case.breaking(tmp_path / "a")
            subject = Trained(tmp_path / "a", save(llama(), tmp_path / "base"))
        if command[0] == "export":
            local_registry.export(str(subject.adapter), "peft", tmp_path / f"out-{number}")
            (again,) = local_registry.check([str(tmp_path / f"out-{number}")])
            assert code not in {finding.code for finding in again.findings}
        elif command[0] == "push" and case is not None:
            local_registry.push(str(subject.adapter), "team/a")
        else:
            carry_out(local_registry, command, "peft", subject, tmp_path / f"out-{number}")


@pytest.mark.parametrize("code", sorted(policy.RULES))
def test_the_remedy_of_a_policy_takes_the_adapter(local_registry: Registry, tmp_path: Path, code: str):
    remedy = policy.RULES[code].remedy
    remedy_commands = list(commands(remedy))
    assert remedy_commands or is_an_action(remedy), remedy
    for number, command in enumerate(remedy_commands):
        carry_out(local_registry, command, "peft", on(llama)(tmp_path / str(number)), tmp_path / f"out-{number}")


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_cannot_be_read_has_a_way_out(local_registry: Registry, tmp_path: Path, name: str):
    case = UNREADABLE[name]
    shutil.copytree(case.start, tmp_path / "a")
    case.breaking(tmp_path / "a")
    (report,) = local_registry.check([str(tmp_path / "a")])
    for finding in report.findings:
        assert finding.remedy
        assert all(command[0] in ("push", "check") for command in commands(finding.remedy)), finding.remedy


def test_every_condition_has_an_adapter():
    assert {rule.condition for name in list_profiles() for rule in read_profile(name).rules} <= CONDITIONS.keys()
