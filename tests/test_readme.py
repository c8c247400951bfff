"""Who types the README's first screen gets what it shows."""

from __future__ import annotations

import re
import shutil
import tomllib
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model

import loreg
from deployments import EXAMPLES, command_line
from factories import IN, new_model
from loreg.checking.policy import read_policy
from loreg.workspace.recipe_file import read_recipe_file

README = (Path(__file__).parents[1] / "README.md").read_text()


def transcript() -> list[tuple[str, list[str]]]:
    """The commands of the console blocks, and the lines that they print."""
    commands: list[tuple[str, list[str]]] = []
    for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                commands.append((line[2:], []))
            else:
                commands[-1][1].append(line.rstrip())
    return commands


def masked(line: str) -> str:
    """Days pass, and a merge computed on another processor may differ in its last bits."""
    line = re.sub(r"\d{4}-\d\d-\d\d", "DAY", line)
    return re.sub(r"(team/blend:v1@sha256:)[0-9a-f]{12}", r"\1DIGEST", line)


def assert_shown(expected: list[str], actual: list[str]) -> None:
    """Line by line; ``…`` stands for any number of lines."""
    pattern = "\n".join(".*" if line == "…" else re.escape(masked(line)) for line in expected)
    assert re.fullmatch(pattern, "\n".join(map(masked, actual)), re.DOTALL), "\n".join(actual)


def test_the_first_screen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "examples").mkdir()
    shutil.copytree(EXAMPLES, tmp_path / "examples" / "adapters")
    monkeypatch.chdir(tmp_path)
    loreg = command_line({"LOREG_HOME": str(tmp_path / "home")})
    commands = [(command, lines) for command, lines in transcript() if command.startswith("loreg ")]
    assert len(commands) == 6
    for command, lines in commands:
        import shlex

        outcome = loreg(*shlex.split(command)[1:])
        assert_shown(lines, [line.rstrip() for line in (outcome.stdout + outcome.stderr).splitlines()])


def test_the_library_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LOREG_HOME", str(tmp_path / "home"))
    for run, adapter in (("42", "smollm2-science-r8"), ("43", "smollm2-history-r8")):
        shutil.copytree(EXAMPLES / adapter, tmp_path / "runs" / run)
    monkeypatch.chdir(tmp_path)
    code, calibration = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})
    assert (tmp_path / "blend" / "adapter_model.safetensors").exists()
    model = get_peft_model(new_model(), LoraConfig(target_modules=["q_proj"]))
    names = {"loreg": loreg, "peft_model": model, "batches": [{"x": torch.ones(2, IN)}]}
    exec(compile(calibration, "README.md", "exec"), names)
    assert (tmp_path / "moments.safetensors").exists()


def test_the_recipe_file_is_one(tmp_path: Path):
    text, _ = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    (tmp_path / "r.toml").write_text(text)
    assert read_recipe_file(tmp_path / "r.toml")["weights_for"] == {"mlp.*": [0.2, 0.8]}


def test_the_policy_is_one():
    _, text = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    policy = read_policy(tomllib.loads(text)["check"], "README.md")
    assert (policy.max_rank, policy.max_size, policy.aliases) == (64, 200_000_000, ("prod",))


def test_every_link_leads_somewhere():
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert target.startswith("https://") or (Path(__file__).parents[1] / target).exists(), target
