"""A followed folder is what its selection means: whole, verified, never older, and nothing else is touched."""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from concurrency import eventually
from deployments import DORA, HISTORY, MOVIES, NEWS, SCIENCE, Deployment, Loreg
from faults.followed import look_at_followed
from live_server import live_server
from loreg.entities import DeploymentReport, Query, SyncOptions, SyncProblemKind, SyncReport
from loreg.errors import (
    ConflictError,
    IntegrityError,
    LoregError,
    NotFoundError,
    UnavailableError,
    UnderWayError,
    UsageError,
)
from loreg.live.folder import open_followed
from loreg.manifest import File
from loreg.registry import Registry, connect
from loreg.workspace.context import Context
from loreg.workspace.download import download_files


def shown(folder: Path) -> dict[str, str]:
    """The digest that each name shows; all that is shown is whole."""
    sentences, content = look_at_followed(folder)
    assert sentences == []
    return {name: digest for name, digest in content.items() if name != "stored"}


def stored(folder: Path) -> set[str]:
    return set(look_at_followed(folder)[1]["stored"])


def digest(registry: Registry, ref: str) -> str:
    return registry.show(ref).version.digest


@pytest.fixture
def team(registry: Registry) -> Registry:
    registry.push(SCIENCE, "team/news", aliases=["prod"])
    registry.push(HISTORY, "team/topics", aliases=["prod"], tasks=["qa"])
    registry.push(HISTORY, "team/draft")
    return registry


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "adapters"


def test_a_folder_shows_what_is_selected(team: Registry, folder: Path):
    report = team.sync("team/*:prod", folder)
    expected = {name: digest(team, name) for name in ("team/news", "team/topics")}
    assert shown(folder) == expected == {adapter.name: adapter.digest for adapter in report.updated}
    assert report.is_complete
    assert all((adapter.path / "adapter_config.json").exists() for adapter in report.updated)
    for name in expected:
        original = {path.name: path.read_bytes() for path in (SCIENCE if name == "team/news" else HISTORY).iterdir()}
        assert all(original[path.name] == path.read_bytes() for path in (folder / name).iterdir())


