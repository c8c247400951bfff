"""Recipes: in a file, stored with a version, done again; weights by module; comparison before merging."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from deployments import HISTORY, MOVIES, NEWS, SCIENCE, empty_home
from factories import change_tensors, copy, deltas_by_peft, relative_error, train, weighted_sum
from loreg.entities import MergeOptions
from loreg.errors import IntegrityError, LoregError, MergeError, NotFoundError, UsageError
from loreg.registry import Registry, connect
from loreg.requests import read_request
from loreg.workspace.recipe_file import read_recipe_file


@pytest.fixture
def local_registry(tmp_path: Path) -> Registry:
    return connect(home=empty_home(tmp_path / "home"))


class TestWeightsFor:
    def test_modules_that_a_pattern_matches_have_their_own(self, local_registry: Registry, tmp_path: Path):
        sources = [train(tmp_path / "a", 1), train(tmp_path / "b", 2)]
        chosen = {"v_proj": [2, -1], r"layers\.0\..*": [0, 1]}
        local_registry.merge(
            [str(s) for s in sources], MergeOptions(weights=[1, 1], weights_for=chosen), folder=tmp_path / "out"
        )
        deltas = [deltas_by_peft(source) for source in sources]
        expected = {}
        for name in deltas[0]:
            weights = [2, -1] if name.endswith("v_proj") else [0, 1] if "layers.0" in name else [1, 1]
            expected[name] = weighted_sum(deltas, weights)[name]
        assert relative_error(deltas_by_peft(tmp_path / "out"), expected) < 1e-6

    def test_a_count_that_does_not_match_is_refused(self, local_registry: Registry, tmp_path: Path):
        with pytest.raises(UsageError, match="2 adapters and 3 weights in 'mlp"):
            local_registry.merge(
                [str(NEWS), str(MOVIES)], MergeOptions(weights=[1, 1], weights_for={"mlp.*": [1, 1, 1]})
            )

    def test_lambda_multiplies_the_result(self, local_registry: Registry, tmp_path: Path):
        sources = [train(tmp_path / "a", 1), train(tmp_path / "b", 2)]
        for name, scale in (("one", 1.0), ("minus", -2.5)):
            local_registry.merge(
                [str(s) for s in sources], MergeOptions(method="tsv", scale=scale), folder=tmp_path / name
            )
        one, minus = deltas_by_peft(tmp_path / "one"), deltas_by_peft(tmp_path / "minus")
        assert relative_error(minus, {name: -2.5 * delta for name, delta in one.items()}) < 1e-6


class TestReproduce:
    @pytest.mark.parametrize(
        "how",
        [
            {"weights": [0.7, 0.3]},
            {"method": "dare_ties", "parameters": {"seed": 5}, "rank": 6},
            {"method": "knots_ties", "weights_for": {"value": [1, 0.2]}, "scale": 1.5},
            {"method": "ties", "parameters": {"threshold": "global"}},
            {"weights": [1, 1], "rank": {"budget": 20_000}},
        ],
        ids=str,
    )
    def test_gives_the_same_file_to_the_bit(self, registry: Registry, tmp_path: Path, how: dict):
        registry.push(NEWS, "news")
        registry.push(MOVIES, "movies")
        registry.merge(["news", "movies"], MergeOptions(extras="news", **how), name="blend")
        result = registry.reproduce("blend", tmp_path / "again")
        assert result.identical
        registry.pull("blend", tmp_path / "pulled")
        for name in ("adapter_model.safetensors", "adapter_config.json"):
            assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "pulled" / name).read_bytes()

    def test_finds_sources_that_were_folders_if_they_were_pushed_since(self, local_registry: Registry):
        local_registry.merge([str(SCIENCE), str(HISTORY)], MergeOptions(weights=[1, 1]), name="blend")
        with pytest.raises(NotFoundError, match=r"smollm2-science-r8 \(sha256:74824d86c206\), which is not in"):
            local_registry.reproduce("blend")
        local_registry.push(SCIENCE, "somewhere/science")
        local_registry.push(HISTORY, "somewhere/history")
        assert local_registry.reproduce("blend").identical

    def test_says_when_a_version_is_not_what_its_recipe_makes(self, local_registry: Registry, tmp_path: Path):
        local_registry.push(SCIENCE, "science")
        merged = tmp_path / "merged"
        local_registry.merge(["science"], MergeOptions(weights=[0.5]), folder=merged)
        document = json.loads((merged / "loreg_merge.json").read_text())
        document["recipe"]["sources"][0]["weight"] = 0.75
        (merged / "loreg_merge.json").write_text(json.dumps(document))
        local_registry.push(merged, "wrong")
        with pytest.raises(IntegrityError, match=r"wrong:v1 is not what its recipe makes: a delta differs by 5\.0e-01"):
            local_registry.reproduce("wrong")

    def test_small_differences_are_told_not_refused(self, local_registry: Registry, tmp_path: Path):
        from loreg.merging import provenance
        from loreg.storage import digest_of

        local_registry.push(SCIENCE, "science")
        merged = tmp_path / "merged"
        made_by = local_registry.merge(["science"], MergeOptions(weights=[0.5]), folder=merged).provenance
        tensors = load_file(merged / "adapter_model.safetensors")
        name = next(name for name in tensors if "lora_B" in name)
        change_tensors(merged, {name: tensors[name] * (1 + 1e-7)})
        provenance.write(merged, made_by, digest_of(merged / "adapter_model.safetensors").sha256)
        local_registry.push(merged, "almost")
        result = local_registry.reproduce("almost")
        assert not result.identical
        assert 1e-9 < result.difference < 1e-6

    def test_what_was_not_merged_has_no_recipe(self, local_registry: Registry):
        local_registry.push(SCIENCE, "science")
        with pytest.raises(UsageError, match="science:v1 was not merged"):
            local_registry.reproduce("science")

    def test_with_an_initial_adapter(self, local_registry: Registry, tmp_path: Path):
        initial = train(tmp_path / "initial", 1, init_lora_weights="pissa")
        trained = train(tmp_path / "trained", 2, init_lora_weights="pissa")
        local_registry.push(initial, "initial")
        local_registry.push(trained, "trained")
        local_registry.merge(["trained"], MergeOptions(weights=[1], initial=["initial"]), name="blend")
        assert local_registry.reproduce("blend").identical


class TestRecipeFile:
    def write(self, tmp_path: Path, text: str) -> Path:
        (tmp_path / "r.toml").write_text(text)
        return tmp_path / "r.toml"

    def test_says_what_the_options_say(self, local_registry: Registry, tmp_path: Path):
        path = self.write(
            tmp_path,
            f"""
            method = "ties"
            sources = ["{SCIENCE}", "{HISTORY}"]
            weights = [0.7, 0.3]
            lambda = 2
            rank = 4
            [parameters]
            density = 0.3
            [weights_for]
            "v_proj" = [1, 0]
            """,
        )
        request = read_request("merge", read_recipe_file(path), hint="mend it")
        by_file = local_registry.merge(request.sources, request.options).provenance
        by_hand = local_registry.merge(
            [str(SCIENCE), str(HISTORY)],
            MergeOptions(
                weights=[0.7, 0.3],
                method="ties",
                scale=2,
                rank=4,
                parameters={"density": 0.3},
                weights_for={"v_proj": [1, 0]},
            ),
        ).provenance
        assert by_file == by_hand

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("sources = [", "is not TOML"),
            (f"sources = {'[' * 100_000}", "is not TOML"),
            ("method = 'ties'", "names no sources"),
            ("sources = ['a']\nweight = [1]", "weight is not known"),
            ("sources = ['a']\nweights = ['x']", r"weights is \['x'\], expected a list of numbers"),
            ("sources = 'a'", "sources is 'a', expected a list"),
            ("sources = ['a']\nlambda = 'x'", "lambda is 'x', expected a number"),
            ("sources = ['a']\nrank = {energy = 0.9, colour = 1}", "rank is .*, expected a whole number, or one of"),
            ("sources = ['a']\n[weights_for]\nx = 1", "weights_for is .*, expected an object of lists"),
        ],
    )
    def test_what_it_cannot_be(self, tmp_path: Path, text: str, message: str):
        with pytest.raises(UsageError, match=message):
            read_recipe_file(self.write(tmp_path, text))

    def test_that_is_not_there(self, tmp_path: Path):
        with pytest.raises(NotFoundError):
            read_recipe_file(tmp_path / "r.toml")


class TestCompare:
    def test_figures_are_the_dense_ones(self, local_registry: Registry, tmp_path: Path):
        a, b = train(tmp_path / "a", 1, r=3), train(tmp_path / "b", 2, r=5)
        (pair,) = local_registry.compare([str(a), str(b)])
        x, y = deltas_by_peft(a), deltas_by_peft(b)
        inner = sum(float((x[m] * y[m]).sum()) for m in x)
        norms = [sum(float(d.square().sum()) for d in deltas.values()) ** 0.5 for deltas in (x, y)]
        assert pair.modules == len(x)
        assert pair.cosine == pytest.approx(inner / norms[0] / norms[1])
        assert pair.norm_ratio == pytest.approx(norms[1] / norms[0])
        for side, transposed in ((pair.left_overlap, False), (pair.right_overlap, True)):
            shared = 0.0
            for m in x:
                p, q = (d[m].T if transposed else d[m] for d in (x, y))
                u, v = torch.linalg.svd(p)[0][:, :3], torch.linalg.svd(q)[0][:, :5]
                shared += float((u.T @ v).square().sum())
            assert side == pytest.approx(shared / (3 * len(x)))
        opposite = sum(int((x[m] * y[m] < 0).sum()) for m in x) / sum(x[m].numel() for m in x)
        assert pair.sign_conflict == pytest.approx(opposite, abs=0.03)
        assert not pair.near_duplicate

    def test_the_same_adapter_refactored_is_a_near_duplicate(self, local_registry: Registry, tmp_path: Path):
        a = train(tmp_path / "a", 1)
        tensors = load_file(a / "adapter_model.safetensors")
        other = copy(a, tmp_path / "b")
        turned = {k: -2 * t if "lora_A" in k else -t / 2 for k, t in tensors.items()}
        save_file(turned, other / "adapter_model.safetensors", {"format": "pt"})
        (pair,) = local_registry.compare([str(a), str(other)])
        assert (pair.cosine, pair.norm_ratio) == (pytest.approx(1), pytest.approx(1))
        assert (pair.left_overlap, pair.right_overlap) == (pytest.approx(1), pytest.approx(1))
        assert pair.sign_conflict == 0
        assert pair.near_duplicate

    def test_adapters_of_other_modules_have_nothing_to_compare(self, local_registry: Registry, tmp_path: Path):
        a, b = train(tmp_path / "a", 1, target_modules=["q_proj"]), train(tmp_path / "b", 2, target_modules=["v_proj"])
        with pytest.raises(MergeError, match="no module in common"):
            local_registry.compare([str(a), str(b)])

    def test_one_adapter_is_too_few(self, local_registry: Registry):
        with pytest.raises(UsageError, match="two adapters or more"):
            local_registry.compare([str(SCIENCE)])

    def test_is_drawn(self, local_registry: Registry, tmp_path: Path):
        local_registry.compare([str(SCIENCE), str(HISTORY)], plot=tmp_path / "c.png")
        local_registry.merge([str(SCIENCE), str(HISTORY)], MergeOptions(rank=8), plot=tmp_path / "m.svg")
        assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (tmp_path / "m.svg").read_text()

    def test_a_picture_that_cannot_be_drawn(self, local_registry: Registry, tmp_path: Path):
        for path in (tmp_path / "c.doc", tmp_path / "missing" / "c.png"):
            with pytest.raises(LoregError):
                local_registry.compare([str(SCIENCE), str(HISTORY)], plot=path)
