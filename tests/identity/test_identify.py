"""``identify`` says what an adapter is, whatever it is called: told by numbers, and never of a stranger."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from deployments import DORA, HISTORY, MOVIES, NEWS, SCIENCE, Deployment, command_line
from factories import change_config, change_tensors, copy
from identity.variants import VARIANTS, WEIGHTS, merged, read, refactored, reranked, rounded, scaled, write
from loreg import Registry, connect
from loreg.adapters.structure import read_structure
from loreg.entities import Identification, Kinship
from loreg.identity.sketch import sketch_adapter


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with the real adapters, and some of the same shape that are strangers to them."""
    folder = tmp_path_factory.mktemp("identify")
    with connect(home=str(folder / "home"), author="ada") as registry:
        for path in (SCIENCE, HISTORY, MOVIES, NEWS, DORA):
            registry.push(path, f"team/{path.name}")
        generator = torch.Generator().manual_seed(5)
        for number in range(8):
            factors = {
                name: (
                    torch.randn(b.shape, generator=generator).double(),
                    torch.randn(a.shape, generator=generator).double(),
                )
                for name, (b, a) in read(SCIENCE)[0].items()
            }
            registry.push(write(folder / str(number), SCIENCE, factors), f"team/stranger-{number}")
    return folder / "home"


@pytest.fixture
def science(home: Path) -> Iterator[Registry]:
    with connect(home=str(home), author="ada") as registry:
        yield registry


def best(identification: Identification) -> Kinship:
    return identification.answers[0]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("source", [SCIENCE, MOVIES], ids=lambda source: source.name)
def test_every_copy_of_a_version_is_known_for_what_it_is(science: Registry, source: Path, variant: str, tmp_path: Path):
    relation, make = VARIANTS[variant]
    answer = best(science.identify(str(make(tmp_path / "nameless", source))))
    assert (answer.ref, str(answer.relation)) == (f"team/{source.name}:v1", relation)
    expected_scale = {"scaled": 2.0, "turned": -0.7}.get(variant, 1.0)
    assert answer.scale == pytest.approx(expected_scale, rel=2e-2)


def test_a_merge_is_taken_apart_into_its_sources_and_weights(science: Registry, tmp_path: Path):
    folder = merged(tmp_path / "both", {SCIENCE: 0.7, HISTORY: 0.3})
    answer = best(science.identify(str(folder)))
    assert str(answer.relation) == "merged"
    assert {share.ref: round(share.weight, 5) for share in answer.sources} == {
        "team/smollm2-science-r8:v1": 0.7,
        "team/smollm2-history-r8:v1": 0.3,
    }
    assert answer.error < 1e-5


def test_a_merge_that_was_cut_down_is_taken_apart_with_what_is_left_unexplained(science: Registry, tmp_path: Path):
    folder = reranked(tmp_path / "cut", merged(tmp_path / "both", {SCIENCE: 0.5, HISTORY: 0.5}), 8)
    answer = best(science.identify(str(folder)))
    assert {share.ref for share in answer.sources} == {"team/smollm2-science-r8:v1", "team/smollm2-history-r8:v1"}
    assert 0.05 < answer.error < 0.7
    assert answer.notes


def test_a_stranger_is_unknown_and_the_command_says_so_with_its_exit_code(home: Path, tmp_path: Path):
    generator = torch.Generator().manual_seed(99)
    factors = {
        name: (torch.randn(b.shape, generator=generator).double(), torch.randn(a.shape, generator=generator).double())
        for name, (b, a) in read(SCIENCE)[0].items()
    }
    folder = write(tmp_path / "stranger", SCIENCE, factors)
    loreg = command_line({"LOREG_HOME": str(home)})
    outcome = loreg("identify", folder)
    assert outcome.exit_code == 3
    assert outcome.stdout.startswith("unknown")
    assert json.loads(loreg("identify", folder, "--format", "json").stdout)["answers"] == []
    assert loreg("identify", folder, "--format", "quiet").stdout == ""


def test_the_same_weights_with_another_alpha_are_scaled_although_the_file_is_the_same(
    science: Registry, tmp_path: Path
):
    alpha = read(SCIENCE)[2]["lora_alpha"]
    answer = best(science.identify(str(change_config(copy(SCIENCE, tmp_path / "x"), lora_alpha=3 * alpha))))
    assert (str(answer.relation), answer.scale) == ("scaled", pytest.approx(3.0))
    assert {"file", "data"} <= set(map(str, answer.hashes))


