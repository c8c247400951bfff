"""A merge is the exact weighted sum of deltas; PEFT is the oracle for what deltas are."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import PeftModel
from safetensors.torch import load_file, save_file

from deployments import DORA, HISTORY, MOVIES, NEWS, SCIENCE, empty_home
from factories import (
    change_config,
    change_tensors,
    copy,
    deltas_by_hand,
    deltas_by_peft,
    new_model,
    relative_error,
    train,
    weighted_sum,
    write_base,
)
from loreg.entities import MergeOptions
from loreg.errors import CheckFailedError, ConflictError, LoregError, MergeError, UsageError
from loreg.registry import Registry, connect

EXACT = 1e-6


@pytest.fixture
def local_registry(tmp_path: Path) -> Registry:
    return connect(home=empty_home(tmp_path / "home"))


def merge(
    registry: Registry, folders: list[Path], weights: list[float], target: Path, base: Path | None = None, **options
):
    sources = [str(folder) for folder in folders]
    registry.merge(sources, MergeOptions(weights=weights, **options), base=base, folder=target)
    return target


def test_the_merge_of_the_real_minilm_adapters_is_the_weighted_sum(local_registry: Registry, tmp_path: Path):
    merged = merge(local_registry, [NEWS, MOVIES], [0.7, 0.3], tmp_path / "merged", extras=str(NEWS))
    expected = weighted_sum([deltas_by_hand(NEWS), deltas_by_hand(MOVIES)], [0.7, 0.3])
    assert relative_error(deltas_by_hand(merged), expected) < EXACT


def test_the_merge_of_the_real_smollm2_adapters_is_the_weighted_sum(local_registry: Registry, tmp_path: Path):
    merged = merge(local_registry, [SCIENCE, HISTORY], [1.5, -0.5], tmp_path / "merged")
    expected = weighted_sum([deltas_by_hand(SCIENCE), deltas_by_hand(HISTORY)], [1.5, -0.5])
    assert relative_error(deltas_by_hand(merged), expected) < EXACT


MIXES = {
    "ranks": [{"r": 2}, {"r": 7}],
    "alphas": [{"lora_alpha": 3}, {"lora_alpha": 40}],
    "rslora": [{"use_rslora": True, "r": 9}, {"use_rslora": False}],
    "rank patterns": [{"rank_pattern": {"q_proj": 6}, "r": 3}, {"rank_pattern": {r"layers\.1\.v_proj": 1}}],
    "alpha patterns": [{"alpha_pattern": {"v_proj": 1}}, {"alpha_pattern": {r"layers.0.q_proj": 64}, "r": 5}],
    "patterns under rslora": [{"use_rslora": True, "rank_pattern": {"v_proj": 2}}, {"alpha_pattern": {"q_proj": 5}}],
    "modules": [{"target_modules": ["q_proj"]}, {"target_modules": ["v_proj"], "r": 3}],
    "layers": [{"target_modules": ["layers.0.q_proj"]}, {"target_modules": r".*layers\.1\..*_proj", "r": 2}],
    "modules that overlap": [{"target_modules": ["q_proj"]}, {"target_modules": ["q_proj", "v_proj"]}, {"r": 1}],
    "ranks beyond the matrix": [{"r": 16}, {"r": 16}],
    "orthogonal initialisation": [{"init_lora_weights": "orthogonal"}, {"init_lora_weights": "gaussian"}],
}


@pytest.mark.parametrize("mix", MIXES.values(), ids=MIXES.keys())
def test_every_mix_merges_exactly_and_peft_agrees(local_registry: Registry, tmp_path: Path, mix: list[dict]):
    folders = [train(tmp_path / f"source{i}", i, **options) for i, options in enumerate(mix)]
    weights = [0.7, -0.4, 1.3][: len(mix)]
    base = write_base(tmp_path / "base")  # which proves of adapters without a common module that they belong together
    merged = merge(local_registry, folders, weights, tmp_path / "merged", base=base)
    expected = weighted_sum([deltas_by_peft(folder) for folder in folders], weights)
    assert relative_error(deltas_by_peft(merged), expected) < EXACT
    assert_peft_computes(merged, expected)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sources=st.lists(
        st.fixed_dictionaries(
            {
                "r": st.integers(1, 12),
                "lora_alpha": st.integers(1, 64),
                "use_rslora": st.booleans(),
                "target_modules": st.sampled_from([["q_proj"], ["v_proj"], ["q_proj", "v_proj"]]),
                "rank_pattern": st.dictionaries(st.sampled_from(["q_proj", "layers.1.v_proj"]), st.integers(1, 9)),
                "alpha_pattern": st.dictionaries(st.sampled_from(["v_proj", r".*\.0\.q_proj"]), st.integers(1, 40)),
            }
        ),
        min_size=1,
        max_size=4,
    ),
    weights=st.lists(st.floats(-2, 2).filter(lambda w: abs(w) > 1e-3), min_size=4, max_size=4),
)
def test_any_mix_merges_exactly(local_registry: Registry, tmp_path_factory: pytest.TempPathFactory, sources, weights):
    folder = tmp_path_factory.mktemp("mix")
    folders = [train(folder / f"source{i}", i, **options) for i, options in enumerate(sources)]
    weights = weights[: len(sources)]
    merged = merge(local_registry, folders, weights, folder / "merged", base=write_base(folder / "base"))
    expected = weighted_sum([deltas_by_peft(source) for source in folders], weights)
    assert relative_error(deltas_by_peft(merged), expected) < EXACT


def assert_peft_computes(merged: Path, expected: dict[str, torch.Tensor]) -> None:
    """PEFT loads the adapter with no missing and no unexpected key, and its forward pass is the base's plus deltas."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = PeftModel.from_pretrained(new_model(), merged)
    loaded = model.load_adapter(merged, "again")
    assert loaded.unexpected_keys == []
    assert [key for key in loaded.missing_keys if "lora" in key] == []
    plain = new_model()
    for name, delta in expected.items():
        module = plain.get_submodule(name)
        module.weight.data += delta.float()
    x = torch.randn(5, 20, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(model(x), plain(x), rtol=1e-5, atol=1e-5)


def test_a_given_rank_is_the_best_one_of_that_rank(local_registry: Registry, tmp_path: Path):
    folders = [train(tmp_path / "a", 1), train(tmp_path / "b", 2)]
    merged = merge(local_registry, folders, [1, 1], tmp_path / "merged", rank=3)
    exact = weighted_sum([deltas_by_peft(folder) for folder in folders], [1, 1])
    best = {}
    for module, delta in exact.items():
        u, s, vh = torch.linalg.svd(delta, full_matrices=False)
        best[module] = u[:, :3] * s[:3] @ vh[:3]
    assert relative_error(deltas_by_peft(merged), best) < EXACT


def test_a_rank_above_what_there_is_pads_with_zeros(local_registry: Registry, tmp_path: Path):
    source = train(tmp_path / "a", 1)
    merged = merge(local_registry, [source], [1], tmp_path / "merged", rank=10)
    assert json.loads((merged / "adapter_config.json").read_text())["r"] == 10
    assert relative_error(deltas_by_peft(merged), deltas_by_peft(source)) < EXACT


def test_the_default_drops_only_what_is_numerically_zero(local_registry: Registry, tmp_path: Path):
    source = train(tmp_path / "a", 1, r=4)
    merged = merge(local_registry, [source, source], [0.5, 0.5], tmp_path / "merged")
    assert json.loads((merged / "adapter_config.json").read_text())["r"] == 4
    assert relative_error(deltas_by_peft(merged), deltas_by_peft(source)) < EXACT


def test_the_result_is_stored_in_the_widest_dtype_of_the_sources(local_registry: Registry, tmp_path: Path):
    for name, dtypes, expected in (
        ("narrow", (torch.bfloat16, torch.bfloat16), torch.bfloat16),
        ("mixed", (torch.bfloat16, torch.float16), torch.float32),
        ("wide", (torch.bfloat16, torch.float32), torch.float32),
    ):
        folders = []
        for i, dtype in enumerate(dtypes):
            folder = train(tmp_path / f"{name}{i}", i)
            tensors = load_file(folder / "adapter_model.safetensors")
            folders.append(change_tensors(folder, {key: tensor.to(dtype) for key, tensor in tensors.items()}))
        merged = merge(local_registry, folders, [1, 1], tmp_path / name)
        stored = {tensor.dtype for tensor in load_file(merged / "adapter_model.safetensors").values()}
        assert stored == {expected}


class TestWholeTensors:
    def test_that_differ_are_refused_with_the_choice_to_make(self, local_registry: Registry, tmp_path: Path):
        with pytest.raises(MergeError) as error:
            merge(local_registry, [NEWS, MOVIES], [1, 1], tmp_path / "merged")
        assert "classifier.weight (5, 384)" in error.value.message
        assert "classifier.weight (2, 384)" in error.value.message
        assert "--extras minilm-news-topics-r8" in error.value.hint
        assert not (tmp_path / "merged").exists()

    @pytest.mark.parametrize("chosen", [NEWS, MOVIES])
    def test_come_from_the_chosen_source(self, local_registry: Registry, tmp_path: Path, chosen: Path):
        merged = merge(local_registry, [NEWS, MOVIES], [1, 1], tmp_path / "merged", extras=str(chosen))
        name = "base_model.model.classifier.weight"
        expected = load_file(chosen / "adapter_model.safetensors")[name]
        assert torch.equal(load_file(merged / "adapter_model.safetensors")[name], expected)
        config = json.loads((merged / "adapter_config.json").read_text())
        assert config["modules_to_save"] == ["classifier", "score"]
        assert config["task_type"] == "SEQ_CLS"

    def test_that_only_one_source_has_are_kept_and_peft_loads_them(self, local_registry: Registry, tmp_path: Path):
        folders = [train(tmp_path / "a", 1, head=True), train(tmp_path / "b", 2)]
        merged = merge(local_registry, folders, [1, 1], tmp_path / "merged")
        model = PeftModel.from_pretrained(new_model(), merged)
        expected = load_file(folders[0] / "adapter_model.safetensors")["base_model.model.head.weight"]
        assert torch.equal(model.base_model.model.head.modules_to_save["default"].weight, expected)

    def test_that_are_the_same_in_all_sources_need_no_choice(self, local_registry: Registry, tmp_path: Path):
        folder = train(tmp_path / "a", 1, head=True)
        merged = merge(local_registry, [folder, folder], [1, 1], tmp_path / "merged")
        assert "base_model.model.head.weight" in load_file(merged / "adapter_model.safetensors")

    def test_extras_must_be_a_source(self, local_registry: Registry, tmp_path: Path):
        with pytest.raises(UsageError, match="is not one of the sources"):
            merge(local_registry, [NEWS, MOVIES], [1, 1], tmp_path / "merged", extras="nobody")


REFUSED = {
    "use_dora": (DORA, {}),
    "init_lora_weights is 'pissa'": (SCIENCE, {"init_lora_weights": "pissa_niter_4"}),
    "init_lora_weights is 'loftq'": (SCIENCE, {"init_lora_weights": "loftq"}),
    "init_lora_weights is 'magic'": (SCIENCE, {"init_lora_weights": "magic"}),
    "layer_replication": (SCIENCE, {"layer_replication": [[0, 2]]}),
    "alora_invocation_tokens": (SCIENCE, {"alora_invocation_tokens": [1, 2]}),
    "megatron_config": (SCIENCE, {"megatron_config": {"x": 1}}),
    "a_field_of_next_year": (SCIENCE, {"a_field_of_next_year": "on"}),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_cannot_be_merged_is_refused_by_the_name_of_the_field(
    local_registry: Registry, tmp_path: Path, reason: str
):
    source, fields = REFUSED[reason]
    folder = change_config(copy(source, tmp_path / "odd"), **fields)
    with pytest.raises(MergeError) as error:
        merge(local_registry, [folder, SCIENCE], [1, 1], tmp_path / "merged")
    assert reason.split(maxsplit=1)[0] in error.value.message
    assert not (tmp_path / "merged").exists()


def test_factors_that_do_not_fit_together_are_refused_by_the_name_of_the_module(
    local_registry: Registry, tmp_path: Path
):
    extra = {
        "base_model.model.emb.lora_embedding_A": torch.ones(4, 9),
        "base_model.model.emb.lora_embedding_B": torch.ones(5, 3),
    }
    folder = change_tensors(train(tmp_path / "a", 1), extra)
    with pytest.raises(LoregError, match="module emb"):
        merge(local_registry, [folder], [1], tmp_path / "merged")


class TestBases:
    def test_of_other_shapes_are_refused(self, local_registry: Registry, tmp_path: Path):
        other = train(tmp_path / "a", 1)
        tensors = load_file(other / "adapter_model.safetensors")
        name = "base_model.model.layers.0.q_proj.lora_A.weight"
        change_tensors(other, {name: torch.cat([tensors[name]] * 2, dim=1)})
        with pytest.raises(MergeError, match=r"different bases: module layers\.0\.q_proj is \(24, 20\)"):
            merge(local_registry, [train(tmp_path / "b", 2), other], [1, 1], tmp_path / "merged")

    def test_of_other_content_are_refused_by_hash(self, local_registry: Registry, tmp_path: Path):
        for i in range(2):
            base = write_base(tmp_path / f"base{i}", {"layers.0.q_proj.weight": torch.full((24, 20), float(i))})
            local_registry.push(train(tmp_path / f"a{i}", i), f"a{i}", base=str(base))
        with pytest.raises(
            CheckFailedError, match=r"different bases: a1:v1 does not fit base0 .* other weights"
        ) as error:
            local_registry.merge(["a0", "a1"], MergeOptions(weights=[1, 1]), folder=tmp_path / "merged")
        assert error.value.hint.startswith("merge adapters of one base: loreg search --base ")

    def test_that_differ_only_where_nobody_touches_them_fit(self, local_registry: Registry, tmp_path: Path):
        for i in range(2):
            base = write_base(tmp_path / f"base{i}", {"head.weight": torch.full((3, 20), float(i))})
            local_registry.push(train(tmp_path / f"a{i}", i), f"a{i}", base=str(base))
        merged = local_registry.merge(["a0", "a1"], MergeOptions(weights=[1, 1]), name="both")
        assert "differ only in what none of them touches" in " ".join(merged.notes)
        assert merged.pushed.version.base.names == ("base0",)

    def test_that_came_from_one_another_need_to_be_allowed(self, local_registry: Registry, tmp_path: Path):
        for i in range(2):
            base = write_base(tmp_path / f"base{i}", {"layers.0.q_proj.weight": torch.full((24, 20), float(i))})
            local_registry.push(train(tmp_path / f"a{i}", i), f"a{i}", base=str(base))
        local_registry.bases.relate("base1", "base0", "finetuned_from")
        with pytest.raises(CheckFailedError, match=r"finetuned_from .* \(declared by ada\)") as error:
            local_registry.merge(["a0", "a1"], MergeOptions(weights=[1, 1]), folder=tmp_path / "merged")
        assert error.value.hint == "--allow-derived merges them all the same"
        merged = local_registry.merge(
            ["a0", "a1"], MergeOptions(weights=[1, 1], allow_derived=True), folder=tmp_path / "merged"
        )
        assert "a1:v1 is merged for base0" in " ".join(merged.notes)


class TestRecord:
    def test_lineage_has_weights_and_digests(self, registry: Registry):
        news, movies = registry.push(NEWS, "news").version, registry.push(MOVIES, "movies").version
        merged = registry.merge(
            ["news", "movies:v1"], MergeOptions(weights=[0.7, 0.3], extras="news", rank=8), name="blend"
        )
        version, edges = registry.lineage("blend")
        assert version == merged.pushed.version
        assert [(e.parent_ref, e.parent.digest, e.parent.weight) for e in edges] == [
            ("news:v1", news.digest, 0.7),
            ("movies:v1", movies.digest, 0.3),
        ]
        shown = registry.show("blend").provenance
        assert shown.recipe["rank"] == {"fixed": 8}
        assert shown.certificate == merged.provenance.certificate

    def test_lineage_reaches_through_merges_of_merges(self, registry: Registry):
        registry.push(SCIENCE, "science")
        registry.push(HISTORY, "history")
        registry.merge(["science", "history"], MergeOptions(weights=[1, 1]), name="both")
        registry.merge(["both", "science"], MergeOptions(weights=[0.5, 2]), name="more")
        _, edges = registry.lineage("more")
        assert [(e.depth, e.child, e.parent_ref, e.parent.weight) for e in edges] == [
            (1, "more:v1", "both:v1", 0.5),
            (1, "more:v1", "science:v1", 2.0),
            (2, "both:v1", "science:v1", 1.0),
            (2, "both:v1", "history:v1", 1.0),
        ]

    def test_a_merge_written_to_a_folder_and_pushed_later_keeps_its_lineage(self, registry: Registry, tmp_path: Path):
        registry.push(SCIENCE, "science")
        merge(registry, [SCIENCE, HISTORY], [1, 2], tmp_path / "blend")
        registry.push(tmp_path / "blend", "blend")
        _, edges = registry.lineage("blend")
        assert [(e.parent_ref, e.parent.label, e.parent.weight) for e in edges] == [
            ("science:v1", "smollm2-science-r8", 1.0),
            ("", "smollm2-history-r8", 2.0),
        ]

    def test_training_on_after_a_merge_ends_the_lineage_with_a_note(self, registry: Registry, tmp_path: Path):
        merge(registry, [SCIENCE, HISTORY], [1, 2], tmp_path / "blend")
        name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
        change_tensors(
            tmp_path / "blend", {name: load_file(tmp_path / "blend" / "adapter_model.safetensors")[name] * 2}
        )
        pushed = registry.push(tmp_path / "blend", "trained-on")
        assert "other weights than these" in " ".join(pushed.notes)
        assert registry.lineage("trained-on")[1] == ()

    def test_the_same_merge_again_is_the_same_content(self, registry: Registry):
        registry.push(SCIENCE, "science")
        first = registry.merge(["science"], MergeOptions(weights=[0.5]), name="half").pushed
        again = registry.merge(["science"], MergeOptions(weights=[0.5]), name="half").pushed
        assert first.created
        assert not again.created
        assert again.version.number == 1

    def test_the_base_of_the_sources_is_the_base_of_the_result(self, registry: Registry, tmp_path: Path):
        base = write_base(tmp_path / "base")
        pushed = registry.push(train(tmp_path / "a", 1), "a", base=str(base)).version
        merged = registry.merge(["a"], MergeOptions(weights=[2]), name="twice").pushed.version
        assert merged.base.digest == pushed.base.digest

    def test_names_of_folders_on_this_machine_stay_here(self, registry: Registry, tmp_path: Path):
        merge(registry, [SCIENCE, HISTORY], [1, 2], tmp_path / "blend")
        assert str(tmp_path) not in (tmp_path / "blend" / "loreg_merge.json").read_text()
        assert str(SCIENCE.parent) not in (tmp_path / "blend" / "loreg_merge.json").read_text()


class TestCall:
    def test_a_count_of_weights_that_does_not_match_is_a_usage_error(self, local_registry: Registry, tmp_path: Path):
        with pytest.raises(UsageError, match="2 adapters and 3 weights"):
            merge(local_registry, [NEWS, MOVIES], [1, 1, 1], tmp_path / "merged")

    def test_a_folder_that_is_not_empty_is_left_alone(self, local_registry: Registry, tmp_path: Path):
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "mine.txt").write_text("mine")
        with pytest.raises(ConflictError):
            merge(local_registry, [SCIENCE, HISTORY], [1, 1], tmp_path / "full")
        assert [p.name for p in (tmp_path / "full").iterdir()] == ["mine.txt"]

    def test_weights_beyond_what_the_dtype_holds_are_refused(self, local_registry: Registry, tmp_path: Path):
        with pytest.raises(MergeError, match=r"do not fit into torch\.float32"):
            merge(local_registry, [SCIENCE], [1e80], tmp_path / "merged")
        assert not (tmp_path / "merged").exists()

    def test_without_a_target_only_the_certificate_is_made(self, local_registry: Registry):
        result = local_registry.merge([str(SCIENCE), str(HISTORY)], MergeOptions(weights=[1, 1]))
        assert result.pushed is None
        assert result.folder is None
        assert result.provenance.certificate["total"]["rank"] == 16


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.int8])
def test_quantised_factors_are_refused(local_registry: Registry, tmp_path: Path, dtype: torch.dtype):
    folder = train(tmp_path / "a", 1)
    tensors = load_file(folder / "adapter_model.safetensors")
    change_tensors(folder, {name: tensor.to(dtype) for name, tensor in tensors.items()})
    with pytest.raises(MergeError, match="expected one of F64, F32, F16, BF16"):
        merge(local_registry, [folder], [1], tmp_path / "merged")


