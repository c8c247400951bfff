"""The command that imports: it shows before it does, asks or says how to do without, and its exit code tells."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from deployments import NEWS, SCIENCE, Loreg
from factories import change_config, copy

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    copy(NEWS, tmp_path / "runs" / "news")
    copy(SCIENCE, tmp_path / "runs" / "science" / "checkpoint-20")
    return tmp_path / "runs"


def wrap(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    save_file({f"_orig_mod.{name}": tensor for name, tensor in tensors.items()}, folder / WEIGHTS)


def test_a_dry_run_shows_the_plan_and_stores_nothing(local: Loreg, runs: Path):
    done = local("import", runs, "--namespace", "team", "--dry-run")
    assert (done.exit_code, done.stderr) == (0, "")
    assert "team/news:v1" in done.stdout
    assert "team/science:v1" in done.stdout
    assert "2 new versions of 2 adapters" in done.stdout
    assert local("ls", "--format", "quiet").stdout == ""


def test_the_plan_can_be_read_by_programs(local: Loreg, runs: Path):
    plan = json.loads(local("import", runs, "--dry-run", "--format", "json").stdout)
    assert [(v["adapter"], v["number"], v["status"], v["checkpoint"]) for v in plan["versions"]] == [
        ("news", 1, "new", ""),
        ("science", 1, "new", "checkpoint-20"),
    ]
    assert local("import", runs, "--dry-run", "--format", "quiet").stdout.split() == ["news:v1", "science:v1"]


def test_without_a_terminal_it_says_the_command_that_does_it(local: Loreg, runs: Path):
    refused = local("import", runs, "--namespace", "team", "--task", "topics", "--label", "a=b c", "--mend")
    assert refused.exit_code == 4
    assert "nothing was stored" in refused.stderr
    assert local("ls", "--format", "quiet").stdout == ""
    hint = shlex.split(refused.stderr.rpartition("Hint: ")[2])
    assert hint[:2] == ["loreg", "import"]
    assert local(*hint[1:]).exit_code == 0
    shown = json.loads(local("show", "team/news", "--format", "json").stdout)
    assert (shown["version"]["tasks"], shown["version"]["labels"]["a"]) == (["topics"], "b c")


def test_what_came_in_can_be_read_by_programs(local: Loreg, runs: Path):
    assert local("import", runs, "--yes", "--format", "quiet").stdout.split() == ["news:v1", "science:v1"]
    report = json.loads(local("import", runs, "--yes", "--format", "json").stdout)
    assert (report["created"], report["present"], report["failures"]) == ([], ["news:v1", "science:v1"], [])


def test_nothing_is_asked_where_nothing_is_new(local: Loreg, runs: Path):
    local("import", runs, "--yes")
    again = local("import", runs)
    assert (again.exit_code, again.stdout.splitlines()[-1]) == (0, "2 already there")


@pytest.mark.parametrize("options", [["--yes"], ["--dry-run"]])
def test_the_exit_code_says_that_something_did_not_come_in(local: Loreg, runs: Path, options: list[str]):
    change_config(runs / "news", r=3)
    done = local("import", runs, *options)
    assert done.exit_code == 5
    assert "refused: runs/news: LR0" in done.stdout
    assert "science:v1" in done.stdout


def test_a_mend_is_offered_in_a_line(local: Loreg, runs: Path):
    wrap(runs / "news")
    done = local("import", runs, "--yes")
    assert done.exit_code == 5
    assert "can be mended (--mend)" in done.stdout
    assert "names lose _orig_mod, which the model was wrapped in" in done.stdout
    assert local("import", runs, "--yes", "--mend").exit_code == 0
    assert local("show", "news").exit_code == 0


@pytest.mark.parametrize(
    ("answers", "refs"), [("y\ny\n", ["news", "science"]), ("n\ny\n", ["science"]), ("y\nn\n", [])]
)
def test_on_a_terminal_it_asks(runs: Path, tmp_path: Path, monkeypatch, answers: str, refs: list[str]):
    from loreg_cli import import_
    from loreg_cli.main import cli

    monkeypatch.setattr(import_, "_can_ask", lambda: True)
    wrap(runs / "news")
    environment = {"LOREG_HOME": str(tmp_path / "home")}
    asked = CliRunner().invoke(cli, ["import", str(runs)], input=answers, env=environment)
    assert "Mend 1 adapter on the way? The folders are not changed" in asked.stderr
    listed = CliRunner().invoke(cli, ["ls", "--format", "json"], env=environment)
    assert [item["adapter"] for item in json.loads(listed.stdout)["items"]] == refs


def test_a_checkpoint_of_a_run_can_be_pushed(local: Loreg, runs: Path):
    pushed = local("push", runs / "science", "team/a", "--checkpoint", "last")
    assert pushed.exit_code == 0
    assert "checkpoint=checkpoint-20" in local("show", "team/a").stdout
    assert local("push", runs / "science", "team/a", "--checkpoint", "first").exit_code == 2
