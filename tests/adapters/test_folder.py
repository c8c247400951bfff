"""What travels with an adapter and what does not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deployments import SCIENCE
from factories import copy
from loreg.adapters.folder import select_files
from loreg.errors import AdapterFormatError, LoregError, NotFoundError

REQUIRED_FILES = {"adapter_config.json", "adapter_model.safetensors"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return copy(SCIENCE, tmp_path / "adapter")


def write_file(path: Path, content: str = "x", mode: int = 0o644) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    path.chmod(mode)
    return path


def test_what_people_need_travels_along(folder: Path):
    for name in ("README.md", "tokenizer.json", "chat_template.jinja", "1_Pooling/config.json", "LICENSE"):
        write_file(folder / name)
    selection = select_files(folder)
    assert set(selection.files) == REQUIRED_FILES | {
        "README.md",
        "tokenizer.json",
        "chat_template.jinja",
        "1_Pooling/config.json",
        "LICENSE",
    }
    assert selection.left_out == ()


LEFT_OUT = {
    "optimizer.pt": "training state",
    "scheduler.pt": "training state",
    "rng_state_0.pth": "training state",
    "training_args.bin": "training state",
    "trainer_state.json": "training state",
    "trainer_log.jsonl": "a record of the run",
    "training_args.yaml": "a record of the run",
    "torchtune_config.yaml": "a record of the run",
    "runs/Jan01_host/events.out.tfevents.1700000000.host.1.0": "a record of the run",
    "latest": "a record of the run",
    "wandb/": "a tracker's records",
    "mlruns/": "a tracker's records",
    "old.bin": "a pickle",
    "notes.pkl": "a pickle",
    "model.safetensors": "weights that are not the adapter's",
    "adapter.gguf": "weights that are not the adapter's",
    "run.py": "executable",
    "deep/setup.sh": "executable",
    ".env": "hidden",
    ".git/": "hidden",
    "deep/.cache/": "hidden",
    "checkpoint-500/": "a checkpoint",
    "__pycache__/": "made by Python",
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_does_not_travel_is_named_with_the_reason(folder: Path, name: str):
    write_file(folder / name / "inside" if name.endswith("/") else folder / name)
    selection = select_files(folder)
    assert set(selection.files) == REQUIRED_FILES
    assert selection.left_out == ((name, LEFT_OUT[name]),)


def test_a_file_that_may_be_run_stays_behind(folder: Path):
    write_file(folder / "tool", mode=0o755)
    assert select_files(folder).left_out == (("tool", "executable"),)


def test_a_symlink_that_leaves_the_folder_stays_behind(folder: Path, tmp_path: Path):
    write_file(tmp_path / "secret.txt", "secret")
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    (folder / "up").symlink_to(tmp_path)
    (folder / "dead.txt").symlink_to("nowhere")
    (folder / "alias.json").symlink_to("adapter_config.json")
    selection = select_files(folder)
    assert set(selection.files) == REQUIRED_FILES | {"alias.json"}
    assert dict(selection.left_out) == {
        "link.txt": "a symlink that leaves the folder",
        "up/": "a symlink to a folder",
        "dead.txt": "a symlink to nothing",
    }


def test_a_pipe_is_never_opened(folder: Path):
    os.mkfifo(folder / "pipe")
    assert select_files(folder).left_out == (("pipe", "not a regular file"),)


def test_weights_behind_a_symlink_that_leaves_are_explained(folder: Path, tmp_path: Path):
    weights = folder / "adapter_model.safetensors"
    weights.rename(tmp_path / "blob")
    weights.symlink_to(tmp_path / "blob")
    with pytest.raises(LoregError, match="is a symlink that leaves the folder") as error:
        select_files(folder)
    assert "cp -rL" in error.value.hint


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model.pt", "adapter_model.ckpt"])
def test_a_pickle_is_refused_unopened_with_the_command_that_converts_it(folder: Path, name: str):
    (folder / "adapter_model.safetensors").unlink()
    write_file(folder / name, "cos\nsystem\n(S'touch /tmp/pwned'\ntR.")
    with pytest.raises(AdapterFormatError, match="is a pickle, which loreg never opens") as error:
        select_files(folder)
    assert "weights_only=True" in error.value.hint
    assert "save_file" in error.value.hint


def test_the_command_that_converts_a_pickle_works(folder: Path):
    import shlex
    import subprocess
    import sys

    import torch
    from safetensors.torch import load_file

    weights = folder / "adapter_model.safetensors"
    expected = load_file(weights)
    torch.save(expected, folder / "adapter_model.bin")
    weights.unlink()
    with pytest.raises(AdapterFormatError) as error:
        select_files(folder)
    command = shlex.split(error.value.hint)
    assert command[0] == "python"
    subprocess.run([sys.executable, *command[1:]], check=True)
    converted = load_file(weights)
    assert converted.keys() == expected.keys()
    assert all(torch.equal(converted[name], expected[name]) for name in expected)


def test_a_pickle_named_itself_is_refused_too(tmp_path: Path):
    with pytest.raises(AdapterFormatError, match="is a pickle"):
        select_files(write_file(tmp_path / "adapter_model.bin"))


@pytest.mark.parametrize("missing", sorted(REQUIRED_FILES))
def test_a_folder_without_one_of_the_two_files_is_not_an_adapter(folder: Path, missing: str):
    (folder / missing).unlink()
    with pytest.raises(NotFoundError, match=f"has no {missing}"):
        select_files(folder)


def test_a_folder_that_is_not_there_is_said_so(tmp_path: Path):
    with pytest.raises(NotFoundError, match="does not exist"):
        select_files(tmp_path / "nowhere")


@pytest.mark.parametrize("target", [".env", ".git/config", "optimizer.pt", "checkpoint-5/notes.txt", "run.py"])
def test_a_link_does_not_carry_what_stays_behind(folder: Path, target: str):
    write_file(folder / target, "SECRET")
    (folder / "innocent.txt").symlink_to(target)
    assert set(select_files(folder).files) == REQUIRED_FILES


def test_a_link_to_itself_is_left_out(folder: Path):
    (folder / "loop").symlink_to("loop")
    assert select_files(folder).left_out == (("loop", "a symlink to nothing"),)


@pytest.mark.parametrize("name", ["MODEL.PT", "Run.PY", "a.dill", "OLD.SafeTensors"])
def test_capitals_do_not_let_a_file_through(folder: Path, name: str):
    write_file(folder / name)
    assert set(select_files(folder).files) == REQUIRED_FILES


def test_a_script_without_permission_to_run_is_a_program_still(folder: Path):
    write_file(folder / "run", "#!/bin/sh\nrm -rf /")
    assert select_files(folder).left_out == (("run", "executable"),)
