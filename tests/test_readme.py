"""The README is one page; tests/docs/test_code_blocks.py types what it shows."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_it_is_one_page():
    assert len(README.splitlines()) <= 110


def test_it_leads_to_every_page_that_people_begin_with():
    pages = [*(ROOT / "docs" / "how-to").glob("*.md"), *(ROOT / "docs" / "concepts").glob("*.md")]
    for page in (
        *pages,
        ROOT / "docs" / "index.md",
        ROOT / "docs" / "tutorial.md",
        ROOT / "docs" / "troubleshooting.md",
    ):
        assert f"]({page.relative_to(ROOT)})" in README


def test_its_figures_are_those_of_the_benchmarks():
    """Each stands in benchmarks/RESULTS.md too, as the command printed it."""
    results = (ROOT / "benchmarks" / "RESULTS.md").read_text()
    for figure in ("2.185 s", "15.914 s", "1.13 s", "6.28 s", "0.11 GB", "7.6 ms", "356 MB/s", "485 MB/s"):
        assert figure in results
    for rounded in ("2.19 s", "15.9 s", "1.13 s", "6.28 s", "0.11 GB", "7.6 ms", "356 MB/s", "485 MB/s"):
        assert rounded in README
