"""A recipe: everything needed to repeat a merge, as a value and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loreg.records import Source

SCHEMA = "loreg.recipe/1"


@dataclass(frozen=True)
class Recipe:
    """Which sources, by digest, with which weights, by which method, at which rank.

    ``rank`` None is lossless: only singular values that are numerically zero are dropped. ``extras`` is the
    position of the source whose whole tensors are taken, None if there was nothing to choose.
    """

    sources: tuple[Source, ...]
    method: str = "linear"
    rank: int | None = None
    extras: int | None = None

    def to_json(self) -> Mapping[str, Any]:
        """The recipe as a JSON document."""
        return {
            "schema": SCHEMA,
            "method": self.method,
            "sources": [{"label": s.label, "digest": s.digest, "weight": s.weight} for s in self.sources],
            "rank": self.rank,
            "extras": self.extras,
        }
