"""The program itself: quick help, no torch where none is needed, every command explained, pipes that close."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from deployments import MOVIES, NEWS, Deployment, Loreg
from live_server import live_server
from loreg.adapters.structure import read_structure
from loreg_cli.debug import hide_secrets
from loreg_cli.main import cli

ROOT = Path(__file__).parents[2]
INDEX = ROOT / "docs" / "index.md"


def commands(group: click.Group = cli, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], click.Command]]:
    paths = []
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        paths.append(((*path, name), command))
        if isinstance(command, click.Group):
            paths += commands(command, (*path, name))
    return paths


def python(code: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, **options)


def test_the_help_has_every_command():
    files = {path.stem for path in (ROOT / "cli" / "loreg_cli").glob("*.py") if "\n@click." in path.read_text()}
    listed = cli.list_commands(click.Context(cli))
    assert {name for name in files if hasattr(import_module(f"loreg_cli.{name}"), name)} <= set(listed)
    page = CliRunner().invoke(cli, ["--help"], terminal_width=80).stdout
    assert set(listed) <= set(
        re.findall(r"[a-z-]+", page.partition("Store and fetch:")[2].partition("Options before")[0])
    )


def screen(*arguments: str) -> list[str]:
    return CliRunner().invoke(cli, [*arguments, "--help"], terminal_width=80).stdout.splitlines()


@pytest.mark.parametrize("path", [(), *(path for path, _ in commands())], ids=" ".join)
def test_the_help_of_every_command_is_at_most_a_screen_and_has_an_example(path: tuple[str, ...]):
    lines = screen(*path)
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 80
    before_options = "\n".join(lines).partition("Options:")[0]
    assert re.search(rf"^ +.*\bloreg {' '.join(path)}", before_options, re.MULTILINE)


def test_loreg_alone_shows_the_commands_that_matter_and_how_to_see_the_rest():
    alone = CliRunner().invoke(cli, [])
    assert alone.exit_code == 0
    assert re.findall(r"^  loreg (\w+)", alone.stdout, re.MULTILINE) == ["push", "ls", "search", "show", "pull"]
    assert "loreg --help" in alone.stdout
    assert max(map(len, alone.stdout.splitlines())) <= 80


def test_help_imports_click_and_nothing_heavy():
    code = """
import sys
from loreg_cli.main import cli
try: cli(["--help"])
except SystemExit: pass
heavy = {"torch", "sqlalchemy", "alembic", "boto3", "httpx", "numpy", "rich", "safetensors", "loreg.registry"}
print(sorted(heavy & sys.modules.keys()))
"""
    assert python(code).stdout.splitlines()[-1] == "[]"


def test_a_listing_in_a_pipe_imports_nothing_for_terminals_and_numbers(tmp_path: Path):
    code = f"""
import sys
from loreg_cli.main import cli
def run(*arguments):
    try: cli(list(arguments))
    except SystemExit as end: print("EXIT", end.code)
run("push", {str(NEWS)!r}, "a", "--alias", "prod")
for module in [name for name in sys.modules if name.split(".")[0] in ("numpy", "rich")]: del sys.modules[module]
run("ls"); run("ls", "a"); run("search")
print(sorted({{"numpy", "rich"}} & sys.modules.keys()))
"""
    done = python(code, env={"LOREG_HOME": str(tmp_path / "h"), "PATH": "/usr/bin", "HOME": str(tmp_path)})
    assert "prod → v1" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_everything_but_merging_and_extracting_runs_without_torch(tmp_path: Path):
    code = f"""
import sys
sys.modules["torch"] = None
from loreg_cli.main import cli
def run(*arguments):
    try: cli(list(arguments))
    except SystemExit as end: print("EXIT", end.code)
