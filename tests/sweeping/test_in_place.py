"""A model with adapters added in place is what PEFT makes of the same model and adapters."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaForCausalLM

from loreg.adapters.structure import read_structure
from loreg.algebra.factors import Factors
from loreg.entities import SweepCandidate, no_progress
from loreg.errors import UsageError
from loreg.merging.inputs import MergeInput
from loreg.merging.source_factors import read_source_factors
from loreg.sweeping.evaluation_data import Document
from loreg.sweeping.in_place import InPlaceModel, lay_side_by_side
from loreg.sweeping.in_place_evaluator import InPlaceEvaluator
from loreg.sweeping.journal import Journal
from tiny_models import GPT2, LLAMA, WORDS, write_adapter, write_model


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("llama"), LlamaForCausalLM, LLAMA)


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("gpt2"), GPT2LMHeadModel, GPT2)


MIX: list[dict[str, Any]] = [
    {"r": 4, "target_modules": ["q_proj", "v_proj"], "lora_alpha": 8},
    {"r": 3, "target_modules": ["q_proj", "up_proj", "down_proj"], "use_rslora": True, "lora_alpha": 5},
    {"r": 2, "target_modules": ["o_proj", "v_proj"], "rank_pattern": {"v_proj": 5}, "alpha_pattern": {"o_proj": 1}},
]


@pytest.fixture(scope="module")
def adapters(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("adapters")
    return [write_adapter(folder / str(i), llama, i, **options) for i, options in enumerate(MIX)]


def inputs(folders: list[Path], base: Path) -> list[MergeInput]:
    return [MergeInput(read_structure(f), f.name, "", None, base) for f in folders]


def documents(count: int = 9) -> list[Document]:
    generator = torch.Generator().manual_seed(1)
    lengths = [2, 300, 17, 256, 257, 40, 5, 90, 33][:count]  # one row and several, of all lengths
    draw = [torch.randint(3, WORDS, (length,), generator=generator).tolist() for length in lengths]
    return [Document(i % 2, " ".join(f"w{token}" for token in ids)) for i, ids in enumerate(draw)]


def losses_by_hand(model: nn.Module, texts: list[Document]) -> np.ndarray:
    """The summed loss of each document, row after row, without padding; a row has 256 tokens at most."""
    sums = []
    for document in texts:
        ids = [int(word[1:]) for word in document.text.split()]
        total = 0.0
        for row in (ids[start : start + 256] for start in range(0, len(ids), 256)):
            if len(row) > 1:
                with torch.no_grad():
                    loss = model(input_ids=torch.tensor([row]), labels=torch.tensor([row])).loss
                total += float(loss) * (len(row) - 1)
        sums.append(total)
    return np.array(sums)


def peft_model(base: Path, folders: list[Path]) -> PeftModel:
    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), folders[0], adapter_name="0"
    )
    for i, folder in enumerate(folders[1:], 1):
        model.load_adapter(folder, str(i))
    return model.eval()


@pytest.mark.parametrize("position", range(len(MIX)))
def test_each_adapter_is_what_peft_makes_of_it(llama: Path, adapters: list[Path], position: int):
    model = InPlaceModel(llama)
    (factors,) = read_source_factors(inputs([adapters[position]], llama))
    with model.adding(factors):
        losses = model.losses(model.tokenize(documents()))
    expected = losses_by_hand(peft_model(llama, [adapters[position]]), documents())
    assert losses == pytest.approx(expected, rel=2e-5)
    alone = losses_by_hand(AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32).eval(), documents())
    assert abs(expected / alone - 1).max() > 0.01  # the adapter does something
    assert model.losses(model.tokenize(documents())) == pytest.approx(alone, rel=2e-5)  # and is gone


@pytest.mark.parametrize("weights", [[0.7, 0.4, 1.2], [1.0, 0.0, 0.0], [0.3, 0.3, 0.3]])
def test_mixtures_are_those_of_peft(llama: Path, adapters: list[Path], weights: list[float]):
    model = InPlaceModel(llama)
    mixed = lay_side_by_side(read_source_factors(inputs(adapters, llama)))
    with model.adding(mixed.factors) as rows:
        rows.set(mixed.row_weights(weights))
        losses = model.losses(model.tokenize(documents()))
    expected = peft_model(llama, adapters)
    used = [i for i, weight in enumerate(weights) if weight]
    expected.add_weighted_adapter([str(i) for i in used], [weights[i] for i in used], "mixed", combination_type="cat")
    expected.set_adapter("mixed")
    assert losses == pytest.approx(losses_by_hand(expected, documents()), rel=2e-5)


def test_the_layers_of_gpt2_are_adapted_too(gpt2: Path, tmp_path: Path):
    folder = write_adapter(
        tmp_path / "a", gpt2, 1, r=4, target_modules=["c_attn", "c_proj", "c_fc"], fan_in_fan_out=True
    )
    model = InPlaceModel(gpt2)
    (factors,) = read_source_factors(inputs([folder], gpt2))
    with model.adding(factors):
        losses = model.losses(model.tokenize(documents()))
    assert losses == pytest.approx(losses_by_hand(peft_model(gpt2, [folder]), documents()), rel=2e-5)


def test_the_rows_of_a_document_are_its_tokens(llama: Path):
    rows = InPlaceModel(llama).tokenize(documents())
    # 300 tokens are rows of 256 and 44; of 257 the last one predicts nothing
    assert rows.tokens().tolist() == [1, 255 + 43, 16, 255, 255, 39, 4, 89, 32]
    assert rows.tasks.tolist() == [0, 1, 0, 1, 0, 1, 0, 1, 0]
    with pytest.raises(UsageError, match="two tokens"):
        InPlaceModel(llama).tokenize([Document(0, "w5")])


def test_a_row_is_no_longer_than_the_model_has_positions(tmp_path: Path):
    short = write_model(tmp_path / "short", GPT2LMHeadModel, GPT2Config(**{**GPT2.to_dict(), "n_positions": 40}))
    model = InPlaceModel(short)
    rows = model.tokenize(documents())
    assert rows.lengths.max() == 40
    assert np.isfinite(model.losses(rows)).all()


def test_a_document_that_predicts_nothing_is_none(llama: Path):
    rows = InPlaceModel(llama).tokenize([Document(0, "w5"), *documents(3), Document(1, "w7")])
    assert rows.tokens().tolist() == [1, 255 + 43, 16]
    assert rows.tasks.tolist() == [0, 1, 0]


def test_a_tokenizer_of_more_words_than_the_model_is_refused(tmp_path: Path):
    few = write_model(tmp_path / "few", GPT2LMHeadModel, GPT2Config(**{**GPT2.to_dict(), "vocab_size": 50}))
    with pytest.raises(UsageError, match="the model knows 50 tokens"):
        InPlaceModel(few).tokenize(documents())


def test_modules_that_the_model_lacks_are_named(llama: Path, gpt2: Path, adapters: list[Path]):
    (factors,) = read_source_factors(inputs([adapters[0]], llama))
    absent = r"module model\.layers\.0\.self_attn\.\w_proj .* has no such module"
    with pytest.raises(UsageError, match=absent), InPlaceModel(gpt2).adding(factors):
        pass
    larger = {"model.layers.0.self_attn.q_proj": Factors(torch.ones(64, 2), torch.ones(2, 32))}
    model, other = InPlaceModel(llama), r"q_proj of an adapter is \(64, 32\), and the model has it as \(32, 32\)"
    with pytest.raises(UsageError, match=other), model.adding(factors | larger):
        pass
    rows = model.tokenize(documents())
    plain = losses_by_hand(AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32).eval(), documents())
    assert model.losses(rows) == pytest.approx(plain, rel=2e-5)  # no hook is left


def test_what_is_no_language_model_is_named(tmp_path: Path, minilm: Path):
    with pytest.raises(UsageError, match=r"it has no config\.json"):
        InPlaceModel(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UsageError, match="is no causal language model"):
        InPlaceModel(tmp_path)
    (tmp_path / "config.json").write_text("not JSON")
    with pytest.raises(UsageError, match="is no causal language model"):
        InPlaceModel(tmp_path)


def evaluator(model: InPlaceModel, folder: Path, factors: list[Mapping[str, Factors]]) -> InPlaceEvaluator:
    def merge(candidate: SweepCandidate) -> Mapping[str, Factors]:
        return factors[candidate.weights.index(1.0)]

    rows = model.tokenize(documents())
    folder.mkdir(exist_ok=True)
    return InPlaceEvaluator(model, merge, rows, rows, Journal(folder), no_progress)


def test_the_gradient_is_that_of_autograd_within_what_a_step_allows(llama: Path, adapters: list[Path], tmp_path: Path):
    factors = read_source_factors(inputs(adapters, llama))
    small = [{name: Factors(part.b * 0.01, part.a) for name, part in source.items()} for source in factors]
    model = InPlaceModel(llama)
    alone = [SweepCandidate(str(i), tuple(float(i == j) for j in range(3))) for i in range(3)]
    curve = evaluator(model, tmp_path / "journal", small).curve(alone, [1 / 3] * 3, 1.0)
    weights = torch.full((3,), 1 / 3, requires_grad=True)
    network = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32).eval()
    modules = dict(network.named_modules())
    deltas: dict[str, torch.Tensor] = {}
    for weight, source in zip(weights, small, strict=True):
        for name, part in source.items():
            deltas[name] = deltas.get(name, 0) + weight * (part.b @ part.a).float()
    changed = {f"{name}.weight": modules[name].weight.detach() + delta for name, delta in deltas.items()}
    for position, document in enumerate(documents()):
        ids = [int(word[1:]) for word in document.text.split()]
        total = torch.zeros(())
        for row in (ids[start : start + 256] for start in range(0, len(ids), 256)):
            if len(row) > 1:
                row_ids = torch.tensor([row])
                out = torch.func.functional_call(network, changed, kwargs={"input_ids": row_ids, "labels": row_ids})
                total = total + out.loss * (len(row) - 1)
        (gradient,) = torch.autograd.grad(total, weights, retain_graph=True)
        assert curve.losses[position] == pytest.approx(float(total.detach()), rel=1e-4)
        size = float(gradient.abs().max()) + 0.001 * len(ids)
        assert curve.gradients[position] == pytest.approx(gradient.numpy(), abs=0.1 * size)


def test_what_was_kept_of_rows_in_other_groups_is_not_taken_for_these(
    llama: Path, adapters: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    factors = read_source_factors(inputs(adapters[:2], llama))
    model = InPlaceModel(llama)
    alone = [SweepCandidate("news", (1.0, 0.0)), SweepCandidate("chat", (0.0, 1.0))]
    curves = []
    for folder, tokens in (("journal", 512), ("journal", 256), ("another", 256)):
        monkeypatch.setattr("loreg.sweeping.in_place._TOKENS", tokens)
        curves.append(evaluator(model, tmp_path / folder, factors).curve(alone, [0.5, 0.5], 1.0))
    for curve in curves[:2]:
        assert curve.losses == pytest.approx(curves[2].losses, rel=1e-5)
        assert curve.curvatures == pytest.approx(curves[2].curvatures, rel=1e-3, abs=1e-4)


def test_the_moments_are_those_of_the_inputs(llama: Path, adapters: list[Path], tmp_path: Path):
    factors = read_source_factors(inputs(adapters[:2], llama))
    model = InPlaceModel(llama)
    file = evaluator(model, tmp_path / "journal", factors).collect_moments(factors, [1, 0])
    network = peft_model(llama, adapters[:2])
    name = "model.layers.1.self_attn.q_proj"
    layer = dict(network.base_model.model.named_modules())[name]
    a_cat = torch.cat([layer.lora_A[str(i)].weight.detach() for i in range(2)]).double()
    seen: list[torch.Tensor] = []
    layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().double().flatten(0, -2)))
    moments = load_file(file)
    for position, task in enumerate([1, 0]):
        network.set_adapter(str(position))
        seen.clear()
        losses_by_hand(network, [document for document in documents() if document.task == task])
        rows = torch.cat(seen) @ a_cat.T
        expected = rows.T @ rows / len(rows)
        actual = moments[f"moments.{position}.{name}"]
        assert torch.linalg.norm(actual - expected) < 1e-5 * torch.linalg.norm(expected)
    assert torch.allclose(moments[f"gram.{name}"], a_cat @ a_cat.T, rtol=1e-6)


def balanced(part: Factors) -> Factors:
    """``U√S`` and ``√SVᵀ``, as merged factors are."""
    u, s, vh = torch.linalg.svd(part.b @ part.a, full_matrices=False)
    root = s[: part.rank].sqrt()
    return Factors(u[:, : part.rank] * root, root[:, None] * vh[: part.rank])


def test_the_error_of_a_cut_is_that_of_the_outputs(llama: Path, adapters: list[Path], tmp_path: Path):
    model, factors = InPlaceModel(llama), read_source_factors(inputs(adapters[:1], llama))[0]
    factors = {name: balanced(part) for name, part in factors.items()}
    errors = evaluator(model, tmp_path / "journal", [factors]).rank_errors(SweepCandidate("merged", (1.0,)))
    # the first quarter of each task's documents, (0, 2, 4, 6, 8) and (1, 3, 5, 7): one of each
    expected = np.zeros((2, 5))
    for task in (0, 1):
        words = documents()[task].text.split()
        seen = record_inputs(model, factors)
        with model.adding(factors):
            for start in range(0, len(words), 256):  # row by row, without padding
                (batch,) = model.batches(model.tokenize([Document(0, " ".join(words[start : start + 256]))]))
                model.logits(batch)
        for name, part in factors.items():
            x = torch.cat(seen[name]).double()
            for rank in range(5):
                cut = part.b[:, rank:] @ part.a[rank:]
                expected[task, rank] += (x @ cut.T).square().sum(-1).mean().item()
    np.testing.assert_allclose(errors, expected, rtol=1e-4, atol=1e-9)


def record_inputs(model: InPlaceModel, names: Mapping[str, Factors]) -> dict[str, list[torch.Tensor]]:
    """Keep what each module gets, (tokens, in), one text at a time and without padding."""
    seen: dict[str, list[torch.Tensor]] = {name: [] for name in names}
    for name, module in model._model.named_modules():
        for known in names:
            if name.endswith(known):
                module.register_forward_pre_hook(lambda _, args, known=known: seen[known].append(args[0].flatten(0, 1)))
    return seen
