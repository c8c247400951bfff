"""What beginners type, and the command that would have been right: it is in the answer, and it works."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fake_hub
from deployments import HISTORY, NEWS, SCIENCE, Deployment, Loreg, Outcome, command_line, empty_folders
from live_server import live_server
from loreg.errors import ConflictError, NotFoundError, UsageError
from loreg.suggestions import Suggestion
from loreg_cli.corrections import find_correction
from loreg_cli.corrections.call import Call
from loreg_cli.main import cli

NOTHING = ""  # there is no command that would have been right: the hint says what to do
REFS = ["team/science", "team/history"]

#: What is typed, the exit code, and the command in the hint, which then succeeds.
MISTAKES: list[tuple[str, int, str]] = [
    # The order and the form of arguments
    ("push team/x ./news", 2, "push ./news team/x"),
    ("pull ./here team/news", 2, "pull team/news ./here"),
    ("tag dev team/news:v1", 2, "tag team/news:v1 dev"),
    ("push ./news", 2, "push ./news news"),
    ("check science", 3, "check ./science"),
    ("compare science history", 3, "compare ./science history"),
    ("show ./science", 2, "check ./science"),
    ("push ./news/adapter_model.safetensors team/x", 3, "push ./news team/x"),
    ("push ./run team/x", 3, "push ./run team/x --checkpoint last"),
    ("push ./run team/x --checkpoint best", 3, "push ./run team/x --checkpoint last"),
    ("diff team/science ./run", 3, "diff team/science ./run/checkpoint-200"),
    ("compare ./science ./run", 3, "compare ./science ./run/checkpoint-200"),
    ("identify ./run", 3, "identify ./run/checkpoint-200"),
    ("merge ./science ./run --dry-run", 3, "merge ./science ./run/checkpoint-200 --dry-run"),
    ("push ./model team/x", 3, "base add ./model"),
    ("push ./nowhere team/x", 3, "push --help"),
    ("push './ne*' team/x", 3, "push ./news team/x"),
    ("push ./nwes team/x", 3, "push ./news team/x"),
    ("push ~/news team/x", 3, "push --help"),
    ("push ./empty team/x", 3, NOTHING),
    ("push ./gguf team/x", 3, NOTHING),
    ("push ./pickle team/x", 1, NOTHING),
    # Names
    ("push ./news 'team/my adapter'", 2, "push ./news team/my-adapter"),
    ("push ./news team/my adapter", 2, "push ./news team/my-adapter"),
    ("push ./news team/x/", 2, "push ./news team/x"),
    ("push ./news team/x:v2", 2, "push ./news team/x"),
    ("push ./news org/team/x", 2, "push ./news org/team-x"),
    ("push ./news team/x --alias 'in production'", 2, "push ./news team/x --alias in-production"),
    ("tag team/news:v1 v2", 2, "tag team/news:v1 release-2"),
    # Refs
    ("show team/nwes", 3, "show team/news"),
    ("show TEAM/News", 3, "show team/news"),
    ("pull team/news:prd ./out", 3, "pull team/news:prod ./out"),
    ("untag team/news prd", 3, "untag team/news prod"),
    ("untag team/news:prod", 2, "untag team/news prod"),
    ("show team/news:v9", 3, "ls team/news"),
    ("show team/news@v1", 2, "show team/news:v1"),
    ("show team/news@prod", 2, "show team/news:prod"),
    ("show team/news/v1", 2, "show team/news:v1"),
    ("show team/news v1", 2, "show team/news:v1"),
    ("show team/news:1", 3, "show team/news:v1"),
    ("ls 'team/*'", 2, "ls"),
    ("ls team/", 2, "ls"),
    ("show team", 3, "ls"),
    ("pull team/news ./full", 7, "pull team/news ./full-2"),
    ("pull team/gone", 3, "unyank team/gone:v1"),
    # Numbers
    ("push ./news team/x --metric accuracy=93%", 2, "push ./news team/x --metric accuracy=0.93"),
    ("push ./news team/x --metric accuracy=0,93", 2, "push ./news team/x --metric accuracy=0.93"),
    ("push ./news team/x --metric accuracy:0.93", 2, "push ./news team/x --metric accuracy=0.93"),
    ("push ./news team/x --metric accuracy", 2, NOTHING),
    ("metric add team/news accuracy 0.9", 2, "metric add team/news accuracy=0.9"),
    ("metric team/news accuracy=0.9", 2, "metric add team/news accuracy=0.9"),
    ("search --metric accuracy", 2, "search --sort metric:accuracy"),
    ("search --metric 'accuracy=>0.9'", 2, "search --metric 'accuracy>=0.9'"),
    ("search --sort accuracy", 2, "search --sort metric:accuracy"),
    ("search --rank 4-16", 2, "search --rank '>=4' --rank '<=16'"),
    # Merging
    ("merge A B --weights 0.7 0.3 --dry-run", 2, "merge A B --weights 0.7,0.3 --dry-run"),
    ("merge A B --weights 0,7 0,3 --dry-run", 2, "merge A B --weights 0.7,0.3 --dry-run"),
    ("merge A B --weights '0.7;0.3' --dry-run", 2, "merge A B --weights 0.7,0.3 --dry-run"),
    ("merge A B team/both --weights 0.7,0.3 --dry-run", 2, "merge A B team/both --weights 0.7,0.3,1 --dry-run"),
    ("merge A+B --dry-run", 2, "merge A B --dry-run"),
    ("merge A B", 2, "merge A B --dry-run"),
    ("merge A", 2, "merge A --dry-run"),
    ("merge A B --rank 0 --dry-run", 2, "merge A B --rank 1 --dry-run"),
    ("merge A B --rank 8 16 --dry-run", 3, "merge A B --rank 8 --dry-run"),
    ("merge A B --method tie --dry-run", 2, "merge A B --method ties --dry-run"),
    ("merge A team/news --dry-run", 1, NOTHING),
    # Options and choices
    ("push ./news team/x --lable a=b", 2, "push ./news team/x --label a=b"),
    ("push ./news team/x --tag dev", 2, "push ./news team/x --alias dev"),
    ("push ./news team/x -t topics", 2, "push ./news team/x --task topics"),
    ("pull team/news --to ./there", 2, "pull team/news ./there"),
    ("ls --format yaml", 2, "ls --format table"),
    ("ls --columns nmae", 2, "ls --columns name"),
    ("check ./science --profile vlm", 3, "check ./science --profile vllm"),
    ("check ./science --profile vllm:max_lora_rnk=8", 2, "check ./science --profile vllm:max_lora_rank=8"),
    ("check --explain LR0003", 3, "check --explain LR003"),
    ("export team/science --to ./out", 2, "export team/science --to ./out --profile vllm"),
    ("export team/science --profile vllm", 2, "export team/science --profile vllm --to ./exported"),
    ("delete team/news:v1", 2, "yank team/news:v1"),
    ("completion powershell", 2, "completion bash"),
    # Commands
    ("list", 2, "ls"),
    ("rm team/news:v1", 2, "yank team/news:v1"),
    ("download team/news", 2, "pull team/news"),
    ("upload ./news team/x", 2, "push ./news team/x"),
    ("info team/news", 2, "show team/news"),
    ("versions team/news", 2, "ls team/news"),
    ("pussh ./news team/x", 2, "push ./news team/x"),
    ("help", 2, "--help"),
    ("help push", 2, "push --help"),
    ("version", 2, "--version"),
    ("init", 2, "doctor"),
    ("config", 2, "doctor"),
    ("base list", 2, "base ls"),
    ("base show all-minilm-L6", 3, "base show all-MiniLM-L6-v2"),
    # Settings
    ("--database-url mysql://ada@db/loreg ls", 2, NOTHING),
    ("--storage-url s3:// ls", 2, NOTHING),
    ("--home ./file ls", 4, NOTHING),
]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, minilm: Path) -> Path:
    """A folder in which a beginner starts: runs, models, and a registry with some adapters."""
    folder = tmp_path_factory.mktemp("beginner")
    for name, source in (("news", NEWS), ("science", SCIENCE), ("history", HISTORY), ("pickle", SCIENCE)):
        shutil.copytree(source, folder / name)
    for step in (100, 200):
        shutil.copytree(SCIENCE, folder / "run" / f"checkpoint-{step}")
    (folder / "pickle" / "adapter_model.safetensors").rename(folder / "pickle" / "adapter_model.bin")
    shutil.copytree(minilm, folder / "model")
    for name in ("empty", "gguf", "full"):
        (folder / name).mkdir()
    (folder / "gguf" / "model.gguf").write_bytes(b"GGUF")
    (folder / "full" / "mine").write_text("mine")
    (folder / "file").write_text("text")
    loreg = command_line({"LOREG_HOME": str(folder / "home"), "LOREG_AUTHOR": "ada"})
    for command in (
        ["push", folder / "news", "team/news", "--alias", "prod", "--task", "topics", "--metric", "accuracy=0.9"],
        ["push", folder / "science", "team/science"],
        ["push", folder / "history", "team/history"],
        ["push", folder / "science", "team/both"],
        ["push", folder / "science", "team/gone"],
        ["yank", "team/gone:v1"],
        ["push", folder / "science", "history"],
        ["base", "add", folder / "model", "--name", "all-MiniLM-L6-v2"],
    ):
        done = loreg(*command)
        assert done.exit_code == 0, done
    return folder


@pytest.fixture
def beginner(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Loreg:
    place = tmp_path / "place"
    shutil.copytree(template, place, symlinks=True)
    monkeypatch.chdir(place)
    monkeypatch.setenv("HOME", str(tmp_path))
    return command_line({"LOREG_HOME": str(place / "home"), "LOREG_AUTHOR": "ada"})


def words(text: str) -> list[str]:
    return shlex.split(text.replace("A+B", "+".join(REFS)).replace(" A", f" {REFS[0]}").replace(" B", f" {REFS[1]}"))


def hint_of(outcome: Outcome) -> str:
    (line,) = [line for line in outcome.stderr.splitlines() if line.startswith("error: ")]
    return line.partition("Hint: ")[2]


@pytest.mark.parametrize(("typed", "exit_code", "right"), MISTAKES, ids=[typed for typed, _, _ in MISTAKES])
def test_a_mistake_is_answered_with_what_would_have_been_right(beginner: Loreg, typed: str, exit_code: int, right: str):
    outcome = beginner(*words(typed))
    assert outcome.exit_code == exit_code, outcome
    assert outcome.stdout == ""
    hint = hint_of(outcome)
    assert hint
    if right == NOTHING:
        assert not hint.startswith("loreg ")
        return
    assert shlex.split(hint) == ["loreg", *words(right)]
    mended = beginner(*shlex.split(hint)[1:])
    assert mended.exit_code == 0, mended


def test_there_are_at_least_55_mistakes():
    assert len(MISTAKES) >= 55


@pytest.fixture
def hub(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with fake_hub.serve(template / "science", tmp_path / "hub", monkeypatch):
        yield


@pytest.mark.parametrize(
    "typed", ["hf:org/tiny", "https://huggingface.co/org/tiny", "https://hf.co/org/tiny/tree/main"]
)
def test_an_adapter_on_the_hub_is_no_ref_and_can_be_checked(beginner: Loreg, hub: None, typed: str):
    outcome = beginner("show", typed)
    assert outcome.exit_code == 2
    assert hint_of(outcome) == "loreg check hf:org/tiny"
    assert beginner("check", "hf:org/tiny").exit_code == 0


class TestThroughAServer:
    """The server knows what is there, and says it to those who may see it."""

    @pytest.fixture
    def endpoint(self, template: Path) -> Iterator[str]:
        deployment = Deployment(f"sqlite:///{template}/home/catalog.db", str(template / "home" / "store"))
        with live_server(deployment) as endpoint:
            yield endpoint

    @pytest.mark.parametrize(
        ("typed", "right"),
        [
            ("show team/nwes", "show team/news"),
            ("show TEAM/news", "show team/news"),
            ("show team/news:prd", "show team/news:prod"),
            ("base show all-minilm-L6", "base show all-MiniLM-L6-v2"),
        ],
    )
    def test_the_same_is_meant(self, endpoint: str, typed: str, right: str):
        loreg = command_line({"LOREG_ENDPOINT": endpoint})
        hint = hint_of(loreg(*words(typed)))
        assert hint == f"loreg {right}"
        assert loreg(*words(right)).exit_code == 0

    def test_https_where_there_is_none(self, endpoint: str):
        loreg = command_line({})
        hint = hint_of(loreg("--endpoint", endpoint.replace("http:", "https:"), "ls"))
        assert hint == f"loreg --endpoint {endpoint} ls"
        assert loreg(*words(hint)[1:]).exit_code == 0

    def test_an_endpoint_without_a_scheme(self, endpoint: str):
        bare = endpoint.removeprefix("http://")
        loreg = command_line({"LOREG_ENDPOINT": bare})
        assert hint_of(loreg("ls")) == f"LOREG_ENDPOINT={endpoint} loreg ls"
        assert command_line({"LOREG_ENDPOINT": endpoint})("ls").exit_code == 0


def test_a_server_that_needs_a_token_and_a_wrong_one(tmp_path: Path):
    from loreg.server.run import make_administrator
    from loreg.settings import load

    deployment = empty_folders(tmp_path)
    token = make_administrator(load({}, {**deployment.environment, "LOREG_ENDPOINT": ""}), "")
    with live_server(deployment, is_open=False) as endpoint:
        loreg = command_line({"LOREG_ENDPOINT": endpoint})
        for environment in ({}, {"LOREG_TOKEN": "lrg_" + "x" * 43}):
            outcome = loreg("push", NEWS, "team/x", **environment)
            assert outcome.exit_code == 4
            assert hint_of(outcome) == f"loreg login {endpoint}"
        wrong = loreg("login", endpoint, "--token", "lrg_" + "x" * 43)
        assert (wrong.exit_code, hint_of(wrong)) == (4, f"loreg login {endpoint}")
        assert "xxx" not in wrong.stderr
        assert command_line({})("login", endpoint, "--token", token).exit_code == 0


VOCABULARY = """
    push pull merge search metric add base show tag untag ls delete rm help 0.7 0,3 a+b team/news team/news@v1 v2
    --weights --rank --metric --to --push --format --home --endpoint --token -- - -x accuracy=93% hf:org/x :: / ../x ~
    team/ 'x' @ = : , é 日本 * http://127.0.0.1:9
