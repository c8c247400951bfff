"""Values in a notebook: one short line, and HTML in which the text of strangers does nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from deployments import MOVIES, NEWS
from loreg import AdapterComparison, MergeOptions, Registry, connect
from loreg.entities import (
    AdapterEntry,
    AdapterSimilarity,
    BaseModel,
    Details,
    Event,
    Facts,
    MergeResult,
    Metric,
    ModuleType,
    Page,
    Provenance,
    PullResult,
    PushResult,
    Source,
    SyncedAdapter,
    SyncProblem,
    SyncProblemKind,
    SyncReport,
    Version,
)
from loreg.entities.display.text import describe
from loreg.entities.displayed import Displayed
from loreg.manifest import File
from loreg.refs import AdapterName

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>\x1b[2J\u202e\x00&amp;"
NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)


def version(text: str = "", **fields: Any) -> Version:
    """A version of which every text that others choose is ``text``."""
    texts = (text,) if text else ()
    facts = Facts(text or "lora", text, 8, 8, 16.0, 1000, text, (ModuleType(text or "q", 2, 8, 8),), text)
    base = BaseModel("b" * 64, (text,), config={"x": text}) if text else None
    metrics = (Metric(text, 0.93, text, text),) if text else (Metric("accuracy", 0.93, "bbc"),)
    made = Version(
        AdapterName("team", "news"), 3, "d" * 64, facts, 307, text or "ada", text, NOW, False, base, None, texts, texts,
        {text: text} if text else {}, metrics,
    )  # fmt: skip
    return replace(made, **fields)


def provenance(text: str) -> Provenance:
    total = {"retained_energy": 0.9, "epsilon": 0.3, "rank": 8, "rank_in": 16, "retention": [0.5, None]}
    sources = (Source(text, text, 0.7), Source(text, text, 0.3))
    return Provenance(sources, {"method": text}, {"total": total, "modules": [], "warnings": [text]})


def similarity(text: str) -> AdapterSimilarity:
    return AdapterSimilarity(text, text, 2, 0.25, 0.5, 0.75, 0.4, None, False)


def hostile_values() -> list[Any]:
    pushed = PushResult(version(HOSTILE), True, (), (HOSTILE,))
    card = f"</pre>{HOSTILE}\n{HOSTILE}"
    return [
        version(HOSTILE),
        Details(version(HOSTILE), (File(HOSTILE, HOSTILE, 3),), card, provenance(HOSTILE), ()),
        Page((version(HOSTILE),), HOSTILE),
        Page((Event(1, NOW, HOSTILE, HOSTILE, HOSTILE, {HOSTILE: [HOSTILE]}),), None),
        Page((AdapterEntry(AdapterName(HOSTILE, HOSTILE), 2, 1, {HOSTILE: 1}, NOW),), None),
        Page((BaseModel(HOSTILE, (HOSTILE,), license=HOSTILE),), None),
        Page((HOSTILE,), None),
        BaseModel(HOSTILE, (HOSTILE,)),
        AdapterEntry(AdapterName(HOSTILE, HOSTILE), 2, 1, {HOSTILE: 1}, NOW),
        provenance(HOSTILE),
        MergeResult(provenance(HOSTILE), (HOSTILE,), pushed=pushed),
        MergeResult(provenance(HOSTILE), (), folder=Path(HOSTILE.replace("\x00", ""))),
        MergeResult(Provenance((Source(HOSTILE, HOSTILE, 1.0),), {}, {}), ()),
        pushed,
        PullResult(version(HOSTILE), Path(HOSTILE), 3),
        SyncedAdapter(HOSTILE, HOSTILE, "d" * 64, Path(HOSTILE), HOSTILE, HOSTILE),
        SyncReport(Path(HOSTILE), (), (HOSTILE,), (), (SyncProblem(SyncProblemKind.FAILED, HOSTILE, "", HOSTILE),)),
        similarity(HOSTILE),
        AdapterComparison([similarity(HOSTILE)]),
        AdapterComparison([similarity(HOSTILE)] * (14 * 13 // 2)),
    ]


class Reader(HTMLParser):
    """Reads HTML as a browser does: which elements there are, with which attributes, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("value", hostile_values(), ids=lambda value: type(value).__name__)
def test_text_of_strangers_is_text(value: Any):
    reader = Reader(value._repr_html_())
    assert reader.elements <= {
        "b", "code", "details", "div", "pre", "span", "style", "summary", "table", "tbody", "td", "th", "thead", "tr",
    }  # fmt: skip
    assert reader.attributes <= {"class", "style"}
    assert "<script>alert(1)" in reader.text  # as what it is


@pytest.mark.parametrize("value", hostile_values(), ids=lambda value: type(value).__name__)
def test_no_character_moves_the_cursor_or_turns_a_line(value: Any):
    for shown in (repr(value), value._repr_html_()):
        assert all(character.isprintable() or character == "\n" for character in shown)
    assert "\n" not in repr(value)
    assert len(repr(value)) < 1000


