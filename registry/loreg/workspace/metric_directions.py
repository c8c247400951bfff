"""Give metrics the direction that the registry declares for their names, where nobody stated one."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from loreg.backend import Backend
from loreg.entities import Metric


def declared_directions(backend: Backend) -> dict[str, bool]:
    """Return of each declared name whether higher is better. A catalog that does not exist yet declares nothing."""
    if not backend.is_there():
        return {}
    return {item.name: item.higher_is_better for item in backend.metric_vocabulary().declarations}


def directed(metrics: Sequence[Metric], declared: dict[str, bool]) -> tuple[Metric, ...]:
    """Return the metrics, whose direction was guessed from their names, with the declared one where there is one."""
    return tuple(
        replace(metric, higher_is_better=declared.get(metric.name, metric.higher_is_better)) for metric in metrics
    )
