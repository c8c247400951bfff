"""map: run one probe over many versions, in processes of this machine or as tasks on Ray."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from loreg.entities import MapChunk, MapReport, MapRun, Progress, no_progress
from loreg.errors import UsageError
from loreg.fleet.chunk import ChunkTask
from loreg.fleet.drive import Driver
from loreg.fleet.executor import Executor
from loreg.fleet.processes import ProcessExecutor, usable_cpus
from loreg.fleet.ray_tasks import RayExecutor, parse_cluster
from loreg.probes.probe import find_probe
from loreg.refs import parse_adapter_pattern
from loreg.settings import Settings
from loreg.workspace.context import Context


def map_probe(
    context: Context,
    settings: Settings,
    name: str,
    pattern: str = "*",
    *,
    again: bool = False,
    processes: int | None = None,
    on: str = "",
    progress: Progress = no_progress,
) -> MapReport:
    """Run a probe over the versions of the adapters that match. See :meth:`loreg.registry.Registry.map`."""
    probe = find_probe(name)
    pattern = str(parse_adapter_pattern(pattern))
    cluster = parse_cluster(on) if on else None
    if processes is not None and cluster is not None:
        raise UsageError("Ray knows its processors: --processes is for this machine", hint="leave --processes out")
    if processes is not None and processes < 1:
        raise UsageError(f"{processes} processes read nothing", hint="--processes 2, or leave it out")
    maps = context.backend.upkeep().maps()
    with maps.exclusive():
        wanted = MapRun(0, probe.name, probe.release, pattern, again, 0, 0, False)
        run = maps.begin(wanted, reads_weights=probe.reads_weights)
        url = (
            settings.storage_url
            if "://" in settings.storage_url
            else str(Path(settings.storage_url).expanduser().resolve())
        )

        def make_task(chunk: MapChunk) -> ChunkTask:
            return ChunkTask(chunk, probe.name, probe.release, url, settings.storage_endpoint)

        with closing(_open_executor(run, processes, cluster)) as executor:
            return Driver(maps, run, probe, executor, make_task).drive(progress)


def _open_executor(run: MapRun, processes: int | None, cluster: str | None) -> Executor[ChunkTask]:
    left = run.versions - run.done
    if cluster is not None and left:
        return RayExecutor(cluster)
    return ProcessExecutor(min(processes or usable_cpus(), left))
