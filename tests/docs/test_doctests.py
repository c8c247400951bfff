"""The examples in docstrings run: each in an empty registry, in a folder with two small adapters and their base."""

from __future__ import annotations

import doctest
import importlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import loreg
from loreg import connect

PACKAGE = Path(loreg.__file__).parent
#: Of what a stranger calls, these have an example; each is looked for below its module.
WITH_EXAMPLE = (
    "loreg", "loreg.errors.LoregError", "loreg.refs.parse_ref", "loreg.parsing.parse_metric",
    "loreg.entities.options.MergeOptions", "loreg.entities.options.VersionMetadata", "loreg.registry.connect",
    "loreg.registry.Registry", "loreg.registry.Registry.push", "loreg.registry.Registry.pull",
    "loreg.registry.Registry.merge", "loreg.registry.Registry.search", "loreg.registry.Registry.check",
    "loreg.adapters.structure.read_structure", "loreg.adapters.header.read_header", "loreg.manifest.Manifest",
    "loreg.algebra.factors.Factors", "loreg.algebra.spectrum.Spectrum", "loreg.algebra.canonical.canonicalize",
    "loreg.merging.calibration.collect", "loreg.bases.identify.identify",
    *(f"loreg.registry.Registry.{name}" for name in (
        "add_metrics", "adapters", "backup", "bake", "close", "compare", "delete", "doctor", "drop_export", "events",
        "export", "extract", "forget_snapshots", "gc", "lineage", "mirror", "move", "prune", "repair", "reproduce",
        "rerank", "restore", "show", "tag", "undo_move", "untag", "unyank", "upgrade", "usage", "verify", "versions",
        "yank",
    )),
    *(f"loreg.verbs.bases.Bases.{name}" for name in ("add", "list", "match", "show")),
    *(f"loreg.verbs.jobs.Jobs.{name}" for name in ("cancel", "list", "show", "submit")),
    *(f"loreg.verbs.tokens.Tokens.{name}" for name in ("create", "list", "revoke")),
    *(f"loreg.verbs.webhooks.Webhooks.{name}" for name in ("add", "list", "rotate", "deliveries")),
    "loreg.webhooks.verify", "loreg.registry.Registry.follow_events",
    "loreg.registry.Registry.begin_canary", "loreg.registry.Registry.route",
    *(f"loreg.verbs.tokens.Namespaces.{name}" for name in ("list", "set_public")),
    "loreg.entities.queries.Page.all",
)  # fmt: skip


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = sorted(module_name(path) for path in PACKAGE.rglob("*.py") if ">>> " in path.read_text(encoding="utf-8"))


def write_adapter(folder: Path, first: int) -> None:
    """An adapter of rank 2 whose delta is 2 at two places of the diagonal of a (4, 4) matrix, from ``first`` on."""
    factors = np.zeros((2, 4), np.float32)
    factors[[0, 1], [first, first + 1]] = 1
    folder.mkdir()
    names = [f"base_model.model.layers.0.q_proj.lora_{part}.weight" for part in "AB"]
    save_file(dict(zip(names, (factors, factors.T.copy()), strict=True)), folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
    (folder / "adapter_config.json").write_text(json.dumps(config))


@pytest.fixture
def new_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Path]:
    """Make a folder with ``science``, ``history`` and their ``base``, and go there."""

    def make() -> Path:
        folder = tmp_path / f"example-{len(list(tmp_path.glob('example-*')))}"
        folder.mkdir()
        write_adapter(folder / "science", 0)
        write_adapter(folder / "history", 2)
        (folder / "base").mkdir()
        save_file({"layers.0.q_proj.weight": np.eye(4, dtype=np.float32)}, folder / "base" / "model.safetensors")
        monkeypatch.chdir(folder)
        return folder

    return make


def find_examples(module: str) -> list[doctest.DocTest]:
    tests = doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(module), module)
    return [test for test in tests if test.examples]


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_of_a_module_run(module: str, new_folder: Callable[[], Path]):
    tests = find_examples(module)
    assert tests
    for test in tests:
        output: list[str] = []
        with connect(home=str(new_folder() / "registry")) as registry:
            test.globs["registry"] = registry
            doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=output.append)
        assert not output, "".join(output)


@pytest.mark.parametrize("name", WITH_EXAMPLE)
def test_what_strangers_call_first_has_an_example_of_a_few_lines(name: str):
    module = max((module for module in MODULES if f"{name}.".startswith(f"{module}.")), key=len)
    (test,) = (test for test in find_examples(module) if test.name == name)
    assert 2 <= sum(example.source.count("\n") + example.want.count("\n") for example in test.examples) <= 8


@pytest.mark.parametrize("module", MODULES)
def test_an_example_follows_an_empty_line_as_rest_wants_it(module: str):
    for test in find_examples(module):
        for paragraph in re.split(r"\n\s*\n", test.docstring or ""):
            assert ">>> " not in paragraph or paragraph.lstrip().startswith(">>> "), paragraph
