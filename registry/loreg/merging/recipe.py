"""Recipes: everything needed to repeat a merge, as a value and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypedDict

from loreg.adapters.patterns import Patterns
from loreg.entities import Source
from loreg.errors import UsageError
from loreg.merging.ranks import LOSSLESS, RankRule, read_rank_rule

SCHEMA = "loreg.recipe/2"


class SourceDocument(TypedDict):
    """A source of a merge as JSON."""

    label: str
    digest: str
    weight: float


RecipeDocument = TypedDict(
    "RecipeDocument",
    {
        "schema": str,
        "method": str,
        "parameters": dict[str, object],
        "sources": list[SourceDocument],
        "weights_for": dict[str, list[float]],
        "lambda": float,
        "rank": Mapping[str, float | str],
        "extras": int | None,
        "initials": list[str],
        "calibration": str,
    },
)


@dataclass(frozen=True)
class Recipe:
    """A merge: of which sources, by digest, with which weights, by which method with which parameters, at which rank.

    ``weights_for`` has other weights for the modules that a pattern matches, the first that does. ``extras`` is the
    position of the source whose whole tensors are taken, None if there was nothing to choose. ``scale`` is λ, which
    multiplies the merged delta. ``initials`` are the digests of the adapters that PiSSA-like training started from,
    ``calibration`` that of the file of second moments.
    """

    sources: tuple[Source, ...]
    method: str = "linear"
    parameters: Mapping[str, object] = field(default_factory=dict)
    weights_for: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    scale: float = 1.0
    rank: RankRule = LOSSLESS
    extras: int | None = None
    initials: tuple[str, ...] = ()
    calibration: str = ""

    def weights(self, module: str) -> tuple[float, ...]:
        """Return the weights of the sources on a module."""
        return self._weights_for.first(module, tuple(source.weight for source in self.sources))

    @cached_property
    def _weights_for(self) -> Patterns[tuple[float, ...]]:
        return Patterns(self.weights_for)

    def to_json(self) -> RecipeDocument:
        """Return the recipe as a JSON document."""
        return {
            "schema": SCHEMA,
            "method": self.method,
            "parameters": dict(self.parameters),
            "sources": [{"label": s.label, "digest": s.digest, "weight": s.weight} for s in self.sources],
            "weights_for": {pattern: list(weights) for pattern, weights in self.weights_for.items()},
            "lambda": self.scale,
            "rank": self.rank.to_json(),
            "extras": self.extras,
            "initials": list(self.initials),
            "calibration": self.calibration,
        }


def read_recipe(document: Mapping[str, Any]) -> Recipe:
    """Read the JSON document that :meth:`Recipe.to_json` wrote. Raises UsageError if it is of another schema."""
    if document.get("schema") != SCHEMA:
        raise UsageError(f"the recipe is {document.get('schema')!r}, expected {SCHEMA!r}", hint="merge again")
    return Recipe(
        sources=tuple(Source(s["label"], s["digest"], float(s["weight"])) for s in document["sources"]),
        method=document["method"],
        parameters=document["parameters"],
        weights_for={pattern: tuple(weights) for pattern, weights in document["weights_for"].items()},
        scale=float(document["lambda"]),
        rank=read_rank_rule(document["rank"]),
        extras=document["extras"],
        initials=tuple(document["initials"]),
        calibration=document["calibration"],
    )
