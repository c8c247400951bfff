"""An alias that the policy guards means only what keeps the policy, whichever way it is set, taken away or hidden."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments import Deployment, empty_folders
from factories import train
from live_server import live_server
from loreg.entities import Access, Metric, VersionMetadata
from loreg.errors import CheckFailedError, LoregError, NotAllowedError
from loreg.local.factory import open_local
from loreg.refs import parse_ref
from loreg.registry import Registry, connect
from loreg.settings import load
from loreg.worker import Worker
from server.conftest import SCOPES, Guarded

POLICY = '[check]\nagainst = "prod"\naliases = ["prod"]\n'
ALIAS = "/api/v1/adapters/team/a/aliases/prod"
WORSE = r"v\d cannot become 'prod': LP008 accuracy=0\.\d+@imdb is worse than accuracy=0\.93@imdb of team/a:v1"


@pytest.fixture(params=["sqlite", "postgresql"])
def behind(request: pytest.FixtureRequest, tmp_path: Path) -> Deployment:
    if request.param == "sqlite":
        return empty_folders(tmp_path)
    return request.getfixturevalue("postgres_and_s3")


@pytest.fixture
def team(behind: Deployment, tmp_path: Path) -> Iterator[Guarded]:
    """A server whose policy guards ``prod``, which means v1, better than v2."""
    (tmp_path / "loreg.toml").write_text(POLICY)
    with (
        connect(
            database_url=behind.database_url,
            storage_url=behind.storage_url,
            storage_endpoint=behind.storage_endpoint,
        ) as registry,
        live_server(behind, is_open=False) as endpoint,
    ):
        tokens = {role: registry.tokens.create(role, scopes)[1] for role, scopes in SCOPES.items()}
        registry.push(train(tmp_path / "good", 1), "team/a", metrics=["accuracy=0.93@imdb"], aliases=["prod"])
        registry.push(train(tmp_path / "bad", 2), "team/a", metrics=["accuracy=0.60@imdb"])
        yield Guarded(endpoint, tokens, registry)


@pytest.fixture
def writer(team: Guarded) -> Registry:
    return team.registry("writer")


def prod(team: Guarded) -> int:
    return team.behind.show("team/a:prod").version.number


def test_a_push_with_a_guarded_alias_is_compared_with_what_the_alias_meant_before(
    team: Guarded, writer: Registry, tmp_path: Path
):
    with pytest.raises(CheckFailedError, match=WORSE):
        writer.push(train(tmp_path / "c", 3), "team/a", metrics=["accuracy=0.55@imdb"], aliases=["prod"])
    with pytest.raises(CheckFailedError, match=WORSE):  # two aliases at once, of which one is not guarded
        writer.push(tmp_path / "c", "team/a", metrics=["accuracy=0.55@imdb"], aliases=["dev", "prod"])
    assert prod(team) == 1
    assert [version.number for version in team.behind.versions("team/a").items] == [2, 1]  # nothing was recorded


def test_a_known_content_that_is_pushed_again_is_compared_too(team: Guarded, writer: Registry, tmp_path: Path):
    with pytest.raises(CheckFailedError, match=WORSE):
        writer.push(tmp_path / "bad", "team/a", aliases=["prod"])
    with pytest.raises(CheckFailedError, match=WORSE):
        writer.push(tmp_path / "bad", "team/a", metrics=["accuracy=0.92@imdb"], aliases=["prod"])
    assert prod(team) == 1
    assert [metric.value for metric in team.behind.show("team/a:v2").version.metrics] == [0.60]


def test_two_guarded_aliases_of_one_push_are_both_asked_before_either_moves(tmp_path: Path):
    (tmp_path / "loreg.toml").write_text('[check]\nagainst = "prod"\naliases = ["canary"]\n')
    local_registry = connect(home=str(tmp_path / "home"))
    local_registry.push(train(tmp_path / "good", 1), "a", metrics=["accuracy=0.93@imdb"], aliases=["prod"])
    with pytest.raises(CheckFailedError, match="a:v2 cannot become 'canary': LP008"):
        local_registry.push(train(tmp_path / "bad", 2), "a", metrics=["accuracy=0.6@imdb"], aliases=["prod", "canary"])
    assert local_registry.show("a:prod").version.number == 1


def test_a_writer_may_not_take_a_guarded_alias_away(team: Guarded, writer: Registry):
    with pytest.raises(
        NotAllowedError, match="an administrator of the namespace 'team' takes it away, writer"
    ) as refusal:
        writer.untag("team/a", "prod")
    assert refusal.value.hint == "loreg tag team/a:vN prod"
    assert prod(team) == 1
    writer.tag("team/a:v2", "dev")
    writer.untag("team/a", "dev")  # one that is not guarded is the writer's


def test_a_guarded_alias_that_an_administrator_took_away_is_compared_with_what_it_last_meant(
    team: Guarded, writer: Registry
):
    team.registry("owner").untag("team/a", "prod")
    for registry in (writer, team.registry("owner"), team.behind):
        with pytest.raises(CheckFailedError, match=WORSE):
            registry.tag("team/a:v2", "prod")
        (report,) = registry.check(["team/a:v2"])
        assert [finding.code for finding in report.findings if finding.severity == "error"] == ["LP008"]
    with pytest.raises(NotAllowedError, match="yanks v1, which it last meant"):
        writer.yank("team/a:v1")
    assert writer.tag("team/a:v1", "prod").aliases == ("prod",)


def test_a_writer_may_not_yank_what_a_guarded_alias_means(team: Guarded, writer: Registry):
    with pytest.raises(NotAllowedError, match="an administrator of the namespace 'team' yanks v1") as refusal:
        writer.yank("team/a:prod")
    assert refusal.value.hint == "loreg tag team/a:vN prod"
    assert prod(team) == 1
    writer.yank("team/a:v2")  # any other is the writer's
    writer.unyank("team/a:v2")
    writer.yank("team/a:v2")
    assert not writer.show("team/a:v1").version.yanked


def test_a_yanked_version_is_still_what_the_alias_last_meant(team: Guarded, writer: Registry):
    team.registry("owner").yank("team/a:v1")
    for registry in (writer, team.registry("owner"), team.behind):
        with pytest.raises(CheckFailedError, match=WORSE):
            registry.tag("team/a:v2", "prod")


def test_a_writer_may_not_show_again_what_an_administrator_hid(team: Guarded, writer: Registry):
    team.registry("owner").yank("team/a:v1")
    with pytest.raises(NotAllowedError, match="unyanks v1, which it last meant"):
        writer.unyank("team/a:v1")
    team.registry("owner").unyank("team/a:v1")
    assert prod(team) == 1


def test_the_policy_is_asked_before_a_guarded_alias_means_a_version_again(
    team: Guarded, behind: Deployment, tmp_path: Path
):
    team.behind.yank("team/a:v1")
    (tmp_path / "loreg.toml").write_text(POLICY + 'metrics = ["accuracy>=0.95"]\n')
    stricter = connect(
        database_url=behind.database_url, storage_url=behind.storage_url, storage_endpoint=behind.storage_endpoint
    )
    with pytest.raises(CheckFailedError, match=r"team/a:v1 cannot become 'prod': LP002 accuracy>=0\.95"):
        stricter.unyank("team/a:v1")
    stricter.untag("team/a", "prod")
    assert not stricter.unyank("team/a:v1").yanked  # nothing means it now


def test_the_way_back_from_a_yanked_version_is_open(team: Guarded, writer: Registry, tmp_path: Path):
    better = writer.push(train(tmp_path / "c", 3), "team/a", metrics=["accuracy=0.95@imdb"], aliases=["prod"]).version
    with pytest.raises(CheckFailedError, match="LP008"):
        writer.tag("team/a:v1", "prod")  # nothing is wrong with v3
    team.registry("owner").yank(better.ref)
    with pytest.raises(CheckFailedError, match="LP008"):
        writer.tag("team/a:v2", "prod")  # that is not where it came from
    assert writer.tag("team/a:v1", "prod").number == 1


WORSE_METRIC = r"the policy compares with team/a:v1, which 'prod' last meant: an administrator of the namespace 'team'"


@pytest.mark.parametrize("metric", [Metric("accuracy", 0.5, "imdb"), Metric("accuracy", 0.93, "imdb", "", False)])
def test_a_writer_may_not_make_worse_what_a_guarded_alias_is_compared_with(
    team: Guarded, writer: Registry, tmp_path: Path, metric: Metric
):
    for measured in ([metric], [Metric("f1", 0.7), metric], [Metric("accuracy", 0.99, "imdb"), metric]):
        with pytest.raises(NotAllowedError, match=WORSE_METRIC) as refusal:
            writer.add_metrics("team/a:v1", measured)
        with pytest.raises(NotAllowedError, match=WORSE_METRIC):
            writer.push(tmp_path / "good", "team/a", metrics=measured)  # the same content
    assert refusal.value.hint == "ask for a token with --scope admin:team"
    assert team.behind.show("team/a:v1").version.metrics == (Metric("accuracy", 0.93, "imdb"),)
    team.registry("owner").untag("team/a", "prod")  # which takes nothing away of what it last meant
    with pytest.raises(NotAllowedError, match=WORSE_METRIC):
        writer.add_metrics("team/a:v1", [metric])
    with pytest.raises(CheckFailedError, match=WORSE):
        writer.tag("team/a:v2", "prod")


def test_the_metrics_of_what_an_unguarded_alias_means_are_kept_too_where_the_policy_compares_with_it(tmp_path: Path):
    (tmp_path / "loreg.toml").write_text('[check]\nagainst = "prod"\naliases = ["canary"]\n')
    local_registry = connect(home=str(tmp_path / "home"))
    local_registry.push(train(tmp_path / "good", 1), "team/a", metrics=["accuracy=0.93@imdb"], aliases=["prod"])
    backend = open_local(local_registry.settings).backend(Access("mallory", {"team": "write"}))
    with pytest.raises(NotAllowedError, match=WORSE_METRIC):
        backend.add_metrics(parse_ref("team/a:prod"), [Metric("accuracy", 0.5, "imdb")])


def test_everything_else_that_is_measured_is_free(team: Guarded, writer: Registry, tmp_path: Path):
    writer.add_metrics("team/a:v1", ["accuracy=0.94@imdb", "accuracy=0.1@sst2", "accuracy=0.1@imdb:test", "f1=0.5"])
    writer.push(tmp_path / "good", "team/a", metrics=["accuracy=0.94@imdb", "loss=3"])
    writer.add_metrics("team/a:v2", ["accuracy=0.1@imdb"])
    team.registry("owner").add_metrics("team/a:v1", ["accuracy=0.9@imdb"])
    assert Metric("accuracy", 0.9, "imdb") in writer.show("team/a:v1").version.metrics


def upload(team: Guarded, folder: Path, branch: str) -> tuple[int, str]:
    """A commit of the Hub with every file of the folder: status, and what a client tells its user."""
    lines = [{"key": "header", "value": {"summary": "from the Hub"}}]
    for path in sorted(folder.iterdir()):
        content = b64encode(path.read_bytes()).decode()
        lines.append({"key": "file", "value": {"path": path.name, "content": content, "encoding": "base64"}})
    body = "\n".join(map(json.dumps, lines))
    done = team.http("writer").post(f"/api/models/team/a/commit/{branch}", content=body)
    return done.status_code, done.headers.get("X-Error-Message", "")


def test_a_branch_of_the_hub_that_is_a_guarded_alias_is_guarded(team: Guarded, tmp_path: Path):
    assert team.http("writer").post("/api/models/team/a/branch/prod").status_code == 200
    assert prod(team) == 1
    status, answer = upload(team, tmp_path / "bad", "prod")
    assert (status, "LP008 accuracy=0.6@imdb is worse" in answer) == (422, True)
    assert team.http("writer").delete("/api/models/team/a/branch/prod").status_code in (403, 405)
    assert prod(team) == 1


def test_a_tag_of_the_hub_that_is_a_guarded_alias_is_guarded(team: Guarded):
    http = team.http("writer")
    assert http.post("/api/models/team/a/tag/v2", json={"tag": "prod"}).status_code == 409  # there is one
    team.behind.untag("team/a", "prod")
    assert http.post("/api/models/team/a/tag/v2", json={"tag": "prod"}).status_code == 422
    assert http.post("/api/models/team/a/tag/v1", json={"tag": "prod"}).status_code == 200
    assert prod(team) == 1


def test_a_job_that_ends_in_a_guarded_alias_is_guarded(team: Guarded, behind: Deployment):
    asked = {"source": "team/a:v2", "rank": 2, "name": "team/a", "metrics": ["accuracy=0.5@imdb"], "aliases": ["prod"]}
    job = team.http("writer").post("/api/v1/jobs", json={"kind": "rerank", "request": asked}).json()
    Worker(load({}, {**behind.environment, "LOREG_ENDPOINT": ""}), None, None, "cpu").work(until_idle=True)
    ended = team.http("writer").get(f"/api/v1/jobs/{job['id']}").json()
    assert (ended["state"], ended["error"]["code"]) == ("failed", "check-failed")
    assert prod(team) == 1


def test_a_job_is_guarded_as_the_server_says_that_took_it_wherever_the_worker_was_started(
    team: Guarded, behind: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked = {"source": "team/a:v2", "rank": 2, "name": "team/a", "metrics": ["accuracy=0.5@imdb"], "aliases": ["prod"]}
    job = team.http("writer").post("/api/v1/jobs", json={"kind": "rerank", "request": asked}).json()
    monkeypatch.chdir(tmp_path.parent)  # where no loreg.toml is
    settings = load({}, {**behind.environment, "LOREG_ENDPOINT": ""})
    assert not settings.check
    Worker(settings, None, None, "cpu").work(until_idle=True)
    ended = team.http("writer").get(f"/api/v1/jobs/{job['id']}").json()
    assert (ended["state"], ended["error"]["code"]) == ("failed", "check-failed")
    assert prod(team) == 1


def test_a_merge_that_is_pushed_to_a_guarded_alias_is_guarded(team: Guarded, writer: Registry):
    with pytest.raises(CheckFailedError, match="LP008"):
        writer.merge(
            ["team/a:v1", "team/a:v2"],
            name="team/a",
            metadata=VersionMetadata(metrics=["accuracy=0.5@imdb"], aliases=["prod"]),
        )
    assert prod(team) == 1


@pytest.mark.parametrize("role", ["reader", "stranger", "anonymous"])
def test_who_may_not_write_hears_nothing_of_the_policy(team: Guarded, role: str):
    http = team.http(role)
    for method, path, body in (
        ("DELETE", ALIAS, None),
        ("PUT", ALIAS, {"ref": "team/a:v2"}),
        ("PUT", "/api/v1/adapters/team/a/versions/v1/yanked", {"yanked": True}),
    ):
        refused = http.request(method, path, json=body)
        assert refused.status_code == (403 if role == "reader" else 404)
        assert "guards" not in refused.text
    assert prod(team) == 1


def test_every_move_and_removal_has_an_event(team: Guarded):
    owner = team.registry("owner")
    owner.untag("team/a", "prod")
    owner.tag("team/a:v1", "prod")
    owner.yank("team/a:v1")
    assert [event.action for event in owner.events(limit=3).items] == ["yank", "tag", "untag"]


def test_whoever_has_the_database_is_an_administrator_of_all(tmp_path: Path):
    (tmp_path / "loreg.toml").write_text(POLICY)
    local_registry = connect(home=str(tmp_path / "home"))
    local_registry.push(train(tmp_path / "good", 1), "a", metrics=["accuracy=0.93@imdb"], aliases=["prod"])
    assert Access.superuser("ada").may("admin", "")
    local_registry.yank("a:v1")
    local_registry.untag("a", "prod")
    with pytest.raises(LoregError, match="LP008"):
        local_registry.push(train(tmp_path / "bad", 2), "a", metrics=["accuracy=0.6@imdb"], aliases=["prod"])
