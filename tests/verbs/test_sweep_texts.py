"""A sweep on texts, from a tiny model to the version that is taken."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from transformers import LlamaForCausalLM

from deployments import empty_home
from loreg.entities import SweepOptions, SweepResult
from loreg.errors import UsageError
from loreg.registry import Registry, connect
from loreg.sweeping.in_place import InPlaceModel
from tiny_models import LLAMA, write_adapter, write_model


@pytest.fixture
def local_registry(tmp_path: Path) -> Registry:
    return connect(home=empty_home(tmp_path / "home"))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("llama"), LlamaForCausalLM, LLAMA)


@pytest.fixture
def folders(llama: Path, tmp_path: Path) -> list[Path]:
    mix = ({"r": 2, "target_modules": ["q_proj", "v_proj"]}, {"r": 3, "target_modules": ["q_proj", "up_proj"]})
    return [write_adapter(tmp_path / name, llama, i, **mix[i]) for i, name in enumerate(("news", "chat"))]


def write_texts(file: Path, tokens: dict[str, int]) -> str:
    """Two kinds of texts of 50 different words each, of which each half of a task has that many predicted tokens."""
    draw = random.Random(7)
    lines = []
    for task, count in tokens.items():
        for text in range(2 * count // 50):
            words = [f"w{draw.randrange(10, 96)}" for _ in range(51)]  # of equal length: the halves are equal
            lines.append(json.dumps({"task": task, "text": " ".join(words), "id": text}))
    file.write_text("\n".join(lines))
    return str(file)


def run(registry: Registry, folders: list[Path], data: str, base: Path, **options: object) -> SweepResult:
    options = {"budget": 14, "methods": ("ties",), **options}
    return registry.sweep(folders, data=[data], options=SweepOptions(**options), base=base)


class Passes:
    """Counts the tokens that go through any model."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tokens = 0
        logits = InPlaceModel.logits

        def counting(model: InPlaceModel, batch):
            self.tokens += len(batch.labels)
            return logits(model, batch)

        monkeypatch.setattr(InPlaceModel, "logits", counting)


