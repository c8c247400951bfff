"""Who has what: followers and servers tell it, and how it differs from what it should be is told to who may know."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from concurrency import eventually
from deployments import HISTORY, NEWS, SCIENCE, Loreg, empty_folders
from loreg.catalog import Catalog, deployments
from loreg.catalog.schema import follower_table
from loreg.entities import Access, Deployment, SyncOptions
from loreg.errors import LoregError, NotAllowedError, NotFoundError, UnauthenticatedError, UsageError
from loreg.registry import Registry, connect
from server.conftest import Guarded, _guarded


def places(registry: Registry, pattern: str = "*") -> list[tuple[str, str, str, str]]:
    return [(place.server, place.name, place.ref, place.state) for place in registry.deployments(pattern).all()]


@pytest.fixture
def team(registry: Registry) -> Registry:
    registry.push(SCIENCE, "team/news", aliases=["prod"])
    registry.push(HISTORY, "team/topics", aliases=["prod"])
    return registry


@pytest.fixture
def guarded_with_policy(tmp_path: Path) -> Iterator[Guarded]:
    (tmp_path / "loreg.toml").write_text("[check]\ndeployments = true\n")
    yield from _guarded(empty_folders(tmp_path / "server"))


def test_what_is_told_is_what_there_is(team: Registry):
    team.report_deployment("vllm", [("a", "team/news:v1", "prod"), ("b", "team/topics:v1", "")], replica="1")
    team.report_deployment("vllm", [("a", "team/news:v1", "prod")], replica="2")
    assert places(team) == [
        ("vllm", "a", "team/news:v1", ""),
        ("vllm", "b", "team/topics:v1", ""),
        ("vllm", "a", "team/news:v1", ""),
    ]
    team.report_deployment("vllm", [("b", "team/topics:v1", "")], replica="1")
    assert places(team, "team/news") == [("vllm", "a", "team/news:v1", "")]
    team.report_deployment("vllm", [], replica="2")
    assert places(team) == [("vllm", "b", "team/topics:v1", "")]


def test_since_when_stays_until_the_version_changes(team: Registry):
    def since() -> list[Deployment]:
        return list(team.deployments())

    team.report_deployment("vllm", [("a", "team/news:v1", "")])
    (first,) = since()
    team.report_deployment("vllm", [("a", "team/news:v1", "prod")])
    (again,) = since()
    assert again.since == first.since
    assert again.seen_at >= first.seen_at
    team.push(HISTORY, "team/news")
    team.report_deployment("vllm", [("a", "team/news:v2", "prod")])
    (later,) = since()
    assert later.since > first.since


def test_drift_is_told(team: Registry):
    team.push(HISTORY, "team/news")
    versions = [("moved", "team/news:v1", "prod"), ("gone", "team/topics:v1", "prod"), ("pinned", "team/news:v1", "")]
    team.report_deployment("vllm", versions)
    team.tag("team/news:v2", "prod")
    team.untag("team/topics", "prod")
    states = {place.name: place.state for place in team.deployments()}
    assert states == {"moved": "prod is v2", "gone": "prod means no version", "pinned": ""}
    team.yank("team/news:v1")
    assert {place.name: place.state for place in team.deployments()}["pinned"] == "yanked"


def test_a_version_says_where_it_is(team: Registry):
    team.report_deployment("vllm", [("a", "team/news:v1", "prod")])
    (place,) = team.show("team/news").deployments
    assert (place.server, place.name, place.author) == ("vllm", "a", "ada")
    assert team.show("team/topics").deployments == ()


def test_that_nothing_has_changed_is_told_cheaply(team: Registry):
    with pytest.raises(NotFoundError, match="has told nothing yet"):
        team.report_deployment("vllm", None)
    team.report_deployment("vllm", [("a", "team/news:v1", "")])
    before = next(iter(team.deployments()))
    team.report_deployment("vllm", None)
    after = next(iter(team.deployments()))
    assert after.seen_at >= before.seen_at
    assert (after.name, after.ref, after.since) == (before.name, before.ref, before.since)


@pytest.mark.parametrize(
    ("server", "versions", "reason"),
    [
        ("", [], "server ''"),
        ("x" * 129, [], "server"),
        ("a\nb", [], "server"),
        ("x", [("", "team/news:v1", "")], "name ''"),
        ("x", [("a\x1b", "team/news:v1", "")], "name"),
        ("x", [("a", "team/news:v1", ""), ("a", "team/topics:v1", "")], "one name"),
        ("x", [("a", "nonsense//", "")], "invalid"),
    ],
)
def test_what_is_no_report_is_refused(team: Registry, server: str, versions: list[tuple[str, str, str]], reason: str):
    with pytest.raises(UsageError, match=reason):
        team.report_deployment(server, versions)
    assert places(team) == []


def test_of_a_report_with_an_unknown_version_nothing_is_recorded(team: Registry):
    with pytest.raises(NotFoundError):
        team.report_deployment("x", [("a", "team/news:v1", ""), ("b", "team/news:v9", "")])
    assert places(team) == []


def test_pages(team: Registry):
    for number in range(5):
        team.report_deployment(f"s{number}", [("a", "team/news:v1", ""), ("b", "team/topics:v1", "")])
    whole = places(team)
    assert len(whole) == 10
    page, seen = team.deployments(limit=3), []
    while True:
        seen += [(place.server, place.name) for place in page]
        if page.cursor is None:
            break
        page = team.deployments(limit=3, cursor=page.cursor)
    assert seen == [(server, name) for server, name, *_ in whole]


def test_who_is_silent_is_told_and_in_the_end_forgotten(tmp_path: Path):
    registry = connect(home=tmp_path / "home")
    registry.push(SCIENCE, "team/news")
    registry.report_deployment("vllm", [("a", "team/news:v1", "")])
    catalog = Catalog(registry.settings.database_url)

    def let_pass(span: timedelta) -> None:
        with catalog.write(Access.superuser("x")) as tx:
            values = {"seen_at": follower_table.c.seen_at}
            row = tx.connection.execute(follower_table.select()).one()
            values = {"seen_at": row.seen_at - span}
            tx.connection.execute(update(follower_table).values(**values))

    def forget() -> int:
        with catalog.write(Access.superuser("x")) as tx:
            return deployments.remove_silent(tx)

    let_pass(timedelta(minutes=16))
    assert [place.state for place in registry.deployments()] == ["silent"]
    assert forget() == 0
    let_pass(timedelta(days=7))
    assert (forget(), places(registry)) == (1, [])


def test_a_policy_lets_administrators_alone_yank_what_is_served(guarded_with_policy: Guarded):
    guarded = guarded_with_policy
    guarded.registry("reader").report_deployment("vllm-1", [("a", "team/science:v1", "prod")])
    with pytest.raises(NotAllowedError, match="vllm-1 still has team/science:v1") as caught:
        guarded.registry("writer").yank("team/science:v1")
    assert caught.value.hint == "loreg deployments team/science"
    assert guarded.registry("owner").yank("team/science:v1").yanked
    guarded.registry("owner").unyank("team/science:v1")
    guarded.registry("reader").report_deployment("vllm-1", [])
    assert guarded.registry("writer").yank("team/science:v1").yanked


def test_a_deleted_version_is_nowhere(team: Registry):
    if team.settings.endpoint:
        pytest.skip("the same backend as beside the store")
    team.push(HISTORY, "team/news")
    team.report_deployment("vllm", [("a", "team/news:v1", ""), ("b", "team/news:v2", "")])
    team.delete("team/news:v1", "asked for")
    assert places(team) == [("vllm", "b", "team/news:v2", "")]


def test_who_may_tell_and_who_may_know(guarded: Guarded):
    guarded.registry("reader").report_deployment("vllm", [("a", "team/science:v1", "prod")])
    for role in ("reader", "writer", "owner", "root"):
        assert places(guarded.registry(role)) == [("vllm", "a", "team/science:v1", "")]
    assert places(guarded.registry("stranger")) == places(guarded.registry("anonymous")) == []
    with pytest.raises(UnauthenticatedError):
        guarded.registry("anonymous").report_deployment("vllm", [])
    with pytest.raises(NotFoundError):
        guarded.registry("stranger").report_deployment("x", [("a", "team/science:v1", "")])
    guarded.behind.namespaces.set_public("team", True)
    stranger = guarded.registry("stranger")
    assert places(stranger) == []  # everyone may read the adapter; who serves it is the team's own affair
    assert stranger.show("team/science").deployments == ()
    stranger.report_deployment("vllm", [("b", "team/science:v1", "")])  # its own follower of that name
    assert [name for _, name, *_ in places(guarded.registry("owner"))] == ["a", "b"]


def test_nobody_without_a_name_tells_an_open_server(registry: Registry):
    if not registry.settings.endpoint:
        pytest.skip("who reaches the store itself has a name")
    with connect(endpoint=registry.settings.endpoint, author="anonymous") as nobody, pytest.raises(NotAllowedError):
        nobody.report_deployment("vllm", [])


def test_a_followed_folder_tells_what_it_has(team: Registry, tmp_path: Path):
    folder = tmp_path / "adapters"
    team.sync("team/*:prod", folder, SyncOptions(server_name="node-7"))
    assert places(team) == [
        ("node-7", "team/news", "team/news:v1", ""),
        ("node-7", "team/topics", "team/topics:v1", ""),
    ]
    following = team.follow("team/*:prod", folder)
    next(following)
    assert {place.server for place in team.deployments()} == {"node-7", socket.gethostname()}
    team.push(NEWS, "team/news", aliases=["prod"])
    next(following)
    following.close()
    here = [place for place in team.deployments("team/news") if place.server == socket.gethostname()]
    assert [(place.ref, place.replica) for place in here] == [("team/news:v2", str(folder))]
    assert "prod is v2" in [place.drift for place in team.deployments("team/news")]


def test_one_who_may_tell_nothing_follows_all_the_same(guarded: Guarded, tmp_path: Path):
    guarded.behind.namespaces.set_public("team", True)
    anonymous = guarded.registry("anonymous")
    assert anonymous.sync("team/*:prod", tmp_path / "adapters").is_complete
    following = anonymous.follow("team/*:prod", tmp_path / "adapters")
    next(following)
    guarded.behind.push(HISTORY, "team/science", aliases=["prod"])
    report = next(following)
    assert not isinstance(report, LoregError)
    following.close()


def test_the_command_line_shows_them_and_yank_warns(loreg: Loreg, team: Registry, tmp_path: Path):
    loreg("push", SCIENCE, "mine/news", "--alias", "prod")
    loreg("sync", "mine/*:prod", tmp_path / "adapters", "--server-name", "node-7")
    table = loreg("deployments", "mine/*").stdout
    assert [word for word in ("node-7", "mine/news", "mine/news:v1") if word not in table] == []
    assert "node-7" in loreg("show", "mine/news").stdout
    yanked = loreg("yank", "mine/news:v1")
    assert "node-7" in yanked.stderr
    assert "still has it as mine/news" in yanked.stderr
    assert "yanked" in loreg("deployments", "mine/*").stdout
    eventually(lambda: loreg("deployments", "--format", "quiet").stdout.startswith("node-7 "))
