"""A selection is versions by name: of selectors, or of a search, with positions that only grow."""

from __future__ import annotations

import pytest

from deployments import HISTORY, NEWS, SCIENCE
from loreg.entities import Query, Selection
from loreg.errors import ConflictError, UsageError
from loreg.registry import Registry
from loreg.selectors import Selector, parse_selector
from server.conftest import Guarded


def select(registry: Registry, *texts: str) -> Selection:
    return registry.context.backend.select(tuple(map(parse_selector, texts)))


def names(selection: Selection) -> dict[str, str]:
    return {selected.name: selected.version.ref for selected in selection.versions}


@pytest.fixture
def team(registry: Registry) -> Registry:
    registry.push(SCIENCE, "team/science", aliases=["prod"], tasks=["qa"])
    registry.push(HISTORY, "team/science", aliases=["canary"])
    registry.push(HISTORY, "team/history", aliases=["prod"], tasks=["qa"])
    registry.push(NEWS, "team/news")
    registry.push(NEWS, "other/news", aliases=["prod"])
    return registry


def test_a_pattern_with_an_alias_selects_what_the_alias_means(team: Registry):
    assert names(select(team, "team/*:prod")) == {"team/science": "team/science:v1", "team/history": "team/history:v1"}
    assert names(select(team, "*:prod")).keys() == {"team/science", "team/history", "other/news"}
    assert names(select(team, "team/sc?ence:canary")) == {"team/science": "team/science:v2"}


def test_without_an_alias_the_newest_that_is_not_yanked_is_selected(team: Registry):
    team.yank("team/science:v2")
    assert names(select(team, "team/*"))["team/science"] == "team/science:v1"
    assert names(select(team, "team/science")) == {"team/science": "team/science:v1"}
    assert names(select(team, "team/*:canary")) == {}


def test_a_ref_selects_one_version_under_a_name_of_its_own(team: Registry):
    digest = team.show("team/science:v2").version.digest
    selection = select(
        team, "team/science:prod", "next/science=team/science:v2", f"x=team/science@sha256:{digest[:12]}"
    )
    assert names(selection) == {
        "team/science": "team/science:v1",
        "next/science": "team/science:v2",
        "x": "team/science:v2",
    }


def test_what_means_nothing_is_named_with_the_reason(team: Registry):
    selection = select(team, "team/science:prod", "team/none", "team/science:beta", "nobody/*:prod")
    assert names(selection) == {"team/science": "team/science:v1"}
    assert [(missing.selector, missing.reason[:28]) for missing in selection.missing] == [
        ("team/none", "there is no adapter 'team/no"),
        ("team/science:beta", "team/science has no alias 'b"),
        ("nobody/*:prod", "no version matches 'nobody/*"),
    ]


def test_one_name_for_two_versions_is_refused(team: Registry):
    with pytest.raises(ConflictError, match=r"'team/\*:prod' \(team/science:v1\).*'team/science' \(team/science:v2\)"):
        select(team, "team/*:prod", "team/science")
    assert names(select(team, "team/*:prod", "team/science:v1")).keys() == {"team/science", "team/history"}


def test_a_search_selects_one_version_of_each_adapter(team: Registry):
    selection = team.context.backend.select((), Query(tasks=("qa",)))
    assert names(selection) == {"team/history": "team/history:v1"}  # the newest of team/science is for nothing
    with pytest.raises(UsageError, match="several versions of one adapter"):
        team.context.backend.select((), Query(all_versions=True))


def test_positions_grow_with_each_move_back_and_forth(team: Registry):
    seen = []
    for number in (1, 2, 1):
        team.tag(f"team/science:v{number}", "live")
        (selected,) = select(team, "team/science:live").versions
        assert selected.version.number == number
        seen.append(selected.position)
    assert seen == sorted(set(seen))
    before = select(team, "team/science").versions[0].position
    team.yank("team/science:v2")
    assert select(team, "team/science").versions[0].position > before


def test_a_selection_names_its_registry(team: Registry):
    assert len({select(team, text).registry for text in ("team/*", "team/none")}) == 1


def test_nobody_selects_what_he_may_not_read(guarded: Guarded):
    assert names(select(guarded.registry("reader"), "*")) == {"team/science": "team/science:v1"}
    for role in ("stranger", "anonymous"):
        selection = select(guarded.registry(role), "*", "team/science:prod")
        assert selection.versions == ()
        assert "there is no adapter" in selection.missing[1].reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("team/*:v1", "one version of many"),
        ("team/*@sha256:01234567", "one version of many"),
        ("x=team/*", "one name to all"),
        ("../x=team/news", "invalid adapter name"),
        ("=team/news", "invalid adapter name"),
        ("a/b/c=team/news", "invalid adapter name"),
        ("", "invalid"),
        ("team/*:", "alias"),
        ("team /*", "invalid pattern"),
    ],
)
def test_what_is_no_selector_is_refused(text: str, reason: str):
    with pytest.raises(UsageError, match=reason):
        parse_selector(text)


@pytest.mark.parametrize(
    "text", ["team/*:prod", "*", "*:prod", "-/*:prod", "team/news", "team/news:v3", "x/y=team/news:prod", "news"]
)
def test_a_selector_is_written_as_it_is_read(text: str):
    selector = parse_selector(text)
    assert isinstance(selector, Selector)
    assert (str(selector), parse_selector(str(selector))) == (text, selector)
