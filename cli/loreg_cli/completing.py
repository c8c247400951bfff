"""Answer a shell that asks how a word goes on. Nothing here may print an error: it would land on the prompt."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import BashComplete, CompletionItem, add_completion_class, split_arg_string

if TYPE_CHECKING:
    from loreg.settings import Settings

#: loreg.merging.methods imports torch, for which nobody waits at a prompt; a test compares the two.
METHODS = (
    "breadcrumbs",
    "core_ties",
    "ctm",
    "dare_linear",
    "dare_ties",
    "della",
    "factor_average",
    "iso",
    "iso_cts",
    "karcher",
    "knots_ties",
    "linear",
    "magnitude_prune",
    "model_stock",
    "regmean",
    "slerp",
    "svc",
    "ties",
    "tsv",
    "wudi",
)
#: What a parameter of each name holds, in every command; where a command means another thing, see ``_IN_COMMAND``.
_KINDS = {
    "ref": "refs",
    "refs": "refs",
    "source": "refs",
    "sources": "refs",
    "a": "refs",
    "b": "refs",
    "initial": "refs",
    "extras": "refs",
    "against": "refs",
    "name": "adapters",
    "base": "bases",
    "tasks": "tasks",
    "modules": "modules",
    "metrics": "metrics",
    "method": "methods",
    "methods": "methods",
    "profile": "profiles",
    "profiles": "profiles",
}
_IN_COMMAND = {
    ("base show", "name"): "bases",
    ("base relate", "child"): "bases",
    ("base relate", "parent"): "bases",
    ("methods", "name"): "methods",
    ("token create", "name"): "",
    ("namespace set", "name"): "",
    ("webhook add", "name"): "",
    ("events", "patterns"): "adapters",
    ("webhook add", "patterns"): "adapters",
}
_BASH = """\
%(complete_func)s() {
    local IFS=$'\\n' line="${COMP_LINE:0:COMP_POINT}" response completion kind value word before=""
    word="${line##*[[:space:]]}"
    # bash takes a colon for the end of a word: it has what stands before it already
    [[ "$word" == *:* && "$COMP_WORDBREAKS" == *:* ]] && before="${word%%"${word##*:}"}"
    response=$(env COMP_WORDS="$line" %(complete_var)s=bash_complete "$1" 2>/dev/null) || return 0
    COMPREPLY=()
    for completion in $response; do
        kind="${completion%%%%,*}" value="${completion#*,}"
        case "$kind" in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            *) COMPREPLY+=("${value#"$before"}") ;;
        esac
    done
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""


class _Bash(BashComplete):
    """bash, which is given the whole line: it would split a ref at its colon."""

    source_template = _BASH

    def get_completion_args(self) -> tuple[list[str], str]:
        line = os.environ.get("COMP_WORDS", "")
        words = split_arg_string(line)
        incomplete = "" if not words or line[-1:].isspace() else words.pop()
        return words[1:], incomplete


def add_shells() -> None:
    """Let click use our script for bash, and its own for zsh and fish."""
    add_completion_class(_Bash)


def attach(command: click.Command, path: str) -> None:
    """Let the parameters of a command, and of those below it, be completed by what they hold."""
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            attach(child, f"{path} {name}")
    for parameter in command.params:
        kind = _IN_COMMAND.get((path, parameter.name or ""), _KINDS.get(parameter.name or "", ""))
        if kind:
            parameter._custom_shell_complete = _completer(kind)


def _completer(kind: str) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        if incomplete.startswith((".", "/", "~")) and kind in ("refs", "bases", "profiles"):
            return [CompletionItem(incomplete, type="file" if kind == "profiles" else "dir")]
        try:
            words = _words(kind, context, incomplete)
        except Exception:  # an error has no place on the prompt
            return []
        return [CompletionItem(word) for word in words if word.isprintable() and not set(word) & set(" '\"\\`$&|;()<>")]

    return complete


def _words(kind: str, context: click.Context, incomplete: str) -> list[str]:
    if kind == "methods":
        return [name for name in METHODS if name.startswith(incomplete)]
    if kind == "profiles":
        import loreg

        folder = Path(loreg.__file__).parent / "checking" / "profiles"
        return sorted(path.stem for path in folder.glob("*.toml") if path.stem.startswith(incomplete))
    from loreg.completions import complete_ref, complete_word, needs_cache
    from loreg.settings import load

    settings = load(context.find_root().params, os.environ)
    if needs_cache(settings):
        _refresh(settings)
    if kind in ("refs", "adapters"):
        refs = complete_ref(settings, incomplete)
        return refs if kind == "refs" else [ref for ref in refs if ":" not in ref]
    return complete_word(settings, kind, incomplete)


def _refresh(settings: Settings) -> None:
    """Ask for the names again in a process of its own, which outlives this one."""
    command = [sys.executable, "-m", "loreg_cli.main", "completion", "bash", "--refresh"]
    # Everybody on this machine may read the words of a process, and a URL may have a password.
    of_registry = ("LOREG_ENDPOINT", "LOREG_DATABASE_URL", "LOREG_STORAGE_URL", "LOREG_STORAGE_ENDPOINT", "LOREG_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in ("_LOREG_COMPLETE", *of_registry)}
    environment["LOREG_HOME"] = str(settings.home)
    if settings.endpoint:
        environment |= {"LOREG_ENDPOINT": settings.endpoint, "LOREG_TOKEN": settings.token}
    else:
        environment |= {
            "LOREG_DATABASE_URL": settings.database_url,
            "LOREG_STORAGE_URL": settings.storage_url,
            "LOREG_STORAGE_ENDPOINT": settings.storage_endpoint,
        }
    subprocess.Popen(  # noqa: S603  this very program
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
