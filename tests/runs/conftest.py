"""One real run for all tests that only read it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from runs.training import train_run


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the real Trainer whose every checkpoint was better than the one before."""
    folder = tmp_path_factory.mktemp("runs") / "lr-1e-2"
    train_run(folder).create_model_card(dataset="imdb", dataset_tags="imdb", tasks="text-generation")
    return folder


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of it that may be changed."""
    return Path(shutil.copytree(finished_run, tmp_path / "runs" / finished_run.name))
