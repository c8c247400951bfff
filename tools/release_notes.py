"""Print what CHANGELOG.md says of the version that pyproject.toml names: the text of its release.

With a tag, refuse to release what it does not name, and what the changelog still calls unreleased:

    python tools/release_notes.py v0.1.0 > dist/RELEASE_NOTES.md
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def release_notes(changelog: str, version: str, tag: str = "") -> str:
    """Return the section of ``version`` without its heading. Raises SystemExit if there is none to release."""
    heading = re.search(rf"^## {re.escape(version)} \((.+)\)\n", changelog, re.MULTILINE)
    if heading is None:
        raise SystemExit(f"CHANGELOG.md has no heading '## {version} (DATE)'")
    if tag and tag != f"v{version}":
        raise SystemExit(f"the tag is {tag}, pyproject.toml says {version}")
    if tag and not re.fullmatch(r"\d{4}-\d\d-\d\d", heading[1]):
        raise SystemExit(
            f"CHANGELOG.md says '{heading[0].strip()}': give it the date of today, 2026-11-30 for instance"
        )
    text = re.split(r"^## ", changelog[heading.end() :], maxsplit=1, flags=re.MULTILINE)[0].strip()
    if not text:
        raise SystemExit(f"CHANGELOG.md says nothing of {version}")
    return text + "\n"


if __name__ == "__main__":
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    sys.stdout.write(release_notes(changes, project["version"], *sys.argv[1:]))