def test_every_kind_of_value_that_is_displayed_has_words_of_its_own():
    kinds = Displayed.__subclasses__()
    assert {PushResult, SyncReport} <= {*kinds}
    for kind in kinds:
        assert describe.dispatch(kind) is not describe.dispatch(object), kind


def test_a_version_in_one_line():
    assert repr(version()) == "Version('team/news:v3', rank 8, accuracy=0.93@bbc)"
    several = tuple(Metric(name, 1.0) for name in "abcd")
    assert repr(version(metrics=several)) == "Version('team/news:v3', rank 8, a=1, b=1, c=1, …)"
    wide = replace(version().facts, rank_max=16)
    assert repr(version(facts=wide, metrics=(), yanked=True)) == "Version('team/news:v3', rank 8-16, yanked)"


def test_a_followed_folder_in_one_line():
    adapter = SyncedAdapter("team/news", "team/news:v2", "d" * 64, Path("x"), "team/news", "team/news:v1")
    assert repr(adapter) == "SyncedAdapter('team/news' is 'team/news:v2', before it 'team/news:v1')"
    report = SyncReport(Path("adapters"), (adapter,), (), (adapter,), ())
    assert repr(report) == "SyncReport('adapters': 2 adapters, 1 new, 0 removed)"


def test_pages_and_results_in_one_line():
    page = Page((version(), version(number=2)), "next")
    assert repr(page) == "Page(2 × Version, the first 'team/news:v3', and there are more)"
    assert repr(Page((), None)) == "Page(empty)"
    assert repr(PushResult(version(metrics=()), True, (), ())) == "PushResult(created: 'team/news:v3', rank 8)"
    assert repr(Details(version(metrics=()), (), "", None, ())) == "Details('team/news:v3', rank 8, 0 files)"
    assert repr(similarity("a")) == "AdapterSimilarity('a' and 'a': cosine 0.250, columns 0.500, rows 0.750)"
    assert repr(AdapterComparison([similarity("a")] * 3)) == "AdapterComparison(3 adapters, cosines 0.250 to 0.250)"
    assert repr(AdapterComparison()) == "AdapterComparison(empty)"


def test_a_page_shows_its_rows_and_that_there_are_more():
    page = Page(tuple(version(number=number) for number in range(1, 31)), "next")
    text = Reader(page._repr_html_()).text
    assert "team/news:v20" in text
    assert "team/news:v21" not in text
    assert "20 of 30 on this page; more pages follow" in text
    assert "aliases" not in text  # none has any


def test_a_merge_shows_the_numbers_of_its_certificate(tmp_path: Path):
    registry = connect(home=str(tmp_path / "home"), author="ada")
    options = MergeOptions([0.7, 0.3], rank=8, extras=str(NEWS))
    merged = registry.merge([str(NEWS), str(MOVIES)], options, name="team/blend")
    total = merged.provenance.certificate["total"]
    text = Reader(merged._repr_html_()).text
    for share in total["retention"]:
        assert f"{100 * share:.4g} %" in text
    assert f"(ε = {total['epsilon']:.1e}) at rank 8 of 16" in text
    assert "pushed as team/blend:v1@sha256:" in text
    assert repr(merged).endswith("pushed as 'team/blend:v1')")
    details = registry.show("team/blend")
    assert f"(ε = {total['epsilon']:.1e}) at rank 8 of 16" in Reader(details._repr_html_()).text
    assert "merged from 2 sources" in repr(details)


def test_a_comparison_is_a_matrix_of_cosines():
    pairs = [
        AdapterSimilarity(a, b, 2, cosine, 0.5, 0.5, 0.4, 1.0, False)
        for a, b, cosine in (("x", "y", 0.25), ("x", "z", -0.5), ("y", "z", 0.75))
    ]
    comparison = AdapterComparison(pairs)
    assert comparison.labels == ("x", "y", "z")
    assert comparison.matrix("cosine") == [[1, 0.25, -0.5], [0.25, 1, 0.75], [-0.5, 0.75, 1]]
    text = Reader(comparison._repr_html_()).text
    assert [text.count(number) for number in ("0.250", "-0.500", "0.750")] == [2, 2, 2]
    assert AdapterComparison().labels == ()


def test_a_registry_says_where_it_is_and_no_password(tmp_path: Path):
    with connect(home=str(tmp_path / "home"), author="ada") as here:
        assert repr(here) == f"Registry({str(tmp_path / 'home')!r}, author='ada')"
        assert "ada" in here._repr_html_()
    with connect(endpoint="https://loreg.example", token="lrg_secret", author="ada") as server:
        assert repr(server) == "Registry('https://loreg.example', author='ada')"
        assert "lrg_secret" not in server._repr_html_()
    with connect(database_url="postgresql://eve:hush@db.example/loreg", storage_url=str(tmp_path)) as behind:
        assert "db.example" in repr(behind)
        assert "hush" not in repr(behind) + behind._repr_html_()


def test_the_type_of_a_registry_is_public(tmp_path: Path):
    assert isinstance(connect(home=str(tmp_path)), Registry)