def test_biases_that_travel_along_are_loaded_by_peft(local_registry: Registry, tmp_path: Path):
    folders = [train(tmp_path / "a", 1, bias="all"), train(tmp_path / "b", 2)]
    merged = merge(local_registry, folders, [1, 1], tmp_path / "merged", extras=str(folders[0]))
    model = PeftModel.from_pretrained(new_model(), merged)
    stored = load_file(folders[0] / "adapter_model.safetensors")["base_model.model.layers.0.q_proj.base_layer.bias"]
    assert torch.equal(model.base_model.model.layers[0].q_proj.base_layer.bias, stored)
    expected = weighted_sum([deltas_by_peft(folder) for folder in folders], [1, 1])
    assert relative_error(deltas_by_peft(merged), expected) < EXACT


class TestWhatPeftWouldDrop:
    """The names and places under which PEFT looks for whole tensors depend on which modules carry LoRA."""

    @pytest.mark.parametrize(
        ("first", "second", "chosen"),
        [
            ({"target_modules": ["q_proj"], "bias": "lora_only"}, {"target_modules": ["v_proj"], "bias": "all"}, 1),
            ({"target_modules": ["q_proj"], "bias": "all"}, {"target_modules": ["q_proj", "v_proj"]}, 0),
        ],
    )
    def test_biases_are_where_peft_looks(
        self, local_registry: Registry, tmp_path: Path, first: dict, second: dict, chosen: int
    ):
        folders = [train(tmp_path / "a", 1, **first), train(tmp_path / "b", 2, **second)]
        for folder in folders:  # trained biases differ from the base's
            tensors = load_file(folder / "adapter_model.safetensors")
            change_tensors(folder, {name: t + 1 for name, t in tensors.items() if name.endswith("bias")})
        base = write_base(tmp_path / "base")
        merged = merge(local_registry, folders, [0.7, 0.3], tmp_path / "merged", extras=str(folders[chosen]), base=base)
        merged_model = PeftModel.from_pretrained(new_model(), merged).base_model.model
        expected = PeftModel.from_pretrained(new_model(), folders[chosen]).base_model.model
        for i in (0, 1):
            for name in ("q_proj", "v_proj"):
                x, y = (getattr(model.layers[i], name) for model in (merged_model, expected))
                assert torch.equal(getattr(x, "base_layer", x).bias, getattr(y, "base_layer", y).bias)

    def test_a_module_that_is_whole_in_one_and_has_factors_in_another_is_refused(
        self, local_registry: Registry, tmp_path: Path
    ):
        whole = train(tmp_path / "whole", 1, target_modules=["q_proj"], head=True)
        factors = train(tmp_path / "factors", 2, target_modules=["q_proj", "head"])
        with pytest.raises(MergeError, match="module head is whole in whole and has factors in factors"):
            merge(local_registry, [whole, factors], [1, 1], tmp_path / "merged")


