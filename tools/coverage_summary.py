"""Print how much of registry/ and cli/ the tests ran, and fail where registry/ is below the floor.

    python tools/coverage_summary.py coverage.json 95

A percentage is of lines and branches together, as in ``coverage report``.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

_SHOWN = 10
_COUNTED = ("covered_lines", "num_statements", "covered_branches", "num_branches")


def percentage(counts: Counter[str]) -> float:
    """Return the share of lines and branches that were run, in percent."""
    there = counts["num_statements"] + counts["num_branches"]
    return 100 * (counts["covered_lines"] + counts["covered_branches"]) / there if there else 100.0


def summarize(files: dict[str, Any], floor: float) -> int:
    """Print the totals and the files that miss most branches; return 1 if registry/ is below ``floor``, else 0."""
    totals: dict[str, Counter[str]] = {"registry/": Counter(), "cli/": Counter(), "total": Counter()}
    for path, file in files.items():
        counts = Counter({name: file["summary"][name] for name in _COUNTED})
        totals[f"{path.partition('/')[0]}/"] += counts
        totals["total"] += counts
    for name, counts in totals.items():
        lines = f"{counts['covered_lines']:,} of {counts['num_statements']:,} lines"
        branches = f"{counts['covered_branches']:,} of {counts['num_branches']:,} branches"
        print(f"{name:10} {percentage(counts):6.2f} %  {lines}, {branches}")
    missed = sorted(files, key=lambda path: (-files[path]["summary"]["missing_branches"], path))[:_SHOWN]
    print("\nmost branches missed:")
    for path in missed:
        summary = files[path]["summary"]
        print(f"{summary['missing_branches']:5} of {summary['num_branches']:4}  {path}")
    if (reached := percentage(totals["registry/"])) < floor:
        print(f"\nregistry/ is at {reached:.2f} %, and must not be below {floor:g} %", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    document = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    sys.exit(summarize(document["files"], float(sys.argv[2])))
