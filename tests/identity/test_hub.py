"""An adapter on the Hub is identified by its weights, as a folder is."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployments import SCIENCE
from fake_hub import serve
from identity.variants import scaled
from loreg import connect
from loreg.errors import NotFoundError


def test_an_adapter_on_the_hub_is_compared_by_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = scaled(tmp_path / "hub", SCIENCE, 2.0)
    with serve(folder, tmp_path / "cache", monkeypatch), connect(home=str(tmp_path / "home")) as registry:
        registry.push(SCIENCE, "team/science")
        (answer, *_) = registry.identify("hf:org/tiny").answers
        assert (answer.ref, str(answer.relation), answer.scale) == ("team/science:v1", "scaled", pytest.approx(2))


def test_what_is_no_adapter_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "hub"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    with (
        serve(folder, tmp_path / "cache", monkeypatch),
        connect(home=str(tmp_path / "home")) as registry,
        pytest.raises(NotFoundError, match="not a PEFT adapter"),
    ):
        registry.identify("hf:org/tiny")
