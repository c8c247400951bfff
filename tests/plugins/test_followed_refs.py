"""Any order of moves, outages and requests: what each request gets, and what is loaded meanwhile."""

from __future__ import annotations

import asyncio
import random
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from loreg.errors import UnavailableError
from loreg.plugins import followed_refs
from loreg.plugins.followed_refs import FollowedRefs
from loreg.plugins.loaded_names import LoadedNames
from loreg.plugins.served_versions import NotServedError
from loreg.refs import parse_ref

REF = parse_ref("team/news:prod")


class Versions:
    """A registry whose only alias means version after version, and which is cut off, or slow, now and then."""

    def __init__(self, folder: Path, draw: random.Random) -> None:
        self.folder, self.draw = folder, draw
        self.number, self.answered = 1, 0
        self.is_cut = self.is_refused = False
        self.open = threading.Event()
        self.open.set()

    def find(self, ref: object) -> Any:
        if self.is_cut:
            raise UnavailableError("cut")
        number, is_refused = self.number, self.is_refused
        self.open.wait(60)
        self.answered += 1
        if is_refused:
            raise NotServedError(ref, "yanked", "it is")
        return SimpleNamespace(pinned=f"v{number}", number=number)

    def prepare(self, version: Any, progress: object) -> Path:
        if self.is_cut and self.draw.random() < 0.5:
            raise UnavailableError("cut")
        folder = self.folder / str(version.number)
        folder.mkdir(exist_ok=True)
        return folder

    def record(self, ref: object, version: object) -> None:
        pass

    def recall(self, ref: object) -> None:
        return None


def test_a_download_that_failed_for_what_is_over_is_begun_again_for_who_came_later(tmp_path: Path):
    class Failing(Versions):
        fails, goes_on = threading.Event(), threading.Event()

        def prepare(self, version: Any, progress: object) -> Path:
            if version.number == 2 and not self.fails.is_set():
                self.fails.set()
                self.goes_on.wait(60)
                raise UnavailableError("cut")
            return super().prepare(version, progress)

    async def run() -> None:
        versions = Failing(tmp_path, random.Random(0))
        refs = FollowedRefs(versions, LoadedNames(_unload_nothing), 4)  # type: ignore[arg-type]
        assert (await refs.current(REF)).name == "v1"
        versions.number = 2
        early = asyncio.create_task(refs.current(REF))
        await asyncio.to_thread(versions.fails.wait)
        late = [asyncio.create_task(refs.current(REF)) for _ in range(3)]
        while versions.answered < 3:
            await asyncio.sleep(0.001)
        for _ in range(10):  # until they wait for the download
            await asyncio.sleep(0)
        versions.goes_on.set()
        assert (await early).name == "v1"
        assert [(await request).name for request in late] == ["v2"] * 3

    asyncio.run(run())


async def _unload_nothing(name: str) -> None:
    pass


@pytest.mark.parametrize("seed", range(4))
def test_no_request_gets_what_is_older_than_it_is_or_than_what_was_served(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(followed_refs, "ANSWER_TIMEOUT", 3600.0)  # on a busy machine everything may take its time
    draw = random.Random(seed)
    versions = Versions(tmp_path, draw)
    loaded: set[str] = set()
    under_way: list[str] = []
    served, disturbed = 0, 0

    async def unload(name: str) -> None:
        assert name not in under_way
        loaded.discard(name)

    async def request(refs: FollowedRefs, names: LoadedNames) -> None:
        nonlocal served
        at_begin, served_at_begin, disturbed_at_begin = versions.number, served, disturbed
        try:
            version = await refs.current(REF)
        except NotServedError:
            return
        number = int(version.name.removeprefix("v"))
        assert number >= served_at_begin
        if disturbed == disturbed_at_begin and disturbed % 2 == 0:
            assert number >= at_begin
        served = max(served, number)
        names.begin(version.name, version.folder)
        loaded.add(version.name)
        under_way.append(version.name)
        for _ in range(draw.randrange(20)):
            await asyncio.sleep(0)
        under_way.remove(version.name)
        await names.end(version.name)

    async def run() -> None:
        nonlocal disturbed
        names = LoadedNames(unload)
        refs = FollowedRefs(versions, names, 4)  # type: ignore[arg-type]
        requests = []
        for _ in range(200):
            requests.append(asyncio.create_task(request(refs, names)))
            event = draw.random()
            if event < 0.15:
                versions.number += 1
                versions.is_refused = event < 0.02
            elif event < 0.20 and disturbed % 2 == 0:
                disturbed += 1  # an odd number: the registry is away
                versions.is_cut = event < 0.175
                if not versions.is_cut:
                    versions.open.clear()
                    monkeypatch.setattr(followed_refs, "ANSWER_TIMEOUT", 0.001)
            elif event < 0.30 and disturbed % 2:
                versions.is_cut = False
                monkeypatch.setattr(followed_refs, "ANSWER_TIMEOUT", 3600.0)
                versions.open.set()
                await settle(refs)
                disturbed += 1
            await asyncio.sleep(draw.choice([0, 0, 0, 0.002, 0.03]))
        versions.is_cut = versions.is_refused = False
        monkeypatch.setattr(followed_refs, "ANSWER_TIMEOUT", 3600.0)
        versions.open.set()
        await asyncio.gather(*requests)
        await settle(refs)
        await request(refs, names)
        assert served == versions.number, "in the end everybody knows"
        assert loaded == {f"v{served}"}

    async def settle(refs: FollowedRefs) -> None:
        """Wait until the registry is not awaited in the background any more."""
        while any(followed._silence for followed in refs._refs.values()):
            await asyncio.sleep(0.001)

    try:
        asyncio.run(run())
    finally:
        versions.open.set()
