"""A canary has a share of an alias for routers, nobody else sees it, and it ends by itself when it measures badly."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from deployments import HISTORY, SCIENCE, Deployment, Loreg
from loreg.errors import CheckFailedError, NotAllowedError, NotFoundError, UsageError
from loreg.registry import Registry, connect
from server.conftest import Guarded


@pytest.fixture
def two(registry: Registry) -> Iterator[Registry]:
    """team/news with two versions, of which prod means the first."""
    registry.push(SCIENCE, "team/news", aliases=["prod"])
    registry.push(HISTORY, "team/news")
    yield registry


def actions(registry: Registry) -> list[tuple[str, object]]:
    of_canaries = ("canary", "canary end", "rollback")
    events = [event for event in registry.events(name="team/news") if event.action in of_canaries]
    return [(event.action, dict(event.detail)) for event in reversed(events)]


def test_a_share_of_the_keys_gets_the_canary_and_each_stays_with_its_version(two: Registry):
    shares = two.begin_canary("team/news:v2", "prod", "30%")
    assert (shares.main.number, shares.canary and shares.canary.number, shares.share) == (1, 2, 0.3)
    keys = [f"user-{number}" for number in range(1000)]
    picked = {key: shares.pick(key).number for key in keys}
    count = sum(number == 2 for number in picked.values())
    assert 230 < count < 370  # 300 ± 5 standard deviations
    assert all(two.route("team/news:prod", key).number == picked[key] for key in keys[:10])
    more = two.begin_canary("team/news:v2", "prod", 0.6)
    assert all(more.pick(key).number == 2 for key in keys if picked[key] == 2)  # who has the canary keeps it


def test_who_asks_for_the_alias_itself_gets_the_main_version(two: Registry):
    two.begin_canary("team/news:v2", "prod", "99%")
    assert two.show("team/news:prod").version.number == 1
    assert two.show("team/news:v2").version.aliases == ()
    assert [(c.alias, c.number, c.share) for c in two.show("team/news").canaries] == [("prod", 2, 0.99)]
    assert two.canaries("team/news") == two.show("team/news:v1").canaries


def test_a_move_of_the_alias_ends_it(two: Registry):
    for ref, number in (("team/news:v2", 2), ("team/news:v1", 1)):
        two.tag("team/news:v1", "prod")
        two.begin_canary("team/news:v2", "prod", "10%")
        two.tag(ref, "prod")
        assert two.shares("team/news:prod").canary is None
        assert two.route("team/news:prod", "anybody").number == number
    assert [action for action, _ in actions(two)] == ["canary", "canary end"] * 2


def test_it_ends_when_it_is_ended_untagged_yanked_or_deleted(two: Registry):
    two.begin_canary("team/news:v2", "prod", "10%")
    assert two.end_canary("team/news", "prod").canary is None
    with pytest.raises(UsageError, match="has no canary"):
        two.end_canary("team/news", "prod")
    two.begin_canary("team/news:v2", "prod", "10%")
    two.untag("team/news", "prod")
    assert two.canaries("team/news") == ()
    two.tag("team/news:v1", "prod")
    two.begin_canary("team/news:v2", "prod", "10%")
    two.yank("team/news:v2")
    assert two.canaries("team/news") == ()
    two.unyank("team/news:v2")
    two.begin_canary("team/news:v2", "prod", "10%")
    two.delete("team/news:v2", "a trial")
    assert two.canaries("team/news") == ()


def test_a_metric_below_its_bound_takes_it_back(two: Registry):
    two.begin_canary("team/news:v2", "prod", "10%", rollback_if=["accuracy<0.8", "loss>3@live"])
    two.add_metrics("team/news:v2", ["accuracy=0.9", "loss=4", "loss=2@live"])
    two.add_metrics("team/news:v1", ["accuracy=0.1"])
    assert [canary.number for canary in two.canaries("team/news")] == [2]
    two.add_metrics("team/news:v2", ["accuracy=0.79"])
    assert two.canaries("team/news") == ()
    assert actions(two)[-1] == (
        "rollback",
        {"alias": "prod", "metric": "accuracy=0.79", "rollback_if": "accuracy<0.8"},
    )
    with pytest.raises(CheckFailedError, match="taken back at once"):
        two.begin_canary("team/news:v2", "prod", "10%", rollback_if=["accuracy<0.8"])


def test_a_push_that_brings_a_bad_metric_takes_it_back_too(two: Registry):
    two.begin_canary("team/news:v2", "prod", "10%", rollback_if=["accuracy<0.8"])
    two.push(HISTORY, "team/news", metrics=["accuracy=0.5"])
    assert two.canaries("team/news") == ()


def test_what_can_be_no_canary_is_refused(two: Registry):
    for share in ("100%", "10", "-1", "x", "1.5%5"):
        with pytest.raises(UsageError, match="share"):
            two.begin_canary("team/news:v2", "prod", share)
    for share in (0, 1, 1.5, -0.1, float("nan")):
        with pytest.raises(UsageError, match="share"):
            two.begin_canary("team/news:v2", "prod", share)
    with pytest.raises(UsageError, match="already"):
        two.begin_canary("team/news:v1", "prod", "10%")
    with pytest.raises(UsageError):
        two.begin_canary("team/news:v2", "prod", "10%", rollback_if=["accuracy"])
    with pytest.raises(NotFoundError):
        two.begin_canary("team/news:v2", "beta", "10%")
    two.yank("team/news:v2")
    with pytest.raises((NotAllowedError, NotFoundError)):
        two.begin_canary("team/news:v2", "prod", "10%")
    for ref in ("team/news", "team/news:v1"):
        with pytest.raises(UsageError, match="names no alias"):
            two.route(ref, "anybody")


def test_the_policy_that_guards_an_alias_guards_its_canaries(local_deployment: Deployment, tmp_path):
    (tmp_path / "loreg.toml").write_text('[check]\naliases = ["prod"]\nmetrics = ["accuracy>=0.8"]\n')
    with connect(**local_deployment.settings) as registry:
        registry.push(SCIENCE, "team/news", aliases=["prod"], metrics=["accuracy=0.9"])
        registry.push(HISTORY, "team/news")
        with pytest.raises(CheckFailedError, match="LP002"):
            registry.begin_canary("team/news:v2", "prod", "1%")
        registry.add_metrics("team/news:v2", ["accuracy=0.8"])
        assert registry.begin_canary("team/news:v2", "prod", "1%").share == 0.01


def test_who_may_begin_one_is_who_may_move_the_alias(guarded: Guarded):
    guarded.behind.push(HISTORY, "team/science")
    for role, error in (("reader", NotAllowedError), ("stranger", NotFoundError), ("anonymous", NotFoundError)):
        registry = guarded.registry(role)
        with pytest.raises(NotAllowedError if role == "anonymous" else error):  # nothing is parsed without a token
            registry.begin_canary("team/science:v2", "prod", "10%")
        with pytest.raises(error):
            registry.end_canary("team/science", "prod")
    guarded.registry("writer").begin_canary("team/science:v2", "prod", "10%")
    assert guarded.registry("reader").shares("team/science:prod").share == 0.1
    with pytest.raises(NotFoundError):
        guarded.registry("stranger").shares("team/science:prod")
    assert guarded.registry("stranger").canaries("team/science") == ()


def test_the_command_line_begins_shows_and_ends_it(two: Registry, loreg: Loreg):
    outcome = loreg("tag", "team/news:v2", "prod", "--share", "12.5%", "--rollback-if", "accuracy<0.8")
    assert outcome.exit_code == 0
    assert " for 12.5 % by routers, team/news:v1 for all others" in outcome.stdout
    assert "canaries   prod: v2 for 12.5 %, unless accuracy<0.8" in loreg("show", "team/news:prod").stdout
    assert "team/news:v2 (prod 12.5 %)" in loreg("ls", "team/news").stdout
    assert "prod → v1 (v2 12.5 %)" in loreg("ls").stdout
    (entry,) = json.loads(loreg("ls", "--format", "json").stdout)["items"]
    assert [(canary["number"], canary["share"]) for canary in entry["canaries"]] == [(2, 0.125)]
    assert "prod means it for 12.5 %" in loreg("log", "team/news").stdout
    assert json.loads(loreg("show", "team/news", "--format", "json").stdout)["canaries"][0]["share"] == 0.125
    ended = loreg("tag", "team/news:v2", "prod", "--share", "0")
    assert ended.stdout.startswith("team/news:prod is team/news:v1@")
    assert loreg("tag", "team/news:v2", "prod", "--share", "0").exit_code == 2
