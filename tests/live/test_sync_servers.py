"""Running servers have loaded what a selection means: all replicas, under pinned names, and nothing else goes."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from concurrency import eventually
from deployments import DORA, HISTORY, MOVIES, NEWS, SCIENCE, Deployment, Loreg
from live_server import live_server
from loreg.entities import SyncOptions, SyncProblemKind, SyncReport
from loreg.errors import LoregError, UsageError
from loreg.registry import Registry, connect
from serving_stubs import AdapterServer, serving


@pytest.fixture
def team(registry: Registry) -> Registry:
    registry.push(SCIENCE, "team/news", aliases=["prod"])
    registry.push(HISTORY, "team/topics", aliases=["prod"])
    return registry


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "adapters"


@pytest.fixture
def replicas() -> Iterator[list[AdapterServer]]:
    servers = [AdapterServer("vllm"), AdapterServer("vllm")]
    with serving(*servers):
        yield servers


def options(*servers: AdapterServer, keep: int = 2) -> SyncOptions:
    kind = servers[0].kind
    profile = f"{kind}:max_lora_rank=64" if kind == "vllm" else kind
    return SyncOptions(profile, keep, servers=tuple(server.url for server in servers))


def pinned(registry: Registry, ref: str, name: str = "") -> str:
    version = registry.show(ref).version
    return f"{name or version.adapter}@{version.digest[:12]}"


def amiss(report: SyncReport) -> set[tuple[SyncProblemKind, str]]:
    return {(problem.kind, problem.name) for problem in report.problems}


def test_every_replica_loads_each_version_from_its_folder_by_digest(
    team: Registry, folder: Path, replicas: list[AdapterServer]
):
    report = team.sync("team/*:prod", folder, options(*replicas))
    names = {pinned(team, "team/news:prod"), pinned(team, "team/topics:prod")}
    assert report.is_complete
    assert {adapter.served_name for adapter in report.updated} == names
    for server in replicas:
        assert server.loaded.keys() == names
        for name, path in server.loaded.items():
            assert Path(path).name.startswith(team.show(f"{name.partition('@')[0]}:prod").version.digest)
            assert not Path(path).is_symlink()
    before = [list(server.asked) for server in replicas]
    report = team.sync("team/*:prod", folder, options(*replicas))
    assert (report.updated, len(report.unchanged)) == ((), 2)
    asked = [server.asked[len(old) :] for server, old in zip(replicas, before, strict=True)]
    assert [[path for path, _ in calls] for calls in asked] == [["/v1/models"], ["/v1/models"]]


def test_the_old_version_goes_when_every_replica_has_the_new_one(
    team: Registry, folder: Path, replicas: list[AdapterServer]
):
    names = []
    for source in (SCIENCE, HISTORY, NEWS, MOVIES):
        team.push(source, "team/news", aliases=["prod"])
        report = team.sync("team/news:prod", folder, options(*replicas, keep=1))
        assert [adapter.ref for adapter in report.updated] == [team.show("team/news:prod").version.ref]
        names.append(pinned(team, "team/news:prod"))
        assert all(server.loaded.keys() == set(names[-2:]) for server in replicas)


def test_back_to_a_version_that_is_still_loaded_is_news(team: Registry, folder: Path, replicas: list[AdapterServer]):
    team.push(NEWS, "team/news")
    for ref in ("team/news:v1", "team/news:v2", "team/news:v1"):
        team.tag(ref, "prod")
        report = team.sync("team/news:prod", folder, options(*replicas))
        assert [adapter.ref for adapter in report.updated] == [ref]


def test_until_every_replica_has_it_a_version_is_not_done_and_the_old_one_stays(
    team: Registry, folder: Path, replicas: list[AdapterServer]
):
    team.sync("team/*:prod", folder, options(*replicas, keep=0))
    old = pinned(team, "team/news:prod")
    replicas[1].max_rank = 4  # as one that was started again with another --max-lora-rank
    team.push(NEWS, "team/news", aliases=["prod"])
    report = team.sync("team/*:prod", folder, options(*replicas, keep=0))
    assert amiss(report) == {(SyncProblemKind.REFUSED, "team/news")}
    assert f"{replicas[1].url.replace('=', ' at ')} refuses it: LoRA rank" in report.problems[0].reason
    assert [adapter.name for adapter in report.adapters] == ["team/topics"]
    assert all(old in server.loaded and Path(server.loaded[old]).is_dir() for server in replicas)
    replicas[1].max_rank = 64
    report = team.sync("team/*:prod", folder, options(*replicas, keep=0))
    assert [adapter.name for adapter in report.updated] == ["team/news"]
    assert all(old not in server.loaded for server in replicas)


def test_a_replica_that_does_not_answer_keeps_all_from_being_done(
    team: Registry, folder: Path, replicas: list[AdapterServer]
):
    gone = AdapterServer("vllm")
    with serving(gone):
        team.sync("team/*:prod", folder, options(*replicas, gone, keep=0))
    old = pinned(team, "team/news:prod")
    team.push(NEWS, "team/news", aliases=["prod"])
    report = team.sync("team/*:prod", folder, options(*replicas, gone, keep=0))
    assert amiss(report) == {(SyncProblemKind.SERVER, gone.url.replace("=", " at "))}
    assert report.adapters == ()
    assert all({old, pinned(team, "team/news:prod")} <= server.loaded.keys() for server in replicas)
    assert Path(gone.loaded[old]).is_dir()  # it may read it
    gone.loaded.clear()
    with serving(gone):
        report = team.sync("team/*:prod", folder, options(*replicas, gone, keep=0))
    assert {adapter.name for adapter in report.updated} == {"team/news", "team/topics"}
    assert len({frozenset(server.loaded.items()) for server in (*replicas, gone)}) == 1


def test_what_is_not_selected_any_more_is_unloaded_and_its_files_stay_for_requests_under_way(
    team: Registry, folder: Path, replicas: list[AdapterServer]
):
    team.sync("team/*:prod", folder, options(*replicas, keep=0))
    path = Path(replicas[0].loaded[pinned(team, "team/topics:prod")])
    os.utime(path, (1, 1))  # long ago
    team.untag("team/topics", "prod")
    report = team.sync("team/*:prod", folder, options(*replicas, keep=0))
    assert report.removed == ("team/topics",)
    assert all([*server.loaded] == [pinned(team, "team/news:prod")] for server in replicas)
    assert path.is_dir()
    os.utime(path, (1, 1))  # long ago
    team.sync("team/*:prod", folder, options(*replicas, keep=0))
    assert not path.exists()


def test_while_a_replica_is_away_nothing_that_it_may_have_loaded_is_removed(
    team: Registry, folder: Path, replicas: list[AdapterServer]
):
    gone = AdapterServer("vllm")
    with serving(gone):
        team.sync("team/*:prod", folder, options(*replicas, gone, keep=0))
    path = Path(gone.loaded[pinned(team, "team/topics:prod")])
    team.untag("team/topics", "prod")
    for _ in range(2):
        team.sync("team/*:prod", folder, options(*replicas, gone, keep=0))
        os.utime(path, (1, 1))  # long after the others have unloaded it
    assert path.is_dir()
    with serving(gone):
        team.sync("team/*:prod", folder, options(*replicas, gone, keep=0))
        os.utime(path, (1, 1))
        team.sync("team/*:prod", folder, options(*replicas, gone, keep=0))
    assert not path.exists()


def test_what_a_server_has_loaded_is_never_removed(team: Registry, folder: Path, replicas: list[AdapterServer]):
    team.sync("team/news:prod", folder, options(*replicas, keep=0))
    path = Path(replicas[0].loaded[pinned(team, "team/news:prod")])
    replicas[0].loaded["by hand"] = str(path)
    team.push(NEWS, "team/news", aliases=["prod"])
    os.utime(path, (1, 1))
    team.sync("team/news:prod", folder, options(replicas[1], keep=0))  # the other one is left out
    os.utime(path, (1, 1))
    team.sync("team/news:prod", folder, options(*replicas, keep=0))
    assert path.is_dir()


def test_what_others_have_loaded_stays(team: Registry, folder: Path, replicas: list[AdapterServer], tmp_path: Path):
    theirs = {"sql": "/models/sql", "team/news@0123456789ab": str(tmp_path / "other/.loreg/versions/x")}
    replicas[0].loaded |= theirs
    team.sync("team/*:prod", folder, options(*replicas))
    team.untag("team/topics", "prod")
    team.sync("team/*:prod", folder, options(*replicas))
    assert theirs.items() <= replicas[0].loaded.items()
    taken = pinned(team, "team/news:prod")
    replicas[1].loaded[taken] = "/elsewhere"
    report = team.sync("team/*:prod", folder, options(*replicas))
    assert amiss(report) == {(SyncProblemKind.REFUSED, "team/news")}
    assert "from /elsewhere" in report.problems[0].reason
    assert replicas[1].loaded[taken] == "/elsewhere"


def test_a_version_that_its_profile_refuses_reaches_no_server(
    team: Registry, folder: Path, replicas: list[AdapterServer]
):
    team.sync("team/news:prod", folder, options(*replicas))
    good = pinned(team, "team/news:prod")
    team.push(DORA, "team/news", aliases=["prod"])
    report = team.sync("team/news:prod", folder, options(*replicas))
    assert amiss(report) == {(SyncProblemKind.REFUSED, "team/news")}
    assert "DoRA" in report.problems[0].reason
    assert all([*server.loaded] == [good] for server in replicas)


def test_with_another_profile_a_version_is_loaded_anew_and_never_in_place(
    team: Registry, folder: Path, replicas: list[AdapterServer]
):
    team.sync("team/news:prod", folder, options(*replicas))
    name = pinned(team, "team/news:prod")
    before = replicas[0].loaded[name]
    servers = tuple(server.url for server in replicas)
    report = team.sync("team/news:prod", folder, SyncOptions("vllm:max_lora_rank=8", servers=servers))
    assert [adapter.ref for adapter in report.updated] == ["team/news:v1"]
    assert all(server.loaded[name] != before for server in replicas)
    assert ("/v1/unload_lora_adapter", name) in replicas[0].asked


def test_servers_may_see_the_folder_elsewhere(team: Registry, folder: Path, tmp_path: Path):
    (tmp_path / "mounted").symlink_to(folder)
    server = AdapterServer("vllm")
    with serving(server):
        report = team.sync("team/news:prod", folder, SyncOptions("vllm", servers=(server.url,), server_path="/nowhere"))
        assert "No adapter found for /nowhere" in report.problems[0].reason
        assert "--server-path" in report.problems[0].hint
        path = str(tmp_path / "mounted")
        report = team.sync("team/news:prod", folder, SyncOptions("vllm", servers=(server.url,), server_path=path))
    assert report.is_complete
    assert all(loaded.startswith(f"{path}/") for loaded in server.loaded.values())


def test_sglang_drops_what_it_has_no_room_for_and_that_is_told(team: Registry, folder: Path):
    server = AdapterServer("sglang")
    with serving(server):
        report = team.sync("team/*:prod", folder, options(server))
        assert report.is_complete
        assert server.loaded.keys() == {pinned(team, "team/news:prod"), pinned(team, "team/topics:prod")}
        server.room = 1
        team.push(HISTORY, "team/news", aliases=["prod"])
        report = team.sync("team/*:prod", folder, options(server))
    assert {kind for kind, _ in amiss(report)} == {SyncProblemKind.SERVER}
    assert "--max-loaded-loras" in report.problems[0].hint


def test_sglang_says_why_it_refuses(team: Registry, folder: Path):
    server = AdapterServer("sglang", max_rank=1)
    with serving(server):
        report = team.sync("team/news:prod", folder, options(server))
    assert "incompatible with the current memory pool" in report.problems[0].reason


def test_lorax_is_asked_for_a_token_with_each_version(team: Registry, folder: Path):
    server = AdapterServer("lorax")
    with serving(server):
        report = team.sync("team/*:prod", folder, options(server))
        assert report.is_complete
        assert {adapter.served_name for adapter in report.updated} == server.loaded.keys()
        assert all(Path(adapter.served_name) == adapter.path for adapter in report.updated)
        nowhere = SyncOptions("lorax", servers=(server.url,), server_path="/nowhere")
        assert "No safetensors weights" in team.sync("team/*:prod", folder, nowhere).problems[0].reason


def test_a_server_that_wants_a_key_gets_the_one_of_the_settings(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    server = AdapterServer("vllm", key="secret")
    with serving(server):
        with connect(home=tmp_path / "home") as registry:
            registry.push(SCIENCE, "team/news", aliases=["prod"])
            report = registry.sync("team/news:prod", folder, options(server))
            assert "wants another key" in report.problems[0].reason
            assert "LOREG_SERVER_KEY" in report.problems[0].hint
        monkeypatch.setenv("LOREG_SERVER_KEY", "secret")
        with connect(home=tmp_path / "home") as registry:
            assert "secret" not in repr(registry.settings)
            assert registry.sync("team/news:prod", folder, options(server)).is_complete


def test_a_server_that_loads_nothing_while_it_runs_says_what_to_start_it_with(team: Registry, folder: Path):
    server = AdapterServer("vllm", loads=False)
    with serving(server):
        report = team.sync("team/news:prod", folder, options(server))
    assert amiss(report) == {(SyncProblemKind.SERVER, server.url.replace("=", " at "))}
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1" in report.problems[0].hint


def test_a_proxy_without_a_server_behind_it_is_no_refusal(team: Registry, folder: Path):
    server = AdapterServer("vllm")
    with serving(server):
        server.status = 503
        report = team.sync("team/news:prod", folder, options(server))
    assert {kind for kind, _ in amiss(report)} == {SyncProblemKind.SERVER}
    assert "503: the proxy has no upstream" in report.problems[0].reason


@pytest.mark.parametrize(
    "servers, profile, reason",
    [
        (["vllm=127.0.0.1:8000"], "vllm", "is no server"),
        (["tgi=http://127.0.0.1:8000"], "vllm", "is no server"),
        (["vllm=http://a:1", "sglang=http://b:1"], "vllm", "two kinds"),
        (["vllm=http://a:1", "vllm=http://a:1/"], "vllm", "named twice"),
        (["vllm=http://a:1"], None, "needs the profile"),
        (["vllm=http://a:1"], "sglang", "not for vllm"),
    ],
)
def test_what_is_wrong_from_the_start_makes_nothing(
    team: Registry, folder: Path, servers: list[str], profile: str | None, reason: str
):
    with pytest.raises(UsageError, match=reason):
        team.sync("team/*:prod", folder, SyncOptions(profile, servers=tuple(servers)))
    assert not folder.exists()
    with pytest.raises(UsageError, match="no folder"):
        team.sync("team/*:prod")


def test_the_registry_knows_what_each_replica_has(team: Registry, folder: Path, replicas: list[AdapterServer]):
    team.sync("team/*:prod", folder, options(*replicas))
    places = team.deployments("team/*")
    assert {(place.kind, place.replica, place.name, place.ref) for place in places} == {
        ("vllm", f"127.0.0.1:{server.port}", pinned(team, ref), ref.replace("prod", "v1"))
        for server in replicas
        for ref in ("team/news:prod", "team/topics:prod")
    }
    team.push(NEWS, "team/news", aliases=["prod"])
    assert {place.drift for place in team.deployments("team/news")} != {""}


@contextlib.contextmanager
def following(
    registry: Registry, folder: Path, replicas: Sequence[AdapterServer]
) -> Iterator[list[SyncReport | LoregError]]:
    """What a follower tells, in a thread that has told its first."""
    seen: list[SyncReport | LoregError] = []
    ends = threading.Event()
    reports = registry.follow("team/*:prod", folder, options(*replicas))
    seen.append(next(reports))

    def run() -> None:
        for report in reports:
            seen.append(report)
            if ends.is_set():
                return

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield seen
    ends.set()
    for server in replicas:
        server.status = 503  # which is news
    thread.join()


def test_a_follower_loads_what_changes_and_what_a_server_has_lost(
    team: Registry, folder: Path, replicas: list[AdapterServer], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("loreg.verbs.sync._LOOK", 0.1)
    with following(team, folder, replicas):
        team.push(NEWS, "team/news", aliases=["prod"])
        name = pinned(team, "team/news:prod")
        eventually(lambda: all(name in server.loaded for server in replicas))
        replicas[0].loaded.clear()  # it was started again
        eventually(lambda: name in replicas[0].loaded)


def test_in_an_outage_of_the_registry_a_server_that_starts_again_gets_what_it_had(
    postgres_and_s3: Deployment, folder: Path, replicas: list[AdapterServer], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("loreg.verbs.sync._LOOK", 0.1)
    monkeypatch.setattr("loreg.verbs.sync._MAX_PAUSE", 0.2)
    with connect(**postgres_and_s3.settings) as behind:
        behind.push(SCIENCE, "team/news", aliases=["prod"])
        name = pinned(behind, "team/news:prod")
        with contextlib.ExitStack() as stack:
            with live_server(postgres_and_s3) as endpoint:
                seen = stack.enter_context(following(connect(endpoint=endpoint), folder, replicas))
            eventually(lambda: any(isinstance(report, LoregError) for report in seen))
            replicas[0].loaded.clear()
            eventually(lambda: name in replicas[0].loaded)


def test_killed_at_any_request_the_next_round_does_the_rest(tmp_path: Path, folder: Path):
    """Before each request, and after each change but before its answer."""
    servers = [AdapterServer("vllm"), AdapterServer("vllm")]
    with connect(home=tmp_path / "home") as registry, serving(*servers):
        registry.push(SCIENCE, "team/news", aliases=["prod"])
        registry.push(HISTORY, "team/news")
        command = [str(Path(sys.executable).with_name("loreg")), "--home", str(registry.settings.home), "sync"]
        command += ["team/news:prod", str(folder), "--profile", "vllm", "--keep", "0"]
        command += [word for server in servers for word in ("--server", server.url)]
        registry.sync("team/news:prod", folder, options(*servers, keep=0))
        count, current = 1, "v1"
        while True:
            before = pinned(registry, f"team/news:{current}")
            current = "v2" if current == "v1" else "v1"
            registry.tag(f"team/news:{current}", "prod")
            name = pinned(registry, f"team/news:{current}")
            killed = run_until_request(command, servers, count)
            assert all(
                before in server.loaded or all(name in other.loaded for other in servers) for server in servers
            ), count
            loaded = [dict(server.loaded) for server in servers]  # a request of the one that was killed may go on
            assert all(Path(path).is_dir() for paths in loaded for path in paths.values()), count
            report = registry.sync("team/news:prod", folder, SyncOptions("vllm", 0, servers=urls(servers)))
            assert report.is_complete, count
            assert all([*server.loaded] == [name] for server in servers), count
            if not killed:
                break
            count += 1
    assert count > 8  # to list, to load, to list again, and to unload, of each of them


def urls(servers: Sequence[AdapterServer]) -> tuple[str, ...]:
    return tuple(server.url for server in servers)


def run_until_request(command: list[str], servers: Sequence[AdapterServer], count: int) -> bool:
    """Run the command, and kill it at the ``count``-th request to one of the servers; whether it came to that."""
    left, lock, process = count, threading.Lock(), subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def kill() -> None:
        nonlocal left
        with lock:
            left -= 1
            if left == 0:
                process.kill()
                process.wait()

    for server in servers:
        server.on_request = kill
    process.wait()
    for server in servers:
        server.on_request = lambda: None
    return left <= 0


def test_the_command_line_loads_without_a_folder(loreg: Loreg, tmp_path: Path):
    loreg("push", SCIENCE, "team/news", "--alias", "prod")
    servers = [AdapterServer("vllm"), AdapterServer("vllm")]
    with serving(*servers):
        arguments = ["--profile", "vllm:max_lora_rank=64", "--server", servers[0].url, "--server", servers[1].url]
        done = loreg("sync", "team/*:prod", *arguments)
        assert done.exit_code == 0, done.stderr
        name = next(iter(servers[1].loaded))
        assert done.stdout.endswith(f" as {name}\n")
        document = json.loads(loreg("sync", "team/*:prod", *arguments, "--format", "json").stdout)
        assert [adapter["served_name"] for adapter in document["unchanged"]] == [name]
        elsewhere = loreg("sync", "team/*:prod", tmp_path / "here", *arguments)
        assert elsewhere.exit_code == 5
        assert "unload it there" in elsewhere.stderr
    away = loreg("sync", "team/*:prod", *arguments)
    assert away.exit_code == 1
    assert "server: vllm at http://127.0.0.1" in away.stderr
    assert loreg("sync", "team/*:prod", "--server", "vllm=http://a:1").exit_code == 2
    assert loreg("sync").exit_code == 2
