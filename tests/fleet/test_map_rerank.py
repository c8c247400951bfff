"""Many versions at another rank by a map: to the bit those of ``loreg rerank``, with lineage, each of them once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from deployments import Deployment, Loreg
from factories import train, write_base
from fleet.conftest import ALPHAS
from loreg import Registry, connect
from loreg.entities import MapChunk, MapOptions, MapRun, MapSelection, Query
from loreg.errors import UsageError
from loreg.fleet.chunk import ChunkTask
from loreg.fleet.worker_store import StorePlace
from loreg.probes.probe import find_probe
from server.conftest import Guarded
from server.test_upkeep_jobs import submit, work

SMALL = "{namespace}/{name}-r2"
OPTIONS = MapOptions(rank=2, name=SMALL)


@pytest.fixture
def several(local_deployment: Deployment, adapters: dict[int, Path], tmp_path: Path) -> Iterator[Registry]:
    """Two adapters, one with a base, a task, a label and a metric; and one of no namespace."""
    with connect(**local_deployment.settings) as registry:
        base = str(write_base(tmp_path / "base"))
        registry.push(
            adapters[8], "team/a8", base=base, tasks=["qa"], labels={"stage": "trial"}, metrics=["accuracy=0.9"]
        )
        registry.push(adapters[9], "team/a9")
        registry.push(train(tmp_path / "wide", 1, r=16), "wide")
        yield registry


def pushes(registry: Registry) -> int:
    return sum(event.action == "push" for event in registry.events(limit=1000).items)


def test_they_are_to_the_bit_what_the_command_for_one_makes(several: Registry):
    report = several.map("rerank", rank=2, name=SMALL, processes=2)
    assert (report.recorded, report.failed) == (3, ())
    for name in ("team/a8", "team/a9", "wide"):
        made = several.show(f"{name}-r2")
        alone = several.rerank(name, 2, name=f"alone/{made.version.adapter.name}").pushed
        assert alone is not None
        assert made.version.digest == alone.version.digest
        assert made.provenance == several.show(alone.version.ref).provenance
        assert made.version.base == several.show(name).version.base
        assert [edge.parent for edge in several.lineage(f"{name}-r2")[1]] == [
            edge.parent for edge in several.lineage(alone.version.ref)[1]
        ]
    assert several.verify(read_data=True).ok


def test_tasks_and_labels_are_carried_over_and_no_metric(several: Registry):
    several.map("rerank", "team/a8", rank=2, name=SMALL, processes=1)
    made = several.show("team/a8-r2").version
    assert (made.tasks, dict(made.labels), made.metrics) == (("qa",), {"stage": "trial"}, ())
    (fact,) = [facts for facts in several.facts("team/a8") if facts.probe == f"rerank 2 {SMALL}"]
    assert fact.value.keys() == {"epsilon"}
    assert 0 < fact.value["epsilon"] < 1


def test_what_is_made_of_what_only_the_lineage_says(several: Registry):
    """To those who may read both; facts are shown to whoever may read one."""
    several.map("rerank", "team/a8", rank=2, name="small/{namespace}-{name}", processes=1)
    shown = {name: json.dumps([facts.value for facts in several.facts(name)]) for name in ("team/a8", "small/team-a8")}
    assert "small" not in shown["team/a8"]
    assert "a8" not in shown["small/team-a8"]


def test_what_was_made_is_known_and_nothing_is_made_of_it(several: Registry):
    assert several.map("rerank", rank=2, name=SMALL, processes=1).recorded == 3
    assert several.map("rerank", rank=2, name=SMALL, processes=1).run.versions == 0
    before = pushes(several)
    assert several.map("rerank", "team/a8", rank=2, name=SMALL, again=True, processes=1).recorded == 1
    assert pushes(several) == before  # the content is there, and a version of it
    assert several.map("rerank", "team/a8", rank=3, name=SMALL, processes=1).recorded == 1
    assert [version.number for version in several.versions("team/a8-r2").items] == [2, 1]


def test_two_adapters_do_not_get_one_name(several: Registry, adapters: dict[int, Path], database: Engine):
    template = "small/{namespace}-{name}"
    for alpha, name in ((10, "team/a-b"), (11, "team-a/b")):
        several.push(adapters[alpha], name)
    with pytest.raises(UsageError, match=r"of team/a-b and of team-a/b would both be called small/team-a-b") as refused:
        several.map("rerank", "team*/*", rank=2, name=template, processes=1)
    assert "--name" in refused.value.hint
    with database.begin() as connection:
        assert connection.execute(text("SELECT count(*) FROM map_runs")).scalar() == 0
    assert several.map("rerank", "team/*", rank=2, name=template, processes=1).recorded == 3
    assert several.map("rerank", ["team/a-b", "team-a/b"], rank=2, name=SMALL, processes=1).recorded == 2


@pytest.mark.parametrize("selection", ["*", Query(namespace="team")])
def test_nothing_is_ever_made_of_what_it_made(several: Registry, selection: str | Query):
    several.map("rerank", "*", rank=2, name=SMALL, processes=1)
    report = several.map("rerank", selection, rank=2, name=SMALL, again=True, processes=1)
    assert report.recorded == (3 if selection == "*" else 2)
    assert {entry.adapter.name for entry in several.adapters().items} == {
        *("a8", "a9", "wide"),
        *("a8-r2", "a9-r2", "wide-r2"),
    }


def test_what_another_made_is_an_adapter_like_others(several: Registry):
    several.map("rerank", "team/a8", rank=4, name="{namespace}/{name}-r4", processes=1)
    assert several.map("rerank", "team/a8-r4", rank=2, name=SMALL, again=True, processes=1).recorded == 1
    assert several.show("team/a8-r4-r2").version.number == 1


def test_of_what_was_yanked_nothing_new_is_made_unless_it_is_named(several: Registry):
    several.yank("team/a9:v1")
    for selector in ("team/*", "team/a9"):
        several.map("rerank", selector, rank=2, name=SMALL, processes=1)
    assert {version.ref for version in several.search(namespace="team").items} == {"team/a8:v1", "team/a8-r2:v1"}
    assert several.map("rerank", "team/a9:v1", rank=2, name=SMALL, processes=1).recorded == 1
    assert several.map("spectra", "team/a9", processes=1).recorded == 1  # who only reads it, reads all


def test_of_what_is_yanked_after_a_worker_has_it_nothing_new_is_recorded(several: Registry):
    chunk, task = claim(several)
    answer = task.run()
    several.yank("team/a9:v1")
    recorded = several.context.backend.upkeep().maps().finish(chunk, answer.facts, answer.made)
    assert len(recorded or ()) == 2
    assert {entry.adapter.name for entry in several.adapters().items} == {"a8", "a8-r2", "a9", "wide", "wide-r2"}


def claim(registry: Registry) -> tuple[MapChunk, ChunkTask]:
    """Begin a run, and return its only chunk, and that as a worker gets it."""
    probe, maps = find_probe("rerank", OPTIONS), registry.context.backend.upkeep().maps()
    run = maps.begin(MapRun(probe.name, probe.release, MapSelection(("*",)), False, OPTIONS), reads_weights=True)
    (chunk,) = maps.claim(run, 1)
    settings = registry.settings
    store = StorePlace(settings.storage_url, settings.storage_endpoint, elsewhere=False)
    return chunk, ChunkTask(chunk, "rerank", probe.release, store, OPTIONS)


def test_a_chunk_that_is_done_twice_is_recorded_once(several: Registry):
    chunk, task = claim(several)
    first, second = task.run(), task.run()
    assert first == second
    maps, before = several.context.backend.upkeep().maps(), pushes(several)
    assert len(maps.finish(chunk, first.facts, first.made) or ()) == 3
    assert maps.finish(chunk, second.facts, second.made) is None
    assert pushes(several) == before + 3


def test_what_a_collection_takes_before_it_is_recorded_is_made_again(
    several: Registry, monkeypatch: pytest.MonkeyPatch
):
    import loreg.local.maps

    finish, collected = loreg.local.maps.LocalMaps.finish, list[int]()

    def collect_first(*arguments: object) -> int | None:
        if not collected:
            collected.append(several.gc(grace="0h").removed)
        return finish(*arguments)

    monkeypatch.setattr("loreg.local.maps.LocalMaps.finish", collect_first)
    report = several.map("rerank", rank=2, name=SMALL, processes=1)
    assert all(collected)
    assert (report.recorded, report.failed, report.retries) == (3, (), 1)
    assert several.verify(read_data=True).ok


def test_one_that_is_refused_is_named_and_the_others_are_recorded(several: Registry, tmp_path: Path):
    """One was deleted for good, one cannot be re-ranked alone, one gets a name that is too long."""
    several.map("rerank", "wide", rank=2, name=SMALL, processes=1)
    several.delete("wide-r2", "private")
    several.push(train(tmp_path / "dora", 3, use_dora=True), "team/dora")
    several.push(train(tmp_path / "long", 4), f"team/{'n' * 95}")
    report = several.map(
        "rerank", ["wide", "team/dora", "team/nnn*", "team/a8"], rank=2, name=SMALL, again=True, processes=1
    )
    reasons = dict(report.failed)
    assert reasons.keys() == {"wide:v1", "team/dora:v1", f"team/{'n' * 95}:v1"}
    assert "deleted" in reasons["wide:v1"]
    assert "invalid adapter name" in reasons[f"team/{'n' * 95}:v1"]
    assert several.show("team/a8-r2").version.number == 1
    assert next(facts for facts in several.facts("wide") if facts.probe.startswith("rerank")).error


def test_a_worker_makes_them_behind_a_server(guarded_folder: Guarded, adapters: dict[int, Path]):
    for alpha in ALPHAS:
        guarded_folder.behind.push(adapters[alpha], f"team/a{alpha}")
    job = submit(guarded_folder, "map", probe="rerank", rank=2, name=SMALL, selectors=["team/a*"])
    work(guarded_folder)
    assert guarded_folder.behind.jobs.show(job.id).result["recorded"] == len(ALPHAS)
    assert guarded_folder.behind.show("team/a9-r2").version.author == "root"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, "rank to bring adapters to is not named"),
        ({"rank": 0, "name": SMALL}, "rank to bring adapters to is not named"),
        ({"rank": 2}, "no names of their own"),
        ({"rank": 2, "name": "team/small"}, "no names of their own"),
        ({"rank": 2, "name": "{name}" * 20}, "no names of their own"),
        ({"rank": 2, "name": "small/{name}"}, "no names of their own"),
        ({"rank": 2, "name": "{namespace}/{name}{rank}"}, "invalid adapter name"),
        ({"rank": 2, "name": SMALL, "profile": "vllm"}, "for no server"),
    ],
)
def test_a_rank_and_a_name_for_each_are_needed(several: Registry, options: dict[str, object], reason: str):
    with pytest.raises(UsageError, match=reason):
        several.map("rerank", **options)


def test_other_probes_take_no_rank(several: Registry, database: Engine):
    for probe in ("spectra", "export"):
        with pytest.raises(UsageError):
            several.map(probe, rank=2, profile="vllm" if probe == "export" else "")
    with database.begin() as connection:
        assert connection.execute(text("SELECT count(*) FROM map_runs")).scalar() == 0


def test_the_command_makes_them(local: Loreg, adapters: dict[int, Path]):
    local("push", str(adapters[8]), "team/a8")
    outcome = local("map", "rerank", "team/*", "--rank", "2", "--name", SMALL)
    assert "1 of 1 versions" in outcome.stdout
    assert "team/a8-r2:v1" in local("ls", "team/a8-r2").stdout or local("show", "team/a8-r2").exit_code == 0
