"""Bars in a notebook: in a real kernel, without being asked, and gone when the work is done."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from deployments import MOVIES, NEWS
from loreg import Registry, connect
from loreg.verbs.bases import Bases
from loreg.verbs.jobs import Jobs
from loreg.workspace import progress_bars
from notebooks.kernels import kernel_environment


class Watching(NotebookClient):
    """A client that keeps every message with a picture, also those that were replaced."""

    def __init__(self, notebook: nbformat.NotebookNode, **options: Any) -> None:
        self.shown: list[str] = []
        super().__init__(notebook, **options)

    def process_message(self, msg: dict[str, Any], cell: nbformat.NotebookNode, cell_index: int) -> Any:
        if msg["msg_type"] in ("display_data", "update_display_data"):
            self.shown.append(msg["content"]["data"].get("text/html", ""))
        return super().process_message(msg, cell, cell_index)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Watching]:
    kernel_environment(tmp_path, monkeypatch)

    def run(code: str) -> Watching:
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
        client = Watching(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}})
        client.execute()
        return client

    return run


MERGE = f"""
import loreg
from loreg.workspace import progress_bars
progress_bars._DELAY = progress_bars._INTERVAL = 0
with loreg.connect(home="registry"{{options}}) as registry:
    registry.merge([{str(NEWS)!r}, {str(MOVIES)!r}], loreg.MergeOptions([0.7, 0.3], extras={str(NEWS)!r}))
None
"""


def test_a_notebook_shows_bars_that_are_gone_in_the_end(run: Callable[[str], Watching]):
    client = run(MERGE.format(options=""))
    assert any("<progress value=" in html and "merging" in html for html in client.shown)
    assert any("100 %" in html for html in client.shown)
    assert client.shown[-1] == ""
    (output,) = client.nb.cells[0].outputs  # one place, that was drawn again and again
    assert output.data["text/html"] == ""


def test_a_notebook_that_wants_no_bars_has_none(run: Callable[[str], Watching]):
    client = run(MERGE.format(options=", progress=False"))
    assert client.shown == []
    assert client.nb.cells[0].outputs == []


def test_a_program_shows_bars_if_it_asks_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(progress_bars, "_DELAY", 0.0)
    connect(home=str(tmp_path / "quiet")).push(NEWS, "team/news")
    assert capsys.readouterr().err == ""
    connect(home=str(tmp_path / "bars"), progress=True).push(NEWS, "team/news")
    assert "100%" in capsys.readouterr().err


def test_who_gives_a_progress_of_his_own_is_told_and_sees_no_bar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(progress_bars, "_DELAY", 0.0)
    calls: list[tuple[str, int, int]] = []
    registry = connect(home=str(tmp_path / "home"), progress=True)
    registry.push(NEWS, "team/news", progress=lambda what, done, total: calls.append((what, done, total)))
    assert calls
    assert all(done <= total for _, done, total in calls)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("group", [Registry, Bases, Jobs])
def test_every_method_that_takes_a_progress_draws_one(group: type):
    methods = [method for name, method in inspect.getmembers(group, inspect.isfunction) if not name.startswith("_")]
    taking = [method for method in methods if "progress" in inspect.signature(method).parameters]
    assert taking
    assert all(hasattr(method, "__wrapped__") for method in taking)


def test_what_is_done_is_text(monkeypatch: pytest.MonkeyPatch):
    assert "&lt;script&gt;" in progress_bars._bar("<script>", 1, 2)
    assert "value" not in progress_bars._bar("waiting", 0, 0)
