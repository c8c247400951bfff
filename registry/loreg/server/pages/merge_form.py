"""Read what the page ``/merge`` is asked: sources with their weights and a rank; the URL is the question."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

from starlette.datastructures import QueryParams

from loreg.errors import UsageError
from loreg.server.pages.commands import command
from loreg.server.pages.templating import format_number
from loreg.value import Value

PATH = "/merge"
MAX_SOURCES = 8
_MAX_LENGTH = 300
_MAX_RANK = 65536
_MAX_METHOD = 40  # characters
_LINEAR = "linear"


class MergeQuestion(Value, frozen=True):
    """The refs of the sources as they were typed, a weight for each, and the rank; None loses nothing."""

    sources: tuple[str, ...]
    weights: tuple[float, ...]
    rank: int | None
    method: str = _LINEAR

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The question as a query."""
        weights = [("weight", format_number(weight)) for weight in self.weights]
        return [
            *(("source", source) for source in self.sources),
            *weights,
            ("rank", f"{self.rank or ''}"),
            ("method", self._other_method),
        ]

    @property
    def arguments(self) -> list[str]:
        """The question as arguments of ``loreg merge``."""
        weights = ["--weights", ",".join(format_number(weight) for weight in self.weights)]
        method = ["--method", self.method] if self._other_method else []
        return [*self.sources, *weights, *method, *(["--rank", str(self.rank)] if self.rank else [])]

    @property
    def _other_method(self) -> str:
        """The method; empty for the one that is taken if none is named."""
        return "" if self.method == _LINEAR else self.method

    def command(self, *options: str) -> str:
        """Return the command that does this merge."""
        return command("merge", *self.arguments, *options)

    @property
    def recipe(self) -> str:
        """The question as a file for ``loreg merge --recipe FILE``."""
        lines = [
            f"sources = {json.dumps(list(self.sources))}",
            f"weights = [{', '.join(repr(weight) for weight in self.weights)}]",
            *([f"rank = {self.rank}"] if self.rank else []),
            *([f"method = {json.dumps(self.method)}"] if self._other_method else []),
        ]
        return "\n".join(lines) + "\n"


def read_question(query: QueryParams, chosen: Sequence[tuple[int | None, str]] | None = None) -> MergeQuestion:
    """Return what a URL asks; weights that are left out are 1. Raises UsageError for what is no number.

    ``chosen`` are the sources with their places in the URL, if they were read already.
    """
    weights = query.getlist("weight")
    if chosen is None:
        chosen = [(i, source.strip()) for i, source in enumerate(query.getlist("source")) if source.strip()]
    if len(chosen) > MAX_SOURCES or any(len(source) > _MAX_LENGTH for _, source in chosen):
        raise UsageError(f"expected {MAX_SOURCES} adapters at most", hint="loreg merge --help")
    rank = query.get("rank", "").strip()
    if rank and not (rank.isascii() and rank.isdigit() and 1 <= int(rank[:9]) <= _MAX_RANK):
        raise UsageError(f"rank is {rank[:40]!r}, expected 1 to {_MAX_RANK}", hint="--rank 16")
    return MergeQuestion(
        tuple(source for _, source in chosen),
        _read_weights([weights[i] if i is not None and i < len(weights) else "" for i, _ in chosen]),
        int(rank) if rank else None,
        query.get("method", "").strip()[:_MAX_METHOD] or _LINEAR,
    )


def _read_weights(texts: Sequence[str]) -> tuple[float, ...]:
    weights = []
    for text in texts:
        try:
            weight = float(text.strip() or 1)
        except ValueError:
            weight = math.nan
        if not math.isfinite(weight):
            raise UsageError(f"a weight is {text[:40]!r}, expected a number", hint="--weights 0.7,0.3")
        weights.append(weight)
    return tuple(weights)
