"""Completion: refs, aliases, tasks, bases, methods, profiles and folders, in real shells; never an error."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from deployments import NEWS, SCIENCE, Loreg, command_line, empty_folders
from live_server import live_server
from loreg.checking.profile import list_profiles
from loreg.completions import Names, complete_ref, complete_word, needs_cache, read_cache, write_cache
from loreg.merging.methods import METHODS as MERGE_METHODS
from loreg.settings import load
from loreg_cli import completing
from loreg_cli.completing import METHODS

LOREG = Path(sys.executable).with_name("loreg")
Complete = Callable[[str], list[str]]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A registry with two adapters, and the variables that a shell on it has."""
    home = tmp_path_factory.mktemp("completion")
    loreg = command_line({"LOREG_HOME": str(home), "LOREG_AUTHOR": "ada"})
    loreg("push", NEWS, "team/news", "--alias", "prod", "--task", "topics", "--metric", "accuracy=0.9")
    loreg("push", SCIENCE, "team/science", "--task", "question-answering")
    (home / "here" / "runs").mkdir(parents=True)
    path = f"{LOREG.parent}:/usr/bin:/bin"
    return {"LOREG_HOME": str(home), "PATH": path, "HOME": str(home), "TERM": "dumb", "HERE": str(home / "here")}


def ask(environment: dict[str, str], line: str) -> subprocess.CompletedProcess[str]:
    variables = {**environment, "COMP_WORDS": line, "_LOREG_COMPLETE": "bash_complete"}
    return subprocess.run([LOREG], env=variables, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("loreg show team/ne", ["team/news", "team/news:prod", "team/news:v1"]),
        ("loreg show t", ["team/news", "team/science"]),
        ("loreg pull team/news:", ["team/news:prod", "team/news:v1"]),
        ("loreg ls team/sc", ["team/science"]),
        ("loreg merge team/news ", ["team/news", "team/science"]),
        ("loreg search --task ", ["question-answering", "topics"]),
        ("loreg search --module v", ["v_proj", "value"]),
        ("loreg merge a b --method dare", ["dare_linear", "dare_ties"]),
        ("loreg check ./x --profile vl", ["vllm"]),
        ("loreg base sh", ["show"]),
        ("loreg show nobody/", []),
    ],
)
def test_what_a_word_may_become(environment: dict[str, str], line: str, words: list[str]):
    done = ask(environment, line)
    assert (done.returncode, done.stderr) == (0, "")
    assert [item.partition(",")[2] for item in done.stdout.split()] == words


