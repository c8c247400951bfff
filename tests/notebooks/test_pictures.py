"""Pictures: their marks are the numbers that are printed, and their labels can be read."""

from __future__ import annotations

import json
import math
import re
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from safetensors.numpy import load_file

from deployments import MOVIES, NEWS, Loreg
from loreg import AdapterComparison, MergeOptions, MissingExtraError, Registry, UsageError, connect
from loreg.entities import AdapterSimilarity, Provenance, Source


@pytest.fixture
def local_registry(tmp_path: Path) -> Registry:
    return connect(home=str(tmp_path / "home"), author="ada")


def spectra_of(folder: Path) -> list[np.ndarray]:
    """The singular values of each delta of an adapter, by numpy alone."""
    tensors = load_file(folder / "adapter_model.safetensors")
    config = json.loads((folder / "adapter_config.json").read_text())
    scale = config["lora_alpha"] / config["r"]
    names = sorted(name for name in tensors if name.endswith("lora_A.weight"))
    products = [scale * tensors[n.replace("lora_A", "lora_B")].astype(float) @ tensors[n] for n in names]
    return [np.linalg.svd(product, compute_uv=False)[: config["r"]] for product in products]


def error_at(spectra: list[np.ndarray], ranks: list[int]) -> float:
    """The relative error of all deltas if each is cut at its rank (Eckart and Young 1936)."""
    lost = sum(float((values[rank:] ** 2).sum()) for values, rank in zip(spectra, ranks, strict=True))
    return math.sqrt(lost / sum(float((values**2).sum()) for values in spectra))


def ranks_for(spectra: list[np.ndarray], share: float) -> list[int]:
    """The smallest rank of each delta that keeps that share of its energy."""
    kept = [np.cumsum(values**2) / (values**2).sum() for values in spectra]
    return [int(np.argmax(shares >= share * (1 - 1e-12))) + 1 for shares in kept]


def points(axes: Any, marker: str) -> list[tuple[float, float]]:
    return [
        (float(x), float(y))
        for line in axes.get_lines()
        if line.get_marker() == marker
        for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)
    ]


def curve(axes: Any) -> list[float]:
    return [float(y) for y in next(line for line in axes.get_lines() if line.get_marker() == "None").get_ydata()]


