"""k-merge: K adapters out of a stream; each that is kept is the mean of those that joined it, with its lineage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from deployments import NEWS, command_line, empty_home
from factories import change_tensors, copy, deltas_by_peft, relative_error, train, weighted_sum, write_base
from loreg.errors import MergeError, UsageError
from loreg.registry import Registry, connect


@pytest.fixture
def local_registry(tmp_path: Path) -> Registry:
    return connect(home=empty_home(tmp_path / "home"))


def variant(source: Path, target: Path, factor: float) -> Path:
    """An adapter much like another: its B's are longer, one of them far more than the others."""
    tensors = load_file(source / "adapter_model.safetensors")
    changed = {name: t * factor for name, t in tensors.items() if "lora_B" in name}
    first = min(changed)
    return change_tensors(copy(source, target), {**changed, first: 2 * changed[first]})


@pytest.fixture
def stream(tmp_path: Path) -> dict[str, Path]:
    """Two families of adapters, one after another, and one that is a bit of the first and touches less."""
    news, chat = train(tmp_path / "news", 1), train(tmp_path / "chat", 2, r=3)
    return {
        "news": news,
        "chat": chat,
        "chat-2": variant(chat, tmp_path / "chat-2", 1.5),
        "news-2": variant(news, tmp_path / "news-2", 0.5),
        "news-q": train(tmp_path / "news-q", 1, target_modules=["q_proj"]),
        "chat-3": variant(chat, tmp_path / "chat-3", 3.0),
    }


def vector(folder: Path) -> np.ndarray:
    deltas = deltas_by_peft(folder)
    modules = sorted(deltas_by_peft(folder.parent / "news"))
    parts = [deltas.get(module, 0 * deltas_by_peft(folder.parent / "news")[module]).flatten() for module in modules]
    return np.concatenate([part.numpy() for part in parts])


def test_each_later_one_joins_the_most_similar_and_what_is_kept_is_the_mean(
    local_registry: Registry, stream: dict[str, Path], tmp_path: Path
):
    kept = local_registry.k_merge(list(stream.values()), 2, folder=tmp_path / "kept")
    groups = [adapter.sources for adapter in kept]
    assert groups[1] == ("chat", "chat-2", "chat-3")
    assert set(groups[0]) == {"news", "news-2", "news-q"}
    for number, adapter in enumerate(kept, 1):
        deltas = [deltas_by_peft(stream[name]) for name in adapter.sources]
        expected = weighted_sum(deltas, [1 / len(deltas)] * len(deltas))
        assert relative_error(deltas_by_peft(tmp_path / "kept" / str(number)), expected) < 1e-6
        mean = vector(stream[adapter.sources[0]])
        for count, (name, cosine) in enumerate(zip(adapter.sources[1:], adapter.cosines[1:], strict=True), 1):
            x = vector(stream[name])
            assert cosine == pytest.approx(x @ mean / np.linalg.norm(x) / np.linalg.norm(mean), abs=1e-6)
            mean += (x - mean) / (count + 1)


def test_what_is_pushed_knows_what_it_was_made_of(registry: Registry, stream: dict[str, Path]):
    for name, folder in stream.items():
        registry.push(folder, f"team/{name}")
    kept = registry.k_merge([f"team/{name}" for name in stream], 2, rank=4, name="team/kept")
    refs = [adapter.merged.pushed.version.ref for adapter in kept if adapter.merged.pushed]
    assert refs == ["team/kept-1:v1", "team/kept-2:v1"]
    details = registry.show("team/kept-2")
    assert details.version.facts.rank_max == 4
    assert details.provenance is not None
    assert [source.label for source in details.provenance.sources] == [
        "team/chat:v1",
        "team/chat-2:v1",
        "team/chat-3:v1",
    ]
    assert registry.reproduce("team/kept-2").identical


def test_of_no_more_than_are_kept_each_stays_alone(local_registry: Registry, stream: dict[str, Path], tmp_path: Path):
    kept = local_registry.k_merge(list(stream.values())[:2], 5, folder=tmp_path / "kept")
    assert [(adapter.sources, adapter.cosines) for adapter in kept] == [(("news",), (None,)), (("chat",), (None,))]
    assert relative_error(deltas_by_peft(tmp_path / "kept" / "1"), deltas_by_peft(stream["news"])) < 1e-6


class TestIsRefused:
    def test_nothing_to_keep(self, local_registry: Registry, stream: dict[str, Path]):
        for sources, keep in ((list(stream.values()), 0), ([], 1)):
            with pytest.raises(UsageError, match=f"{len(sources)} adapters, of which {keep} are kept"):
                local_registry.k_merge(sources, keep)

    def test_an_adapter_with_a_head(self, local_registry: Registry, stream: dict[str, Path]):
        with pytest.raises(UsageError, match="minilm-news-topics-r8 has whole tensors"):
            local_registry.k_merge([NEWS, NEWS], 1)

    def test_one_that_changed_its_base(self, local_registry: Registry, stream: dict[str, Path], tmp_path: Path):
        pissa = train(tmp_path / "pissa", 3, init_lora_weights="pissa")
        with pytest.raises(UsageError, match="pissa changed its base"):
            local_registry.k_merge([stream["news"], pissa], 1)

    def test_one_that_has_nothing_in_common_before_anything_is_written(
        self, local_registry: Registry, stream: dict[str, Path], tmp_path: Path
    ):
        sources = [train(tmp_path / name, 1, target_modules=[name]) for name in ("q_proj", "v_proj")]
        stranger = train(tmp_path / "head", 1, target_modules=["head"])
        with pytest.raises(MergeError, match="no module in common"):
            local_registry.k_merge([*sources, stranger], 2, folder=tmp_path / "kept")
        assert not (tmp_path / "kept").exists()
        assert local_registry.k_merge([*sources, stranger], 2, base=write_base(tmp_path / "base"))


def test_the_command_says_which_went_where(stream: dict[str, Path], tmp_path: Path):
    loreg = command_line({"LOREG_HOME": empty_home(tmp_path / "other")})
    folders = [str(folder) for folder in stream.values()]
    table = loreg("k-merge", *folders, "--keep", "2", "--dry-run")
    assert table.exit_code == 0
    rows = [line.split()[:2] for line in table.stdout.splitlines()[2:8]]
    assert [name for number, name in rows if number == "2"] == ["chat", "chat-2", "chat-3"]
    written = loreg("k-merge", *folders, "--keep", "2", "--to", str(tmp_path / "kept"), "--format", "quiet")
    assert written.stdout.splitlines() == [str(tmp_path / "kept" / number) for number in "12"]
    assert loreg("k-merge", *folders, "--keep", "2").exit_code == 2