def test_on_a_full_disk_what_fits_is_shown_and_the_rest_follows_when_there_is_room(
    team: Registry, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    team.sync("team/news:prod", folder)
    team.push(HISTORY, "team/news", aliases=["prod"])
    download = download_files

    def fill_up(context: Context, files: Sequence[File], *rest: Any) -> int:
        if any(file.sha256 == weights.sha256 for file in files):
            raise OSError(errno.ENOSPC, "No space left on device", str(folder))
        return download(context, files, *rest)

    weights = next(file for file in team.show("team/news:v2").files if file.path == "adapter_model.safetensors")
    team.push(MOVIES, "team/small", aliases=["prod"])
    monkeypatch.setattr("loreg.verbs.pull.download_files", fill_up)
    report = team.sync("team/*:prod", folder)
    assert {(problem.kind, problem.name) for problem in report.problems} == {
        (SyncProblemKind.FAILED, "team/news"),
        (SyncProblemKind.FAILED, "team/topics"),  # the same content
    }
    assert all("No space left" in problem.reason and "make room" in problem.hint for problem in report.problems)
    assert shown(folder) == {name: digest(team, f"{name}:v1") for name in ("team/news", "team/small")}
    monkeypatch.undo()
    assert team.sync("team/*:prod", folder).problems == ()


def test_again_nothing_is_new(team: Registry, folder: Path):
    team.sync("team/*:prod", folder)
    before = {path: path.lstat().st_mtime_ns for path in folder.rglob("*") if not path.is_dir()}
    report = team.sync("team/*:prod", folder)
    assert (report.updated, len(report.unchanged)) == ((), 2)
    assert {path: path.lstat().st_mtime_ns for path in folder.rglob("*") if not path.is_dir()} == before


def test_a_moved_alias_shows_the_next_version_and_keeps_the_last_ones(team: Registry, folder: Path):
    options, digests = SyncOptions(keep=1), []
    for source in (SCIENCE, HISTORY, NEWS, MOVIES):
        team.push(source, "team/news", aliases=["prod"])
        report = team.sync("team/news:prod", folder, options)
        digests.append(digest(team, "team/news:prod"))
        assert shown(folder) == {"team/news": digests[-1]}
        assert stored(folder) == set(digests[-2:])
    assert (report.updated[0].ref, report.updated[0].previous) == ("team/news:v4", "team/news:v3")
    team.tag("team/news:v1", "prod")  # back: a later move, and so not older
    assert team.sync("team/news:prod", folder, options).updated[0].ref == "team/news:v1"


def test_what_is_not_selected_any_more_goes(team: Registry, folder: Path):
    team.push(NEWS, "other/news", aliases=["prod"])
    team.sync(["*:prod", "team/draft"], folder)
    team.untag("other/news", "prod")
    team.yank("team/topics:v1")
    (folder / "notes.txt").write_text("mine")
    report = team.sync("*:prod", folder)
    assert sorted(report.removed) == ["other/news", "team/draft", "team/topics"]
    assert sorted(path.name for path in folder.iterdir()) == [".loreg", "notes.txt", "team"]
    assert list(shown(folder)) == ["team/news"]


def test_a_search_says_what_is_selected(team: Registry, folder: Path):
    team.sync(Query(tasks=("qa",)), folder)
    assert list(shown(folder)) == ["team/topics"]


def test_names_can_be_given_and_flat(team: Registry, folder: Path, tmp_path: Path):
    team.sync(["next=team/draft", "a/b=team/news:v1"], folder)
    assert shown(folder).keys() == {"next", "a/b"}
    team.sync(["next=team/draft", "a/b=team/news:v1"], tmp_path / "flat", SyncOptions(flat=True))
    assert shown(tmp_path / "flat").keys() == {"next", "a--b"}


def test_pinned_each_version_has_a_name_of_its_own_while_it_is_kept(team: Registry, folder: Path):
    options, names = SyncOptions(pinned=True, keep=1), []
    for source in (SCIENCE, HISTORY, NEWS):
        team.push(source, "team/news", aliases=["prod"])
        team.sync("team/news:prod", folder, options)
        names.append(f"team/news@{digest(team, 'team/news:prod')[:12]}")
        assert shown(folder).keys() == set(names[-2:])
    links = {path: path.lstat().st_ino for path in (folder / "team").iterdir()}
    team.sync("team/news:prod", folder, options)
    assert {path: path.lstat().st_ino for path in (folder / "team").iterdir()} == links
    team.sync("team/news:prod", folder)
    assert shown(folder).keys() == {"team/news"}


@pytest.mark.parametrize("what", ["file", "folder", "link"])
def test_what_others_put_there_stays_and_is_told(team: Registry, folder: Path, what: str):
    place = folder / "team" / "news"
    place.parent.mkdir(parents=True)
    {"file": place.touch, "folder": place.mkdir, "link": lambda: place.symlink_to(folder / "x")}[what]()
    report = team.sync("team/*:prod", folder)
    assert [(problem.kind, problem.name) for problem in report.problems] == [(SyncProblemKind.BLOCKED, "team/news")]
    assert [adapter.name for adapter in report.updated] == ["team/topics"]
    assert os.path.lexists(place)
    assert not (folder / ".loreg" / "versions" / digest(team, "team/news")).exists()


def test_a_copy_without_its_links_is_told(team: Registry, folder: Path, tmp_path: Path):
    team.sync("team/*:prod", folder)
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)  # it follows them
    report = team.sync("team/*:prod", copy)
    assert {problem.kind for problem in report.problems} == {SyncProblemKind.BLOCKED}
    assert (copy / "team" / "news" / "adapter_config.json").exists()
    shutil.rmtree(copy / "team")
    assert team.sync("team/*:prod", copy).is_complete
    assert shown(copy) == shown(folder)


def test_a_name_that_is_the_folder_of_others_is_told(team: Registry, folder: Path):
    team.push(NEWS, "team")
    report = team.sync(["team", "team/*:prod"], folder)
    assert [(problem.kind, problem.name) for problem in report.problems] == [(SyncProblemKind.BLOCKED, "team")]
    assert shown(folder).keys() == {"team/news", "team/topics"}
    team.sync("team", folder)  # and the other way round: in the first round the others make room
    team.sync("team", folder)
    assert shown(folder).keys() == {"team"}
    team.sync(["x/team=team", "team/*:prod"], folder)
    team.sync(["x/team=team", "team/*:prod"], folder)
    assert shown(folder).keys() == {"team/news", "team/topics", "x/team"}


def test_two_names_of_one_link_are_told(team: Registry, folder: Path):
    report = team.sync(["team--news=team/draft", "team/news:prod"], folder, SyncOptions(flat=True))
    assert [problem.reason.split(" is ")[-1] for problem in report.problems] == ["team--news already"]
    assert shown(folder) == {"team--news": digest(team, "team/draft")}