def legend(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_the_mark_of_ranks_by_energy_is_their_own_error_and_not_that_of_the_largest_for_all(local_registry: Registry):
    spectra = spectra_of(NEWS)
    ranks = ranks_for(spectra, 0.9)
    right = local_registry.rerank(str(NEWS), {"energy": 0.9}).plot().axes[1]
    ((average, error),) = points(right, "D")
    assert average == pytest.approx(sum(ranks) / len(ranks))
    assert error == pytest.approx(error_at(spectra, ranks), rel=1e-5)
    for rank, height in enumerate(curve(right)):
        assert height == pytest.approx(error_at(spectra, [rank] * len(spectra)), abs=1e-6)
    assert f"ranks {min(ranks)} to {max(ranks)}, {average:.3g} on average" in legend(right)[-1]
    assert abs(curve(right)[max(ranks)] - error) > 0.05  # where the mark was once


def test_the_marks_are_the_numbers_that_are_printed(local: Loreg, local_registry: Registry):
    printed = local("rerank", str(NEWS), "--energy", "0.9", "--dry-run").stdout
    right = local_registry.rerank(str(NEWS), {"energy": 0.9}).plot().axes[1]
    epsilon = re.search(r"ε = ([\d.e+-]+)\) at rank (\d+) of (\d+)", printed)
    assert epsilon is not None
    assert f"ε = {epsilon[1]}" in legend(right)[-1]
    assert f"to {epsilon[2]}," in legend(right)[-1]
    assert len(curve(right)) == int(epsilon[3]) + 1
    sufficient = dict(re.findall(r"(\d+) keeps ([\d.]+) %", printed))
    assert sorted(int(x) for x, _ in points(right, "o")) == sorted(map(int, sufficient))
    texts = {int(text.xy[0]): text.get_text() for text in right.texts}
    shares: dict[int, list[str]] = {}
    for rank, share in re.findall(r"(\d+) keeps ([\d.]+) %", printed):
        shares.setdefault(int(rank), []).append(share)
    assert texts == {rank: f"{', '.join(of_rank)} %" for rank, of_rank in shares.items()}
    for x, y in points(right, "o"):
        assert y == curve(right)[int(x)]


def test_a_fixed_rank_lies_on_the_curve(local_registry: Registry):
    right = local_registry.rerank(str(NEWS), 3).plot().axes[1]
    ((rank, error),) = points(right, "D")
    assert (rank, error) == (3, pytest.approx(curve(right)[3], rel=1e-6))
    assert "rank 3 in every module" in legend(right)[-1]


def test_what_is_kept_and_what_is_cut_are_told_apart_by_line_and_colour(local_registry: Registry):
    left = local_registry.rerank(str(NEWS), 3).plot().axes[0]
    kept = [line for line in left.get_lines() if line.get_linestyle() == "-"]
    cut = [line for line in left.get_lines() if line.get_linestyle() == "--"]
    assert len(kept) == len(cut) == len(spectra_of(NEWS))
    assert {tuple(line.get_xdata()) for line in kept} == {(1, 2, 3)}
    assert {line.get_xdata()[0] for line in cut} == {3}
    assert {line.get_color() for line in kept}.isdisjoint(line.get_color() for line in cut)


def test_what_was_kept_of_each_source_is_what_is_printed(local: Loreg, local_registry: Registry):
    options = MergeOptions([0.7, 0.3], rank=8, extras=str(NEWS))
    merged = local_registry.merge([str(NEWS), str(MOVIES)], options, name="team/blend")
    printed = local(
        "merge", str(NEWS), str(MOVIES), "--weights", "0.7,0.3", "--rank", "8", "--extras", str(NEWS), "--dry-run"
    ).stdout
    figure = merged.provenance.plot()
    panels = figure.axes[:2]
    for axes, label in zip(panels, (NEWS.name, MOVIES.name), strict=True):
        share = re.search(rf"{label} .* ([\d.]+ %)\n", printed)
        assert share is not None
        assert f": {share[1]} of its delta is kept" in axes.get_title(loc="left")
    cells = [{text.get_text() for text in axes.texts} for axes in panels]
    rows = re.findall(r"([\d.]+ %), ([\d.]+ %)\n", printed)
    assert len(rows) == 12
    assert cells == [{row[0] for row in rows}, {row[1] for row in rows}]
    assert [text.get_text() for text in panels[0].get_yticklabels()] == ["query", "value"]
    assert [text.get_text() for text in panels[1].get_xticklabels()] == list("012345")
    stored = local_registry.show("team/blend").plot()
    assert [text.get_text() for text in stored.axes[1].texts] == [text.get_text() for text in panels[1].texts]


def test_of_many_sources_those_are_drawn_of_which_least_is_kept():
    retention = [0.9, 0.2, None, 0.8, None, 0.7, 0.6, 0.5]
    module = {"module": "layers.0.q_proj", "rank": 1, "retention": retention}
    sources = tuple(Source(f"s{i}", str(i) * 64, 1.0) for i in range(len(retention)))
    made = Provenance(sources, {}, {"total": {"retention": retention}, "modules": [module]})
    titles = [axes.get_title(loc="left").partition(":")[0] for axes in made.plot().axes[:6]]
    assert titles == ["s0", "s1", "s3", "s5", "s6", "s7"]
    none = Provenance(
        sources[:2], {}, {"total": {"retention": [None, None]}, "modules": [{**module, "retention": [None, None]}]}
    )
    assert "s0: – of its delta is kept" in none.plot().axes[0].get_title(loc="left")


def test_a_version_that_is_no_merge_has_no_such_picture(local_registry: Registry):
    local_registry.push(NEWS, "team/news")
    with pytest.raises(UsageError, match="team/news:v1 is no merge"):
        local_registry.show("team/news").plot()


def comparison_of(labels: list[str]) -> AdapterComparison:
    """Pairs with a cosine, a column and a row overlap that say which pair it is."""
    return AdapterComparison(
        AdapterSimilarity(a, b, 2, (i - j) / 100, i / 100, j / 100, 0.4, 1.0, False)
        for (i, a), (j, b) in combinations(enumerate(labels, 1), 2)
    )


def names_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].get_yticklabels()]


