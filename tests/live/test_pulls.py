"""Where a team wants that, each pull is an event: one, whoever pulls and with what, and it wakes nobody who follows."""

from __future__ import annotations

from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from concurrency import all_at_once, eventually
from deployments import HISTORY, NEWS, SCIENCE, Deployment, empty_folders
from hub_clients import VERSIONS, Client, python_with
from live.receivers import receiver
from loreg.catalog import Catalog, pulls
from loreg.errors import ConflictError, NotFoundError, UsageError
from loreg.local.webhook_deliverer import delivering
from loreg.local.webhook_transport import parse_networks
from loreg.registry import Registry, connect
from server.conftest import Guarded

AUDIT = '[audit]\npulls = ["team/*"]\n'


@pytest.fixture(autouse=True)
def audit(tmp_path: Path) -> None:
    """What the tests' registries and servers read as they start."""
    (tmp_path / "loreg.toml").write_text(AUDIT)


def pulled(registry: Registry) -> list[tuple[str, str, object]]:
    """Who pulled what with what, the first first."""
    events = [event for event in registry.events(limit=200).items if event.action == "pull"]
    return [(event.author, event.ref, event.detail["client"]) for event in reversed(events)]


def test_each_pull_is_one_event(registry: Registry, tmp_path: Path):
    registry.push(SCIENCE, "team/science", aliases=["prod"])
    registry.push(NEWS, "other/news")
    for number, ref in enumerate(("team/science:prod", "team/science", "other/news")):
        registry.pull(ref, tmp_path / str(number))
    registry.pull("team/science:v1", tmp_path / "vllm", profile="vllm")
    assert [what[1:] for what in pulled(registry)] == [("team/science:v1", "loreg")] * 3
    assert {who for who, _, _ in pulled(registry)} == {registry.whoami().author}


def test_without_the_table_no_pull_is_one(tmp_path: Path):
    (tmp_path / "loreg.toml").unlink()
    with connect(**empty_folders(tmp_path).settings) as registry:
        registry.push(SCIENCE, "team/science")
        registry.pull("team/science", tmp_path / "out")
        assert pulled(registry) == []


def test_what_only_looks_is_no_pull(registry: Registry):
    registry.push(SCIENCE, "team/science", aliases=["prod"])
    registry.show("team/science:prod")
    registry.check(["team/science"])
    registry.versions("team/science")
    assert pulled(registry) == []


def test_who_may_only_read_pulls_and_that_is_recorded_for_those_who_may_read_it(guarded: Guarded, tmp_path: Path):
    guarded.registry("reader").pull("team/science:prod", tmp_path / "reader")
    with pytest.raises(NotFoundError):
        guarded.registry("stranger").pull("team/science:prod", tmp_path / "stranger")
    guarded.behind.namespaces.set_public("team", True)
    guarded.registry("anonymous").pull("team/science", tmp_path / "anonymous")
    by = [("reader", "team/science:v1", "loreg"), ("anonymous", "team/science:v1", "loreg")]
    assert pulled(guarded.behind) == pulled(guarded.registry("reader")) == by
    guarded.behind.namespaces.set_public("team", False)
    assert pulled(guarded.registry("stranger")) == []


def test_a_client_of_the_hub_pulls_once_and_not_again_from_its_cache(guarded: Guarded, tmp_path: Path):
    client = Client(python_with(VERSIONS[-1]), guarded.endpoint, guarded.tokens["reader"], tmp_path / "hub")
    download = "from huggingface_hub import snapshot_download; result = snapshot_download('team/science')"
    for _ in range(2):
        client.run(download)
    assert pulled(guarded.behind) == [("reader", "team/science:v1", "hub")]


def test_parts_of_the_weights_are_one_pull_and_its_beginning_is_it(guarded_folder: Guarded):
    http, where = guarded_folder.http("reader"), "/team/science/resolve/prod/adapter_model.safetensors"
    assert http.head(where).is_success
    for part in ("bytes=0-0", "bytes=100-", "bytes=100-200"):
        assert http.get(where, headers={"Range": part}).status_code == 206
    assert http.get("/team/science/resolve/prod/adapter_config.json").is_success
    assert pulled(guarded_folder.behind) == []
    assert http.get(where, headers={"Range": "bytes=0-99"}).status_code == 206
    assert http.get(where).is_success
    assert len(pulled(guarded_folder.behind)) == 2


def test_lorax_pulls_when_it_asks_where_a_version_lies(guarded: Guarded):
    assert guarded.http("reader").get("/v2/repos/team/science/version/prod").is_success
    assert guarded.http("stranger").get("/v2/repos/team/science/version/prod").status_code == 404
    assert pulled(guarded.behind) == [("reader", "team/science:v1", "lorax")]


def test_a_folder_that_follows_pulls_each_version_once(registry: Registry, tmp_path: Path):
    registry.push(SCIENCE, "team/science", aliases=["prod"])
    registry.sync("team/*:prod", tmp_path / "followed")
    registry.push(HISTORY, "team/science", aliases=["prod"])
    registry.sync("team/*:prod", tmp_path / "followed")
    refs = [ref for _, ref, _ in pulled(registry)]
    assert set(refs) == {"team/science:v1", "team/science:v2"}
    assert refs.count("team/science:v2") == 1


