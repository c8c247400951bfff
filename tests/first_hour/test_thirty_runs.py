"""A person with a folder of thirty runs has them all in, described, searchable and compared with four commands."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cases.building import llama
from first_hour.terminal import type_in_terminal
from loreg.registry import Registry, connect
from runs.training import train_run

RANKS = (2, 4, 8)
RATES = ("1e-3", "2e-3", "3e-3", "5e-3", "8e-3", "1e-2", "2e-2", "3e-2", "5e-2", "8e-2")
NAMES = [f"news-r{rank}-lr{rate}" for rank in RANKS for rate in RATES]
WIDTHS = (80, 100)

IMPORT = "loreg import ./runs --namespace team --task topics"
LIST = "loreg ls"
SEARCH = "loreg search --task topics --best eval_loss"
COMPARE = "loreg compare $(loreg ls --format quiet)"


@pytest.fixture(scope="module")
def evening(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty real runs of two checkpoints each, in ``runs``."""
    folder = tmp_path_factory.mktemp("evening")
    for rank in RANKS:
        for rate in RATES:
            options = {"rank": rank, "learning_rate": float(rate), "num_train_epochs": 2}
            train_run(folder / "runs" / f"news-r{rank}-lr{rate}", model=llama(), **options)
    return folder


@pytest.fixture(scope="module")
def environment(evening: Path) -> dict[str, str]:
    return {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "HOME": str(evening),
        "LOREG_HOME": str(evening / "home"),
        "LOREG_AUTHOR": "ada",
        "LANG": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
    }


@pytest.fixture(scope="module")
def imported(evening: Path, environment: dict[str, str]) -> str:
    """What the first command shows, when its question is answered with y."""
    return type_in_terminal(IMPORT, evening, 80, environment, "Import 60 versions? [Y/n]", "y")


@pytest.fixture
def registry(evening: Path, imported: str) -> Iterator[Registry]:
    with connect(home=str(evening / "home")) as registry:
        yield registry


def test_all_are_in(imported: str, registry: Registry):
    assert "Import 60 versions? [Y/n]" in imported
    assert "imported 60 versions of 30 adapters" in imported
    assert {str(entry.adapter) for entry in registry.adapters().items} == {f"team/{name}" for name in NAMES}


def test_the_plan_shows_every_ref_whole_at_80_columns(imported: str):
    assert [ref for name in NAMES for ref in (f"team/{name}:v1", f"team/{name}:v2") if ref not in imported] == []


def test_all_are_described(registry: Registry, evening: Path):
    for name in NAMES:
        details = registry.show(f"team/{name}:last")
        version = details.version
        state = json.loads((evening / "runs" / name / "trainer_state.json").read_text())
        by_hand = next(e["eval_loss"] for e in state["log_history"] if e["step"] == 4 and "eval_loss" in e)
        assert {metric.name: metric.value for metric in version.metrics}["eval_loss"] == by_hand
        assert {"step": "4", "epoch": "2", "run": name}.items() <= version.labels.items()
        assert f"# {name}" in details.card
        best = registry.show(f"team/{name}:best").version
        assert f"checkpoint-{best.labels['step']}" == Path(state["best_model_checkpoint"]).name


@pytest.mark.parametrize("columns", WIDTHS)
def test_all_are_listed(imported: str, evening: Path, environment: dict[str, str], columns: int):
    screen = type_in_terminal(LIST, evening, columns, environment)
    assert [name for name in NAMES if f"team/{name} " not in screen] == []


@pytest.mark.parametrize("columns", WIDTHS)
def test_the_best_is_the_first_that_is_found(
    imported: str, evening: Path, environment: dict[str, str], registry: Registry, columns: int
):
    screen = type_in_terminal(SEARCH, evening, columns, environment)
    losses = {
        version.ref: next(m.value for m in version.metrics if m.name == "eval_loss")
        for name in NAMES
        for version in registry.versions(f"team/{name}")
    }
    best = [min((f"team/{name}:v1", f"team/{name}:v2"), key=lambda ref: losses[ref]) for name in NAMES]
    positions = [screen.find(ref) for ref in sorted(best, key=lambda ref: losses[ref])]
    assert -1 not in positions
    assert positions == sorted(positions)


@pytest.mark.parametrize("columns", WIDTHS)
def test_all_are_compared(imported: str, evening: Path, environment: dict[str, str], columns: int):
    screen = type_in_terminal(COMPARE, evening, columns, environment)
    assert [name for name in NAMES if f"team/{name}" not in screen] == []
