"""What the catalog says of how well a base fits: on adapters that PEFT wrote and bases on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from factories import OUT, new_model, train, write_base
from loreg.entities import VerdictKind
from loreg.errors import ConflictError, NotFoundError, UsageError
from loreg.registry import Registry

Q = "layers.0.q_proj.weight"


def verdicts(registry: Registry, source: str) -> dict[str, str]:
    return {match.base.names[0]: match.verdict.kind for match in registry.bases.match(source)}


def add(registry: Registry, path: Path, name: str) -> str:
    return registry.bases.add(path, [name]).base.digest


@pytest.fixture
def pushed(registry: Registry, tmp_path: Path) -> Registry:
    """An adapter on a base that is known by content as ``original``."""
    add(registry, write_base(tmp_path / "original"), "original")
    registry.push(train(tmp_path / "adapter", 1), "a", base="original")
    return registry


def changed(tensor: str) -> dict[str, torch.Tensor]:
    return {tensor: new_model().state_dict()[tensor] + 1}


def test_every_verdict_from_the_strongest_to_the_weakest(pushed: Registry, tmp_path: Path):
    q = changed(Q)
    add(pushed, write_base(tmp_path / "1", changed("head.weight")), "resized head")
    add(pushed, write_base(tmp_path / "2", q), "rounded")
    add(pushed, write_base(tmp_path / "3", {Q: q[Q] + 1}), "unrelated")
    add(pushed, write_base(tmp_path / "4", {Q: torch.ones(OUT, 3)}), "other shapes")
    pushed.bases.relate("rounded", "original", "quantized_from", {"bits": 8})
    by_name = verdicts(pushed, "a")
    assert by_name == {
        "original": "exact",
        "resized head": "target-exact",
        "rounded": "declared-derived",
        "unrelated": "struct-only",
        "other shapes": "mismatch",
    }
    places = list(map(tuple(VerdictKind).index, by_name.values()))
    assert places == sorted(places)
    reasons = {match.base.names[0]: match.verdict.reason for match in pushed.bases.match("a")}
    assert reasons["original"] == "it was trained on this very content"
    assert reasons["resized head"] == "the 4 tensors that it touches are the same, others are not"
    assert "quantized_from" in reasons["rounded"]
    assert "bits 8 (declared by ada)" in reasons["rounded"]
    assert "it was trained on other weights, those of original" in reasons["unrelated"]
    assert reasons["other shapes"] == "layers.0.q_proj is (24, 20) in the adapter, this base has (24, 3)"


def test_an_adapter_of_an_unknown_base_is_judged_by_its_shapes(registry: Registry, tmp_path: Path):
    add(registry, write_base(tmp_path / "base"), "original")
    adapter = train(tmp_path / "adapter", 1)
    assert verdicts(registry, str(adapter)) == {"original": "struct-only"}


def test_a_renaming_is_proven_by_the_contents(pushed: Registry, tmp_path: Path):
    renamed = {f"module.{name}": tensor for name, tensor in new_model().state_dict().items()}
    (tmp_path / "renamed").mkdir()
    save_file(renamed, tmp_path / "renamed" / "model.safetensors")
    add(pushed, tmp_path / "renamed", "renamed")
    edge = pushed.bases.relate("renamed", "original", "renamed_from")
    assert edge.verified
    # One leading part more is found all the same, and then the tensors are the very same.
    assert verdicts(pushed, "a")["renamed"] == "target-exact"
    add(pushed, write_base(tmp_path / "other", changed(Q)), "other")
    with pytest.raises(ConflictError, match=r"is not a renaming of .*: 1 of its tensors have other content"):
        pushed.bases.relate("other", "original", "renamed_from")


def test_a_lossless_cast_is_the_same_base(pushed: Registry, tmp_path: Path):
    wide = {name: tensor.double() for name, tensor in new_model().state_dict().items()}
    (tmp_path / "wide").mkdir()
    save_file(wide, tmp_path / "wide" / "model.safetensors")
    add(pushed, tmp_path / "wide", "wide")
    edge = pushed.bases.relate("wide", "original", "cast_of")
    assert edge.verified
    assert edge.child == edge.parent
    with pytest.raises(ConflictError, match="wide and original are one base"):
        pushed.bases.relate("wide", "original", "finetuned_from")


def test_a_lossless_cast_that_lacks_a_tensor_is_verified_and_a_rounding_is_declared(pushed: Registry, tmp_path: Path):
    tensors = {name: tensor for name, tensor in new_model().state_dict().items() if "head" not in name}
    halves = {name: tensor.half() for name, tensor in tensors.items()}
    for name, stored in (("part", tensors), ("half", halves)):
        (tmp_path / name).mkdir()
        save_file(stored, tmp_path / name / "model.safetensors")
        add(pushed, tmp_path / name, name)
    assert pushed.bases.relate("part", "original", "cast_of").verified
    assert not pushed.bases.relate("half", "original", "cast_of").verified
    assert verdicts(pushed, "a") == {"original": "exact", "part": "target-exact", "half": "declared-derived"}


def test_two_verified_steps_are_a_verified_derivation(registry: Registry, tmp_path: Path):
    """The touched tensor has another name, so that only the edges say that it is the same."""
    plain = new_model().state_dict()
    for name, spell in (("one", "{}"), ("two", "x.y.{}"), ("three", "z.y.x.{}")):
        (tmp_path / name).mkdir()
        save_file({spell.format(n): t for n, t in plain.items()}, tmp_path / name / "model.safetensors")
        add(registry, tmp_path / name, name)
    registry.push(train(tmp_path / "adapter", 1), "a", base="one")
    assert verdicts(registry, "a")["three"] == "mismatch"
    registry.bases.relate("two", "one", "renamed_from")
    registry.bases.relate("three", "two", "renamed_from")
    assert verdicts(registry, "a") == {"one": "exact", "two": "verified-derived", "three": "verified-derived"}
    registry.bases.relate("two", "one", "finetuned_from")  # a weaker way beside a verified one changes nothing
    assert verdicts(registry, "a")["three"] == "verified-derived"


def test_relations_that_cannot_be_are_refused(pushed: Registry):
    with pytest.raises(UsageError, match="'made_from' is no way"):
        pushed.bases.relate("original", "original", "made_from")
    with pytest.raises(NotFoundError, match="there is no base 'nobody'"):
        pushed.bases.relate("original", "nobody", "cast_of")


def test_headers_alone_say_whether_shapes_fit(registry: Registry, tmp_path: Path):
    base = write_base(tmp_path / "base")
    by_headers = registry.bases.add(base, ["tiny"], header_only=True).base
    assert not by_headers.complete
    adapter = train(tmp_path / "adapter", 1)
    assert verdicts(registry, str(adapter)) == {"tiny": "struct-only"}
    whole = registry.bases.add(base, ["tiny"]).base
    assert whole.struct == by_headers.struct
    assert whole.complete
    assert registry.bases.show("tiny").base == whole  # the name goes over to the base that is known better
    assert registry.push(adapter, "a", base="tiny").version.target is not None


def test_the_target_does_not_depend_on_what_is_not_touched(registry: Registry, tmp_path: Path):
    adapter = train(tmp_path / "adapter", 1)
    targets = [
        registry.push(adapter, f"a{i}", base=str(write_base(tmp_path / f"b{i}", change))).version.target
        for i, change in enumerate(({}, changed("head.bias"), changed(Q)))
    ]
    assert targets[0] == targets[1] != targets[2]