def test_the_cells_of_a_comparison_are_the_numbers_that_are_printed(local: Loreg, local_registry: Registry):
    figure = local_registry.compare([str(NEWS), str(MOVIES)]).plot()
    printed = local("compare", str(NEWS), str(MOVIES)).stdout.splitlines()[2].split()
    assert [{text.get_text() for text in axes.texts} for axes in figure.axes] == [{number} for number in printed[2:5]]
    assert names_of(figure) == [f"{NEWS.name}  1", f"{MOVIES.name}  2"]


@pytest.mark.parametrize("count", [2, 5, 6, 12, 13, 30])
def test_every_adapter_has_its_name_and_its_place(count: int):
    labels = [f"team/{'a-rather-long-name-of-a-sweep-' if i % 2 else 'n'}{i}:v1" for i in range(1, count + 1)]
    figure = comparison_of(labels).plot()
    names = names_of(figure)
    assert len(set(names)) == count
    assert all(name.endswith(f"{i}:v1  {i}") and len(name) <= 38 for i, name in enumerate(names, 1))
    values = figure.axes[0].get_images()[0].get_array()
    assert float(values[0, count - 1]) == pytest.approx((1 - count) / 100)
    assert all(values.mask[i, i] for i in range(count))  # an adapter and itself say nothing
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    for text in figure.axes[0].get_yticklabels():
        box = text.get_window_extent(renderer)
        assert box.x0 >= 0
        assert box.y1 <= figure.bbox.height


def test_names_are_no_formulas_and_need_not_differ():
    figure = comparison_of(["$\\nothing$", "$", "same", "same"]).plot()
    FigureCanvasAgg(figure).draw()
    assert names_of(figure) == [r"\$\nothing\$  1", r"\$  2", "same  3", "same  4"]


def test_a_notebook_shows_a_picture_without_pyplot(local_registry: Registry):
    picture = local_registry.rerank(str(NEWS), 3).plot()
    assert "matplotlib.pyplot" not in sys.modules or picture.number is None  # type: ignore[attr-defined]
    assert picture._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]


def test_a_picture_that_cannot_be_written_is_refused_before_anything_is_computed(
    local_registry: Registry, tmp_path: Path
):
    computed: list[str] = []
    for path in (tmp_path / "c.doc", tmp_path / "missing" / "c.png"):
        with pytest.raises(UsageError, match="cannot be drawn"):
            local_registry.compare(
                [str(NEWS), str(MOVIES)], plot=path, progress=lambda what, done, total: computed.append(what)
            )
        with pytest.raises(UsageError, match="cannot be drawn"):
            local_registry.rerank(str(NEWS), 3, plot=path, progress=lambda what, done, total: computed.append(what))
    assert computed == []


def test_without_matplotlib_the_command_that_installs_it_is_named(
    local_registry: Registry, monkeypatch: pytest.MonkeyPatch
):
    merged = local_registry.rerank(str(NEWS), 3)
    monkeypatch.setitem(sys.modules, "loreg.entities.display.figures", None)
    for draw in (merged.plot, merged.provenance.plot, lambda: local_registry.rerank(str(NEWS), 3, plot="x.png")):
        with pytest.raises(MissingExtraError, match="needs matplotlib") as error:
            draw()
        assert error.value.hint == "pip install 'loreg[plot]'"