""".split()  # noqa: SIM905  words are easier to read so


ERRORS = st.one_of(
    st.builds(click.UsageError, st.sampled_from(["unexpected extra argument", "'x' is not one of 'a', 'b'.", "x"])),
    st.builds(click.exceptions.NoSuchOption, st.sampled_from(VOCABULARY)),
    st.builds(click.exceptions.NoSuchCommand, st.sampled_from(VOCABULARY)),
    st.builds(UsageError, st.sampled_from(["invalid alias 'x': expected 1 to 96", "2 adapters and 1 weights", "x"])),
    st.builds(NotFoundError, st.just("x"), suggestion=st.builds(Suggestion, st.sampled_from(VOCABULARY), st.just("y"))),
    st.builds(ConflictError, st.just("x")),
)


@given(st.lists(st.sampled_from([*VOCABULARY, "two words", ""]), max_size=6), ERRORS)
def test_whatever_is_typed_a_correction_parses_or_there_is_none(typed: list[str], error: Exception):
    correction = find_correction(cli, typed, error)
    if correction is not None and "--help" not in correction and "--version" not in correction:
        words = [word for word in shlex.split(correction) if not word.startswith("LOREG_")]
        assert Call(cli, (), error).parses(words[1:])


def test_a_secret_among_the_words_is_not_repeated(local: Loreg):
    outcome = local("lgoin", "http://ada:hunter2@127.0.0.1:9", "--token", "lrg_secretsecret")
    assert outcome.exit_code == 2
    assert "secretsecret" not in outcome.stderr
    assert "hunter2" not in outcome.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["login", "127.0.0.1:9", "--token=hunter2"],
        ["lgoin", "127.0.0.1:9", "--token=hunter2"],
        ["login", "ada:hunter2@127.0.0.1:9", "--token=x"],
        ["lgoin", "http://127.0.0.1:9", "--token", "hunter2"],
        ["--endpoint", "ada:hunter2@127.0.0.1:9", "show", "x"],
        ["--endpoint=ada:hunter2@127.0.0.1:9", "shwo", "x"],
    ],
    ids=" ".join,
)
def test_a_secret_is_not_repeated_however_it_is_written(local: Loreg, words: list[str]):
    outcome = local(*words)
    assert outcome.exit_code == 2
    assert "hunter2" not in outcome.stderr
