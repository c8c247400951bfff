"""Have versions checked and downloaded in the background, each once, however many wait for it."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from loreg.entities import Version
from loreg.errors import UnavailableError
from loreg.plugins.served_versions import ServedVersions

MAX_STALL = 5.0  # seconds that a download may stand still if there is another version to serve
_MAX_PULLS = 4  # at once, each in a thread


class _Preparation:
    """A version on its way here: the task, and when it got on last."""

    task: asyncio.Task[Path]

    def __init__(self) -> None:
        self.progressed_at, self._progress = time.monotonic(), ("", 0)

    def progress(self, text: str, done: int, total: int) -> None:
        """Take note that it gets on, or that another process does; called from the thread that downloads."""
        if (text, done) != self._progress:
            self.progressed_at, self._progress = time.monotonic(), (text, done)


class Preparations:
    """Versions on their way here. Used from one event loop."""

    def __init__(self, versions: ServedVersions) -> None:
        self._versions = versions
        self._under_way: dict[str, _Preparation] = {}
        self._pulls = ThreadPoolExecutor(_MAX_PULLS, "loreg-pull")

    async def folder(self, version: Version, has_other: bool) -> Path:
        """Return the folder of the version; who waits for the same one waits together.

        With ``has_other``, another version to serve, raises UnavailableError once it gets no further for a while.
        """
        earlier = self._under_way.get(version.pinned)
        if earlier is not None:
            try:
                return await self._wait(version, earlier, has_other)
            except UnavailableError:
                if not earlier.task.done():  # it stands still
                    raise
                # What it failed for was so before the caller came, and may be over.
        return await self._wait(version, self._under_way.get(version.pinned) or self._begin(version), has_other)

    def _begin(self, version: Version) -> _Preparation:
        preparation = self._under_way[version.pinned] = _Preparation()
        preparation.task = asyncio.create_task(self._prepare(version, preparation))
        return preparation

    async def _wait(self, version: Version, preparation: _Preparation, has_other: bool) -> Path:
        task = preparation.task
        while not task.done():
            await asyncio.wait([task], timeout=MAX_STALL if has_other else None)
            if not task.done() and time.monotonic() - preparation.progressed_at > MAX_STALL:
                raise UnavailableError(f"the download of {version.pinned} stands still")
        return task.result()

    async def _prepare(self, version: Version, preparation: _Preparation) -> Path:
        try:
            run = asyncio.get_running_loop().run_in_executor
            return await run(self._pulls, self._versions.prepare, version, preparation.progress)
        finally:
            del self._under_way[version.pinned]
