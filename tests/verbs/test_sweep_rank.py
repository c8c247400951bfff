"""The version that a sweep takes, cut in rank: PEFT and dense SVD make the same of the sources, and it is repeated."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from deployments import empty_home
from loreg.entities import SweepOptions, SweepResult, SweepTrial
from loreg.errors import UsageError
from loreg.registry import Registry, connect
from tiny_models import LLAMA, count_on, teach, write_model

STEPS = {"ones": 1, "fives": 5}


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("llama"), LlamaForCausalLM, LLAMA)


@pytest.fixture(scope="module")
def folders(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    room = tmp_path_factory.mktemp("taught")
    return {name: teach(room / name, llama, step) for name, step in STEPS.items()}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("texts") / "texts.jsonl"
    texts = ((task, text) for task, step in STEPS.items() for text in count_on(step, 40, 7 + step))
    lines = (json.dumps({"task": task, "text": " ".join(f"w{word}" for word in text)}) for task, text in texts)
    file.write_text("\n".join(lines))
    return file


@pytest.fixture
def registry(folders: dict[str, Path], llama: Path, tmp_path: Path) -> Registry:
    opened = connect(home=empty_home(tmp_path / "home"))
    for name, folder in folders.items():
        opened.push(folder, f"team/{name}", base=llama)
    return opened


def run(registry: Registry, data: Path, llama: Path, *methods: str) -> SweepResult:
    options = SweepOptions(budget=20, methods=methods)
    return registry.sweep(["team/ones", "team/fives"], data=[data], options=options, base=llama, name="team/both")


def deltas_in_peft(llama: Path, folders: list[Path], weights: tuple[float, ...] | None = None) -> dict[str, np.ndarray]:
    """The delta of each module in float64: of one adapter, or of several side by side as PEFT's ``cat`` puts them."""
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(llama), folders[0], adapter_name="0")
    for number, folder in enumerate(folders[1:], 1):
        model.load_adapter(folder, adapter_name=str(number))
    name = "0"
    if weights is not None:
        names = [str(number) for number in range(len(folders))]
        model.add_weighted_adapter(names, list(weights), adapter_name="mix", combination_type="cat")
        name = "mix"
    layers = model.double().base_model.model.named_modules()
    return {
        module: layer.get_delta_weight(name).detach().numpy()
        for module, layer in layers
        if hasattr(layer, "get_delta_weight")
    }


def pull(registry: Registry, trial: SweepTrial, folder: Path) -> Path:
    return registry.pull(trial.version, folder).folder


def test_a_cut_version_is_what_peft_and_a_dense_svd_make(
    registry: Registry, folders: dict[str, Path], data: Path, llama: Path, tmp_path: Path
):
    result = run(registry, data, llama)
    taken = result.answer
    rank = taken.candidate.rank
    assert rank in {1, 2, 4, 8, 16}  # of 24
    assert any(note.startswith(f"the cut to rank {rank} costs ") for note in result.notes)
    (whole,) = (t for t in result.trials if t.candidate.strengths == taken.candidate.strengths and t != taken)
    sources = [deltas_in_peft(llama, [folder]) for folder in folders.values()]
    mixed = deltas_in_peft(llama, [*folders.values()], taken.candidate.strengths)
    of_whole = deltas_in_peft(llama, [pull(registry, whole, tmp_path / "whole")])
    of_cut = deltas_in_peft(llama, [pull(registry, taken, tmp_path / "cut")])
    certificate = registry.show(taken.version).provenance.certificate
    assert mixed.keys() == of_whole.keys() == of_cut.keys() == {figures["module"] for figures in certificate["modules"]}
    kept, own = np.zeros(len(sources)), np.zeros(len(sources))
    for module, delta in mixed.items():
        u, s, vh = np.linalg.svd(delta)
        best = u[:, :rank] * s[:rank] @ vh[:rank]
        assert np.linalg.norm(of_whole[module] - delta) < 1e-5 * np.linalg.norm(delta)
        assert np.linalg.norm(of_cut[module] - best) < 1e-5 * np.linalg.norm(delta)
        assert np.linalg.matrix_rank(of_cut[module], tol=1e-5 * s[0]) == rank
        for position, source in enumerate(sources):
            kept[position] += np.square(u[:, :rank].T @ source[module] @ vh[:rank].T).sum()
            own[position] += np.square(source[module]).sum()
    # what the certificate says is left of each source
    assert certificate["total"]["retention"] == pytest.approx((kept / own).tolist(), rel=1e-5)
    assert registry.show(whole.version).provenance.certificate["total"]["retention"] == pytest.approx([1, 1])


def test_what_is_recorded_of_a_cut_version_is_the_loss_of_its_model(
    registry: Registry, data: Path, llama: Path, tmp_path: Path
):
    taken = run(registry, data, llama).answer
    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(llama), pull(registry, taken, tmp_path / "cut")
    ).eval()
    for task, step in STEPS.items():
        ids = torch.tensor(count_on(step, 40, 7 + step)).unique(dim=0)
        with torch.no_grad():
            logits = model(input_ids=ids).logits[:, :-1]
        losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        both = (taken.scores[task], taken.confirmed[task])  # of halves of about the same size
        assert min(both) <= float(losses.mean()) <= max(both)


def test_a_cut_version_is_reproduced_also_where_its_method_took_moments(
    registry: Registry, data: Path, llama: Path, tmp_path: Path
):
    result = run(registry, data, llama, "regmean")
    for trial in result.trials:
        assert registry.reproduce(trial.version).identical
    (moments,) = tmp_path.glob("home/**/sweeps/*/moments.safetensors")
    regmean = next(trial for trial in result.trials if trial.candidate.method == "regmean")
    moved = moments.rename(tmp_path / "kept.safetensors")  # as on another machine
    with pytest.raises(UsageError, match="the recipe's calibration is the file") as refusal:
        registry.reproduce(regmean.version)
    assert f"sweeps/{result.id}/moments.safetensors" in refusal.value.hint
    assert registry.reproduce(regmean.version, calibration=moved).identical
    moments.write_bytes(b"of another sweep")
    with pytest.raises(UsageError, match="the recipe's calibration is the file"):
        registry.reproduce(regmean.version)