class TestBaseOfTheResult:
    def test_is_not_claimed_for_a_source_that_declares_another(self, registry: Registry, tmp_path: Path):
        folders = [train(tmp_path / name, i) for i, name in enumerate("ab")]
        change_config(folders[0], base_model_name_or_path="org/one")
        change_config(folders[1], base_model_name_or_path="org/other")
        registry.push(folders[0], "a", base=str(write_base(tmp_path / "base")))
        registry.push(folders[1], "b")
        assert registry.merge(["a", "b"], MergeOptions(weights=[1, 1]), name="blend").pushed.version.base is None

    def test_is_that_which_a_source_declares_by_its_name(self, registry: Registry, tmp_path: Path):
        folders = [train(tmp_path / name, i) for i, name in enumerate("ab")]
        for folder in folders:
            change_config(folder, base_model_name_or_path="org/one")
        base = registry.push(folders[0], "a", base=str(write_base(tmp_path / "base"))).version.base
        registry.push(folders[1], "b")
        assert registry.merge(["a", "b"], MergeOptions(weights=[1, 1]), name="blend").pushed.version.base == base


class TestNumbersAtTheEdge:
    @pytest.mark.parametrize("weight", [1e200, 1e308, -1e308])
    def test_weights_that_overflow_are_refused(self, local_registry: Registry, tmp_path: Path, weight: float):
        with pytest.raises(MergeError, match="does not fit into float64"):
            local_registry.merge([str(train(tmp_path / "a", 1))] * 2, MergeOptions(weights=[weight, 1.0]))

    def test_a_rank_beyond_the_matrix_is_that_of_the_matrix(self, local_registry: Registry, tmp_path: Path):
        source = train(tmp_path / "a", 1)
        merged = merge(local_registry, [source], [1], tmp_path / "merged", rank=99_999_999)
        assert json.loads((merged / "adapter_config.json").read_text())["r"] == 20
        assert relative_error(deltas_by_peft(merged), deltas_by_peft(source)) < EXACT

    def test_sources_that_cancel_leave_nothing(self, local_registry: Registry, tmp_path: Path):
        source = train(tmp_path / "a", 1)
        total = local_registry.merge([str(source)] * 2, MergeOptions(weights=[1, -1])).provenance.certificate["total"]
        assert (total["rank"], total["norm"], total["epsilon"]) == (1, 0, 0)


def test_many_modules_with_patterns_are_read_in_one_go(local_registry: Registry, tmp_path: Path):
    """What a merge writes for modules of different ranks, read again: patterns times modules, not more."""
    names = [f"layers.{i}.m{j}" for i in range(60) for j in range(10)]
    for folder, rank in (("a", 2), ("b", 3)):
        (tmp_path / folder).mkdir()
        chosen = names if folder == "a" else names[::2]
        tensors = {}
        for name in chosen:
            tensors[f"base_model.model.{name}.lora_A.weight"] = torch.randn(rank, 8)
            tensors[f"base_model.model.{name}.lora_B.weight"] = torch.randn(8, rank)
        save_file(tensors, tmp_path / folder / "adapter_model.safetensors")
        config = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": chosen}
        (tmp_path / folder / "adapter_config.json").write_text(json.dumps(config))
    merged = merge(local_registry, [tmp_path / "a", tmp_path / "b"], [1, 1], tmp_path / "merged")
    pushed = local_registry.push(merged, "merged").version
    assert (pushed.facts.rank_min, pushed.facts.rank_max) == (2, 5)
