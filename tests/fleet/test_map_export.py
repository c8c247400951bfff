"""Exports of many versions by a map: to the bit those of ``loreg export``, each recorded once, none lost to a gc."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, text

import loreg.local.maps
from deployments import Deployment
from factories import train, write_base
from fleet.conftest import ALPHAS
from loreg import Registry, connect
from loreg.entities import MapChunk, MapOptions, MapRun, MapSelection
from loreg.errors import NotAllowedError, NotFoundError, UsageError
from loreg.fleet.chunk import ChunkTask
from loreg.fleet.worker_store import StorePlace
from loreg.probes.probe import find_probe
from server.conftest import Guarded
from server.test_upkeep_jobs import submit, work

VLLM = "vllm:max_lora_rank=8"


@pytest.fixture
def exportable(local_deployment: Deployment, adapters: dict[int, Path], tmp_path: Path) -> Iterator[Registry]:
    """Adapters that a server takes as they are, one that it takes at a smaller rank, one with a base and a card."""
    with connect(**local_deployment.settings) as registry:
        registry.push(adapters[8], "team/a8")
        registry.push(train(tmp_path / "wide", 1, r=16), "team/wide")
        with_card = train(tmp_path / "based", 2)
        (with_card / "README.md").write_text("---\nlicense: mit\n---\nA card.\n")
        registry.push(with_card, "team/based", base=str(write_base(tmp_path / "base")))
        yield registry


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def exported(registry: Registry) -> int:
    return sum(event.action == "export" for event in registry.events(limit=1000).items)


def test_they_are_to_the_bit_what_the_command_for_one_writes(exportable: Registry, tmp_path: Path):
    report = exportable.map("export", profile=VLLM, processes=2)
    assert (report.recorded, report.failed, exported(exportable)) == (3, (), 3)
    for name in ("a8", "wide", "based"):
        exportable.export(f"team/{name}", VLLM, tmp_path / "alone" / name)
        pulled = exportable.pull(f"team/{name}", tmp_path / "pulled" / name, profile=VLLM)
        assert files_of(pulled.folder) == files_of(tmp_path / "alone" / name)
        (facts,) = [facts for facts in exportable.facts(f"team/{name}") if facts.probe == f"export {VLLM}"]
        summary = json.loads((tmp_path / "alone" / name / "loreg_export.json").read_text())
        assert facts.value["changes"] == summary["changes"]
    assert exported(exportable) == 3  # a pull found what the map had made
    assert facts_changes(exportable, "team/wide")
    assert exportable.verify(read_data=True).ok


def facts_changes(registry: Registry, ref: str) -> object:
    return next(facts.value["changes"] for facts in registry.facts(ref) if facts.probe.startswith("export"))


def test_what_is_there_is_left_out_and_what_was_dropped_is_made_again(exportable: Registry):
    assert exportable.map("export", profile=VLLM, processes=1).recorded == 3
    assert exportable.map("export", profile=VLLM, processes=1).run.versions == 0
    exportable.drop_export("team/wide", VLLM)
    assert exportable.map("export", "team/*", profile=VLLM, processes=1).recorded == 1
    assert exportable.map("export", profile="vllm", processes=1).run.versions == 3
    assert exportable.map("export", profile=VLLM, again=True, processes=1).recorded == 3
    assert exported(exportable) == 4 + 3  # what was made again was the same, and nothing was recorded of it


def test_one_that_no_server_can_take_is_named_and_the_others_are_made(exportable: Registry, tmp_path: Path):
    exportable.push(train(tmp_path / "dora", 3, use_dora=True), "team/dora")
    report = exportable.map("export", profile="vllm", processes=1)
    ((ref, reason),) = report.failed
    assert (ref, report.recorded) == ("team/dora:v1", 4)
    with pytest.raises(Exception, match="DoRA") as alone:
        exportable.export("team/dora", "vllm", tmp_path / "alone")
    assert reason == alone.value.message


def claim(registry: Registry) -> tuple[MapChunk, ChunkTask]:
    """Begin a run of exports, and return its only chunk, and that as a worker gets it."""
    probe, maps = find_probe("export", MapOptions(VLLM)), registry.context.backend.upkeep().maps()
    wanted = MapRun(probe.name, probe.release, MapSelection(("*",)), False, MapOptions(VLLM))
    (chunk,) = maps.claim(maps.begin(wanted, reads_weights=True), 1)
    settings = registry.settings
    store = StorePlace(settings.storage_url, settings.storage_endpoint, elsewhere=False)
    return chunk, ChunkTask(chunk, "export", probe.release, store, MapOptions(VLLM))


def test_a_chunk_that_is_done_twice_is_recorded_once(exportable: Registry):
    chunk, task = claim(exportable)
    first, second = task.run(), task.run()
    assert first == second
    maps = exportable.context.backend.upkeep().maps()
    assert len(maps.finish(chunk, first.facts, first.made) or ()) == 3
    assert maps.finish(chunk, second.facts, second.made) is None
    assert exported(exportable) == 3


def test_what_a_collection_takes_before_it_is_recorded_is_made_again(
    exportable: Registry, monkeypatch: pytest.MonkeyPatch
):
    """Twice: a collection without a grace takes what the workers have just made."""
    finish, collected = loreg.local.maps.LocalMaps.finish, list[int]()

    def collect_first(*arguments: object) -> int | None:
        if len(collected) < 2:
            collected.append(exportable.gc(grace="0h").removed)
        return finish(*arguments)

    monkeypatch.setattr("loreg.local.maps.LocalMaps.finish", collect_first)
    report = exportable.map("export", profile=VLLM, processes=1)
    assert all(collected)
    assert (report.recorded, report.failed, report.retries) == (3, (), len(collected))
    assert exportable.verify(read_data=True).ok


def test_of_what_is_yanked_while_it_runs_no_export_is_made_unless_it_is_named(
    exportable: Registry, monkeypatch: pytest.MonkeyPatch
):
    """One is yanked before its chunk is claimed, one while a worker makes its export, one that is named, too."""
    monkeypatch.setattr("loreg.local.maps._MAX_MADE", 1)
    claim, finish = loreg.local.maps.LocalMaps.claim, loreg.local.maps.LocalMaps.finish

    def yank_first(maps: object, *arguments: object) -> list[MapChunk]:
        exportable.yank("team/wide:v1")
        return claim(maps, *arguments)

    def yank_last(maps: object, *arguments: object) -> object:
        exportable.yank("team/based:v1")
        exportable.yank("team/a8:v1")
        return finish(maps, *arguments)

    monkeypatch.setattr("loreg.local.maps.LocalMaps.claim", yank_first)
    monkeypatch.setattr("loreg.local.maps.LocalMaps.finish", yank_last)
    report = exportable.map("export", ["team/*", "team/a8:v1"], profile=VLLM, processes=1)
    assert (report.recorded, report.gone, report.failed) == (1, 2, ())
    assert exported(exportable) == 1
    assert [facts.probe for facts in exportable.facts("team/based:v1")] == ["check"]


def test_content_that_was_deleted_for_good_is_not_made_again(exportable: Registry, tmp_path: Path):
    """A server takes it as it is, with the weights of a version that was deleted since."""
    chunk, task = claim(exportable)
    pulled = exportable.pull("team/wide", tmp_path / "pulled", profile=VLLM)
    exportable.drop_export("team/wide", VLLM)
    exportable.push(pulled.folder, "team/copy")
    exportable.delete("team/copy", "private")
    answer = task.run()
    assert len(exportable.context.backend.upkeep().maps().finish(chunk, answer.facts, answer.made) or ()) == 3
    errors = {ref: [f.error for f in exportable.facts(ref) if f.probe != "check"] for ref in ("team/a8", "team/wide")}
    assert errors["team/a8"] == [""]
    assert "deleted" in errors["team/wide"][0]
    assert exported(exportable) == 1 + 2


def test_a_worker_makes_them_behind_a_server(guarded_folder: Guarded, adapters: dict[int, Path]):
    for alpha in ALPHAS:
        guarded_folder.behind.push(adapters[alpha], f"team/a{alpha}")
    job = submit(guarded_folder, "map", probe="export", profile="vllm", selectors=["team/a*"])
    work(guarded_folder)
    assert guarded_folder.behind.jobs.show(job.id).result["recorded"] == len(ALPHAS)
    engine = create_engine(guarded_folder.behind.settings.database_url)
    with engine.begin() as connection:
        assert connection.execute(text("SELECT count(*) FROM exports WHERE author = 'root'")).scalar() == len(ALPHAS)
    engine.dispose()


def test_it_is_for_one_server_that_loreg_knows(exportable: Registry, tmp_path: Path, database: Engine):
    (tmp_path / "mine.toml").write_text("")
    with pytest.raises(UsageError, match="server to export for is not named"):
        exportable.map("export")
    with pytest.raises(NotAllowedError, match="only for the servers that loreg knows"):
        exportable.map("export", profile=str(tmp_path / "mine.toml"))
    with pytest.raises(NotFoundError, match="no profile 'vlm'; did you mean 'vllm'"):
        exportable.map("export", profile="vlm")
    with pytest.raises(UsageError, match="the probe spectra takes no such options"):
        exportable.map("spectra", profile="vllm")
    with database.begin() as connection:
        assert connection.execute(text("SELECT count(*) FROM map_runs")).scalar() == 0