def test_the_same_tensors_under_other_metadata_are_the_same_weights(science: Registry, tmp_path: Path):
    folder = copy(SCIENCE, tmp_path / "x")
    content = (folder / WEIGHTS).read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = {**json.loads(content[8 : 8 + length]), "__metadata__": {"format": "pt", "modelspec.title": "mine"}}
    text = json.dumps(header).encode()
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    answer = best(science.identify(str(folder)))
    assert (str(answer.relation), tuple(map(str, answer.hashes))) == ("weights", ("data",))


def test_a_head_that_differs_is_named(science: Registry, tmp_path: Path):
    tensors = load_file(NEWS / WEIGHTS)
    head = next(name for name in tensors if "classifier" in name and name.endswith("weight"))
    folder = change_tensors(copy(NEWS, tmp_path / "x"), {head: tensors[head] + 1})
    answer = best(science.identify(str(folder)))
    assert str(answer.relation) == "weights"
    assert "classifier.weight" in answer.notes[0]


def test_bfloat16_that_was_saved_as_float32_is_known_as_the_same_in_another_precision(
    science: Registry, tmp_path: Path
):
    folder = rounded(tmp_path / "bf16", SCIENCE, torch.bfloat16)
    wide = rounded(tmp_path / "wide", folder, torch.float32)
    assert str(best(science.identify(str(wide))).relation) == "precision"


def test_a_version_of_a_higher_rank_is_known_as_what_it_was_cut_down_from(tmp_path: Path):
    with connect(home=str(tmp_path / "home")) as registry:
        registry.push(reranked(tmp_path / "low", SCIENCE, 4), "low")
        answer = best(registry.identify(str(SCIENCE)))
    assert (str(answer.relation), answer.is_source) == ("reranked", False)
    assert 0 < answer.retention < 1


@pytest.mark.parametrize("form", ["AutoV2", "AutoV3", "sha256", "manifest"])
def test_the_hashes_that_others_use_find_the_version(science: Registry, home: Path, form: str):
    content = (SCIENCE / WEIGHTS).read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    sha256 = hashlib.sha256(content).hexdigest()
    text = {
        "AutoV2": sha256[:10].upper(),
        "AutoV3": hashlib.sha256(content[8 + length :]).hexdigest()[:12].upper(),
        "sha256": sha256,
        "manifest": "sha256:" + science.show("team/smollm2-science-r8").version.digest,
    }[form]
    assert [answer.ref for answer in science.identify(text).answers] == ["team/smollm2-science-r8:v1"]
    outcome = command_line({"LOREG_HOME": str(home)})("identify", text, "--format", "quiet")
    assert outcome.stdout == "hash team/smollm2-science-r8:v1\n"


def test_a_file_without_a_configuration_is_known_by_its_hashes(science: Registry, tmp_path: Path):
    file = tmp_path / "mine.safetensors"
    file.write_bytes((SCIENCE / WEIGHTS).read_bytes())
    identification = science.identify(str(file))
    assert (best(identification).ref, str(best(identification).relation)) == ("team/smollm2-science-r8:v1", "hash")
    assert identification.notes


def test_a_ref_is_compared_with_all_others_and_copies_of_it_are_named(deployment: Deployment, tmp_path: Path):
    with connect(**deployment.settings) as registry:
        registry.push(SCIENCE, "team/science")
        registry.push(scaled(tmp_path / "twice", SCIENCE, 2.0), "team/twice")
        registry.push(refactored(tmp_path / "other", SCIENCE), "team/other")
        kin = registry.identify("team/twice").answers
        assert (kin[0].ref, str(kin[0].relation), kin[0].scale) == ("team/science:v1", "scaled", pytest.approx(2.0))
        (alone,) = [a for a in registry.identify("team/science").answers if a.ref == "team/science:v1"] or [None]
        assert alone is None


def test_a_sketch_that_lies_makes_a_candidate_and_never_an_answer(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
):
    lie = sketch_adapter(read_structure(SCIENCE))
    with connect(**deployment.settings) as registry:
        monkeypatch.setattr("loreg.verbs.push.sketch_adapter", lambda structure: lie)
        registry.push(HISTORY, "team/liar")
        assert not [a for a in registry.identify(str(SCIENCE)).answers if str(a.relation) not in ("related", "hash")]


def test_dora_is_compared_without_its_magnitudes_and_says_so(science: Registry):
    identification = science.identify(str(DORA))
    assert str(best(identification).relation) == "same"
    assert any("DoRA" in note for note in identification.notes)


def test_what_has_no_deltas_is_told_to_change_nothing(science: Registry, tmp_path: Path):
    zero = {n: torch.zeros_like(t) for n, t in load_file(SCIENCE / WEIGHTS).items() if "lora_B" in n}
    identification = science.identify(str(change_tensors(copy(SCIENCE, tmp_path / "zero"), zero)))
    assert identification.answers == ()
    assert any("zero" in note for note in identification.notes)
