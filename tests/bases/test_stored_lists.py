"""The list of a base's tensors is compared only with lists of the same schema and the same rules for names."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from deployments import empty_home
from factories import train, write_base
from loreg.canonical_json import canonical_json
from loreg.entities import BaseModel
from loreg.errors import IntegrityError
from loreg.registry import Registry, connect
from loreg.storage import put_bytes
from loreg.workspace.base_lookup import load_base


@pytest.fixture
def local_registry(tmp_path: Path) -> Registry:
    return connect(home=empty_home(tmp_path / "home"))


def store_changed(registry: Registry, base: BaseModel, **changes: object) -> BaseModel:
    """Store the list of the base with other fields; return the base that it is the list of."""
    content = canonical_json({**json.loads(registry.context.store.read(base.digest)), **changes})
    put_bytes(registry.context.store, content)
    return replace(base, digest=hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize(
    ("changes", "actual"),
    [
        ({"schema": "loreg.base-leaves/1"}, "'loreg.base-leaves/1'"),
        ({"schema": "loreg.base-leaves/3"}, "'loreg.base-leaves/3'"),
        ({"names": 2}, "'loreg.base-leaves/2' with names by rules 2"),
    ],
)
def test_a_list_of_another_schema_is_refused_by_name(
    local_registry: Registry, tmp_path: Path, changes: dict[str, object], actual: str
):
    base = local_registry.bases.add(write_base(tmp_path / "base"), ["org/base"]).base
    assert load_base(local_registry.context, base).tensor_digests
    other = store_changed(local_registry, base, **changes)
    with pytest.raises(IntegrityError, match=rf"the tensors of org/base \(sha256:.*\) are listed as {actual}") as error:
        load_base(local_registry.context, other)
    assert "expected 'loreg.base-leaves/2' or 'loreg.base-headers/1' with names by rules 1" in error.value.message
    assert "pip install --upgrade loreg" in error.value.hint


def test_a_refused_base_has_the_name_that_was_given(local_registry: Registry, tmp_path: Path):
    adapter = train(tmp_path / "a", 1, target_modules=["head"])
    config = adapter / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": "org/right"}))
    with pytest.raises(Exception, match="base mismatch") as error:
        local_registry.push(adapter, "a", base=str(write_other(tmp_path / "other")))
    assert "(other (sha256:" in str(error.value)
    assert "org/right" not in str(error.value)


def write_other(folder: Path) -> Path:
    import torch
    from safetensors.torch import save_file

    folder.mkdir()
    save_file({"layers.0.q_proj.weight": torch.ones(3, 3)}, folder / "model.safetensors")
    return folder
