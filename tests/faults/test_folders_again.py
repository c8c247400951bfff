"""A command that writes a folder and is repeated: the same result is left as it is, anything else is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from deployments import Loreg
from factories import train, write_base


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def commands(tmp_path: Path) -> dict[str, tuple[object, ...]]:
    one, two = train(tmp_path / "one", 1), train(tmp_path / "two", 2)
    base = write_base(tmp_path / "base")
    return {
        "merge": ("merge", one, two, "--weights", "0.7,0.3", "--to", tmp_path / "merged"),
        "rerank": ("rerank", one, "--rank", "2", "--to", tmp_path / "small"),
        "export": ("export", one, "--profile", "vllm", "--to", tmp_path / "exported"),
        "bake": ("bake", one, "--base", base, "--to", tmp_path / "baked"),
    }


@pytest.mark.parametrize("verb", ["merge", "rerank", "export", "bake"])
def test_a_command_that_is_repeated_finds_its_result(local: Loreg, commands: dict[str, tuple], verb: str):
    """As after a kill that came when the folder had its name already."""
    command = commands[verb]
    folder = command[-1]
    assert local(*command).exit_code == 0
    before = contents(folder)
    assert local(*command).exit_code == 0
    assert contents(folder) == before


@pytest.mark.parametrize("verb", ["merge", "rerank", "export", "bake"])
def test_a_folder_with_anything_else_is_refused_and_left_alone(local: Loreg, commands: dict[str, tuple], verb: str):
    command = commands[verb]
    folder = command[-1]
    assert local(*command).exit_code == 0
    whole = contents(folder)
    damaged = [{**whole, name: content[:-2] + b"\x40\x40"} for name, content in whole.items()]
    missing = [{other: c for other, c in whole.items() if other != name} for name in whole]
    for files in (*damaged, *missing, {**whole, "mine": b"x"}):
        shutil.rmtree(folder)
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content)
        assert local(*command).exit_code == 7, sorted(files)
        assert contents(folder) == files


def test_another_merge_to_the_same_folder_is_refused(local: Loreg, commands: dict[str, tuple], tmp_path: Path):
    assert local(*commands["merge"]).exit_code == 0
    before = contents(tmp_path / "merged")
    other = [*commands["merge"]]
    other[other.index("0.7,0.3")] = "0.6,0.4"
    assert local(*other).exit_code == 7
    assert local(*commands["merge"], "--rank", "2").exit_code == 7
    assert contents(tmp_path / "merged") == before


def test_it_is_said_that_nothing_was_written(local: Loreg, commands: dict[str, tuple]):
    for verb in ("merge", "bake"):
        local(*commands[verb])
        assert "already" in local(*commands[verb]).stdout
