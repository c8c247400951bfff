"""``base upgrade --probe-set``: losses before and after are those of transformers with PEFT's adapter on each base."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from deployments import Loreg, empty_home
from loreg.errors import UsageError
from loreg.registry import Registry, connect
from tiny_models import LLAMA, write_adapter, write_model

TEXTS = {"up": ["w1 w2 w3 w4 w5", "w7 w8 w9"], "down": ["w9 w8 w7 w6", "w30 w29 w28 w27 w26"]}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An old base, adapters of it, and as the new base the old one with one of them baked in."""
    folder = tmp_path_factory.mktemp("models")
    old = write_model(folder / "old", LlamaForCausalLM, LLAMA)
    for seed, name in enumerate(("up", "down", "dora"), 1):
        write_adapter(folder / name, old, seed, r=4, target_modules=["q_proj"], use_dora=name == "dora")
    baked = write_adapter(folder / "baked", old, 9, r=2, target_modules=["q_proj", "up_proj"])
    with connect(home=empty_home(folder / "home")) as registry:
        registry.bake([str(baked)], old, folder / "new")
    return folder


@pytest.fixture
def probed(models: Path, tmp_path: Path) -> Registry:
    registry = connect(home=empty_home(tmp_path / "home"))
    for name in ("up", "down", "dora"):
        tasks = ["up"] if name == "dora" else []  # of the others the name says it
        registry.push(models / name, f"team/{name}", base=models / "old", tasks=tasks)
    return registry


def write_probe_set(folder: Path) -> Path:
    lines = [json.dumps({"task": task, "text": text}) for task, texts in TEXTS.items() for text in texts]
    (folder / "probe.jsonl").write_text("\n".join(lines))
    return folder / "probe.jsonl"


def expected_loss(base: Path, adapter: Path | None, texts: list[str]) -> float:
    """The mean over all predicted tokens, by transformers and PEFT."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, adapter)
    tokenizer = AutoTokenizer.from_pretrained(base)
    total, count = 0.0, 0
    for text in texts:
        ids = tokenizer(text, return_tensors="pt").input_ids
        with torch.no_grad():
            total += float(model.eval()(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1)
        count += ids.shape[1] - 1
    return total / count


def test_losses_are_those_of_peft_on_both_bases(probed: Registry, models: Path, tmp_path: Path):
    report = probed.upgrade_base(models / "old", models / "new", probe_set=write_probe_set(tmp_path))
    measured = {adapter.version.adapter.name: adapter.losses for adapter in report.adapters if adapter.losses}
    assert measured.keys() == {"up", "down"}
    for name, (loss,) in measured.items():
        assert loss.task == name
        bases = (models / "old", models / "new")
        alone = [expected_loss(base, None, TEXTS[loss.task]) for base in bases]
        adapted = [expected_loss(base, models / name, TEXTS[loss.task]) for base in bases]
        assert [loss.old_base, loss.new_base] == pytest.approx(alone, rel=1e-4)
        assert [loss.before, loss.after] == pytest.approx(adapted, rel=1e-4)


def test_dora_which_is_more_than_factors_is_named_and_not_guessed(probed: Registry, models: Path, tmp_path: Path):
    report = probed.upgrade_base(models / "old", models / "new", probe_set=write_probe_set(tmp_path))
    assert [problem.ref for problem in report.unreadable] == ["team/dora:v1"]
    assert "DoRA" in report.unreadable[0].reason


def test_one_file_of_plain_text_is_for_all(probed: Registry, models: Path, tmp_path: Path):
    (tmp_path / "texts.txt").write_text("w1 w2 w3\n\nw9 w8 w7 w6\n")
    report = probed.upgrade_base(models / "old", models / "new", probe_set=tmp_path / "texts.txt")
    measured = {adapter.version.adapter.name: [loss.task for loss in adapter.losses] for adapter in report.adapters}
    assert measured == {"up": ["texts"], "down": ["texts"], "dora": []}


def test_an_adapter_without_a_text_is_named(probed: Registry, models: Path, tmp_path: Path):
    lines = [json.dumps({"task": task, "text": text}) for task in ("up", "left") for text in TEXTS["up"]]
    (tmp_path / "probe.jsonl").write_text("\n".join(lines))
    report = probed.upgrade_base(models / "old", models / "new", probe_set=tmp_path / "probe.jsonl")
    assert [problem.ref for problem in report.unreadable if "no text" in problem.reason] == ["team/down:v1"]


def test_a_probe_set_needs_the_weights_of_both(probed: Registry, models: Path, tmp_path: Path):
    probed.bases.add(models / "new", ["next"])
    with pytest.raises(UsageError, match="a probe set needs both models"):
        probed.upgrade_base(models / "old", "next", probe_set=write_probe_set(tmp_path))


def test_the_command_prints_losses_and_what_is_left_of_the_gain(local: Loreg, models: Path, tmp_path: Path):
    with connect(home=tmp_path / "home") as registry:
        registry.push(models / "up", "team/up", base=models / "old")
    printed = local("base", "upgrade", models / "old", models / "new", "--probe-set", write_probe_set(tmp_path))
    before = expected_loss(models / "old", models / "up", TEXTS["up"])
    assert f"up {before:.3f} → " in printed.stdout