def test_what_means_nothing_is_told_and_the_rest_is_done(team: Registry, folder: Path):
    report = team.sync(["team/news:prod", "team/none:prod"], folder)
    assert [(problem.kind, problem.name) for problem in report.problems] == [
        (SyncProblemKind.MISSING, "team/none:prod")
    ]
    assert shown(folder).keys() == {"team/news"}


def test_a_version_that_the_server_would_not_take_never_replaces_one_that_it_takes(team: Registry, folder: Path):
    options = SyncOptions(profile="vllm:max_lora_rank=64")
    report = team.sync("team/news:prod", folder, options)
    assert report.is_complete
    before = (folder / "team" / "news").resolve()
    team.push(DORA, "team/news", aliases=["prod"])
    report = team.sync("team/news:prod", folder, options)
    assert [(problem.kind, problem.ref) for problem in report.problems] == [(SyncProblemKind.REFUSED, "team/news:v2")]
    assert "DoRA" in report.problems[0].reason
    assert (folder / "team" / "news").resolve() == before
    assert (before / "adapter_model.safetensors").exists()


def test_for_a_server_the_files_are_as_it_takes_them(team: Registry, folder: Path, tmp_path: Path):
    team.sync("team/news:prod", folder, SyncOptions(profile="vllm:max_lora_rank=8"))
    team.pull("team/news:prod", tmp_path / "pulled", profile="vllm:max_lora_rank=8")
    files = {path.name: path.read_bytes() for path in (tmp_path / "pulled").iterdir()}
    assert {path.name: path.read_bytes() for path in (folder / "team" / "news").iterdir()} == files


def test_a_file_that_was_damaged_is_brought_anew_under_another_folder(team: Registry, folder: Path):
    team.sync("team/news:prod", folder)
    weights = folder / "team" / "news" / "adapter_model.safetensors"
    damaged = weights.resolve()
    content = damaged.read_bytes()
    damaged.unlink()
    damaged.write_bytes(content[:-1] + b"?")
    report = team.sync("team/news:prod", folder)
    assert [adapter.ref for adapter in report.updated] == ["team/news:v1"]
    assert weights.read_bytes() == content
    assert len(list((folder / ".loreg" / "versions").iterdir())) == 1 + 1  # it was shown before, and counts as that
    shutil.rmtree(weights.resolve().parent)
    team.sync("team/news:prod", folder, SyncOptions(keep=0))
    assert weights.read_bytes() == content


def test_the_folder_of_another_registry_is_refused(team: Registry, folder: Path, tmp_path: Path):
    team.sync("team/*:prod", folder)
    before = shown(folder)
    with connect(home=tmp_path / "other") as other:
        other.push(NEWS, "team/news", aliases=["prod"])
        with pytest.raises(ConflictError, match="another registry"):
            other.sync("team/*:prod", folder)
    assert shown(folder) == before


def test_an_answer_that_is_older_changes_nothing(tmp_path: Path, folder: Path):
    with connect(home=tmp_path / "home") as registry:
        registry.push(SCIENCE, "team/news", aliases=["prod"])
    shutil.copytree(tmp_path / "home", tmp_path / "backup")
    with connect(home=tmp_path / "home") as registry:
        registry.push(HISTORY, "team/news", aliases=["prod"])
        registry.sync(["team/news:prod", "newest=team/news"], folder)
        newest = digest(registry, "team/news:v2")
    with connect(home=tmp_path / "backup") as restored:
        report = restored.sync(["team/news:prod", "newest=team/news"], folder)
        assert {problem.kind for problem in report.problems} == {SyncProblemKind.OLDER}
        assert shown(folder) == {"team/news": newest, "newest": newest}
        assert restored.sync("team/news:prod", folder, SyncOptions(accept_older=True)).is_complete
        assert shown(folder) == {"team/news": digest(restored, "team/news:v1")}


