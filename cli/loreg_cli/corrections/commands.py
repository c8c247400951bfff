"""Mistakes in the names of commands and options, and options that are missing."""

from __future__ import annotations

import re

import click

from loreg.suggestions import suggest
from loreg_cli.corrections.call import Call

#: What people call a command who know git, docker, pip, hf or wandb; more words follow it as they are.
_COMMANDS: dict[str, tuple[str, ...]] = {
    "add": ("push",),
    "alias": ("tag",),
    "blend": ("merge",),
    "browse": ("open",),
    "cat": ("show",),
    "clone": ("pull",),
    "combine": ("merge",),
    "config": ("doctor",),
    "convert": ("export",),
    "describe": ("show",),
    "download": ("pull",),
    "find": ("search",),
    "fuse": ("merge",),
    "get": ("pull",),
    "history": ("log",),
    "info": ("show",),
    "init": ("doctor",),
    "inspect": ("show",),
    "lint": ("check",),
    "list": ("ls",),
    "models": ("base", "ls"),
    "publish": ("push",),
    "remove": ("yank",),
    "rm": ("yank",),
    "save": ("push",),
    "server": ("serve",),
    "status": ("doctor",),
    "unalias": ("untag",),
    "upload": ("push",),
    "validate": ("check",),
    "versions": ("ls",),
    "who": ("whoami",),
}
#: The subcommand that is meant where a group is followed by something else.
_SUBCOMMANDS = {"base": "show", "metric": "add", "job": "show", "token": "create"}
#: What people call an option, by command; an empty word for what is written without an option.
_OPTIONS = {
    ("push", "--tag"): "--alias",
    ("push", "-t"): "--task",
    ("push", "--name"): "",
    ("push", "--dataset"): "--label",
    ("pull", "--to"): "",
    ("pull", "-o"): "",
    ("pull", "--output"): "",
    ("merge", "-o"): "--to",
    ("merge", "--output"): "--to",
    ("merge", "-w"): "--weights",
    ("export", "-o"): "--to",
    ("export", "--output"): "--to",
    ("search", "--query"): "",
}
#: What is added to a call for want of which nothing was done: harmless, and the most usual.
_MISSING: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "merge": (("--push NAME, --to DIR and --dry-run", ("--dry-run",)),),
    "rerank": (
        ("--rank, --energy, --tolerance", ("--rank", "8", "--dry-run")),
        ("--push NAME, --to DIR and --dry-run", ("--dry-run",)),
    ),
    "export": (("'--profile'", ("--profile", "vllm")), ("--to DIR and --drop", ("--to", "./exported"))),
}
_YANK_INSTEAD = "delete"
_CHOICES = re.compile(r"'([^']+)' is not one of (.*?)\.?$")
_RANGE = re.compile(r"(\S+) is not in the range (?:x>=(\d+)|(\d+)<=x<=(\d+))")


def replace_command(call: Call) -> list[str] | None:
    """Return the words with the command that another program's word, or a misspelt one, means here."""
    error = call.error
    if not isinstance(error, click.exceptions.NoSuchCommand) or not call.path:
        return None
    place, word = call.path[-1], error.command_name
    rest = list(call.words[place + 1 :])
    if word == "help":
        return [*call.words[:place], *rest, "--help"]
    if word == "version":
        return ["--version"]
    known = call.group.list_commands(click.Context(call.group))
    meant = _COMMANDS.get(word, ())
    if not meant or meant[0] not in known:
        close = suggest(word.replace("-", ""), known)
        meant = (close.meant,) if close is not None else ()
    if meant:
        words = call.replace({place: meant})
        return words if call.parses(words) else [*call.words[:place], *meant, "--help"]
    group = call.words[call.path[-2]] if len(call.path) > 1 else ""
    return call.replace({place: [_SUBCOMMANDS[group], word]}) if group in _SUBCOMMANDS else None


def replace_option(call: Call) -> list[str] | None:
    """Return the words with the option that is meant by one that is not known."""
    error = call.error
    if not isinstance(error, click.exceptions.NoSuchOption):
        return None
    name = error.option_name
    meant = _OPTIONS.get((call.name, name)) or next(iter(error.possibilities or ()), None)
    if (call.name, name) in _OPTIONS and not meant:
        words = list(call.words)
        words.remove(name)
        return words
    options = [option for option in call.command.params if isinstance(option, click.Option)] if call.command else []
    known = [opt for option in options for opt in option.opts]
    if meant is None or not known:
        return None
    meant = _OPTIONS.get((call.name, name)) or max(known, key=lambda opt: (_likeness(name, opt), opt))
    return [meant + word[len(name) :] if word == name or word.startswith(f"{name}=") else word for word in call.words]


def _likeness(one: str, other: str) -> float:
    from difflib import SequenceMatcher

    return SequenceMatcher(None, one, other).ratio() + 0.1 * (sorted(one) == sorted(other))


def separate_words(call: Call) -> list[str] | None:
    """Return the words with ``a+b`` or ``a,b`` as sources of their own, and ``untag NAME:ALIAS`` as two."""
    if call.name == "untag" and len(call.arguments) == 1 and ":" in call.texts[0]:
        return call.replace({call.arguments[0]: call.texts[0].split(":", 1)})
    if call.name in ("merge", "compare", "bake") and (
        joined := [
            i for i in call.arguments if re.search("[+,]", call.words[i]) and re.search("[A-Za-z]", call.words[i])
        ]
    ):
        return call.replace({i: [part for part in re.split("[+,]", call.words[i]) if part] for i in joined})
    return None


def take_one_value(call: Call) -> list[str] | None:
    """Return the words without a second value of ``--rank``, and with the least that an option takes."""
    if match := _RANGE.search(call.message):
        return call.replace_word(match[1], match[2] or match[3])
    ranks = call.option_values("--rank")
    extra = {i + 1 for i in ranks} & {i for i in call.arguments if call.words[i].isdecimal()}
    return call.replace(dict.fromkeys(extra, ())) if extra else None


def take_a_listed_choice(call: Call) -> list[str] | None:
    """Return the words with a choice that the option has: the most similar, else the second, which is the plainest."""
    match = _CHOICES.search(call.message)
    if match is None:
        return None
    choices = re.findall("'([^']+)'", match[2])
    close = suggest(match[1], choices)
    return call.replace_word(match[1], close.meant if close else choices[0])


def add_missing_option(call: Call) -> list[str] | None:
    """Return the words with an option without which the command does not know what to do."""
    for text, added in _MISSING.get(call.name, ()):
        if text in call.message:
            words = [*call.words, *added]
            return words if call.name != "export" or "--to" in words else [*words, "--to", "./exported"]
    if call.name == _YANK_INSTEAD and "'--reason'" in call.message:
        return call.replace({call.path[0]: ["yank"]})
    return None


def say_no_more(call: Call) -> list[str] | None:
    """Return the words without what a command takes no more of."""
    if "unexpected extra argument" not in call.message or call.command is None:
        return None
    least = sum(1 for parameter in call.command.params if isinstance(parameter, click.Argument))
    return call.replace(dict.fromkeys(call.arguments[least:], ()))


def show_help(call: Call) -> list[str] | None:
    """Return the call of the help, for what only it explains."""
    if not isinstance(call.error, click.UsageError):
        return None
    return [*(call.words[i] for i in call.path if call.command is not None or i != call.path[-1]), "--help"]
