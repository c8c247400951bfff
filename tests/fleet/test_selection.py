"""What a run is over: what selectors mean, or what a search finds, and nothing else, as it was when the run began."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from deployments import Deployment, Loreg
from factories import train
from loreg import Registry, connect
from loreg.entities import MapRun, MapSelection, Query, Sort, SortKey
from loreg.errors import NotFoundError, UsageError
from loreg.parsing import parse_conditions
from loreg.probes.probe import find_probe
from loreg.verbs.map import parse_map_selection

NEWS = ("team/news:v1", "team/news:v2")
EVERY = (*NEWS, "team/quiz:v1", "other/quiz:v1")


@pytest.fixture
def several(local_deployment: Deployment, adapters: dict[int, Path], tmp_path: Path) -> Iterator[Registry]:
    """Four versions of three adapters; the older one of news is prod."""
    other_modules = train(tmp_path / "v", 99, target_modules=["v_proj"])
    with connect(**local_deployment.settings) as registry:
        registry.push(adapters[8], "team/news", aliases=["prod"], tasks=["topics"])
        registry.push(adapters[9], "team/news", tasks=["topics"], metrics=["accuracy=0.9"], labels={"stage": "trial"})
        registry.push(adapters[10], "team/quiz", tasks=["qa"], aliases=["prod"], metrics=["accuracy=0.8"])
        registry.push(other_modules, "other/quiz", tasks=["qa"])
        yield registry


def selected(registry: Registry, selection: str | Sequence[str] | Query) -> set[str]:
    """Return the versions that a run over the selection has."""
    maps = registry.context.backend.upkeep().maps()
    run = maps.begin(_wanted(parse_map_selection(selection)), reads_weights=True)
    refs = [version.ref for chunk in maps.claim(run, 100) for version in chunk.versions]
    assert len(refs) == len(set(refs)) == run.versions
    return set(refs)


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ("*", set(EVERY)),
        ("team/*", {*NEWS, "team/quiz:v1"}),
        ("team/news", {*NEWS}),
        ("team/*:prod", {"team/news:v1", "team/quiz:v1"}),
        ("team/news:prod", {"team/news:v1"}),
        ("team/news:v2", {"team/news:v2"}),
        (["team/news:v1", "team/new?", "*/quiz"], set(EVERY)),
    ],
)
def test_selectors_mean_all_versions_or_those_that_they_name(
    several: Registry, selection: str | Sequence[str], expected: set[str]
):
    assert selected(several, selection) == expected


def test_a_pattern_that_no_adapter_matches_is_named(several: Registry, local_registry: Registry):
    for selector in ("taem/*", "taem/*:prod"):
        with pytest.raises(NotFoundError, match=re.escape(f"no adapter matches '{selector}'")) as refused:
            several.map("spectra", ["team/*", selector], processes=1)
        assert refused.value.hint == "loreg ls"
    assert local_registry.map("spectra", processes=1).run.versions == 0  # an empty registry


def test_an_adapter_that_is_named_must_be_there(several: Registry):
    with pytest.raises(NotFoundError, match="no adapter 'team/newz'; did you mean 'team/news'"):
        selected(several, ["team/quiz", "team/newz"])


@pytest.mark.parametrize(
    "query",
    [
        parse_conditions(tasks=["topics"]),
        parse_conditions(tasks=["topics"], all_versions=True),
        parse_conditions(modules=["q_proj"]),
        parse_conditions(labels={"stage": "trial"}),
        parse_conditions(namespace="team", loads_in="vllm"),
        parse_conditions(metrics=["accuracy>=0.85"]),
        parse_conditions("news"),
        Query(text="quiz", sort=Sort(SortKey.RELEVANCE)),
        Query(sort=Sort(SortKey.METRIC, "accuracy"), best=True),
        parse_conditions(tasks=["qa"], modules=["v_proj"], author="nobody"),
    ],
    ids=repr,
)
def test_a_search_is_over_what_it_finds(several: Registry, query: Query):
    expected = {version.ref for version in several.context.backend.search(query).items}
    assert selected(several, query) == expected


def test_what_a_search_finds_is_read_in_pages(several: Registry, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("loreg.catalog.map_selection._PAGE", 1)
    assert selected(several, Query(all_versions=True)) == set(EVERY)


def test_what_is_known_is_left_out_of_what_a_search_finds(several: Registry):
    assert several.map("spectra", "team/news:v2", processes=1).run.versions == 1
    search = parse_conditions(tasks=["topics"], all_versions=True)
    assert several.map("spectra", search, processes=1).run.versions == 1
    assert several.map("spectra", search, processes=1).run.versions == 0
    assert several.map("spectra", search, again=True, processes=1).run.versions == 2


def test_a_name_that_is_near_is_asked_for_and_not_taken(several: Registry):
    """A search takes it, and says so where people see it; here it would be recorded."""
    with pytest.raises(NotFoundError, match="no task is called 'topic'; did you mean 'topics'"):
        several.map("spectra", parse_conditions(tasks=["topic"]))
    with pytest.raises(NotFoundError, match="no base is called 'org/unknown'"):
        several.map("spectra", parse_conditions(base="org/unknown"))


def test_what_an_alias_means_is_frozen_when_the_run_begins(several: Registry, database: Engine):
    wanted = _wanted(MapSelection(("team/*:prod",)))
    several.context.backend.upkeep().maps().begin(wanted, reads_weights=True)
    several.tag("team/news:v2", "prod")
    assert several.map("spectra", "team/*:prod", processes=1).run.resumed
    assert {ref for ref in EVERY if len(several.facts(ref)) == 2} == {"team/news:v1", "team/quiz:v1"}
    with database.begin() as connection:
        selection = connection.execute(text("SELECT selection FROM map_runs")).scalar_one()
    assert "team/*:prod" in str(selection)


def test_another_selection_does_not_go_on_with_an_unfinished_run(several: Registry):
    maps = several.context.backend.upkeep().maps()
    search = parse_conditions(tasks=["qa"], ranks=["<=64"])
    first = maps.begin(_wanted(MapSelection(search=search)), reads_weights=True)
    assert maps.begin(_wanted(MapSelection(search=search)), reads_weights=True).id == first.id
    other = _wanted(MapSelection(search=parse_conditions(tasks=["qa"], ranks=["<=63"])))
    assert not maps.begin(other, reads_weights=True).resumed


def _wanted(selection: MapSelection) -> MapRun:
    probe = find_probe("spectra")
    return MapRun(probe.name, probe.release, selection, False)


def test_what_is_no_selection_is_refused(several: Registry):
    with pytest.raises(UsageError, match="gives a name"):
        several.map("check", "mine/news=team/news:prod")
    with pytest.raises(UsageError, match="nothing is selected"):
        several.map("check", [])
    with pytest.raises(NotFoundError, match="v9"):
        several.map("check", "team/news:v9")
    with pytest.raises(UsageError, match="no profile 'vlm' of a server; did you mean 'vllm'"):
        several.map("check", parse_conditions(loads_in="vlm"))


def test_the_command_takes_selectors_or_the_conditions_of_a_search(local: Loreg, adapters: dict[int, Path]):
    local("push", str(adapters[8]), "team/news", "--task", "topics")
    local("push", str(adapters[9]), "team/quiz", "--task", "qa")
    assert "2 of 2 versions" in local("map", "spectra", "team/news:v1", "*/quiz").stdout
    assert "1 of 1 versions" in local("map", "spectra", "--task", "qa", "--module", "q_proj", "--again").stdout
    both = local("map", "spectra", "team/*", "--task", "qa")
    assert (both.exit_code, "exclude each other" in both.stderr) == (2, True)
