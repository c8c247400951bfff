"""Whether an adapter may have the license that it names, given that of its base.

Names are the Hub's (https://huggingface.co/docs/hub/repositories-licenses). An adapter is treated as a work that is
derived from its base: that is the careful reading of what the licenses say, and no legal advice.
"""

from __future__ import annotations

#: Works under these may be passed on under any other license.
_PERMISSIVE = frozenset({
    "apache-2.0", "mit", "bsd", "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear", "0bsd", "isc", "zlib",
    "unlicense", "wtfpl", "cc0-1.0", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "pddl", "ecl-2.0", "afl-3.0",
    "artistic-2.0", "ms-pl", "odc-by", "cdla-permissive-1.0", "cdla-permissive-2.0", "postgresql", "ncsa",
})  # fmt: skip


def license_conflict(adapter: str, base: str) -> str:
    """Say why an adapter of a base under the license ``base`` may not be under ``adapter``; empty if it may."""
    if not base:
        return "the license of the base is not known"
    if not adapter:
        return f"the card names no license, that of the base is {base}"
    if base in _PERMISSIVE or adapter == base:
        return ""
    if "-nd" in base:
        return f"the license of the base is {base}: nothing derived from it may be passed on"
    if "-nc" in base and "-sa" not in base:
        return "" if "-nc" in adapter else f"the license is {adapter}, that of the base is {base}: non-commercial"
    return f"the license is {adapter}, that of the base is {base}, which what is derived from it has to keep"
