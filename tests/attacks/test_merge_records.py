"""``loreg_merge.json`` is a stranger's document: what it costs is known, and what is recorded can be shown for ever."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deployments import SCIENCE
from factories import copy
from loreg.errors import AdapterFormatError
from loreg.merging import provenance
from loreg.registry import Registry
from loreg.storage import digest_of

FIGURES = {
    "module": "model.layers.0.mlp.experts.0.gate_proj", "shape": [768, 2048], "rank_in": 64, "rank": 32, "norm": 1.25,
    "epsilon": 0.0125, "retained_energy": 0.99984375, "sigma_next": 0.0078125, "dtype_error": 1.953125e-07,
    "retention": [0.99], "ranks": {"90": 8, "99": 16, "99.9": 32}, "complete": True,
}  # fmt: skip


def record(weights: str, more: str = "[]", weight: str = "1", sources: int = 1, modules: int = 1) -> bytes:
    """What a merge of so many adapters writes, with ``more`` in the recipe as it stands."""
    figures = {**FIGURES, "retention": [0.99] * sources}
    certificate = {"total": figures, "modules": [figures] * modules, "warnings": []}
    source = f'{{"label": "a", "digest": "{"0" * 64}", "weight": {weight}}}'
    recipe = f'{{"method": "linear", "sources": [{", ".join([source] * sources)}], "more": {more}}}'
    head = f'"schema": "{provenance.SCHEMA}", "weights_sha256": "{weights}"'
    return f'{{{head}, "recipe": {recipe}, "certificate": {json.dumps(certificate, indent=1)}}}'.encode()


WRONG = {
    "a number that is not finite": {"more": "1e999"},
    "a constant that is none of JSON's": {"more": "NaN"},
    "a number over 64 bits": {"more": "9" * 30},
    "more digits than are read": {"more": "9" * 5000},
    "a weight that is not finite": {"weight": "1e999"},
    "a weight that is a word": {"weight": '"nan"'},
    "a weight that is no number": {"weight": "true"},
    "more values than any merge has": {"more": "[" + "[]," * 700_000 + "[]]"},
}


@pytest.mark.parametrize("name", WRONG)
def test_a_record_of_a_merge_that_nobody_could_show_is_refused_when_it_is_pushed(
    registry: Registry, tmp_path: Path, name: str
):
    folder = copy(SCIENCE, tmp_path / "a")
    weights = digest_of(folder / "adapter_model.safetensors").sha256
    (folder / provenance.FILE_NAME).write_bytes(record(weights, **WRONG[name]))
    with pytest.raises(AdapterFormatError, match="is not what loreg writes"):
        registry.push(folder, "team/a")
    (folder / provenance.FILE_NAME).write_bytes(record(weights))
    assert registry.show(registry.push(folder, "team/a").version.ref).provenance is not None


@pytest.mark.parametrize(("sources", "modules"), [(8, 1000), (2, 18_600)])
def test_a_record_of_a_large_merge_is_read(sources: int, modules: int):
    """Eight adapters of an ordinary model, and two of one of 128 experts in 48 layers."""
    content = record("x", sources=sources, modules=modules)
    parsed = provenance.read(content, "x")
    assert parsed is not None
    assert len(parsed.certificate["modules"]) == modules
    assert len(content) < 16 * 1024 * 1024
