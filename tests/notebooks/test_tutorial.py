"""The tutorial notebook runs from its first cell to its last, and shows what it says."""

from __future__ import annotations

import base64
import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from notebooks.kernels import kernel_environment

EXAMPLES = Path(__file__).parents[2] / "examples"
TUTORIAL = EXAMPLES / "tutorial.ipynb"
NOTHING = ("registry.close()",)  # cells that show nothing


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> nbformat.NotebookNode:
    folder = tmp_path_factory.mktemp("tutorial")
    shutil.copytree(EXAMPLES / "adapters", folder / "adapters")
    notebook = nbformat.read(TUTORIAL, as_version=4)
    with pytest.MonkeyPatch.context() as monkeypatch:
        kernel_environment(folder, monkeypatch)
        NotebookClient(notebook, timeout=200, resources={"metadata": {"path": str(folder)}}).execute()
    return notebook


def outputs_of(notebook: nbformat.NotebookNode, source: str) -> list[nbformat.NotebookNode]:
    """What the one cell shows that ends with this line."""
    (cell,) = (cell for cell in notebook.cells if cell.source.splitlines()[-1] == source)
    return [output for output in cell.outputs if output.get("data", {}).get("text/html") != ""]  # but for bars


def test_it_is_stored_without_outputs():
    notebook = nbformat.read(TUTORIAL, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None)


def test_every_cell_shows_something_and_no_error(executed: nbformat.NotebookNode):
    for cell in executed.cells:
        if cell.cell_type == "code" and cell.source not in NOTHING:
            assert cell.outputs, cell.source
            assert {output.output_type for output in cell.outputs} <= {"execute_result", "display_data", "stream"}
            assert all(output.get("name") != "stderr" for output in cell.outputs), cell.outputs


@pytest.mark.parametrize("source", ["page", "best", "registry", "comparison", "merged"])
def test_values_are_shown_as_html_and_in_one_line(executed: nbformat.NotebookNode, source: str):
    (output,) = outputs_of(executed, source)
    assert "<table>" in output.data["text/html"]
    assert "\n" not in output.data["text/plain"]


@pytest.mark.parametrize("source", ["comparison.plot()", "merged.plot()", 'registry.show("team/blend").plot()'])
def test_pictures_are_shown_once(executed: nbformat.NotebookNode, source: str):
    (output,) = outputs_of(executed, source)
    assert base64.b64decode(output.data["image/png"]).startswith(b"\x89PNG")


def test_what_the_text_says_is_what_is_shown(executed: nbformat.NotebookNode):
    (best,) = outputs_of(executed, "best")
    assert "team/news:v1" in best.data["text/plain"]
    (error,) = outputs_of(executed, "    print(error)")
    assert "Hint: loreg" in error.text
    (files,) = outputs_of(executed, "sorted(path.name for path in pulled.folder.iterdir())")
    assert "adapter_model.safetensors" in files.data["text/plain"]


def test_the_outputs_are_small(executed: nbformat.NotebookNode):
    assert len(nbformat.writes(executed)) < 400_000  # bytes, with three pictures
