"""What refs mean at the moment of each request: the registry is asked every time, and may be away for a while.

An answer is never older than the request that gets it. Where the registry does not answer, the version that was served
last goes on being served; while it is silent nobody waits, and it is asked in the background until it answers in time.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from loreg.entities import Version
from loreg.errors import LoregError, UnavailableError
from loreg.plugins.loaded_names import LoadedNames
from loreg.plugins.preparations import Preparations
from loreg.plugins.served_folders import touch
from loreg.plugins.served_versions import NotServedError, ServedVersions
from loreg.plugins.shared_question import SharedQuestion
from loreg.refs import Ref
from loreg.remote.haste import in_haste
from loreg.value import Value

_log = logging.getLogger("vllm.loreg")
T = TypeVar("T")
ANSWER_TIMEOUT = 1.0  # seconds that a request waits for the registry if there is a version to serve without it
_QUESTION_LIMIT = 5.0  # seconds after which a question is given up; a late answer counts for the requests to come
_MAX_QUESTIONS = 16  # at once, each in a thread


class PinnedVersion(Value, frozen=True):
    """A version that is ready to be loaded: its pinned ``name``, and its folder."""

    name: str
    folder: Path


class _Answer(Value, frozen=True):
    """What the registry said, or the error; ``number`` counts the questions of one ref."""

    number: int
    version: Version | None = None
    error: LoregError | None = None


class FollowedRefs:
    """Refs that requests name, the ``max_refs`` that were named last. Used from one event loop."""

    def __init__(
        self,
        versions: ServedVersions,
        names: LoadedNames,
        max_refs: int,
        on_change: Callable[[Mapping[Ref, PinnedVersion]], None] = lambda meanings: None,
    ) -> None:
        """Follow none yet; ``on_change`` is called with what all of them mean whenever that has changed."""
        self.versions, self.names, self._max_refs = versions, names, max_refs
        self._on_change = on_change
        self._refs: OrderedDict[Ref, _FollowedRef] = OrderedDict()
        self.preparations = Preparations(versions)
        self._questions = ThreadPoolExecutor(_MAX_QUESTIONS, "loreg-question")

    async def current(self, ref: Ref) -> PinnedVersion:
        """Return the version that ``ref`` means now, or as near to now as the registry lets it be known.

        Raises NotServedError, and other errors of loreg where the registry answers with one.
        """
        followed = self._refs.get(ref) or _FollowedRef(ref, self)
        self._refs[ref] = followed
        self._refs.move_to_end(ref)
        followed.waiting += 1
        try:
            return await followed.current()
        finally:
            followed.waiting -= 1
            await self._drop_idle(followed)

    async def ask(self, question: Callable[[], T]) -> T:
        """Return what ``question`` does, run in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._questions, question)

    async def change_meaning(self, before: PinnedVersion | None, after: PinnedVersion | None) -> None:
        """Have a ref that meant ``before`` mean ``after``; None stands for nothing."""
        await self.names.change_meaning(_name(before), _name(after))
        self._on_change({ref: followed.last for ref, followed in self._refs.items() if followed.last is not None})

    async def _drop_idle(self, followed: _FollowedRef) -> None:
        """Drop a ref that means nothing, and those beyond the number that are followed."""
        if followed.last is None and followed.is_idle:
            self._refs.pop(followed.ref, None)
        if len(self._refs) > self._max_refs:
            oldest = next((other for other in self._refs.values() if other.is_idle), None)
            if oldest is not None:
                del self._refs[oldest.ref]
                await self.change_meaning(oldest.last, None)


