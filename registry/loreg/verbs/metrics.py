"""Read the metrics that people type: with the direction that is declared for a name, and with slips of names found."""

from __future__ import annotations

from collections.abc import Sequence

from loreg.backend import Backend
from loreg.entities import Metric
from loreg.metric_names import USUAL, find_slip, usual_metric
from loreg.parsing import parse_metric
from loreg.workspace.metric_directions import declared_directions, directed


def parse_metrics(backend: Backend, metrics: Sequence[str | Metric]) -> tuple[Metric, ...]:
    """Return the metrics; one that is text gets the direction that the registry declares for its name.

    Raises UsageError for one that does not parse.
    """
    parsed = tuple(metric if isinstance(metric, Metric) else parse_metric(metric) for metric in metrics)
    if not any(isinstance(metric, str) for metric in metrics):
        return parsed
    declared = declared_directions(backend)
    return tuple(
        directed([metric], declared)[0] if isinstance(text, str) else metric
        for text, metric in zip(metrics, parsed, strict=True)
    )


def find_slips(backend: Backend, metrics: Sequence[str | Metric]) -> dict[str, str]:
    """Return the names among the metrics that look like a slip, each with the name that was probably meant."""
    names = {metric.name if isinstance(metric, Metric) else parse_metric(metric).name for metric in metrics}
    if not names:
        return {}
    vocabulary = backend.metric_vocabulary()
    in_use = {*vocabulary.names, *(item.name for item in vocabulary.declarations)}
    slips = {}
    for name in sorted(names - in_use):
        # What has a usual name is no slip of another: val_loss is not eval_loss.
        slip = find_slip(name, in_use | USUAL.keys()) if usual_metric(name) is None else None
        if slip is not None:
            slips[name] = slip
    return slips
