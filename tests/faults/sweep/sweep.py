"""One verb on one place: count its points, kill it at each, look, do it again, look again."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployments import Deployment
from faults.checker import contents, differences, faults, files_below, garbage, half, look
from faults.sweep.backends import Backend
from faults.sweep.cases import FILLED, SERVE, Case, Command
from faults.sweep.places import below, look_at
from faults.sweep.points import Point, numbered
from faults.sweep.processes import Ended, Process, Room, address_of, command, first_to_end

_HANGS = 124
_SHOWN = 3
_count = itertools.count()


@dataclass(frozen=True)
class Fault:
    """What was wrong after the kill at a point, or after what followed it."""

    number: int
    point: str
    when: str
    sentences: str


@dataclass(frozen=True)
class Swept:
    """What became of the points of one verb on one place; ``left`` counts those that left something lying about."""

    case: str
    backend: str
    labels: tuple[str, ...]
    swept: int
    missed: tuple[str, ...]
    faults: tuple[Fault, ...]
    left: int
    seconds: float


@dataclass(frozen=True)
class Picture:
    """A registry, the files that were made beside it, and what lies about that nobody asked for.

    ``places`` is what else was made, in the order of the case; ``wrong`` is what is wrong with it.
    """

    registry: dict[str, Any]
    files: dict[str, str]
    about: list[str]
    places: list[dict[str, Any]]
    wrong: list[str]


@dataclass(frozen=True)
class Before:
    """Where a case begins: a registry, and a folder with files that lie where commands are typed, if there are any.

    ``second`` is what lies already where another registry or a backup is made, if the case has such a place.
    """

    deployment: Deployment
    work: Path | None = None
    second: Deployment | None = None


class Sweep:
    """Tries ``case`` on ``backend``, each time from the state ``before``, in rooms below ``folder``."""

    def __init__(self, case: Case, backend: Backend, before: Before, folder: Path, inputs: Path) -> None:
        self._case, self._backend, self._before = case, backend, before
        self._folder, self._inputs = folder, inputs
        self._broken = set(faults(look(*_where(before.deployment))))  # what a verb is there to mend

    def count(self) -> list[Point]:
        """Do the verb, undisturbed, and count; raises RuntimeError if even that does not succeed."""
        with self._room() as (room, deployment):
            ended = self._do(self._case.command, room, deployment, counted=True)
            if ended.status:
                raise RuntimeError(f"{self._case.name} fails undisturbed: {ended.output}")
            if sentences := self._wrong(room, deployment):
                raise RuntimeError(f"{self._case.name} leaves, undisturbed: {sentences}")
            self._whole = self._picture(room, deployment)
            self._target = files_below(room.work / self._case.target) if self._case.target else {}
        again = self._after(self._case.command)
        if again is None or (drift := _unlike(again, self._whole)):
            raise RuntimeError(f"{self._case.name} does not come out the same twice: {drift if again else 'it fails'}")
        self._expected = [self._whole]
        if self._case.then:  # the kill came either before or after all that the verb does
            both = self._after(self._case.then), self._after(self._case.command, self._case.then)
            self._expected = [picture for picture in both if picture is not None]
        return numbered(ended.labels)

    def _after(self, *commands: Command) -> Picture | None:
        """What there is after these; None if one of them is refused."""
        with self._room() as (room, deployment):
            if any(self._do(done, room, deployment).status for done in commands):
                return None
            return self._picture(room, deployment)

    def kill_at(self, number: int, point: Point) -> tuple[list[Fault], bool, bool]:
        """What was wrong, whether the point was reached, and whether anything was left lying about at the end."""
        with self._room() as (room, deployment):
            ended = self._do(self._case.command, room, deployment, fatal=point)
            if not ended.killed:
                return [], False, False
            wrong = [("killed", fault) for fault in self._wrong_after_the_kill(room, deployment)]
            if self._case.job is not None or self._case.removes:
                self._backend.an_hour_passes(deployment)
            ended = self._do(self._case.then or self._case.command, room, deployment)
            if ended.status == 0:
                wrong += [("repeated", fault) for fault in self._wrong_after_the_repeat(room, deployment)]
            elif self._case.then is not None and 0 < ended.status < 10:  # a refusal, in loreg's own words
                wrong += [("refused", fault) for fault in self._wrong_after_the_kill(room, deployment)]
            else:
                wrong.append(("repeated", f"exit {ended.status}: {ended.output[-400:]}"))
            left = set(self._picture(room, deployment).about) - {
                path for picture in self._expected for path in picture.about
            }
        by_time: dict[str, list[str]] = {}
        for when, fault in wrong:
            by_time.setdefault(when, []).append(fault)
        return (
            [Fault(number, _named(point), when, _shorten(sentences)) for when, sentences in by_time.items()],
            True,
            bool(left),
        )

    def _wrong(self, room: Room, deployment: Deployment) -> list[str]:
        return [*faults(look(*_where(deployment))), *self._picture(room, deployment).wrong]

    def _wrong_after_the_kill(self, room: Room, deployment: Deployment) -> Iterator[str]:
        yield from (fault for fault in self._wrong(room, deployment) if fault not in self._broken)
        if self._case.target:
            yield from half(room.work / self._case.target, self._target)

    def _wrong_after_the_repeat(self, room: Room, deployment: Deployment) -> Iterator[str]:
        picture = self._picture(room, deployment)
        yield from [*faults(look(*_where(deployment))), *picture.wrong]
        yield from min((_unlike(picture, expected) for expected in self._expected), key=len)

    def _do(
        self, done: Command, room: Room, deployment: Deployment, *, counted: bool = False, fatal: Point | None = None
    ) -> Ended:
        """Run a command to its end, or to its kill; a server until what is asked of it is done."""
        call, watched = command(room.typed(done)), {"counted": counted, "fatal": fatal}
        if not self._case.serves:
            process = Process.start(call, room, deployment, **watched)
            ended = process.wait()
            if ended is None:
                return dataclasses.replace(
                    process.end(), status=_HANGS, output=f"hangs: {process.read_output()[-300:]}"
                )
            return ended
        server = Process.start(command(SERVE), room, deployment, **watched)
        address = address_of(server)
        if address is None:
            return server.end()
        client = Process.start(call, room, dataclasses.replace(deployment, endpoint=address))
        first_to_end([client, server])
        if (served := server.wait(0)) is not None:
            client.end()
            return served
        asked = client.wait(0)
        client.end()
        served = server.end()
        output = f"{client.read_output()[-300:]} (server: {served.output[-300:]})"
        return Ended(_HANGS if asked is None else asked.status, output, served.labels)

    @contextlib.contextmanager
    def _room(self) -> Iterator[tuple[Room, Deployment]]:
        """A room with a registry as it was before, and nothing else."""
        room = Room(self._folder / f"room-{next(_count)}", self._inputs)
        room.prepare()
        if self._before.work is not None:
            shutil.copytree(self._before.work, room.work, symlinks=True, dirs_exist_ok=True)
        deployment = self._backend.copy(self._before.deployment, room.folder)
        if self._before.second is not None:
            second = self._backend.copy(self._before.second, room.folder / "second")
            room = dataclasses.replace(room, second=second)
        try:
            yield room, deployment
        finally:
            self._backend.drop(deployment)
            if room.second is not None:
                self._backend.drop(room.second)
            shutil.rmtree(room.folder)

    def _picture(self, room: Room, deployment: Deployment) -> Picture:
        seen = look(*_where(deployment))
        looks = [
            look_at(place, room, deployment.storage_endpoint, all_stored=self._case.removes)
            for place in self._case.makes
        ]
        elsewhere = [path for place in self._case.makes if (path := below(place, room)) is not None]
        files = {
            name: sha256
            for name, sha256 in files_below(room.work).items()
            if not any((room.work / name).is_relative_to(path) for path in elsewhere)
        }
        hidden = {path for path in files if any(part.startswith(".") for part in Path(path).parts)}
        shown = {path: sha256 for path, sha256 in files.items() if path not in hidden}
        registry = contents(seen) | (garbage(seen) if self._case.removes else {})
        wrong = [sentence for sentences, _ in looks for sentence in sentences]
        places = [content for _, content in looks]
        if any(place.kind in ("second", "home") and self._case.command[0] == "move" for place in self._case.makes):
            wrong += _written_at_two(registry, places)
        return Picture(registry, shown, [*sorted(hidden), *seen.left], places, wrong)


def sweep(
    case: Case,
    backend: Backend,
    before: Before,
    folder: Path,
    inputs: Path,
    chosen: Callable[[int], Sequence[int]],
) -> Swept:
    """Kill at the ``chosen`` of the points, which are numbered from 1 to the number that is given."""
    started = time.monotonic()
    tried = Sweep(case, backend, before, folder, inputs)
    points = tried.count()
    wrong: list[Fault] = []
    missed: list[str] = []
    swept = left = 0
    for number in chosen(len(points)):
        point = points[number - 1]
        new_faults, reached, untidy = tried.kill_at(number, point)
        if not reached:  # threads may have come to it in another order
            new_faults, reached, untidy = tried.kill_at(number, point)
        wrong += new_faults
        swept += reached
        left += untidy
        if not reached:
            missed.append(_named(point))
    labels = tuple(map(_named, points))
    seconds = time.monotonic() - started
    return Swept(case.name, backend.name, labels, swept, tuple(missed), tuple(wrong), left, seconds)


def state_before(case: Case, backend: Backend, filled: Deployment, folder: Path, inputs: Path) -> Before:
    """The registry in which a case begins."""
    room = Room(folder, inputs)
    room.prepare()
    if case.second:
        room = dataclasses.replace(room, second=backend.empty(room.folder / "second"))
    deployment, work = filled, None
    if case.before or case.job is not None:
        deployment, work = backend.copy(filled, room.folder), room.work
        for typed in case.before:
            _prepare(typed, room, backend, deployment)
    if case.empty:
        deployment = backend.empty(room.folder / "empty")
        if backend.name == "postgres":
            _run_all([("db", "upgrade")], room, deployment)
    if case.job is None:
        return Before(deployment, work, room.second)

    def submit() -> None:
        from loreg.registry import connect

        assert case.job is not None
        with connect() as registry:
            registry.jobs.submit(case.job.kind, **case.job.request)

    _succeed(Process.start(submit, room, deployment))
    return Before(deployment, work, room.second)


def _prepare(typed: Command, room: Room, backend: Backend, deployment: Deployment) -> None:
    """Do what comes before a case: a command, one that is killed before it commits, a file, or damage."""
    name, *words = room.typed(typed)
    if name == "write":
        (room.work / words[0]).write_text(words[1])
    elif name == "killed":
        ended = Process.start(command(words), room, deployment, fatal=Point("commit", 1)).wait()
        if ended is None or not ended.killed:
            raise RuntimeError(f"{words} is not killed before it commits: {ended}")
    elif name in ("lose", "spoil"):
        backend.replace_blob(deployment, _digest_of(words[0], deployment), b"spoilt" if name == "spoil" else None)
    else:
        _run_all([typed], room, deployment)


def _digest_of(what: str, deployment: Deployment) -> str:
    """The digest of a file, or that of a version's manifest."""
    if (path := Path(what)).is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return str(contents(look(*_where(deployment)))[what]["digest"])


