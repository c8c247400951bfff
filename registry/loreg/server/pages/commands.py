"""Write the command that does at a terminal what a page shows."""

from __future__ import annotations

import shlex

from loreg.entities import Comparison, MetricCondition, Query
from loreg.server.pages.templating import format_number


def command(*words: str) -> str:
    """Return a command of loreg as it is typed into a shell."""
    return shlex.join(("loreg", *words))


def search_command(query: Query, sort: str, best: str) -> str:
    """Return the search that a query is."""
    words = ["search", *([query.text] if query.text else [])]
    options = [
        *(("--task", task) for task in query.tasks),
        *([("--base", query.base)] if query.base else []),
        *(("--module", module) for module in query.modules),
        *(("--rank", _write_comparison(rank)) for rank in query.ranks),
        *(("--metric", _write_condition(condition)) for condition in query.metrics),
        *(("--label", f"{key}={value}") for key, value in query.labels),
        *([("--namespace", query.namespace)] if query.namespace else []),
        *([("--author", query.author)] if query.author else []),
        *([("--variant", query.variant)] if query.variant else []),
        *([("--loads-in", query.loads_in)] if query.loads_in else []),
        *([("--best", best)] if best else []),
        *([("--sort", sort)] if sort else []),
    ]
    words += [word for option in options for word in option]
    return command(*words, *(["--all-versions"] if query.all_versions else []))


def _write_condition(condition: MetricCondition) -> str:
    dataset, split = condition.dataset, condition.split
    where = (f"@{dataset}" if dataset else "") + (f":{split}" if split else "")
    return f"{condition.name}{_write_comparison(condition.comparison)}{where}"


def _write_comparison(comparison: Comparison) -> str:
    """Return ``>=8`` where the number is 8.0."""
    return f"{comparison.operator}{format_number(comparison.value)}"
