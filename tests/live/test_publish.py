"""What a trainer holds in memory becomes a version: the one that PEFT's own files would have become."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from deployments import SCIENCE
from loreg.errors import UnavailableError, UsageError
from loreg.plugins.trainer import PublishCallback
from loreg.registry import Registry, connect

TINY = LlamaConfig(
    vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, bos_token_id=1
)


def model(name: str = "default", **options: Any) -> PeftModel:
    torch.manual_seed(1)
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False, **options)
    return get_peft_model(LlamaForCausalLM(TINY), config, adapter_name=name)


@pytest.fixture
def home(tmp_path: Path) -> Registry:
    return connect(home=tmp_path / "home")


@pytest.mark.parametrize("name", ["default", "policy"])
@pytest.mark.parametrize("options", [{}, {"use_dora": True}, {"modules_to_save": ["lm_head"]}])
def test_it_is_what_peft_writes(home: Registry, tmp_path: Path, name: str, options: dict[str, Any]):
    trained = model(name, **options)
    published = home.publish(trained, "team/published", step=7, aliases=["live"])
    trained.save_pretrained(tmp_path / "saved")
    folder = tmp_path / "saved" if name == "default" else tmp_path / "saved" / name
    (folder / "README.md").unlink(missing_ok=True)
    pushed = home.push(folder, "team/pushed")
    assert published.version.digest == pushed.version.digest
    assert (dict(published.version.labels), published.version.aliases) == ({"step": "7"}, ("live",))


def test_of_several_adapters_one_is_named(home: Registry):
    trained = model("policy")
    trained.add_adapter("reference", LoraConfig(r=2, target_modules=["q_proj"]))
    assert home.publish(trained, "team/reference", adapter="reference").version.facts.rank_max == 2
    assert home.publish(trained, "team/policy", adapter="policy").version.facts.rank_max == 4
    with pytest.raises(UsageError, match="several adapters: it has policy, reference"):
        home.publish(trained, "team/x")
    with pytest.raises(UsageError, match="no adapter 'other'"):
        home.publish(trained, "team/x", adapter="other")


def test_tensors_that_were_gathered_are_taken_instead_of_the_models(home: Registry):
    trained = model()
    gathered = {name: tensor + 1 for name, tensor in get_peft_model_state_dict(trained).items()}
    whole = {name.replace(".weight", ".default.weight") if "lora_" in name else name: t for name, t in gathered.items()}
    first = home.publish(trained, "team/policy").version.digest
    assert home.publish(trained, "team/policy", state_dict=whole).version.digest != first


def test_what_is_said_of_a_version_is_recorded(home: Registry, tmp_path: Path):
    LlamaForCausalLM(TINY).save_pretrained(tmp_path / "base")
    version = home.publish(
        model(),
        "team/policy",
        step=3,
        base=str(tmp_path / "base"),
        metrics=["reward=0.5@arena"],
        labels={"run": "a"},
        message="the third",
    ).version
    assert dict(version.labels) == {"step": "3", "run": "a"}
    assert [metric.exact for metric in version.metrics] == ["reward=0.5@arena"]
    assert (version.message, version.base is not None) == ("the third", True)


def test_a_folder_is_published_as_it_is(home: Registry):
    assert home.publish(SCIENCE, "team/science", step=3).version.digest == home.push(SCIENCE, "x").version.digest
    with pytest.raises(UsageError, match="this is a folder"):
        home.publish(SCIENCE, "team/science", adapter="default")
    with pytest.raises(UsageError, match="LlamaForCausalLM is no model of PEFT"):
        home.publish(LlamaForCausalLM(TINY), "team/x")  # type: ignore[arg-type]


def test_files_are_written_in_memory_and_are_gone_afterwards(
    home: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "missing"))
    monkeypatch.setattr("tempfile.tempdir", None)
    memory = tmp_path / "memory"
    memory.mkdir()
    monkeypatch.setattr("loreg.verbs.publish._IN_MEMORY", memory)
    written = []
    trained = model()
    save = trained.save_pretrained

    def write(folder: str, **options: Any) -> None:
        written.append(folder)
        save(folder, **options)

    monkeypatch.setattr(trained, "save_pretrained", write)
    assert home.publish(trained, "team/policy").created
    assert [Path(folder).parent for folder in written] == [memory]
    assert list(memory.iterdir()) == []


def train(callback: PublishCallback, folder: Path, steps: int = 6, **options: Any) -> PeftModel:
    rows = [{"input_ids": torch.tensor([1, 2, 3, 4]), "labels": torch.tensor([1, 2, 3, 4])} for _ in range(4)]
    arguments = TrainingArguments(
        folder, max_steps=steps, use_cpu=True, report_to=[], disable_tqdm=True, learning_rate=0.1, **options
    )
    trained = model()
    Trainer(trained, arguments, train_dataset=rows, callbacks=[callback]).train()
    return trained


def test_a_trainer_publishes_every_so_many_steps_and_at_the_end(home: Registry, tmp_path: Path):
    trained = train(PublishCallback("team/policy", publish_steps=4, alias="live", registry=home), tmp_path / "run")
    versions = home.versions("team/policy").items
    assert [(version.number, version.labels["step"]) for version in versions] == [(2, "6"), (1, "4")]
    assert versions[0].aliases == ("live",)
    assert home.publish(trained, "team/last").version.digest == versions[0].digest


def test_a_trainer_publishes_what_it_saves(home: Registry, tmp_path: Path):
    callback = PublishCallback("team/policy", registry=home)
    train(callback, tmp_path / "run", save_strategy="steps", save_steps=2)
    steps = [version.labels["step"] for version in home.versions("team/policy").items]
    assert steps == ["6", "4", "2"]  # the last once


def test_a_callback_says_what_it_was_told_and_nothing_twice(
    home: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    publish, steps = home.publish, []

    def count(*arguments: Any, **options: Any) -> object:
        steps.append(options["step"])
        return publish(*arguments, **options)

    monkeypatch.setattr(home, "publish", count)
    LlamaForCausalLM(TINY).save_pretrained(tmp_path / "base")
    callback = PublishCallback(
        "team/policy", publish_steps=3, base=str(tmp_path / "base"), labels={"run": "a"}, registry=home
    )
    train(callback, tmp_path / "run")
    assert steps == [3, 6]  # the last step was one of those
    versions = home.versions("team/policy").items
    assert [dict(version.labels) for version in versions] == [{"step": "6", "run": "a"}, {"step": "3", "run": "a"}]
    assert all(version.base is not None for version in versions)


def test_of_several_processes_that_train_one_publishes(home: Registry, tmp_path: Path):
    arguments, control = TrainingArguments(tmp_path / "run", use_cpu=True, report_to=[]), TrainerControl()
    other = TrainerState(global_step=4, is_world_process_zero=False)
    first = TrainerState(global_step=4, is_world_process_zero=True)
    for publish_steps in (2, None):
        callback = PublishCallback("team/policy", publish_steps=publish_steps, registry=home)
        for tell in (callback.on_step_end, callback.on_save, callback.on_train_end):
            tell(arguments, other, control, model=model())
    assert home.adapters().items == ()
    callback.on_train_end(arguments, first, control, model=model())
    assert len(home.versions("team/policy").items) == 1


def test_a_step_at_which_nobody_answers_is_told_and_the_training_goes_on(
    home: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    publish, attempts = home.publish, []

    def fail_once(*arguments: Any, **options: Any) -> object:
        attempts.append(options["step"])
        if len(attempts) == 1:
            raise UnavailableError("the server does not answer")
        return publish(*arguments, **options)

    monkeypatch.setattr(home, "publish", fail_once)
    callback = PublishCallback("team/policy", publish_steps=3, registry=home)
    with caplog.at_level(logging.WARNING, logger="loreg.publish"):
        train(callback, tmp_path / "run")
    assert (attempts, callback.missed) == ([3, 6], 1)
    assert "step 3 of team/policy is not published: the server does not answer" in caplog.text


def test_the_last_adapter_must_be_stored(home: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: Any, **__: Any) -> None:
        raise UnavailableError("the server does not answer")

    monkeypatch.setattr(home, "publish", fail)
    with pytest.raises(UnavailableError):
        train(PublishCallback("team/policy", publish_steps=100, registry=home), tmp_path / "run", steps=2)
