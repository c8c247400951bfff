"""Recipes: everything needed to repeat a merge, as a value and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from loreg.adapters.patterns import PatternBudget, Patterns
from loreg.entities import Source
from loreg.errors import UsageError
from loreg.merging.documents import RECIPE_SCHEMA, RecipeDocument, decode_recipe
from loreg.merging.ranks import LOSSLESS, RankRule, read_rank_rule


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
        return Patterns(self.weights_for, PatternBudget(field="weights_for", error=UsageError))

    def to_json(self) -> RecipeDocument:
        """Return the recipe as a JSON document."""
        return {
            "schema": RECIPE_SCHEMA,
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
    """Read the JSON document that :meth:`Recipe.to_json` wrote.

    Raises UsageError if it is of another schema, lacks a field, or has one that is not known: without it the same
    merge would not be made.
    """
    try:
        recipe = decode_recipe(document)
        _refuse_unknown(document, recipe)
    except ValueError as error:
        raise UsageError(f"the recipe cannot be repeated: {error}", hint="merge again") from error
    return Recipe(
        sources=tuple(Source(s["label"], s["digest"], s["weight"]) for s in recipe["sources"]),
        method=recipe["method"],
        parameters=recipe["parameters"],
        weights_for={pattern: tuple(weights) for pattern, weights in recipe["weights_for"].items()},
        scale=recipe["lambda"],
        rank=read_rank_rule(recipe["rank"]),
        extras=recipe["extras"],
        initials=tuple(recipe["initials"]),
        calibration=recipe["calibration"],
    )


def _refuse_unknown(document: Mapping[str, Any], recipe: RecipeDocument) -> None:
    unknown = [name for name in document if name not in recipe]
    for position, source in enumerate(recipe["sources"]):
        unknown += [f"sources[{position}].{name}" for name in document["sources"][position] if name not in source]
    if unknown:
        raise ValueError(f"{unknown[0][:80]} is not known to this release")
