"""Tables on a terminal of 80 and of 100 columns: what the next command needs is there, whole."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click import unstyle
from rich.cells import cell_len

from deployments import HISTORY, MOVIES, NEWS, SCIENCE, command_line, empty_home
from factories import train
from loreg.registry import connect
from loreg_cli.table import Column, Table
from terminals import show_on_terminal

ADAPTER = "a-team-with-a-name/news-topics-of-the-agency-in-english"
OTHER = "a-team-with-a-name/movie-sentiment-of-reviews-in-english"
BASE = "sentence-transformers/all-MiniLM-L6-v2-from-the-hub"
ALIAS = "production-in-europe"
TASK = "news-topic-classification"
METRIC = "macro-averaged-f1=0.914@ag-news-2026:validation"
Show = Callable[..., str]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory, minilm: Path) -> dict[str, str]:
    """A registry whose every name is as long as people make them."""
    folder = tmp_path_factory.mktemp("narrow")
    environment = {"LOREG_HOME": str(folder / "home"), "LOREG_AUTHOR": "ada", "HF_HUB_OFFLINE": "1"}
    loreg = command_line(environment)
    described = ["--alias", ALIAS, "--alias", "staging", "--task", TASK, "--metric", METRIC, "--metric", "accuracy=0.9"]
    for arguments in (
        ["base", "add", str(minilm), "--name", BASE],
        ["push", str(NEWS), ADAPTER, "--base", BASE, *described],
        ["push", str(MOVIES), OTHER],
        ["backup", str(folder / "backup")],
        ["push", str(SCIENCE), f"{OTHER}-science"],
        ["push", str(HISTORY), f"{OTHER}-history"],
        ["merge", f"{OTHER}-science", f"{OTHER}-history", "--push", "a-team-with-a-name/blend"],
    ):
        done = loreg(*arguments)
        assert done.exit_code == 0, done
    with connect(home=environment["LOREG_HOME"], author="ada") as registry:
        registry.tokens.create("a-bot-that-releases-adapters", ["write:a-team-with-a-name", "read:other-team"])
    return {**environment, "BACKUP": str(folder / "backup")}


COMMANDS: list[tuple[list[str], list[str]]] = [
    (["ls"], [ADAPTER, OTHER, ALIAS]),
    (["ls", ADAPTER], [f"{ADAPTER}:v1", ALIAS, TASK, "macro-averaged-f1=0.914", "@ag-news-2026:validation"]),
    (["search", "--sort", "name"], [f"{ADAPTER}:v1", f"{OTHER}:v1", "sentence-transformers/", TASK]),
    (["show", ADAPTER], ["adapter_model.safetensors", "adapter_config.json", BASE, ALIAS]),
    (["base", "ls"], [BASE]),
    (["base", "match", ADAPTER], [BASE]),
    (["compare", ADAPTER, OTHER], [ADAPTER, OTHER, "0."]),
    (["events"], [f"{ADAPTER}:v1"]),
    (["du", "--by", "adapter"], [ADAPTER, OTHER]),
    (["token", "ls"], ["a-bot-that-releases-adapters", "write:a-team-with-a-name", "read:other-team"]),
    (["namespace", "ls"], ["a-team-with-a-name"]),
    (["doctor"], ["endpoint"]),
    (["methods"], ["magnitude_prune", "ties"]),
    (["backup", "BACKUP", "--list"], ["VERSIONS"]),
    (["show", "a-team-with-a-name/blend"], [f"{OTHER}-science", f"{OTHER}-history"]),
]


@pytest.fixture(scope="module", params=[80, 100])
def columns(request: pytest.FixtureRequest) -> int:
    width: int = request.param
    return width


@pytest.fixture(scope="module")
def screens(columns: int, environment: dict[str, str]) -> dict[str, str]:
    commands = [[environment.get(word, word) for word in arguments] for arguments, _ in COMMANDS]
    names = [" ".join(arguments) for arguments, _ in COMMANDS]
    return dict(zip(names, show_on_terminal(commands, columns, environment), strict=True))


def lines_of_tables(screen: str) -> list[str]:
    """Return the lines of a screen that belong to tables: the one above a rule, and those below it to the next gap."""
    lines = screen.splitlines()
    rules = [i for i, line in enumerate(lines) if line and not line.strip("─ ")]
    ends = [
        next((i for i in range(rule, len(lines)) if not lines[i].strip() or lines[i].startswith("and ")), len(lines))
        for rule in rules
    ]
    return [line for rule, end in zip(rules, ends, strict=True) for line in lines[rule - 1 : end]]


@pytest.mark.parametrize(("arguments", "names"), COMMANDS, ids=[" ".join(a)[:30] for a, _ in COMMANDS])
def test_names_are_whole_and_lines_fit(arguments: list[str], names: list[str], columns: int, screens: dict[str, str]):
    screen = screens[" ".join(arguments)]
    for name in names:
        assert name in screen
    for line in lines_of_tables(screen):
        assert cell_len(line.rstrip()) <= columns, screen


def test_wide_shows_every_column_and_columns_chooses(environment: dict[str, str]):
    commands = [["search", "--wide"], ["search", "--columns", "created,ref", "--sort", "name"]]
    wide, chosen = (screen.splitlines() for screen in show_on_terminal(commands, 80, environment))
    assert wide[0].split() == ["REF", "DIGEST", "BASE", "RANK", "TASKS", "METRICS", "CREATED"]
    assert chosen[0].split() == ["CREATED", "REF"]
    assert chosen[2].split()[1] == "a-team-with-a-name/blend:v1"


def test_a_misspelt_column_is_answered_with_the_right_one(environment: dict[str, str]):
    done = command_line(environment)("ls", "--columns", "nmae")
    assert done.exit_code == 2
    assert done.stderr.startswith("error: there is no column 'nmae'; there are: NAME, NEWEST")
    assert "did you mean 'name'?" in done.stderr


def test_what_there_is_no_room_for_is_said(environment: dict[str, str]):
    table = Table([Column("REF"), Column("DATE", drops=0)], [("team/science:v1", "2026-01-01")])
    assert "2026" not in "\n".join(table.render(20))
    assert table.left_out == ["DATE"]


def test_long_prose_ends_in_dots_or_wraps_as_is_asked():
    columns, rows = [Column("REF"), Column("WHY", is_prose=True)], [("a:v1", "it was measured on the wrong data set")]
    cut = Table(columns, rows).render(30)
    assert cut[2].rstrip().endswith("…")
    wrapped = Table(columns, rows, truncate=False).render(30)
    assert " ".join("".join(line[6:].ljust(24) for line in wrapped[2:]).split()) == rows[0][1]


def test_wide_characters_take_two_columns():
    table = Table(
        [Column("NAME"), Column("RANK", is_right=True)], [("日本語の感情", "8"), ("e\N{COMBINING ACUTE ACCENT}", "16")]
    )
    assert {cell_len(unstyle(line)) for line in table.render(None)} == {len("日本語の感情") * 2 + 2 + 4}


def test_a_question_mark_is_explained_where_it_stands(environment: dict[str, str]):
    (screen,) = show_on_terminal([["ls", f"{OTHER}-science"]], 100, environment, with_stderr=True)
    assert "SmolLM2-135M-Instruct?" in screen
    assert "? after a base: the adapter says so" in screen


SCORE = """
import json, sys
weights = [source["weight"] for source in json.load(open(sys.argv[1] + "/loreg_merge.json"))["recipe"]["sources"]]
print(json.dumps({f"task-{i}": 0.5 - (weight - i / 10) ** 2 for i, weight in enumerate(weights)}))
"""


@pytest.mark.parametrize("width", [80, 100])
def test_a_sweep_of_eight_fits_and_lists_the_weights_that_are_taken(
    width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "score.py").write_text(SCORE)
    folders = [str(train(tmp_path / f"adapter-{i}", i)) for i in range(8)]
    command = ["sweep", *folders, "--eval", f"{sys.executable} score.py {{dir}}", "--budget", "20", "--dry-run"]
    environment = {"LOREG_HOME": str(empty_home(tmp_path / "home"))}
    (screen,) = show_on_terminal([command], width, environment, with_stderr=True)
    answer = screen[screen.index("TRIAL") :].splitlines()
    assert all(cell_len(line.rstrip()) <= width for line in answer), screen
    assert "TASK-0" in answer[0]  # before the weights of eight, which have a line each below
    assert "WEIGHTS" not in answer[0]
    (left_out,) = (line for line in answer if line.startswith("no room for WEIGHTS, "))
    assert left_out.endswith(" more: --wide") or left_out.count(",") < 4
    result = json.loads(command_line(environment)(*command, "--format", "json").stdout)
    taken = result["trials"][result["best"]]["candidate"]
    assert [line.split()[0] for line in answer if " of adapter-" in line] == [f"{w:g}" for w in taken["weights"]]
