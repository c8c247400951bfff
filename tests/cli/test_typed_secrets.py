"""Secrets that somebody typed: whatever else is wrong with a command, nothing repeats them."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterator

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments import Loreg, command_line
from loreg.errors import ConflictError, NotFoundError, UnauthenticatedError, UnavailableError, UsageError
from loreg.suggestions import Suggestion
from loreg_cli.corrections import _RULES, _RULES_BY_CODE
from loreg_cli.corrections.call import Call
from loreg_cli.main import cli
from loreg_cli.typed_secrets import TypedSecrets

SECRET = "hunter2"
HUB_TOKEN = "hf_" + f"{SECRET}x" * 4
TOKEN = f"lrg_{SECRET}{SECRET}"


@pytest.fixture(autouse=True)
def _log_of_one_command() -> Iterator[None]:
    """``--debug`` lets the process log until its end, and here other tests follow."""
    log = logging.getLogger("loreg")
    handlers, level = log.handlers[:], log.level
    yield
    log.handlers[:] = handlers
    log.setLevel(level)


#: How people write a secret: a word, or two.
FORMS = [
    f"ada:{SECRET}@127.0.0.1:9",
    f"ada:{SECRET}@loreg.example.org/x",
    f"ada:p/{SECRET}@host",
    f"ada:p@{SECRET}@host",
    f":{SECRET}@host",
    f"https://ada:{SECRET}@127.0.0.1:9",
    f"https://ada:{SECRET}@127.0.0.1:9/team/x:v1@sha256:0123abcd",
    f"https://ada:p/{SECRET}@127.0.0.1:9",
    f"https://ada:p#{SECRET}@127.0.0.1:9",
    f"https://ada:p?{SECRET}@127.0.0.1:9",
    f"https://{SECRET}@127.0.0.1:9",
    f"s3://key:{SECRET}@bucket/x",
    f"postgresql://ada:{SECRET}@127.0.0.1:9/x",
    f"postgresql:///x?password={SECRET}",
    f"https://127.0.0.1:9/?token={SECRET}",
    f"https://127.0.0.1:9/x?X-Amz-Signature={SECRET}&x=1",
    f"loreg.example.org/x?token={SECRET}",
    f"mlflow:https://ada:{SECRET}@127.0.0.1:9",
    HUB_TOKEN,
    TOKEN,
    f"team/{TOKEN}",
    f"LOREG_TOKEN={SECRET}",
    f"LOREG_ENDPOINT=https://ada:{SECRET}@127.0.0.1:9",
    f"HF_TOKEN={SECRET}",
    f"PGPASSWORD={SECRET}",
    f"AWS_SECRET_ACCESS_KEY={SECRET}",
    f"--token {SECRET}",
    f"--token={SECRET}",
    f"--tokne {SECRET}",
    f"--tokn={SECRET}",
    f"--password {SECRET}",
    f"--hub-token {SECRET}",
    f"--endpoint=ada:{SECRET}@127.0.0.1:9",
    f"--enpoint=ada:{SECRET}@127.0.0.1:9",
    f"--endpoint https://ada:{SECRET}@127.0.0.1:9",
]
#: Where they write it; all of these fail, each in a way of its own.
CALLS = [
    "lgoin {}",
    "login {}",
    "{} push ./x",
    "{}",
    "push {}",
    "push {} team/x",
    "push ./x {}",
    "push ./x team/x {}",
    "--debug push {} team/x",
    "show {}",
    "--debug show {}",
    "pull {} ./out",
    "check {}",
    "tag {} prod",
    "tag team/x {}",
    "merge {} team/x --weights 1",
    "search --sort {}",
    "search --metric {}",
    "search --rank {}",
    "base add {}",
    "base show {}",
    "metric add {} accuracy",
    "identify {}",
    "export {} --profile vllm",
    "export team/x --to ./x --profile {}",
    "completion {}",
    "ls --format {}",
    "ls --columns {}",
    "mirror --to {}",
    "repair --from {}",
    "log {}",
    "open {}",
    "import {}",
    "--home {} lss",
]


@pytest.mark.parametrize(("number", "form"), list(enumerate(FORMS)), ids=FORMS)
def test_no_command_repeats_a_secret(local: Loreg, number: int, form: str):
    for call in CALLS[number % 4 :: 4]:  # each form in a quarter of them, each of them with a quarter of the forms
        outcome = local(*shlex.split(call.replace("{}", form)), LOREG_TOKEN="")
        assert SECRET not in outcome.stdout + outcome.stderr, call


def test_a_token_after_the_url_of_a_server_is_one(local: Loreg):
    for command in ("login", "lgoin"):
        outcome = local(command, "http://127.0.0.1:9", SECRET)
        assert outcome.exit_code == 2
        assert SECRET not in outcome.stderr
        assert outcome.stderr.rstrip().endswith("Hint: loreg login http://127.0.0.1:9") or command == "lgoin"


def test_debug_repeats_none_when_it_says_what_was_asked(local: Loreg):
    outcome = local("--debug", "search", f"ada:{SECRET}@host", "--task", f"ada:{SECRET}@host")
    assert SECRET not in outcome.stdout + outcome.stderr
    behind = command_line({"LOREG_ENDPOINT": "http://127.0.0.1:9", "LOREG_TOKEN": ""})
    outcome = behind("--debug", "search", f"ada:{SECRET}@host")
    assert outcome.exit_code == 1
    assert SECRET not in outcome.stdout + outcome.stderr


def errors(text: str) -> list[Exception]:
    """An error of every kind that a rule looks at, which quotes what was typed."""
    suggestion = Suggestion(text, "team/news")
    return [
        click.UsageError(f"Got unexpected extra argument ({text})"),
        click.UsageError(f"'{text}' is not one of 'table', 'json'."),
        click.exceptions.NoSuchOption(text, possibilities=["--token"]),
        click.exceptions.NoSuchCommand(text),
        UsageError(f"invalid adapter name '{text}': expected …"),
        UsageError(f"invalid alias '{text}': expected 1 to 96"),
        UsageError(f"invalid metric '{text}': expected …", suggestion=suggestion),
        NotFoundError(f"there is no adapter '{text}'", suggestion=suggestion),
        ConflictError("there is a folder"),
        UnauthenticatedError("who are you?"),
        UnavailableError("nobody answers", suggestion=Suggestion(text, "http://127.0.0.1:9")),
    ]


@pytest.mark.parametrize("form", FORMS)
def test_no_rule_makes_a_command_with_a_secret(form: str):
    rules = {*_RULES, *(rule for rules in _RULES_BY_CODE.values() for rule in rules)}
    for template in CALLS:
        words = shlex.split(template.replace("{}", form))
        typed = TypedSecrets(words)
        for error in errors(form):
            call = Call(cli, tuple(typed.hidden_words), error)
            for rule in rules:
                assert SECRET not in typed.hide(" ".join(rule(call) or ())), (rule, words)


@pytest.mark.parametrize(
    "word",
    [
        "team/news:v1@sha256:0123abcd",
        "news:v1@sha256:0123abcd",
        "news:prod@v2",
        "metric:accuracy@imdb:test",
        "accuracy>=0.9@imdb:test",
        "accuracy=0.9@imdb:test",
        "hf:org/name@main",
        "mlflow:models/x@champion",
        "./runs/a:b@c",
        "~/a:b@c",
        "https://huggingface.co/org/name@main",
        "postgresql://ada@host/x",
        "http://127.0.0.1:9",
        "s3://bucket/prefix",
        "key=value",
        "tokenizer=own",
        "hf_adapters",
        "ada@example.org",
    ],
)
def test_what_is_no_secret_is_left_as_it_is(word: str):
    typed = TypedSecrets(["show", word])
    assert typed.hidden_words == ["show", word]
    assert typed.hide(f"there is no {word!r}") == f"there is no {word!r}"


@given(st.text(min_size=4).filter(lambda text: text.isprintable()), st.sampled_from(["", "https://", "s3://"]))
def test_any_password_is_hidden(password: str, scheme: str):
    word = f"{scheme}ada:{password}@127.0.0.1:9"
    typed = TypedSecrets(["push", word])
    assert password not in typed.hide(f"there is no {word} and no {word!r}").replace("***", "").replace("ada", "")
    assert typed.hidden_words == ["push", f"{scheme}***@127.0.0.1:9"]
