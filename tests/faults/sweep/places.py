"""What a verb makes beside the registry that it is typed for: another registry, a backup, a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deployments import Deployment
from faults.carried import all_of_backup, look_at_backup, look_at_bundle
from faults.checker import contents, faults, look
from faults.followed import look_at_followed
from faults.sweep.cases import Place
from faults.sweep.processes import Room


def look_at(place: Place, room: Room, endpoint: str, *, all_stored: bool) -> tuple[list[str], dict[str, Any]]:
    """What is wrong there, and what it has; of a backup everything that is stored, if ``all_stored`` is asked for."""
    (where,) = room.typed([place.where])
    if place.kind == "bundle":
        return look_at_bundle(room.work / where)
    if place.kind == "backup":
        url = where if "://" in where else str(room.work / where)
        sentences, content = look_at_backup(url, endpoint)
        return sentences, content | (all_of_backup(url, endpoint) if all_stored else {})
    if place.kind == "followed":
        return look_at_followed(room.work / where)
    if place.kind == "home":
        return _look_at_registry(
            Deployment(f"sqlite:///{room.work / where}/catalog.db", str(room.work / where / "store"))
        )
    assert room.second is not None
    return _look_at_registry(room.second)


def below(place: Place, room: Room) -> Path | None:
    """Where in the folder of what was typed it lies, if it does."""
    (where,) = room.typed([place.where])
    return None if "://" in where or place.kind == "second" else room.work / where


def _look_at_registry(deployment: Deployment) -> tuple[list[str], dict[str, Any]]:
    seen = look(deployment.database_url, deployment.storage_url, deployment.storage_endpoint)
    return [f"there: {sentence}" for sentence in faults(seen)], contents(seen)