def in_bash(environment: dict[str, str], line: str) -> list[str]:
    """Return what bash itself offers for the line, with the script in force."""
    script = f"""
        source <({LOREG} completion bash)
        compopt() {{ echo "$2"; }}
        COMP_LINE={line!r} COMP_POINT=${{#COMP_LINE}}
        _loreg_completion loreg
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.stdout.split("\n")[:-1]


def test_bash_completes_a_ref_behind_its_colon(environment: dict[str, str]):
    assert in_bash(environment, "loreg show team/news:") == ["prod", "v1"]
    assert in_bash(environment, "loreg show team/news:p") == ["prod"]
    assert in_bash(environment, "loreg show team/n") == ["team/news", "team/news:prod", "team/news:v1"]


def test_bash_completes_folders_where_a_path_was_begun(environment: dict[str, str]):
    assert in_bash(environment, "loreg check ./")[0] == "dirnames"


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh_completes_a_ref(environment: dict[str, str]):
    variables = {
        **environment,
        "COMP_WORDS": "loreg show team/ne",
        "COMP_CWORD": "2",
        "_LOREG_COMPLETE": "zsh_complete",
    }
    shown = subprocess.run([LOREG], env=variables, capture_output=True, text=True, check=True).stdout
    assert "team/news" in shown.splitlines()
    source = subprocess.run([LOREG, "completion", "zsh"], env=environment, capture_output=True, text=True, check=True)
    subprocess.run(["zsh", "-n"], input=source.stdout, text=True, check=True)


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_fish_completes_a_ref(environment: dict[str, str]):
    script = f"{LOREG} completion fish | source; complete -C 'loreg show team/ne'"
    done = subprocess.run(["fish", "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert "team/news" in done.stdout.split()


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_zsh_and_fish_are_told_the_same_words(environment: dict[str, str], shell: str):
    words = {"zsh": ("loreg show team/ne", "2"), "fish": ("loreg show team/ne", "team/ne")}[shell]
    variables = {"COMP_WORDS": words[0], "COMP_CWORD": words[1], "_LOREG_COMPLETE": f"{shell}_complete"}
    done = subprocess.run([LOREG], env={**environment, **variables}, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "team/news" in done.stdout
    assert "team/science" not in done.stdout


@pytest.mark.parametrize("settings", [{"LOREG_HOME": "/dev/null/x"}, {"LOREG_DATABASE_URL": "mysql://x"}])
def test_nothing_is_said_where_there_is_no_registry(environment: dict[str, str], settings: dict[str, str]):
    done = ask({**environment, **settings}, "loreg show te")
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


def test_control_characters_of_others_do_not_reach_the_prompt(tmp_path: Path):
    settings = load({"endpoint": "http://127.0.0.1:9"}, {"LOREG_HOME": str(tmp_path)})
    write_cache(settings, Names({}, {"tasks": ["\x1b[31mred", "two words", "$(reboot)", "good"]}))
    environment = {"LOREG_HOME": str(tmp_path), "LOREG_ENDPOINT": "http://127.0.0.1:9", "HOME": str(tmp_path)}
    assert ask(environment, "loreg search --task ").stdout == "plain,good\n"


def test_a_server_is_asked_beside_the_shell_and_answers_from_a_cache(tmp_path: Path):
    deployment = empty_folders(tmp_path / "server")
    with live_server(deployment) as endpoint:
        environment = {"LOREG_HOME": str(tmp_path / "home"), "LOREG_ENDPOINT": endpoint, "HOME": str(tmp_path)}
        loreg = command_line(environment)
        assert loreg("push", NEWS, "team/news", "--alias", "prod", "--task", "topics").exit_code == 0
        assert (
            ask(environment, "loreg show te").stdout.strip() == ""
        )  # nothing is known yet, and nobody waits for the server
        assert loreg("completion", "bash", "--refresh").exit_code == 0
        assert ask(environment, "loreg show te").stdout.split() == [
            "plain,team/news",
            "plain,team/news:prod",
            "plain,team/news:v1",
        ]
        assert ask(environment, "loreg search --task to").stdout == "plain,topics\n"
    (cache,) = (tmp_path / "home" / "cache" / "completion").glob("*.json")
    assert cache.stat().st_mode & 0o777 == 0o600


def test_words_of_a_server_that_only_old_versions_have_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """They are asked for as words, and not read from the newest versions, of which an answer has a thousand."""
    from loreg.registry import Registry

    deployment = empty_folders(tmp_path / "server")
    with live_server(deployment) as endpoint:
        environment = {"LOREG_HOME": str(tmp_path / "home"), "LOREG_ENDPOINT": endpoint, "HOME": str(tmp_path)}
        loreg = command_line(environment)
        loreg("push", NEWS, "team/old", "--task", "ancient", "--metric", "oldness=1")
        loreg("push", SCIENCE, "team/new", "--task", "modern")
        search = Registry.search
        monkeypatch.setattr(Registry, "search", lambda self, **options: search(self, **{**options, "limit": 1}))
        assert loreg("completion", "bash", "--refresh").exit_code == 0
        assert ask(environment, "loreg search --task an").stdout == "plain,ancient\n"
        settings = load({}, environment)
        assert complete_word(settings, "metrics", "old") == ["oldness"]
        assert complete_word(settings, "modules", "") == ["q_proj", "query", "v_proj", "value"]


def test_a_cache_is_made_anew_when_it_is_a_minute_old(tmp_path: Path):
    settings = load({"endpoint": "http://127.0.0.1:9"}, {"LOREG_HOME": str(tmp_path)})
    assert needs_cache(settings)
    assert not needs_cache(settings)  # somebody is at it
    (cache,) = (tmp_path / "cache" / "completion").glob("*.json")
    os.utime(cache, (time.time() - 61, time.time() - 61))
    assert needs_cache(settings)
    assert not needs_cache(settings)


@pytest.mark.parametrize(
    "flags",
    [{"endpoint": "http://ada:hunter2@127.0.0.1:9"}, {"database_url": "postgresql://ada:hunter2@127.0.0.1:9/x"}],
    ids=["server", "PostgreSQL"],
)
def test_no_password_is_among_the_words_of_the_process_that_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: dict[str, str]
):
    settings = load({**flags, "token": f"lrg_{'a' * 43}"}, {"LOREG_HOME": str(tmp_path)})
    calls = []
    monkeypatch.setattr(completing.subprocess, "Popen", lambda words, **options: calls.append((words, options["env"])))
    completing._refresh(settings)
    ((words, environment),) = calls
    assert "hunter2" not in " ".join(words)
    asked = load({}, environment)
    assert [asked.endpoint, asked.token, asked.home] == [settings.endpoint, settings.token, settings.home]
    assert [asked.database_url, asked.storage_url] == [settings.database_url, settings.storage_url]


def test_another_token_has_a_cache_of_its_own(tmp_path: Path):
    mine, other = (
        load({"endpoint": "http://127.0.0.1:9", "token": f"lrg_{c * 43}"}, {"LOREG_HOME": str(tmp_path)}) for c in "ab"
    )
    write_cache(mine, Names({"secret/adapter": []}, {}))
    assert read_cache(other) == Names({}, {})
    assert complete_ref(mine, "secret/") == ["secret/adapter"]


def test_every_kind_of_word_is_read_from_the_catalog_that_the_migrations_make(local: Loreg, tmp_path: Path):
    local("push", NEWS, "team/news", "--metric", "accuracy=0.9", "--task", "topics")
    settings = load({"home": str(tmp_path / "home")}, {})
    words = {kind: complete_word(settings, kind, "") for kind in ("tasks", "metrics", "modules", "bases")}
    assert words == {"tasks": ["topics"], "metrics": ["accuracy"], "modules": ["query", "value"], "bases": []}


def test_the_methods_and_profiles_are_those_that_there_are(environment: dict[str, str]):
    assert set(METHODS) == set(MERGE_METHODS)
    offered = ask(environment, "loreg check x --profile ").stdout.split()
    assert offered == [f"plain,{name}" for name in list_profiles()]


@pytest.mark.parametrize(
    "line", ["show te", "search --task ", "push ./a --task ", "merge te", "export te", "import --base "]
)
def test_completion_imports_nothing_heavy(environment: dict[str, str], line: str):
    code = """
import os, sys
os.environ.update(COMP_WORDS="loreg " + sys.argv[1], _LOREG_COMPLETE="bash_complete")
from loreg_cli.main import cli
try: cli([])
except SystemExit: pass
heavy = {"torch", "sqlalchemy", "alembic", "boto3", "urllib3", "numpy", "rich", "safetensors", "loreg.registry",
         "loreg.entities", "loreg.parsing"}
print(sorted(heavy & sys.modules.keys()))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, line], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
