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

#: The fields of a recipe without its sources.
RECIPE = (
    '"schema": "loreg.recipe/2", "method": "linear", "parameters": {}, "weights_for": {}, "lambda": 1, "rank": {}, '
    '"extras": null, "initials": [], "calibration": ""'
)


def record(weights: str, more: str = "[]", weight: str = "1", sources: int = 1, modules: int = 1) -> bytes:
    """What a merge of so many adapters writes, with ``more`` in the recipe as it stands."""
    figures = {**FIGURES, "retention": [0.99] * sources}
    certificate = {
        "schema": "loreg.certificate/2", "total": figures, "modules": [figures] * modules, "warnings": [],
    }  # fmt: skip
    source = f'{{"label": "a", "digest": "{"0" * 64}", "weight": {weight}}}'
    recipe = f'{{{RECIPE}, "sources": [{", ".join([source] * sources)}], "more": {more}}}'
    head = f'"schema": "loreg.merge/1", "weights_sha256": "{weights}"'
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


def changed(*path: str | int, value: object = ..., weights: str = "x") -> bytes:
    """A record in which the value at ``path`` is another one, or is left out."""
    document = json.loads(record(weights))
    inner = document
    for step in path[:-1]:
        inner = inner[step]
    if value is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return json.dumps(document).encode()


NEWER = {
    "schema": ("loreg.merge/2", "loreg.merge/1"),
    "recipe.schema": ("loreg.recipe/3", "loreg.recipe/2"),
    "certificate.schema": ("loreg.certificate/3", "loreg.certificate/2"),
}


class TestAnotherSchema:
    @pytest.mark.parametrize("place", NEWER)
    def test_is_refused_by_its_name_with_the_one_that_is_expected(self, registry: Registry, tmp_path: Path, place: str):
        folder = copy(SCIENCE, tmp_path / "a")
        weights = digest_of(folder / "adapter_model.safetensors").sha256
        actual, expected = NEWER[place]
        content = changed(*place.split("."), value=actual, weights=weights)
        (folder / provenance.FILE_NAME).write_bytes(content)
        with pytest.raises(AdapterFormatError, match=f"{place} is '{actual}', expected '{expected}'") as error:
            registry.push(folder, "team/a")
        assert "pip install --upgrade loreg" in error.value.hint

    @pytest.mark.parametrize("part", ["recipe", "certificate"])
    def test_is_told_before_anything_that_it_changed(self, part: str):
        newer = {"schema": f"loreg.{part}/9", "sources": "elsewhere"}
        with pytest.raises(AdapterFormatError, match=rf"{part}\.schema is 'loreg\.{part}/9'"):
            provenance.read(changed(part, value=newer), "x")

    def test_does_not_matter_where_the_file_is_about_other_weights(self):
        assert provenance.read(changed("recipe", "schema", value="loreg.recipe/3"), "y") is None


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("schema",), ..., "it lacks 'schema'"),
        (("recipe",), [], r"recipe is \[\], expected an object"),
        (("recipe", "calibration"), ..., "recipe lacks 'calibration'"),
        (("recipe", "sources"), [], r"recipe\.sources is \[\], expected a list of length >= 1"),
        (
            ("recipe", "sources", 0, "digest"),
            "A" * 64,
            r"sources\[0\]\.digest is 'A+.*, expected text matching",
        ),
        (
            ("recipe", "sources", 0, "digest"),
            "a" * 64 + "\n",
            r"sources\[0\]\.digest is .*, expected text of",
        ),
        (("recipe", "extras"), 1, "extras is 1, expected the position of one of 1 sources"),
        (("recipe", "weights_for"), {"q": [1, 2]}, "weights_for has 2 weights for 'q', expected 1"),
        (("certificate", "total", "rank"), 1.5, r"certificate\.total\.rank is 1\.5, expected a whole number"),
        (("certificate", "total", "norm"), 1e300, r"certificate\.total\.norm is 1e\+300, expected a number < 1e\+300"),
        (("certificate", "modules", 0, "retention"), [1, 1], "'model.*gate_proj' has 2 retentions, expected 1"),
        (
            ("certificate", "modules", 0, "ranks"),
            {"90": "x"},
            r"modules\[0\]\.ranks is .*, expected an object of",
        ),
        (("certificate", "warnings"), [1], r"certificate\.warnings is \[1\], expected a list of texts"),
        (("recipe", "label"), "\0", "NUL"),
        (("recipe", "label"), "\ud800", "surrogates not allowed"),
    ],
)
def test_what_is_wrong_in_a_record_is_named_by_its_place(path: tuple[str | int, ...], value: object, message: str):
    with pytest.raises(AdapterFormatError, match=message) as error:
        provenance.read(changed(*path, value=value), "x")
    assert "\n" not in error.value.message


def test_fields_that_a_later_release_adds_are_kept():
    parsed = provenance.read(changed("certificate", "total", "median", value=0.5), "x")
    assert parsed is not None
    assert parsed.certificate["total"]["median"] == 0.5


def test_a_record_that_is_nested_deep_is_refused():
    with pytest.raises(AdapterFormatError, match="is not what loreg writes"):
        provenance.read(record("x", more="[" * 100_000 + "]" * 100_000), "x")