class _FollowedRef:
    """One ref, and the version that was served for it last."""

    def __init__(self, ref: Ref, refs: FollowedRefs) -> None:
        self.ref, self._refs = ref, refs
        self.last: PinnedVersion | None = None
        self.waiting = 0
        self._question = SharedQuestion(self._put)
        self._silence: asyncio.Task[None] | None = None
        self._count = self._recorded = 0
        self._recording = asyncio.Lock()
        self._is_recalled = self._is_noted = False

    @property
    def is_idle(self) -> bool:
        """Whether neither a request waits for it, nor the task that awaits the registry in the background."""
        return self.waiting == 0

    async def current(self) -> PinnedVersion:
        """Return the version that the ref means. See :meth:`FollowedRefs.current`."""
        await self._recall()
        if self._silence is not None and self.last is not None:
            return self.last
        question = self._question.ask()
        await asyncio.wait([question], timeout=ANSWER_TIMEOUT if self.last else None)
        if question.done():
            return await self._settle(question.result())
        if self._silence is None:
            self._silence = asyncio.create_task(self._await_answer(question))
        return self._last_served(f"no answer within {ANSWER_TIMEOUT:g} s")

    async def _put(self) -> _Answer:
        self._count = number = self._count + 1

        def find() -> Version:
            with in_haste(_QUESTION_LIMIT):
                return self._refs.versions.find(self.ref)

        try:
            return _Answer(number, await self._refs.ask(find))
        except LoregError as error:
            return _Answer(number, error=error)

    async def _await_answer(self, question: asyncio.Task[_Answer]) -> None:
        """Take up what the registry says late, and ask until it answers in time."""
        self.waiting += 1
        try:
            while not question.done():
                await self._settle_quietly(await asyncio.shield(question))
                question = self._question.ask()
                await asyncio.wait([question], timeout=ANSWER_TIMEOUT)
            self._silence = None
            await self._settle_quietly(question.result())
        finally:
            self._silence = None
            self.waiting -= 1

    async def _settle_quietly(self, answer: _Answer) -> None:
        try:
            await self._settle(answer)
        except LoregError as error:
            _log.warning("loreg: %s", error)

    async def _settle(self, answer: _Answer) -> PinnedVersion:
        """Return the version of the answer when it is ready; the last one if it cannot be had."""
        try:
            if answer.version is None:
                raise answer.error or AssertionError
            current = await self._make_ready(answer.version)
        except NotServedError:
            await self._record(answer.number, None, None)
            raise
        except UnavailableError as error:
            return self._last_served(error.message, error)
        await self._record(answer.number, current, answer.version)
        if self._is_noted:
            _log.warning("loreg: %s: the registry answers again", self.ref)
            self._is_noted = False
        return current

    async def _make_ready(self, version: Version) -> PinnedVersion:
        if self.last is not None and self.last.name == version.pinned and self.last.folder.exists():
            return self.last
        return PinnedVersion(
            version.pinned, await self._refs.preparations.folder(version, has_other=self.last is not None)
        )

    async def _record(self, number: int, current: PinnedVersion | None, version: Version | None) -> None:
        """Record what the ref means, here and on disk, unless a newer answer was recorded already."""
        async with self._recording:
            if number <= self._recorded:
                return
            self._recorded = number
            if current == self.last:
                return
            before, self.last = self.last, current
            await self._refs.change_meaning(before, current)
            try:
                await self._refs.ask(lambda: self._refs.versions.record(self.ref, version))
            except OSError as error:
                _log.warning("loreg: %s: what it means cannot be kept for the next start: %s", self.ref, error)

    async def _recall(self) -> None:
        """Read from disk, once, what the ref meant in the process before this one."""
        if self._is_recalled:
            return
        self._is_recalled = True
        recalled = self._refs.versions.recall(self.ref)
        if recalled is not None:
            self.last = PinnedVersion(*recalled)
            touch(self.last.folder)
            await self._refs.change_meaning(None, self.last)

    def _last_served(self, reason: str, cause: LoregError | None = None) -> PinnedVersion:
        if self.last is None:
            raise NotServedError(self.ref, "unreachable", reason, cause.hint if cause else "") from cause
        if not self._is_noted:
            _log.warning("loreg: %s is %s, as it was last: unreachable: %s", self.ref, self.last.name, reason)
            self._is_noted = True
        return self.last


def _name(version: PinnedVersion | None) -> str | None:
    return None if version is None else version.name