def test_from_texts_to_a_version(
    local_registry: Registry, folders: list[Path], llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    passes = Passes(monkeypatch)
    data = write_texts(tmp_path / "texts.jsonl", {"news": 500, "chat": 500})
    result = run(local_registry, folders, data, llama)
    assert result.tasks == ("news", "chat")
    assert not result.higher_is_better
    few = "of tokens to choose by, news has 500, chat has 500: below 2,000 chance weighs in"
    assert few in result.notes
    version = local_registry.show(result.answer.version).version
    assert result.promote == f"loreg tag {version.ref} prod"
    assert {(m.name, m.dataset, m.split) for m in version.metrics} == {
        ("nll", task, split) for task in ("news", "chat") for split in ("dev", "confirmed")
    }
    assert all(np.isfinite(list(trial.confirmed.values())).all() for trial in result.trials)
    before = passes.tokens
    assert before == pytest.approx(result.evaluations * 1000, rel=0.02)  # a half has 1,000 tokens
    assert result.evaluations <= 14
    again = run(local_registry, folders, data, llama)
    assert passes.tokens == before
    assert [trial.version for trial in again.trials] == [trial.version for trial in result.trials]


def test_texts_too_few_are_refused(local_registry: Registry, folders: list[Path], llama: Path, tmp_path: Path):
    data = write_texts(tmp_path / "texts.jsonl", {"news": 500, "chat": 450})
    with pytest.raises(UsageError, match="the task 'chat' has 450 tokens"):
        run(local_registry, folders, data, llama)


def test_a_task_needs_texts_that_predict_a_token_in_both_halves(
    local_registry: Registry, folders: list[Path], llama: Path, tmp_path: Path
):
    draw = random.Random(3)
    long = [" ".join(f"w{draw.randrange(10, 96)}" for _ in range(1200)) for _ in range(2)]
    short = [f"w{i}" for i in range(20)]  # of a single token
    file = tmp_path / "texts.jsonl"

    def write(texts: list[str]) -> str:
        file.write_text("\n".join(json.dumps({"task": "news", "text": text}) for text in texts))
        return str(file)

    with pytest.raises(UsageError, match="the task 'news' has one text to"):
        run(local_registry, folders, write(long), llama)
    with pytest.raises(UsageError, match=r"the task 'news' has (one text|0 tokens) to"):
        run(local_registry, folders, write([*long, *short]), llama)
    pieces = [text[start : start + 800] for text in long for start in range(0, len(text), 800)]
    result = run(local_registry, folders, write([*pieces, *short]), llama)
    assert all(np.isfinite([gap.difference.low, gap.difference.high]).all() for gap in result.comparisons)
    assert np.isfinite(result.weights_sd).all()
    assert any("intervals are too narrow" in note for note in result.notes)


def test_enough_texts_are_not_warned_of_and_a_budget_may_be_too_small(
    local_registry: Registry, folders: list[Path], llama: Path, tmp_path: Path
):
    data = write_texts(tmp_path / "texts.jsonl", {"news": 2000})
    with pytest.raises(UsageError, match="a budget of 9 does not do for 2 adapters: expected 10 or more"):
        run(local_registry, folders, data, llama, budget=9)
    result = run(local_registry, folders, data, llama, budget=10, methods=("regmean",))
    assert not any("below 2,000" in note for note in result.notes)
    assert any("regmean was not tried: 1 tasks for 2 adapters" in note for note in result.notes)
    assert result.evaluations <= 10


def test_adapters_that_are_more_than_factors_are_refused_by_name(
    local_registry: Registry, folders: list[Path], llama: Path, tmp_path: Path
):
    data = write_texts(tmp_path / "texts.jsonl", {"news": 500})
    headed = write_adapter(tmp_path / "headed", llama, 3, r=2, target_modules=["q_proj"], modules_to_save=["lm_head"])
    with pytest.raises(UsageError, match="headed has more than factors"):
        run(local_registry, [folders[0], headed], data, llama)


def test_a_method_that_there_is_not_is_refused_at_once(
    local_registry: Registry, folders: list[Path], llama: Path, tmp_path: Path
):
    data = write_texts(tmp_path / "texts.jsonl", {"news": 500})
    with pytest.raises(UsageError, match="no-such"):
        run(local_registry, folders, data, llama, methods=("no-such",))


def test_what_takes_long_tells_how_far_it_is(
    local_registry: Registry, folders: list[Path], llama: Path, tmp_path: Path
):
    progressed: dict[str, list[tuple[int, int]]] = {}

    def progress(what: str, done: int, total: int) -> None:
        progressed.setdefault(what, []).append((done, total))

    data = write_texts(tmp_path / "texts.jsonl", {"news": 2000, "chat": 2000})
    options = SweepOptions(budget=16, methods=("regmean",))
    result = local_registry.sweep(folders, data=[data], options=options, base=llama, progress=progress)
    spent = progressed["spending the budget"]  # moments come before
    assert spent == sorted(spent)
    assert spent[-1] == (round(result.evaluations - 1), 15)
    for what in ("collecting moments", "seeing how the loss bends", "evaluating"):
        steps = progressed[what]
        assert steps[0][0] == 0
        assert steps[-1][0] == steps[-1][1]
        assert any(0.3 < done / total < 0.7 for done, total in steps)  # between, it moves


def test_texts_in_other_tokens_are_measured_again(
    local_registry: Registry, folders: list[Path], llama: Path, tmp_path: Path
):
    data = write_texts(tmp_path / "texts.jsonl", {"news": 500})
    other = shutil.copytree(llama, tmp_path / "other")
    tokenizer = other / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace('"w10":10', '"w10":11').replace('"w10": 10', '"w10": 11'))
    first, second = (run(local_registry, folders, data, base, budget=10, methods=()) for base in (llama, other))
    assert first.id != second.id
    assert first.trials[0].scores != second.trials[0].scores
