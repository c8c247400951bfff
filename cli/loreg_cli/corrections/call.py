"""A command line that failed: its words, which of them are arguments, and the error."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from functools import cached_property

import click

_NEGATIVE_NUMBER = re.compile(r"-[\d.]")


class Call:
    """The words of a call of ``root``, as they were typed after ``loreg``, and the error that they led to."""

    def __init__(self, root: click.Group, words: tuple[str, ...], error: BaseException) -> None:
        self._root = root
        self.words = words
        self.error = error
        #: Settings of the environment that the corrected command starts with, as ``NAME=VALUE``.
        self.environment: list[str] = []
        self.group: click.Group = root
        self.command: click.Command | None = None
        #: The words that are the names of commands, by their positions.
        self.path: list[int] = []
        self._walk()

    @property
    def name(self) -> str:
        """The command that was called, e.g. ``base add``; empty if there is none of that name."""
        return " ".join(self.words[i] for i in self.path) if self.command is not None else ""

    @property
    def settings(self) -> dict[str, str | None]:
        """The options before the command, as ``loreg.settings.load`` takes them."""
        before = self.words[: self.path[0]] if self.path else self.words
        names = ("home", "database_url", "storage_url", "endpoint")
        options = {name: f"--{name.replace('_', '-')}" for name in names}
        values = dict(itertools.pairwise(before))
        return {name: values.get(option) for name, option in options.items()}

    @cached_property
    def message(self) -> str:
        """What the error says."""
        return self.error.format_message() if isinstance(self.error, click.ClickException) else str(self.error)

    @cached_property
    def arguments(self) -> list[int]:
        """The positions of the words that belong to no option."""
        return self._arguments(self.command, (self.path[-1] if self.path else -1) + 1)

    @property
    def texts(self) -> list[str]:
        """The words that belong to no option."""
        return [self.words[i] for i in self.arguments]

    def replace(self, changes: Mapping[int, Sequence[str]]) -> list[str]:
        """Return the words, with those at some positions replaced by others."""
        return [word for i, old in enumerate(self.words) for word in changes.get(i, (old,))]

    def replace_word(self, old: str, new: str) -> list[str] | None:
        """Return the words with ``old`` replaced, where it is a word or a part of one; None if it is in none."""
        for i, word in enumerate(self.words):
            if word == old:
                return self.replace({i: [new]})
        for i, word in enumerate(self.words):
            if old and (word.startswith((f"{old}:", f"{old}@")) or word.endswith(f"={old}") or f":{old}=" in word):
                return self.replace({i: [word.replace(old, new, 1)]})
        return None

    def with_suggestion(self) -> list[str] | None:
        """Return the words with what the error suggests."""
        suggestion = getattr(self.error, "suggestion", None)
        return self.replace_word(*suggestion) if suggestion is not None else None

    def option_values(self, *names: str) -> list[int]:
        """Return the positions of the values of options with these names, where they are words of their own."""
        return [i + 1 for i, word in enumerate(self.words[:-1]) if word in names]

    def is_error(self, *codes: str) -> bool:
        """Return whether the error is one of loreg's with one of these codes."""
        return getattr(self.error, "code", None) in codes

    def parses(self, words: Sequence[str]) -> bool:
        """Return whether the words are a call that every command in it understands; nothing is run."""
        if {"--help", "-h", "--version"} & set(words):
            return True
        command: click.Command = self._root
        context: click.Context | None = None
        rest = list(words)
        try:
            while True:
                context = command.make_context(command.name or "loreg", rest, parent=context)
                if not isinstance(command, click.Group):
                    return True
                _, child, rest = command.resolve_command(context, [*context._protected_args, *context.args])
                if child is None:
                    return False
                command = child
        except Exception:  # whatever it is, it is not to be offered
            return False

    def _walk(self) -> None:
        start = 0
        group: click.Command | None = self._root
        while isinstance(group, click.Group):
            self.group = group
            self.command = None
            arguments = self._arguments(group, start)
            if not arguments:
                return
            self.path.append(arguments[0])
            start = arguments[0] + 1
            group = self.command = group.get_command(click.Context(group), self.words[arguments[0]])

    def _arguments(self, command: click.Command | None, start: int) -> list[int]:
        options = [p for p in command.params if isinstance(p, click.Option)] if command is not None else []
        values = {
            name: 0 if option.is_flag or option.count else option.nargs
            for option in options
            for name in (*option.opts, *option.secondary_opts)
        }
        arguments: list[int] = []
        i = start
        while i < len(self.words):
            word = self.words[i]
            if word == "--":
                return [*arguments, *range(i + 1, len(self.words))]
            if word.startswith("-") and len(word) > 1 and not _NEGATIVE_NUMBER.match(word):
                i += 1 + (0 if "=" in word else values.get(word, 0))
            else:
                arguments.append(i)
                i += 1
        return arguments
