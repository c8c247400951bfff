"""The first two pages that anybody sees: ``loreg`` alone, and ``loreg --help`` with the commands by what people do."""

from __future__ import annotations

from collections.abc import Mapping

import click

#: What ``loreg`` alone shows: the five commands that matter, and how to see the rest.
START = """\
loreg keeps LoRA adapters, and knows what is inside them. What matters most:

  loreg push ./runs/42 team/news   store an adapter as the next version
  loreg ls                         list what is there
  loreg search --task topics       find versions by task, metric, base or rank
  loreg show team/news             show all that is known of a version
  loreg pull team/news ./adapter   write one to a folder, ready to be loaded

All commands: loreg --help. One of them: loreg push --help."""

#: The commands by what people do; those that are there and in none of these are listed under the last.
GROUPS = {
    "Store and fetch": ("import", "push", "pull", "ls", "tag", "untag", "metric", "yank", "unyank"),
    "Find and understand": (
        "search", "tasks", "bases", "show", "spectra", "log", "lineage", "diff", "compare", "identify", "check",
        "findings", "open",
    ),
    "Combine": ("merge", "k-merge", "sweep", "methods", "rerank", "reproduce", "extract", "bake"),
    "Serve": ("ui", "serve", "worker", "job", "sync", "deployments", "export"),
    "Keep": ("map", "verify", "repair", "gc", "prune", "delete", "du", "backup", "restore", "mirror", "move"),
    "Administer": (
        "login", "logout", "whoami", "base", "token", "namespace", "events", "webhook", "doctor", "db", "completion",
    ),
}  # fmt: skip
#: The groups that most people need rarely: a line each, of names alone.
_RARE = ("Serve", "Keep", "Administer")
_WIDTH = len("check, findings")
#: What belongs to a command stands in its line.
_PAIRS = {
    "check": "findings", "show": "spectra", "tag": "untag", "yank": "unyank", "tasks": "bases", "merge": "k-merge",
    "sweep": "methods",
}  # fmt: skip


def write_commands(formatter: click.HelpFormatter, summaries: Mapping[str, str]) -> None:
    """Write a line for each command, in groups; of the rare ones the names alone."""
    grouped = {name for names in GROUPS.values() for name in names}
    others = tuple(sorted(summaries.keys() - grouped))
    for title, names in GROUPS.items():
        there = [name for name in (*names, *(others if title == list(GROUPS)[-1] else ())) if name in summaries]
        if title in _RARE:
            formatter.write_text(f"{title}: {', '.join(there)}")
            continue
        second = {_PAIRS[name] for name in there if _PAIRS.get(name) in there}
        rows = [
            ((f"{name}, {_PAIRS[name]}" if _PAIRS.get(name) in second else name).ljust(_WIDTH), summaries[name])
            for name in there
            if name not in second
        ]
        formatter.write_heading(title)
        formatter.indent()
        formatter.write_dl(rows)
        formatter.dedent()
