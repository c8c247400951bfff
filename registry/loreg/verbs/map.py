"""map: run one probe over many versions, in processes of this machine or as tasks on Ray."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from msgspec.structs import replace

from loreg.entities import MapChunk, MapOptions, MapReport, MapRun, MapSelection, Progress, Query, no_progress
from loreg.errors import UsageError
from loreg.fleet.chunk import ChunkTask
from loreg.fleet.drive import Driver
from loreg.fleet.executor import Executor
from loreg.fleet.processes import ProcessExecutor, usable_cpus
from loreg.fleet.ray_tasks import RayExecutor, parse_cluster
from loreg.fleet.worker_store import StorePlace
from loreg.probes.probe import find_probe
from loreg.selectors import parse_selector
from loreg.settings import Settings
from loreg.workspace.context import Context


def map_probe(
    context: Context,
    settings: Settings,
    name: str,
    selection: MapSelection,
    *,
    options: MapOptions = MapOptions(),
    again: bool = False,
    processes: int | None = None,
    on: str = "",
    progress: Progress = no_progress,
) -> MapReport:
    """Run a probe over the versions of the selection. See :meth:`loreg.registry.Registry.map`."""
    probe = find_probe(name, options)
    cluster = parse_cluster(on) if on else None
    if processes is not None and cluster is not None:
        raise UsageError("Ray knows its processors: --processes is for this machine", hint="leave --processes out")
    if processes is not None and processes < 1:
        raise UsageError(f"{processes} processes read nothing", hint="--processes 2, or leave it out")
    maps = context.backend.upkeep().maps()
    with maps.exclusive():
        wanted = MapRun(probe.name, probe.release, selection, again, options)
        run = maps.begin(wanted, reads_weights=probe.reads_weights)
        url = settings.storage_url
        if "://" not in url:
            url = str(Path(url).expanduser().resolve())
        store = StorePlace(url, settings.storage_endpoint, elsewhere=cluster is not None)

        def make_task(chunk: MapChunk) -> ChunkTask:
            return ChunkTask(chunk, name, probe.release, store, options)

        with closing(_open_executor(run, processes, cluster)) as executor:
            return Driver(maps, run, probe, executor, make_task).drive(progress)


def parse_map_selection(selection: str | Sequence[str] | Query) -> MapSelection:
    """Return what is selected. Raises UsageError for what is no selector, and if there is none."""
    if isinstance(selection, Query):
        return MapSelection(search=replace(selection, limit=Query().limit, cursor=None))
    texts = [selection] if isinstance(selection, str) else selection
    selectors = tuple(map(parse_selector, texts))
    if not selectors:
        raise UsageError("nothing is selected", hint="loreg map check 'team/*:prod'")
    for selector in selectors:
        if selector.name:
            raise UsageError(f"{str(selector)!r} gives a name to what only is read", hint=f"{selector.ref}")
    return MapSelection(tuple(map(str, selectors)))


def _open_executor(run: MapRun, processes: int | None, cluster: str | None) -> Executor[ChunkTask]:
    left = run.versions - run.done
    if cluster is not None and left:
        return RayExecutor(cluster)
    return ProcessExecutor(min(processes or usable_cpus(), left))
