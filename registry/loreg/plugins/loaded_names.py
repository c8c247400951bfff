"""Which pinned names a server may load, and which it needs no more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

from loreg.plugins.served_folders import FolderLocks


class LoadedNames:
    """Pinned names with their folders, from the first request that names one until nothing needs it.

    A name is needed by each request under way that names it, and by each ref that means it. ``unload`` is called with
    one that nothing needs any more.
    """

    def __init__(self, unload: Callable[[str], Awaitable[object]]) -> None:
        self._unload = unload
        self._folders: dict[str, Path] = {}
        self._locks = FolderLocks()
        self._under_way: Counter[str] = Counter()
        self._meant: Counter[str] = Counter()

    def folder(self, name: str) -> Path | None:
        """Return the folder of a name that is needed; None for any other."""
        return self._folders.get(name)

    def begin(self, name: str, folder: Path) -> None:
        """Keep the name for a request, until :meth:`end`."""
        self._locks.lock(folder)
        self._folders[name] = folder
        self._under_way[name] += 1

    async def end(self, name: str) -> None:
        """Keep the name no longer for one request."""
        self._under_way[name] -= 1
        await self._unload_idle(name)

    async def change_meaning(self, before: str | None, after: str | None) -> None:
        """Have a ref, which meant the name ``before``, mean ``after``; None stands for nothing."""
        if after is not None:
            self._meant[after] += 1
        if before is not None:
            self._meant[before] -= 1
            await self._unload_idle(before)

    async def _unload_idle(self, name: str) -> None:
        if self._under_way[name] or self._meant[name]:
            return
        del self._under_way[name], self._meant[name]
        folder = self._folders.pop(name, None)
        if folder is not None:
            await self._unload(name)
            if folder not in self._folders.values():
                self._locks.release(folder)