run("push", {str(NEWS)!r}, "a", "--task", "x", "--alias", "prod")
run("push", {str(NEWS)!r}, "a", "--base", {str(tmp_path / "base.safetensors")!r})
run("base", "add", {str(tmp_path / "base.safetensors")!r}, "--name", "x"); run("base", "ls"); run("base", "match", "a")
run("base", "show", "x"); run("base", "add", "--header-only", {str(tmp_path / "base.safetensors")!r})
run("bake", {str(NEWS)!r}, "--base", {str(tmp_path / "base.safetensors")!r}, "--to", {str(tmp_path / "baked")!r})
run("check", {str(NEWS)!r}, "--base", "x", "--profile", "vllm")
run("ls"); run("search", "--task", "x"); run("show", "a"); run("lineage", "a"); run("doctor")
run("tag", "a", "dev"); run("untag", "a", "dev"); run("metric", "add", "a", "f1=1")
run("yank", "a:v1"); run("unyank", "a:v1")
run("pull", "a", {str(tmp_path / "out")!r})
run("merge", "a", "--weights", "1", "--dry-run")
"""
    import numpy as np
    from safetensors.numpy import save_file

    modules = read_structure(NEWS).modules.values()
    tensors = {f"{module.name}.weight": np.zeros((module.shape.out, module.shape.in_), "f4") for module in modules}
    save_file(tensors, tmp_path / "base.safetensors")
    done = python(
        code, cwd=tmp_path, env={"LOREG_HOME": str(tmp_path / "h"), "PATH": "/usr/bin", "HOME": str(tmp_path)}
    )
    exits = [line for line in done.stdout.splitlines() if line.startswith("EXIT")]
    assert exits == ["EXIT 0"] * 20 + ["EXIT 1"], done
    assert "error: merging needs torch, which is not installed. Hint: pip install 'loreg[merge]'" in done.stderr


def test_importing_the_library_costs_nothing():
    assert (
        python("import sys, loreg; print('sqlalchemy' in sys.modules, loreg.connect.__name__)").stdout
        == "False connect\n"
    )


@pytest.mark.parametrize(("path", "command"), commands(), ids=lambda x: " ".join(x) if isinstance(x, tuple) else "")
def test_every_command_and_option_is_explained(path: tuple[str, ...], command: click.Command):
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name


@pytest.mark.parametrize(
    "path", [path for path, command in commands() if not isinstance(command, click.Group)], ids=" ".join
)
def test_every_command_is_in_the_list_of_the_documentation(path: tuple[str, ...]):
    assert f"loreg {' '.join(path)}" in INDEX.read_text()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_that_names_the_program(local: Loreg, shell: str):
    script = local("completion", shell).stdout
    assert "_LOREG_COMPLETE" in script
    assert "loreg" in script


def test_bash_completes_commands(tmp_path: Path):
    done = subprocess.run(
        [Path(sys.executable).with_name("loreg")],
        env={"_LOREG_COMPLETE": "bash_complete", "COMP_WORDS": "loreg pu", "COMP_CWORD": "1", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["plain,pull", "plain,push"]


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path):
    environment = {"LOREG_HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    command = f"{sys.executable} -m loreg_cli.main --help | head -1"
    done = subprocess.run(command, shell=True, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("Usage:")
    assert done.stderr == ""


def test_a_word_from_someone_else_does_not_colour_the_terminal(local: Loreg):
    local("push", NEWS, "a", "-m", "\x1b[31mred\x1b[0m [bold]x[/bold]")
    assert "\x1b" not in local("show", "a").stdout
    assert "[bold]x[/bold]" in local("show", "a").stdout


class TestDebug:
    """``loreg --debug`` tells what was asked and what led to an error, and no secret."""

    def run(self, tmp_path: Path, endpoint: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        settings = {"LOREG_HOME": str(tmp_path), "LOREG_ENDPOINT": endpoint, "LOREG_TOKEN": "lrg_" + "s" * 43}
        command = [sys.executable, "-m", "loreg_cli.main", *arguments, "ls"]
        return subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True)

    def test_prints_the_causes_before_the_one_line(self, tmp_path: Path):
        endpoint = "http://ada:hunter2@127.0.0.1:9"
        plain, debug = self.run(tmp_path, endpoint), self.run(tmp_path, endpoint, "--debug")
        assert plain.returncode == debug.returncode == 1
        assert len(plain.stderr.splitlines()) == 1
        assert debug.stderr.splitlines()[-1] == plain.stderr.splitlines()[0]
        assert "urllib3.exceptions.NewConnectionError" in debug.stderr
        assert "hunter2" not in debug.stderr + plain.stderr

    def test_logs_each_request_with_its_time(self, tmp_path: Path):
        deployment = Deployment(f"sqlite:///{tmp_path}/catalog.db", str(tmp_path / "store"))
        with live_server(deployment, is_open=True) as endpoint:
            debug = self.run(tmp_path, endpoint, "--debug")
        assert re.search(r"loreg\.remote: GET /api/v1/adapters\S* 200 in \d+ ms", debug.stderr), debug.stderr
        assert "lrg_s" not in debug.stderr

    def test_logs_each_statement_and_each_call_of_the_store_with_its_time(self, deployment: Deployment):
        command = [sys.executable, "-m", "loreg_cli.main", "--debug", "push", str(MOVIES), "movies"]
        debug = subprocess.run(command, env={**os.environ, **deployment.environment}, capture_output=True, text=True)
        assert debug.returncode == 0, debug.stderr
        statements = re.findall(r"loreg\.catalog: \d+\.\d ms(?:, \d+ times)?: (\w+ \w+ \w+)", debug.stderr)
        assert ("INSERT INTO versions" in statements) == (not deployment.endpoint)
        calls = re.findall(r"loreg\.storage: (\w+) /\S+: \d+, \d+\.\d ms", debug.stderr)
        assert ("PutObject" in calls) == (deployment.storage_url.startswith("s3:") and not deployment.endpoint)
        assert "test-secret" not in debug.stderr

    def test_logs_a_call_that_the_store_does_not_answer(self, tmp_path: Path):
        settings = {"LOREG_HOME": str(tmp_path), "LOREG_STORAGE_URL": "s3://b", "AWS_ACCESS_KEY_ID": "k"}
        settings |= {"LOREG_STORAGE_ENDPOINT": "http://127.0.0.1:9", "AWS_SECRET_ACCESS_KEY": "test-secret"}
        command = [sys.executable, "-m", "loreg_cli.main", "--debug", "push", str(MOVIES), "movies"]
        debug = subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True)
        assert debug.returncode == 1, debug.stderr
        assert re.search(r"loreg\.storage: \w+ /\S+: EndpointConnectionError: .*, \d+\.\d ms", debug.stderr), (
            debug.stderr
        )
        assert "botocore.exceptions.EndpointConnectionError" in debug.stderr
        assert "test-secret" not in debug.stderr


def test_what_reads_like_a_secret_is_hidden():
    text = "postgresql://ada:hunter2@db/x password=hunter2 lrg_abcdefghijkl X-Amz-Signature=deadbeef&x "
    text += "Authorization: Bearer abc"
    assert not re.search(r"hunter2|abcdefghijkl|deadbeef|abc\b", hide_secrets(text))
