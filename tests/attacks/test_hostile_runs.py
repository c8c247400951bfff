"""Strange runs are imported, or refused in words: none ends a process, stops an import, or tells of another path."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from deployments import empty_home
from loreg.entities import ImportOptions
from loreg.registry import connect
from runs.training import write_adapter

_SCRIPT = """
import sys
from loreg.registry import connect
with connect(home=sys.argv[1]) as registry:
    report = registry.import_runs([sys.argv[2]])
    print(*(ref.partition("@")[0] for ref in report.created))
"""


def deep_yaml(card: Path) -> None:
    card.write_text("---\nlicense: mit\nx: " + 30_000 * "[" + 30_000 * "]" + "\n---\n")


def many_spaces(card: Path) -> None:
    card.write_text("hyperparameters were used during training:\n- seed: 1" + 65_000 * " " + "x\n")


def a_pipe(card: Path) -> None:
    os.mkfifo(card)


@pytest.mark.parametrize("write_card", [deep_yaml, many_spaces, a_pipe])
def test_a_hostile_card_keeps_no_adapter_out(tmp_path: Path, write_card: Callable[[Path], None]):
    """In a process of its own: what is wrong would end it, or hold it for good."""
    card = write_adapter(tmp_path / "tree" / "plain") / "README.md"
    card.unlink(missing_ok=True)
    write_card(card)
    words = [sys.executable, "-c", _SCRIPT, str(empty_home(tmp_path / "home")), str(tmp_path / "tree")]
    result = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stdout.strip()) == (0, "plain:v1"), result.stderr


def test_a_folder_whose_name_is_not_utf8_is_imported(tmp_path: Path):
    source = write_adapter(tmp_path / "caf")
    folder = source.rename(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    with connect(home=empty_home(tmp_path / "home")) as registry:
        report = registry.import_runs([folder])
        version = registry.show("caf").version
    assert (len(report.created), version.labels["run"]) == (1, r"caf\xe9")


def test_a_dataset_that_is_a_file_loses_its_folders(tmp_path: Path):
    folder = write_adapter(tmp_path / "plain")
    (folder / "README.md").write_text("---\ndatasets: [file:///home/ada/secret/data.json]\n---\n# A card\n")
    with connect(home=empty_home(tmp_path / "home")) as registry:
        registry.import_runs([folder])
        assert registry.show("plain").version.labels["dataset"] == "data.json"


def test_a_declared_direction_holds_for_what_a_run_measured(tmp_path: Path):
    folder = write_adapter(tmp_path / "plain")
    log = [{"step": 3, "eval_surprise": 0.5}]
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": 3, "log_history": log}))
    with connect(home=empty_home(tmp_path / "home")) as registry:
        registry.push(write_adapter(tmp_path / "other", 0.02), "other")
        registry.declare_metric("eval_surprise", lower_is_better=True)
        assert registry.import_runs([folder]).failures == ()
        registry.push(folder, "pushed", checkpoint="last")
        for name in ("plain", "pushed"):
            (metric,) = registry.show(name).version.metrics
            assert (metric.name, metric.higher_is_better) == ("eval_surprise", False)


def test_what_is_mended_is_what_lies_there_then(tmp_path: Path):
    """Between the plan and the import, which wait for an answer, a trainer writes other tensors to the same file."""

    def wrapped(weights: Path, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        named = {f"module.{name}": tensor.clone() for name, tensor in tensors.items()}
        save_file(named, weights, {"format": "pt"})
        return tensors

    folder = write_adapter(tmp_path / "plain", 0.01)
    weights = folder / "adapter_model.safetensors"
    first = load_file(weights)
    wrapped(weights, first)
    with connect(home=empty_home(tmp_path / "home")) as registry:
        planned = registry.plan_import([folder], ImportOptions(mend=True))
        expected = wrapped(weights, {name: tensor.to(torch.float64) + 1 for name, tensor in first.items()})
        planned.run()
        pulled = registry.pull("plain", tmp_path / "pulled").folder
    stored = load_file(Path(pulled) / "adapter_model.safetensors")
    assert stored.keys() == expected.keys()
    assert all(torch.equal(stored[name], tensor) for name, tensor in expected.items())
