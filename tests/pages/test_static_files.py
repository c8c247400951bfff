"""The files of the pages: those of others are unchanged and have their licence; all are cached for good."""

from __future__ import annotations

import gzip
import hashlib
import re
import tomllib
from pathlib import Path

from loreg.server.pages.static_files import FOLDER
from pages.conftest import Site

LIBRARIES = tomllib.loads((FOLDER / "libraries.toml").read_text())["file"]
FIRST_PAGE = 100_000  # bytes, compressed


def test_libraries_are_what_their_projects_published_with_their_licence_beside_them():
    for library in LIBRARIES:
        assert hashlib.sha256((FOLDER / library["name"]).read_bytes()).hexdigest() == library["sha256"]
        license_ = (FOLDER / library["license_file"]).read_text()
        assert {"0BSD": "Zero-Clause BSD", "MIT": "The MIT License"}[library["license"]] in license_


def test_every_minified_file_is_one_of_the_libraries():
    assert {path.name for path in FOLDER.glob("*.min.*")} == {library["name"] for library in LIBRARIES}


def test_files_are_cached_for_good_under_the_digest_of_their_content(site: Site):
    with site.visit() as client:
        paths = set(re.findall(r'(?:href|src)="(/_/[^"]+)"', client.get("/lab/history").text))
        assert {Path(path).name for path in paths} == {
            "style.css", "favicon.svg", "page.js", "chart.js", "htmx.min.js", "uplot.min.js", "uplot.min.css",
        }  # fmt: skip
        for path in paths:
            answer = client.get(path)
            content = (FOLDER / Path(path).name).read_bytes()
            assert answer.content == content
            assert path.split("/")[2] == hashlib.sha256(content).hexdigest()[:16]
            assert "immutable" in answer.headers["Cache-Control"]
            assert client.get(f"/_/{'0' * 16}/{Path(path).name}").status_code == 404


def test_nothing_beside_the_files_of_the_pages_is_sent(site: Site):
    with site.visit() as client:
        for name in ("libraries.toml", "..%2fbrowse.py", "%2e%2e/browse.py", "style.css%00", "", "layout.html"):
            assert client.get(f"/_/{'0' * 16}/{name}").status_code in (400, 404)


def test_the_first_page_is_small_with_all_that_it_needs(site: Site):
    with site.visit() as client:
        html = client.get("/").content
        paths = set(re.findall(r'(?:href|src)="(/_/[^"]+)"', html.decode()))
        total = len(gzip.compress(html))
        for path in paths:
            with client.stream("GET", path, headers={"Accept-Encoding": "gzip"}) as answer:
                assert answer.headers["Content-Encoding"] == "gzip"
                total += sum(map(len, answer.iter_raw()))
    assert total < FIRST_PAGE
