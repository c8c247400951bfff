"""Bases belong to no namespace: what all teams rely on is changed by who added a base, or by an administrator."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from safetensors.torch import save_file
from sqlalchemy import update

from factories import new_model, train, write_base
from loreg.bases.identify import identify
from loreg.catalog.schema import base_table
from loreg.entities import Access
from loreg.local.backend import LocalBackend
from server.conftest import Guarded
from server.test_uploads import send

LICENSED = "---\nlicense: {}\n---\n"


def licensed(folder: Path, license_: str) -> Path:
    (write_base(folder) / "README.md").write_text(LICENSED.format(license_))
    return folder


def changes(there: Guarded) -> list[tuple[str, str]]:
    """Who did what to bases, the oldest first."""
    return [
        (event.author, event.action) for event in reversed(there.behind.events().items) if event.action[:4] == "base"
    ]


def claim(there: Guarded, role: str, document: Any, **fields: Any) -> httpx.Response:
    """Send a list of tensors, and say of it what ``fields`` say."""
    raw = document if isinstance(document, bytes) else json.dumps(document).encode()
    digest, http = hashlib.sha256(raw).hexdigest(), there.http(role)
    grants = http.post("/api/v1/uploads", json=[{"sha256": digest, "size": len(raw)}]).json()
    for grant in grants:
        assert send(http, grant, raw).is_success
    body = {"base": {"digest": digest, **fields}, "uploads": [grant["id"] for grant in grants]}
    return http.post("/api/v1/bases", json=body)


def test_the_license_of_a_base_is_changed_by_who_added_it_and_by_administrators_alone(either: Guarded, tmp_path: Path):
    owner, stranger, root = (either.registry(role) for role in ("owner", "stranger", "root"))
    base = licensed(tmp_path / "base", "llama3")
    owner.bases.add(base, ["llama"])
    licensed(base, "apache-2.0")
    assert "its license stays 'llama3'" in " ".join(stranger.bases.add(base, ["llama"]).notes)
    stranger.push(train(tmp_path / "a", 1), "other/a", base=str(base))
    assert owner.bases.show("llama").base.license == "llama3"
    owner.bases.add(base, ["llama"])
    assert owner.bases.show("llama").base.license == "apache-2.0"
    licensed(base, "mit")
    root.bases.add(base, ["llama"])
    assert owner.bases.show("llama").base.license == "mit"
    assert changes(either) == [("owner", "base add"), ("owner", "base change"), ("root", "base change")]
    (event,) = [e for e in either.behind.events().items if e.author == "root" and e.action == "base change"]
    assert event.detail["license"] == "mit"
    assert event.detail["license_before"] == "apache-2.0"


def test_a_license_that_is_not_known_is_not_filled_in_by_others(either: Guarded, tmp_path: Path):
    base = write_base(tmp_path / "base")
    either.registry("owner").bases.add(base, ["llama"])
    either.registry("stranger").push(train(tmp_path / "a", 1), "other/a", base=str(licensed(base, "apache-2.0")))
    assert either.behind.bases.show("llama").base.license == ""


def test_a_base_gets_no_name_from_others(either: Guarded, tmp_path: Path):
    base = write_base(tmp_path / "base")
    either.registry("owner").bases.add(base, ["llama"])
    added = either.registry("stranger").bases.add(base, ["mistral"])
    assert added.base.names == ("llama",)
    assert any("the name 'mistral' was not given" in note for note in added.notes)
    assert either.registry("owner").bases.add(base, ["llama-3"]).base.names == ("llama", "llama-3")
    assert changes(either) == [("owner", "base add"), ("owner", "base change")]


@pytest.mark.parametrize("who", ["stranger", "owner"])
def test_an_invented_base_does_not_take_the_name_of_one_that_is_known_by_headers(
    either: Guarded, tmp_path: Path, who: str
):
    """Not even with the claim to be of the same structure, and not even for who may change it."""
    known = either.registry("owner").bases.add(write_base(tmp_path / "base"), ["llama"], header_only=True).base
    tensors = {"model.x.weight": {"dtype": "BF16", "shape": [3, 3], "sha256": "0" * 64}}
    claimed = {"struct": known.struct, "complete": True, "tensors": 1, "names": ["llama"]}
    answer = claim(either, who, {"schema": "loreg.base-leaves/2", "names": 1, "tensors": tensors}, **claimed)
    assert answer.status_code == 200
    assert answer.json()["base"]["struct"] != known.struct
    assert either.behind.bases.show("llama").base.digest == known.digest


def test_the_same_headers_with_invented_contents_take_no_name_from_others(either: Guarded, tmp_path: Path):
    base = write_base(tmp_path / "base")
    known = either.registry("owner").bases.add(base, ["llama"], header_only=True).base
    document = json.loads(identify(base).tensor_list)
    for leaf in document["tensors"].values():
        leaf["sha256"] = "0" * 64
    raw = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    request = {"complete": True, "tensors": len(document["tensors"]), "names": ["llama"]}
    assert claim(either, "stranger", raw, **request).status_code == 200
    assert either.behind.bases.show("llama").base.digest == known.digest


def test_who_added_a_base_by_its_headers_gives_its_name_to_the_whole_of_it(either: Guarded, tmp_path: Path):
    base = write_base(tmp_path / "base")
    owner, stranger = either.registry("owner"), either.registry("stranger")
    owner.bases.add(base, ["llama"], header_only=True)
    assert not stranger.bases.add(base, ["llama"]).base.names
    assert owner.bases.show("llama").base.complete is False
    assert owner.bases.add(write_base(tmp_path / "other", {"head.bias": torch.ones(3)}), ["llama"]).base.names == (
        "llama",
    )
    assert owner.bases.show("llama").base.complete
    assert changes(either)[-2:] == [("owner", "base add"), ("owner", "base change")]


def test_edges_are_drawn_by_who_added_the_base_that_came_from_the_other(either: Guarded, tmp_path: Path):
    owner, stranger, root = (either.registry(role) for role in ("owner", "stranger", "root"))
    owner.bases.add(write_base(tmp_path / "1"), ["parent"])
    owner.bases.add(write_base(tmp_path / "2", {"head.bias": torch.ones(3)}), ["child"])
    owner.bases.relate("child", "parent", "finetuned_from")
    stranger.bases.add(write_base(tmp_path / "3", {"head.bias": torch.zeros(3)}), ["mine"])
    http = either.http("stranger")
    for child, parent in (("child", "parent"), ("parent", "child"), ("child", "mine")):
        for kind in ("quantized_from", "finetuned_from"):
            edge = {"child": child, "parent": parent, "kind": kind, "detail": {"bits": 1}}
            assert http.post("/api/v1/base-edges", json=edge).status_code == 403
    stranger.bases.relate("mine", "parent", "finetuned_from")
    root.bases.relate("child", "parent", "quantized_from", {"bits": 4})
    assert [(edge.kind, edge.author, edge.detail) for edge in owner.bases.show("child").edges] == [
        ("finetuned_from", "owner", {}), ("quantized_from", "root", {"bits": 4}),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "detail",
    [
        {"action": "x"},
        {"child": "x", "adapter_id": 1},
        {"bits": {"deep": [1]}},
        {"method": "m" * 1000},
        {"b\x00": 1},
        dict.fromkeys((chr(97 + i) for i in range(26)), 1),
    ],
)
def test_the_detail_of_an_edge_is_small_and_never_an_error_of_the_server(
    guarded_folder: Guarded, tmp_path: Path, detail: dict[str, Any]
):
    owner = guarded_folder.registry("owner")
    owner.bases.add(write_base(tmp_path / "1"), ["parent"])
    owner.bases.add(write_base(tmp_path / "2", {"head.bias": torch.ones(3)}), ["child"])
    edge = {"child": "child", "parent": "parent", "kind": "finetuned_from", "detail": detail}
    assert guarded_folder.http("owner").post("/api/v1/base-edges", json=edge).status_code in (200, 400)


def test_what_a_base_is_is_read_from_its_list_and_never_from_the_request(either: Guarded, tmp_path: Path):
    identity = identify(write_base(tmp_path / "base"), ("tiny",))
    lies = {"complete": True, "tensors": identity.base.tensors, "parameters": 8 * 10**9, "struct": "a" * 64}
    answer = claim(either, "stranger", identity.tensor_list, **lies, names=["tiny"])
    base = answer.json()["base"]
    assert base["parameters"] == sum(tensor.numel() for tensor in new_model().state_dict().values())
    assert (base["struct"], base["complete"]) == (identity.base.struct, True)


@pytest.mark.parametrize("heads", [{}, {"num_attention_heads": 8}, {"text_config": {"num_attention_heads": 4}}])
def test_the_structure_that_is_read_is_the_one_that_was_sent(either: Guarded, tmp_path: Path, heads: dict[str, Any]):
    base = write_base(tmp_path / "base")
    (base / "config.json").write_text(json.dumps({"model_type": "x", **heads}))
    for header_only in (True, False):
        added = either.registry("owner").bases.add(base, ["tiny"], header_only=header_only).base
        assert added.struct == identify(base).base.struct


LEAF = {"dtype": "F32", "shape": [2, 3], "sha256": "0" * 64}


@pytest.mark.parametrize(
    "tensors",
    [
        [], {"x": 1}, {"x": {}}, {"x": {**LEAF, "shape": [-1]}}, {"x": {**LEAF, "shape": ["2"]}},
        {"x": {**LEAF, "shape": 3}},
        {"x": {**LEAF, "dtype": ["F32"]}}, {"x": {**LEAF, "sha256": "no"}}, {"x": {**LEAF, "shape": [2**40, 2**40]}},
        {"x": {**LEAF, "shape": [True]}}, {"x": {**LEAF, "more": 1}}, {"x": {"dtype": "F32", "shape": [1]}}, "x", None,
    ],
)  # fmt: skip
def test_a_list_that_others_could_not_read_is_refused(guarded_folder: Guarded, tmp_path: Path, tensors: Any):
    document = {"schema": "loreg.base-leaves/2", "names": 1, "tensors": tensors}
    count = len(tensors) if isinstance(tensors, list | dict | str) else 0
    assert claim(guarded_folder, "stranger", document, complete=True, tensors=count).status_code == 422
    assert guarded_folder.registry("reader").bases.match("team/science") == ()


def test_a_base_without_a_known_author_is_the_administrators(guarded_folder: Guarded, tmp_path: Path):
    guarded_folder.behind.bases.add(write_base(tmp_path / "base"), ["llama"])
    backend = guarded_folder.behind.context.backend
    assert isinstance(backend, LocalBackend)
    with backend.catalog.write(Access.superuser("x")) as tx:
        tx.connection.execute(update(base_table).values(author=""))
    assert guarded_folder.registry("owner").bases.add(tmp_path / "base", ["mine"]).base.names == ("llama",)
    assert guarded_folder.registry("root").bases.add(tmp_path / "base", ["mine"]).base.names == ("llama", "mine")


def test_two_models_with_the_head_stored_or_tied_count_as_many_parameters(tmp_path: Path):
    tied = {"model.embed_tokens.weight": torch.randn(6, 4)}
    counts = []
    for name, tensors in (
        ("tied", tied),
        ("head", {**tied, "lm_head.weight": tied["model.embed_tokens.weight"].clone()}),
    ):
        (tmp_path / name).mkdir()
        save_file(tensors, tmp_path / name / "model.safetensors")
        counts.append(identify(tmp_path / name).base.parameters)
    assert counts == [24, 24]
