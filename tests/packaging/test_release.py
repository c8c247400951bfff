"""What a release says of itself: the section of its version, and nothing while there is no such thing."""

from __future__ import annotations

import tomllib
from pathlib import Path
from runpy import run_path

import pytest

import loreg

ROOT = Path(__file__).parents[2]
CHANGELOG = "# Changelog\n\n## 0.2.0 (unreleased)\n\n- new\n\n## 0.1.0 (2026-01-31)\n\n- old\n\n### More\n\n- older\n"
release_notes = run_path(str(ROOT / "tools" / "release_notes.py"))["release_notes"]


def test_the_notes_are_the_section_of_the_version():
    assert release_notes(CHANGELOG, "0.2.0") == "- new\n"
    assert release_notes(CHANGELOG, "0.1.0", "v0.1.0") == "- old\n\n### More\n\n- older\n"


@pytest.mark.parametrize(
    ("version", "tag", "message"),
    [
        ("0.2.0", "v0.2.0", "unreleased"),
        ("0.1.0", "v0.1.1", "the tag is v0.1.1"),
        ("0.1.0", "0.1.0", "the tag is 0.1.0"),
        ("0.1", "", "no heading"),
        ("0.3.0", "v0.3.0", "no heading"),
    ],
)
def test_what_is_not_to_be_released_is_refused(version: str, tag: str, message: str):
    with pytest.raises(SystemExit, match=message):
        release_notes(CHANGELOG, version, tag)


def test_the_version_is_the_same_wherever_it_is_written():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == loreg.__version__
    assert release_notes((ROOT / "CHANGELOG.md").read_text(), loreg.__version__)
