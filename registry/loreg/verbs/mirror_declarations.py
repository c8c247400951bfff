"""Bring what is declared of metrics to another registry, so that the best version there is the best one here."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from loreg.entities import MetricDeclaration
from loreg.errors import NotFoundError, UsageError
from loreg.workspace.context import Context
from loreg.workspace.mirror_source import MirrorSource


class DeclarationSender:
    """The declarations of a source and of a target, which is asked for them once; those that it has are its own."""

    def __init__(self, source: MirrorSource, target: Context) -> None:
        self._source = source
        self._target = target
        self._missing: dict[str, MetricDeclaration] | None = None
        self._differing: dict[str, str] = {}

    def bring(self, names: Collection[str]) -> Iterator[str]:
        """Declare those metrics in the target that it does not declare itself, and yield what a person should know."""
        if names and self._missing is None:
            self._missing = dict(self._compare())
        for name in sorted(names):
            if note := self._differing.pop(name, ""):
                yield note
            if self._missing and (declaration := self._missing.pop(name, None)) is not None:
                yield from self._declare(declaration)

    def _compare(self) -> Iterator[tuple[str, MetricDeclaration]]:
        theirs = self._source.declarations()
        ours = {item.name: item for item in self._target.backend.metric_vocabulary().declarations} if theirs else {}
        for item in theirs:
            own = ours.get(item.name)
            if own is None:
                yield item.name, item
            elif (own.higher_is_better, own.unit) != (item.higher_is_better, item.unit):
                self._differing[item.name] = (
                    f"metric {item.name!r} stays as {own.author} declared it here, {_say(own)}; "
                    f"{self._source.name} says {_say(item)}"
                )

    def _declare(self, item: MetricDeclaration) -> Iterator[str]:
        try:
            declared = self._target.backend.declare_metric(item.name, item.higher_is_better, item.unit)
        except (NotFoundError, UsageError):  # a server of an older release, or a unit that is none
            yield f"metric {item.name!r} cannot be declared there: {_say(item)}"
            return
        turned = f", which turned {declared.turned} numbers there" if declared.turned else ""
        yield f"metric {item.name!r} is declared as in {self._source.name}: {_say(item)}{turned}"


def _say(item: MetricDeclaration) -> str:
    direction = "higher is better" if item.higher_is_better else "lower is better"
    return f"{direction} ({item.unit})" if item.unit else direction