def test_what_is_recorded_is_shown_after_a_crash_without_asking_anybody(
    team: Registry, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    team.sync("team/news:prod", folder)
    team.push(HISTORY, "team/news", aliases=["prod"])

    def crash(link: Path, target: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("loreg.live.folder._replace_link", crash)
    with pytest.raises(KeyboardInterrupt):
        team.sync("team/news:prod", folder)
    assert shown(folder) == {"team/news": digest(team, "team/news:v1")}
    monkeypatch.undo()
    with open_followed(folder):
        assert shown(folder) == {"team/news": digest(team, "team/news:v2")}


def test_two_who_write_one_folder_are_told_apart(team: Registry, folder: Path):
    following = team.follow("team/*:prod", folder)
    next(following)
    with pytest.raises(UnderWayError, match="another loreg sync"):
        team.sync("team/*:prod", folder)
    following.close()
    assert team.sync("team/*:prod", folder).is_complete


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": "loreg.sync/2"}', '{"names": {"../x": {}}}'])
def test_a_record_that_is_damaged_is_told_with_what_helps(team: Registry, folder: Path, content: str):
    team.sync("team/*:prod", folder)
    record = folder / ".loreg" / "sync.json"
    record.write_text(content)
    with pytest.raises(IntegrityError, match="damaged") as caught:
        team.sync("team/*:prod", folder)
    assert caught.value.hint == f"rm {record}"
    record.unlink()
    assert team.sync("team/*:prod", folder).is_complete


def test_a_record_with_names_that_lead_elsewhere_is_refused(team: Registry, folder: Path):
    team.sync("team/*:prod", folder)
    record = folder / ".loreg" / "sync.json"
    document = json.loads(record.read_text())
    for changed in (
        {"../../x": document["names"]["team/news"]},
        {"team/news": {**document["names"]["team/news"], "folder": "../../../etc"}},
    ):
        record.write_text(json.dumps({**document, "names": changed}))
        with pytest.raises(IntegrityError, match="damaged"):
            team.sync("team/*:prod", folder)


def test_nothing_is_made_for_what_is_wrong_from_the_start(team: Registry, folder: Path):
    for selection, options in (
        ([], SyncOptions()),
        ("team/*:v1", SyncOptions()),
        ("team/*", SyncOptions(profile="nonsense")),
        ("team/*", SyncOptions(keep=-1)),
    ):
        with pytest.raises((UsageError, NotFoundError)):
            team.sync(selection, folder, options)
    assert not folder.exists()


def reports(following: Iterator[SyncReport | LoregError]) -> list[SyncReport | LoregError]:
    """What a follower tells, read by a thread until it is closed."""
    seen: list[SyncReport | LoregError] = []
    threading.Thread(target=lambda: seen.extend(iter(lambda: next(following), None)), daemon=True).start()
    return seen


def test_a_follower_shows_each_change(team: Registry, folder: Path):
    following = team.follow(["team/*:prod", "late=team/late"], folder)
    first = next(following)
    assert isinstance(first, SyncReport)
    assert [problem.kind for problem in first.problems] == [SyncProblemKind.MISSING]
    seen = reports(following)
    team.push(HISTORY, "team/news", aliases=["prod"])
    eventually(lambda: shown(folder)["team/news"] == digest(team, "team/news:v2"))
    team.push(NEWS, "team/late")
    eventually(lambda: "late" in shown(folder))
    team.untag("team/topics", "prod")
    eventually(lambda: "team/topics" not in shown(folder))
    eventually(lambda: len(seen) >= 3)
    assert all(isinstance(report, SyncReport) for report in seen)


def test_a_follower_shows_again_what_it_had_removed(team: Registry, folder: Path):
    team.push(HISTORY, "team/news")
    following = team.follow("team/news:prod", folder, SyncOptions(keep=0))
    next(following)
    for number in (2, 1, 2):
        team.tag(f"team/news:v{number}", "prod")
        next(following)
        assert shown(folder) == {"team/news": digest(team, f"team/news:v{number}")}
        assert stored(folder) == {digest(team, f"team/news:v{number}")}


def test_a_follower_brings_back_what_others_removed(team: Registry, folder: Path):
    following = team.follow("team/*:prod", folder)
    next(following)
    shutil.rmtree(folder / ".loreg" / "versions" / digest(team, "team/news"))
    team.push(MOVIES, "team/topics", aliases=["prod"])
    next(following)
    assert shown(folder) == {name: digest(team, f"{name}:prod") for name in ("team/news", "team/topics")}


def test_while_names_move_a_reader_finds_one_version_or_the_other(team: Registry, folder: Path):
    """It holds on to the folder that the name leads to, as a server does that is given the path by digest."""
    team.push(HISTORY, "team/news")
    team.sync("team/news:prod", folder)
    digests = {digest(team, f"team/news:v{number}") for number in (1, 2)}
    seen, stop, wrong = set[str](), threading.Event(), list[str]()

    def read() -> None:
        while not stop.is_set():
            real = (folder / "team" / "news").resolve(strict=True)
            names = sorted(path.name for path in real.iterdir())
            seen.add(real.name)
            if len(names) != len({*names}) or "adapter_model.safetensors" not in names:
                wrong.append(f"{real.name}: {names}")

    reader = threading.Thread(target=read)
    reader.start()
    for number in (2, 1, 2, 1, 2):
        team.tag(f"team/news:v{number}", "prod")
        team.sync("team/news:prod", folder)
    eventually(lambda: seen == digests)
    stop.set()
    reader.join()
    assert wrong == []


def test_a_follower_outlives_its_server(postgres_and_s3: Deployment, folder: Path):
    with connect(**postgres_and_s3.settings) as behind:
        behind.push(SCIENCE, "team/news", aliases=["prod"])
        with live_server(postgres_and_s3) as endpoint:
            port = int(endpoint.rsplit(":", 1)[1])
            follower = connect(endpoint=endpoint)
            following = follower.follow("team/*:prod", folder)
            assert isinstance(next(following), SyncReport)
            seen = reports(following)
        eventually(lambda: any(isinstance(report, UnavailableError) for report in seen))
        behind.push(HISTORY, "team/news", aliases=["prod"])
        assert shown(folder) == {"team/news": digest(behind, "team/news:v1")}
        with live_server(postgres_and_s3, port=port):
            eventually(lambda: shown(folder) == {"team/news": digest(behind, "team/news:v2")})
            behind.tag("team/news:v1", "prod")
            eventually(lambda: shown(folder) == {"team/news": digest(behind, "team/news:v1")})
    assert sum(isinstance(report, LoregError) for report in seen) == 1


def test_that_the_registry_cannot_be_told_loses_no_report(
    team: Registry, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    backend = team.context.backend
    report_deployment, failures = backend.report_deployment, [1, 1]

    def fail_at_first(report: DeploymentReport) -> None:
        if failures:
            failures.pop()
            raise UnavailableError("the server does not answer")
        report_deployment(report)

    monkeypatch.setattr(backend, "report_deployment", fail_at_first)
    following = team.follow("team/*:prod", folder)
    assert isinstance(next(following), SyncReport)
    team.push(HISTORY, "team/news", aliases=["prod"])
    report = next(following)
    assert isinstance(report, SyncReport)
    assert [adapter.ref for adapter in report.updated] == ["team/news:v2"]
    team.push(MOVIES, "team/news", aliases=["prod"])
    next(following)
    following.close()
    assert {(place.name, place.ref) for place in team.deployments()} == {
        ("team/news", "team/news:v3"),
        ("team/topics", "team/topics:v1"),
    }


def test_a_follower_whose_server_tells_of_nothing_asks_now_and_then(
    postgres_and_s3: Deployment, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_: object) -> None:
        raise UnavailableError("a proxy in between lets no stream through")

    monkeypatch.setattr("loreg.remote.event_stream.RemoteEventStream.read", refuse)
    with live_server(postgres_and_s3) as endpoint, connect(endpoint=endpoint) as follower:
        follower.push(SCIENCE, "team/news", aliases=["prod"])
        following = follower.follow("team/*:prod", folder)
        reports(following)
        eventually(lambda: shown(folder).keys() == {"team/news"})
        follower.push(HISTORY, "team/news", aliases=["prod"])
        eventually(lambda: shown(folder) == {"team/news": digest(follower, "team/news:v2")})


def test_the_command_line_says_what_is_new_and_what_is_amiss(loreg: Loreg, folder: Path):
    loreg("push", SCIENCE, "team/news", "--alias", "prod")
    first = loreg("sync", "team/*:prod", folder)
    assert (first.exit_code, first.stdout.split("@")[0]) == (0, "team/news  team/news:v1")
    assert first.stderr == f"{folder}: 1 adapter, 1 of them new\n"
    missing = loreg("sync", "team/*:prod", "team/none", folder)
    assert missing.exit_code == 3
    assert "missing: there is no adapter 'team/none'" in missing.stderr
    loreg("push", DORA, "team/news", "--alias", "prod")
    refused = loreg("sync", "team/*:prod", folder, "--profile", "vllm")
    assert refused.exit_code == 5
    assert "refused: team/news" in refused.stderr
    document = json.loads(loreg("sync", "team/*:prod", folder, "--format", "json").stdout)
    assert (document["updated"][0]["ref"], document["problems"]) == ("team/news:v2", [])
    assert loreg("sync", "team/*:prod", folder, "--format", "quiet").stdout == "team/news\n"
    assert loreg("sync", folder).exit_code == 2
    assert loreg("sync", "team/*:prod", folder, "--task", "qa").exit_code == 2
