"""What `make coverage` prints, and when it fails."""

from __future__ import annotations

from pathlib import Path
from runpy import run_path

import pytest

ROOT = Path(__file__).parents[2]
summarize = run_path(str(ROOT / "tools" / "coverage_summary.py"))["summarize"]


def measured(lines: tuple[int, int], branches: tuple[int, int]) -> dict:
    names = ("covered_lines", "num_statements", "covered_branches", "num_branches", "missing_branches")
    return {"summary": dict(zip(names, (*lines, *branches, branches[1] - branches[0]), strict=True))}


FILES = {
    "registry/loreg/a.py": measured((80, 80), (15, 20)),
    "registry/loreg/b.py": measured((0, 0), (0, 0)),
    "cli/loreg_cli/c.py": measured((0, 10), (0, 6)),
}


def test_the_floor_is_that_of_the_library_alone(capsys: pytest.CaptureFixture[str]):
    assert summarize(FILES, 95.0) == 0
    assert summarize(FILES, 95.01) == 1
    assert "registry/ is at 95.00 %" in capsys.readouterr().err


def test_the_totals_and_the_files_that_miss_most_are_printed(capsys: pytest.CaptureFixture[str]):
    summarize(FILES, 0)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[:3]] == [["registry/", "95.00"], ["cli/", "0.00"], ["total", "81.90"]]
    assert [line.split()[-1] for line in lines[-3:]] == [
        "cli/loreg_cli/c.py",
        "registry/loreg/a.py",
        "registry/loreg/b.py",
    ]