def test_nobody_who_follows_changes_is_woken_by_pulls(registry: Registry, tmp_path: Path):
    """Else those who pull what has changed would have all others ask again, who then wake those."""
    registry.push(SCIENCE, "team/science")
    backend = registry.context.backend
    with (
        closing(backend.stream_events()) as changes,
        closing(backend.stream_events(pulls=True)) as events,
    ):
        for stream in (changes, events):
            stream.read(0)
        registry.pull("team/science", tmp_path / "out")
        registry.tag("team/science", "prod")
        seen: list[str] = []
        eventually(lambda: seen.extend(event.action for event in events.read(0.5)) or "tag" in seen)
        assert seen == ["pull", "tag"]
        seen = []
        eventually(lambda: seen.extend(event.action for event in changes.read(0.5)) or "tag" in seen)
        assert seen == ["tag"]


def test_a_stream_sends_nothing_of_what_it_does_not_tell(guarded_folder: Guarded, tmp_path: Path):
    http = guarded_folder.http("reader")
    with http.stream("GET", "/api/v1/events/stream") as response:
        lines = response.iter_lines()
        assert next(lines).startswith("id: ")
        for number in range(3):
            guarded_folder.registry("reader").pull("team/science", tmp_path / str(number))
        guarded_folder.behind.push(HISTORY, "other/history")  # which the reader may not read
        guarded_folder.behind.tag("team/science", "live")
        heard = [line for line in iter(lambda: next(lines), "event: tag") if line.startswith("id")]
    assert heard == []


def test_the_events_that_people_follow_have_pulls(registry: Registry, tmp_path: Path):
    registry.push(SCIENCE, "team/science")
    registry.pull("team/science", tmp_path / "out")
    events = registry.follow_events(["team/*"], after="0")
    assert [next(events).event.action for _ in range(2)] == ["push", "pull"]


def test_a_webhook_is_told_of_pulls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("loreg.local.webhook_deliverer._IDLE", 0.02)
    deployment = empty_folders(tmp_path)
    with (
        receiver() as hook,
        connect(**deployment.settings) as registry,
        delivering(Catalog(deployment.database_url), parse_networks("127.0.0.0/8")),
    ):
        registry.webhooks.add(hook.url, actions=["pull"])
        registry.push(SCIENCE, "team/science")
        registry.pull("team/science", tmp_path / "out")
        eventually(lambda: len(hook.requests) == 1)
        assert [(r.document["event"], r.document["ref"]) for r in hook.requests] == [("pull", "team/science:v1")]


def test_what_is_old_goes_two_for_each_that_comes(
    local_deployment: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with connect(**local_deployment.settings) as registry:
        registry.push(SCIENCE, "team/science")

        def pull(number: int) -> int:
            registry.pull("team/science", tmp_path / str(number))
            return len(pulled(registry))

        assert [pull(number) for number in range(4)] == [1, 2, 3, 4]
        ids = [event.id for event in registry.events().items]
        monkeypatch.setattr(pulls, "KEPT_FOR", timedelta(seconds=-1))  # all of them are too old
        assert [pull(4), pull(5)] == [3, 2]
        assert {event.id for event in registry.events().items} & set(ids) == {min(ids)}  # the push stays
        all_at_once([lambda number=number: pull(number) for number in range(6, 10)])
        assert len(pulled(registry)) < 5


def test_a_pull_that_cannot_be_recorded_is_refused(tmp_path: Path):
    with connect(**empty_folders(tmp_path / "old").settings) as registry:
        registry.push(SCIENCE, "team/science")
        registry.push(NEWS, "other/news")
        registry.move(f"sqlite:///{tmp_path}/new.db", str(tmp_path / "new"))
        registry.pull("other/news", tmp_path / "other")
        with pytest.raises(ConflictError, match="was moved to"):
            registry.pull("team/science", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_mirror_brings_no_pulls(tmp_path: Path):
    with (
        connect(**empty_folders(tmp_path / "source").settings) as source,
        connect(**empty_folders(tmp_path / "target").settings) as target,
    ):
        source.push(SCIENCE, "team/science")
        source.pull("team/science", tmp_path / "out")
        assert target.mirror(source=tmp_path / "source").new == 1
        assert len(pulled(source)) == 1
        assert pulled(target) == []


@pytest.mark.parametrize("table", ['pulls = "team/*"', "pulls = [1]", 'pulls = ["a/b/c"]', 'pull = ["team/*"]'])
def test_a_table_that_is_wrong_is_refused(tmp_path: Path, table: str):
    (tmp_path / "loreg.toml").write_text(f"[audit]\n{table}\n")
    with pytest.raises(UsageError, match=r"loreg\.toml: \[audit\] "), connect(**empty_folders(tmp_path).settings):
        pass
