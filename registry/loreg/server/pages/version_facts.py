"""List what is known of a version without its files, as pages that put versions side by side show it."""

from __future__ import annotations

from loreg.byte_sizes import format_size
from loreg.entities import Version
from loreg.entities.display.text import format_ranks
from loreg.server.pages.templating import base_name, format_count


def list_facts(version: Version) -> dict[str, str]:
    """Return facts, tasks and labels of a version by their names, an empty text for what is not known."""
    facts = version.facts
    return {
        "Base": base_name(version.base, facts.base_hint),
        "Base, by content": version.base.digest[:12] if version.base else "",
        "Variant": facts.variant,
        "Rank": format_ranks(version),
        "Alpha": f"{facts.alpha:.6g}",
        "Modules": ", ".join(f"{kind.count} × {kind.name}" for kind in facts.module_types),
        "Parameters": format_count(facts.parameters),
        "Stored as": facts.dtype,
        "Size": format_size(version.size),
        "Task type": facts.task_type,
        "Author": version.author,
        **{f"Task {task}": "yes" for task in version.tasks},
        **{f"Label {key}": value for key, value in version.labels.items()},
    }
