"""What is known of a version beside other versions: where its base came from, and what was made of it that is none."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from loreg.entities.bases import BaseEdge
from loreg.value import Value


class StoredExport(Value, frozen=True):
    """The files that a version became for the server of a profile, and who had them made."""

    profile: str
    author: str
    at: datetime


class BakedModel(Value, frozen=True):
    """A model that a job's worker wrote with a version baked into it; ``name`` is its folder there."""

    name: str
    job: int
    author: str
    at: datetime


class Relatives(Value, frozen=True):
    """The edges above a version's base, and the names of bases by digest; exports and bakes, the newest first."""

    base_edges: tuple[BaseEdge, ...] = ()
    base_names: Mapping[str, str] = {}
    exports: tuple[StoredExport, ...] = ()
    bakes: tuple[BakedModel, ...] = ()
