"""A promotion goes back by itself when it measures badly, and leaves alone what somebody has moved since."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from concurrency import all_at_once
from deployments import HISTORY, NEWS, SCIENCE, Deployment, Loreg, empty_folders
from live.receivers import receiver
from loreg.catalog import Catalog
from loreg.errors import CheckFailedError, ConflictError, LoregError, NotAllowedError, NotFoundError, UsageError
from loreg.local.webhook_deliverer import delivering
from loreg.local.webhook_transport import parse_networks
from loreg.refs import parse_ref
from loreg.registry import Registry, connect
from server.conftest import Guarded

BAD = ["accuracy<0.8@live"]


@pytest.fixture
def three(registry: Registry) -> Iterator[Registry]:
    """team/news with three versions, of which prod means the first."""
    registry.push(SCIENCE, "team/news", aliases=["prod"])
    registry.push(HISTORY, "team/news")
    registry.push(NEWS, "team/news")
    yield registry


def prod(registry: Registry) -> int:
    return registry.show("team/news:prod").version.number


def list_events(registry: Registry, *actions: str) -> list[tuple[str, str, dict[str, object]]]:
    events = [event for event in registry.events(name="team/news", limit=200).items if event.action in actions]
    return [(event.action, event.ref.rpartition(":")[2], dict(event.detail)) for event in reversed(events)]


def test_a_metric_below_its_bound_moves_the_alias_back(three: Registry):
    assert three.tag("team/news:v2", "prod", rollback_if=[*BAD, "loss>3"]).aliases == ("prod",)
    (promotion,) = three.promotions("team/news")
    assert (promotion.alias, promotion.number, promotion.previous) == ("prod", 2, 1)
    assert three.show("team/news:v3").promotions == (promotion,)
    three.add_metrics("team/news:v2", ["accuracy=0.9@live", "accuracy=0.1", "accuracy=0.1@test", "loss=2"])
    three.add_metrics("team/news:v1", ["accuracy=0.1@live"])
    assert prod(three) == 2
    three.add_metrics("team/news:v2", ["accuracy=0.79@live"])
    assert prod(three) == 1
    assert three.promotions("team/news") == ()
    what = {"alias": "prod", "previous": 1, "metric": "accuracy=0.79@live", "rollback_if": BAD[0]}
    assert list_events(three, "promote", "promote end", "rollback", "tag")[1:] == [
        ("tag", "v2", {"alias": "prod"}),
        ("promote", "v2", {"alias": "prod", "previous": 1, "rollback_if": [*BAD, "loss>3"]}),
        ("rollback", "v2", what),
        ("tag", "v1", {"alias": "prod", "reason": "accuracy=0.79@live was measured of v2"}),
    ]
    moves = [(move.alias, move.number) for move in three.show("team/news").alias_moves]
    assert moves == [("prod", 1), ("prod", 2), ("prod", 1)]


def test_what_is_measured_twice_or_after_it_moves_nothing_more(three: Registry):
    three.tag("team/news:v2", "prod", rollback_if=BAD)
    three.add_metrics("team/news:v2", ["accuracy=0.1@live"])
    three.tag("team/news:v2", "prod")  # somebody wants it nevertheless
    three.add_metrics("team/news:v2", ["accuracy=0.1@live"])
    three.add_metrics("team/news:v2", ["accuracy=0.05@live"])
    assert prod(three) == 2


def test_a_push_that_brings_a_bad_metric_moves_it_back_too(three: Registry):
    three.tag("team/news:v2", "prod", rollback_if=BAD)
    three.push(HISTORY, "team/news", metrics=["accuracy=0.5@live"])
    assert prod(three) == 1


def test_two_metrics_of_one_report_move_it_back_once(three: Registry):
    three.tag("team/news:v2", "prod")
    three.tag("team/news:v3", "prod", rollback_if=[*BAD, "loss>3"])
    three.add_metrics("team/news:v3", ["loss=4", "accuracy=0.1@live"])
    assert prod(three) == 2
    assert len(list_events(three, "rollback")) == 1


def test_each_alias_has_its_own_bounds(three: Registry):
    three.tag("team/news:v1", "beta")
    three.tag("team/news:v2", "beta", rollback_if=["loss>3"])
    three.tag("team/news:v2", "prod", rollback_if=["loss>2", "accuracy<0.5"])
    three.add_metrics("team/news:v2", ["loss=2.5"])
    assert (prod(three), three.show("team/news:beta").version.number) == (1, 2)
    assert [promotion.alias for promotion in three.promotions("team/news")] == ["beta"]


def test_a_move_a_removal_and_another_tag_end_the_watch(three: Registry):
    for end in (
        lambda: three.tag("team/news:v3", "prod"),
        lambda: three.untag("team/news", "prod"),
        lambda: three.tag("team/news:v2", "prod"),
        lambda: three.push(NEWS, "team/news", aliases=["prod"]),
    ):
        three.tag("team/news:v1", "prod")
        three.tag("team/news:v2", "prod", rollback_if=BAD)
        end()
        assert three.promotions("team/news") == ()
    assert [action for action, _, _ in list_events(three, "promote", "promote end")] == ["promote", "promote end"] * 4
    three.tag("team/news:v3", "prod")
    three.add_metrics("team/news:v2", ["accuracy=0.1@live"])
    assert prod(three) == 3


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("how", ["yank", "delete"])
def test_what_is_yanked_or_removed_is_not_gone_back_to(three: Registry, how: str, version: str):
    three.tag("team/news:v2", "prod", rollback_if=BAD)
    if how == "yank":
        three.yank(f"team/news:{version}")
        three.unyank(f"team/news:{version}")
    else:
        three.delete(f"team/news:{version}", "a trial")
    assert three.promotions("team/news") == ()
    (last,) = list_events(three, "promote end")
    assert last[2].get("reason", "").startswith(f"{version} was " if (how, version) != ("delete", "v2") else "")
    if (how, version) != ("delete", "v2"):
        three.add_metrics("team/news:v2", ["accuracy=0.1@live"])
        assert prod(three) == 2


def test_its_conditions_are_changed_by_saying_it_again(three: Registry):
    three.tag("team/news:v2", "prod", rollback_if=BAD)
    three.tag("team/news:v2", "prod", rollback_if=["loss>3"])
    (promotion,) = three.promotions("team/news")
    assert (promotion.previous, promotion.rollback_if) == (1, ("loss>3",))
    three.add_metrics("team/news:v2", ["accuracy=0.1@live"])
    assert prod(three) == 2


def test_one_that_follows_another_goes_back_to_that_one(three: Registry):
    three.tag("team/news:v2", "prod", rollback_if=BAD)
    three.tag("team/news:v3", "prod", rollback_if=BAD)
    three.add_metrics("team/news:v3", ["accuracy=0.1@live"])
    assert (prod(three), three.promotions("team/news")) == (2, ())


def test_what_cannot_go_back_is_refused(three: Registry):
    with pytest.raises(UsageError, match="nothing to go back to"):
        three.tag("team/news:v1", "prod", rollback_if=BAD)
    with pytest.raises(UsageError, match="nothing to go back to"):
        three.tag("team/news:v1", "beta", rollback_if=BAD)
    with pytest.raises(UsageError):
        three.tag("team/news:v2", "prod", rollback_if=["accuracy"])
    with pytest.raises(UsageError):
        three.tag("team/news:v2", "prod", rollback_if=["accuracy<nan"])
    with pytest.raises(UsageError, match="no metric is named"):
        three.context.backend.promote(parse_ref("team/news:v2"), "prod", ())
    with pytest.raises(ConflictError):
        three.tag("team/news:v2", "prod", expected=3, rollback_if=BAD)
    three.add_metrics("team/news:v2", ["accuracy=0.1@live"])
    with pytest.raises(CheckFailedError, match="taken back at once"):
        three.tag("team/news:v2", "prod", rollback_if=BAD)
    three.yank("team/news:v3")
    with pytest.raises((NotAllowedError, NotFoundError)):
        three.tag("team/news:v3", "prod", rollback_if=BAD)
    with pytest.raises(UsageError):
        three.add_metrics("team/news:v2", ["accuracy=nan@live"])
    assert (prod(three), three.promotions("team/news"), list_events(three, "promote")) == (1, (), [])


def test_a_promotion_ends_the_canary_that_it_was(three: Registry):
    three.begin_canary("team/news:v2", "prod", "10%", rollback_if=BAD)
    three.tag("team/news:v2", "prod", rollback_if=BAD)
    assert three.canaries("team/news") == ()
    three.begin_canary("team/news:v3", "prod", "10%")
    three.add_metrics("team/news:v2", ["accuracy=0.1@live"])
    assert (prod(three), three.canaries("team/news")) == (1, ())


def test_of_a_move_and_a_rollback_at_the_same_moment_the_last_move_is_the_human_s(three: Registry):
    """Either the human comes first, and nothing goes back, or second, and moves what has gone back."""
    for number in range(6):
        three.tag("team/news:v1", "prod")
        three.tag("team/news:v2", "prod", rollback_if=["loss>3"])
        all_at_once(
            [
                lambda number=number: again(lambda: three.add_metrics("team/news:v2", [f"loss={4 + number}"])),
                lambda: again(lambda: three.tag("team/news:v3", "prod")),
            ]
        )
        assert (prod(three), three.promotions("team/news")) == (3, ())
        three.add_metrics("team/news:v2", ["loss=1"])


def again(call) -> object:
    """Call it until nobody else is faster."""
    while True:
        try:
            return call()
        except ConflictError:
            continue


def test_the_policy_that_guards_an_alias_lets_it_go_back(local_deployment: Deployment, tmp_path: Path):
    """What prod meant was allowed when it came to mean it, and is better than what measures badly."""
    (tmp_path / "loreg.toml").write_text('[check]\naliases = ["prod"]\nagainst = "prod"\nmetrics = ["f1>=0.5"]\n')
    with connect(**local_deployment.settings) as registry:
        registry.push(SCIENCE, "team/news", aliases=["prod"], metrics=["f1=0.6"])
        registry.push(HISTORY, "team/news")
        with pytest.raises(CheckFailedError, match="LP002"):
            registry.tag("team/news:v2", "prod", rollback_if=BAD)
        registry.add_metrics("team/news:v2", ["f1=0.9"])
        registry.tag("team/news:v2", "prod", rollback_if=BAD)
        registry.add_metrics("team/news:v2", ["accuracy=0.1@live"])
        assert prod(registry) == 1  # though its f1 is worse than that of v2


def test_who_may_promote_is_who_may_move_the_alias(guarded: Guarded):
    guarded.behind.push(HISTORY, "team/science")
    for role in ("reader", "stranger", "anonymous"):
        with pytest.raises((NotAllowedError, NotFoundError)):
            guarded.registry(role).tag("team/science:v2", "prod", rollback_if=BAD)
    guarded.registry("writer").tag("team/science:v2", "prod", rollback_if=BAD)
    assert len(guarded.registry("reader").promotions("team/science")) == 1
    assert guarded.registry("stranger").promotions("team/science") == ()
    with pytest.raises(LoregError):
        guarded.registry("reader").add_metrics("team/science:v2", ["accuracy=0.1@live"])
    assert guarded.behind.show("team/science:prod").version.number == 2


def test_what_it_would_go_back_to_and_a_canary_are_not_pruned(tmp_path: Path):
    (tmp_path / "loreg.toml").write_text("[retention]\nkeep_last = 1\n")
    with connect(**empty_folders(tmp_path).settings) as registry:
        for adapter in (SCIENCE, HISTORY, NEWS):
            registry.push(adapter, "team/news")
        registry.tag("team/news:v1", "prod")
        registry.tag("team/news:v3", "prod", rollback_if=BAD)
        registry.begin_canary("team/news:v2", "prod", "10%")
        assert registry.prune().going_count == 0
        registry.tag("team/news:v3", "prod")
        assert registry.prune().going_count == 2


def test_webhooks_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("loreg.local.webhook_deliverer._IDLE", 0.02)
    deployment = empty_folders(tmp_path)
    with (
        receiver() as hook,
        connect(**deployment.settings) as registry,
        delivering(Catalog(deployment.database_url), parse_networks("127.0.0.0/8")),
    ):
        registry.push(SCIENCE, "team/news", aliases=["prod"])
        registry.push(HISTORY, "team/news")
        registry.webhooks.add(hook.url, actions=["promote", "rollback", "tag"])
        registry.tag("team/news:v2", "prod", rollback_if=BAD)
        registry.add_metrics("team/news:v2", ["accuracy=0.1@live"])
        while len(hook.requests) < 4:
            assert all(place.state != "failed" for place in registry.webhooks.deliveries(1))
    assert hook.events == ["tag team/news:v2", "promote team/news:v2", "rollback team/news:v2", "tag team/news:v1"]


def test_the_command_line_promotes_and_shows_it(three: Registry, loreg: Loreg):
    outcome = loreg("tag", "team/news:v2", "prod", "--rollback-if", BAD[0], "--rollback-if", "loss>3")
    assert outcome.exit_code == 0
    assert outcome.stdout.startswith("team/news:prod is now team/news:v2@sha256:")
    assert outcome.stdout.endswith(f", unless {BAD[0]} or loss>3\n")
    assert f"rollback   prod: from v2 to v1 if {BAD[0]} or loss>3" in loreg("show", "team/news:prod").stdout
    assert "team/news:v2 (prod, watched)" in loreg("ls", "team/news").stdout
    assert json.loads(loreg("show", "team/news", "--format", "json").stdout)["promotions"][0]["previous"] == 1
    loreg("metric", "add", "team/news:v2", "accuracy=0.1@live")
    log = " ".join(loreg("log", "team/news", COLUMNS="200").stdout.split())
    assert f"prod goes back to v1 if {BAD[0]} or loss>3" in log
    assert "taken back from prod: accuracy=0.1@live" in log
    assert "prod means it from now on: accuracy=0.1@live was measured of v2" in log
    assert loreg("tag", "team/news:v2", "prod", "--rollback-if", BAD[0]).exit_code == 5