def fill(backend: Backend, folder: Path, inputs: Path) -> Deployment:
    """A registry with what every one holds before."""
    room = Room(folder, inputs)
    room.prepare()
    deployment = backend.empty(room.folder)
    first = [("db", "upgrade")] if backend.name == "postgres" else []
    _run_all([*first, *FILLED], room, deployment)
    return deployment


def _run_all(commands: Sequence[Command], room: Room, deployment: Deployment) -> None:
    for typed in commands:
        _succeed(Process.start(command(room.typed(typed)), room, deployment))


def _succeed(process: Process) -> None:
    ended = process.wait()
    if ended is None or ended.status:
        raise RuntimeError(f"the state before cannot be made: {process.end().output}")


def _written_at_two(registry: dict[str, Any], places: list[dict[str, Any]]) -> list[str]:
    """A registry that has moved is written at one place: the old one is closed before the new one has anything."""
    if len(places[0]) > 1 and not registry["moved"]:
        return ["the registry can be written at two places"]
    return []


def _unlike(actual: Picture, expected: Picture) -> list[str]:
    places = zip(actual.places, expected.places, strict=True)
    return [
        *differences(actual.registry, expected.registry),
        *differences(actual.files, expected.files),
        *(f"there: {sentence}" for pair in places for sentence in differences(*pair)),
    ]


def _where(deployment: Deployment) -> tuple[str, str, str]:
    return deployment.database_url, deployment.storage_url, deployment.storage_endpoint


def _shorten(sentences: Sequence[str]) -> str:
    more = f"; and {len(sentences) - _SHOWN} more" if len(sentences) > _SHOWN else ""
    return "; ".join(sentences[:_SHOWN]) + more


def _named(point: Point) -> str:
    return point.label if point.occurrence == 1 else f"{point.label} ({point.occurrence})"
