"""A world of its own time: actors in greenlets, one of which runs, and the choices that decide who and for how long.

Nothing here knows loreg. An actor is ordinary code, which calls :meth:`World.pause` and :meth:`World.request` where
another process might get ahead of it. Everything that happens follows from the choices: the same give the same trace.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from greenlet import GreenletExit, getcurrent, greenlet

from loreg.errors import LoregError, UnavailableError

T = TypeVar("T")
EPOCH = datetime(2030, 1, 1, tzinfo=UTC)
TICK = 0.001  # seconds that everything takes at least: what the database's clock can tell apart
TIMEOUT = 60.0  # seconds after which a caller gives up a request whose answer was lost


class Choices:
    """Numbers that decide a schedule: drawn by a seed, or those of an earlier run. 0 is always the simplest."""

    def __init__(self, seed: int, recorded: Sequence[int] | None = None) -> None:
        self._random = random.Random(seed)
        self._recorded = iter(recorded) if recorded is not None else None
        self.made: list[int] = []

    def pick(self, cumulative: Sequence[float]) -> int:
        """Return an index, by weights that are added up to 1."""
        if self._recorded is not None:
            choice = next(self._recorded, 0)
            choice = choice if choice < len(cumulative) else 0
        else:
            number = self._random.random()
            choice = next(index for index, limit in enumerate(cumulative) if number < limit or limit == cumulative[-1])
        self.made.append(choice)
        return choice


def weights(*parts: float) -> tuple[float, ...]:
    """Return weights added up to 1; what is lacking to it is the first's."""
    return tuple(itertools.accumulate((1 - sum(parts), *parts)))


@dataclass
class Actor:
    """Somebody at work: a process, or a client with its server. ``patience`` are the seconds that it may still lose."""

    name: str
    may_fail: bool
    patience: float
    run: Callable[[], object]
    greenlet: Any = None
    is_dead: bool = False
    outcome: str = "waits"
    waits: bool = False  # for an answer


@dataclass
class Faults:
    """How much goes wrong: the chances of each thing, by weights, beside that nothing does."""

    #: A pause of one of these lengths comes before a transaction or a request, and before its answer is there.
    pauses: Sequence[float]
    pause_weights: Sequence[float]
    #: The most seconds that a request is on its way to the store, also when nobody waits for it any more.
    longest_way: float
    #: What becomes of a request: answered, answered late, answer lost, lost itself, sender dies before it arrives.
    fates: Sequence[float] = weights(0.06, 0.015, 0.01, 0.012)
    #: What becomes of a transaction: answered, sender dies before it, sender dies after it, answer lost.
    transaction_fates: Sequence[float] = weights(0.006, 0.006, 0.008)


@dataclass
class World:
    """Time, what is to happen, and what has happened. Give it actors and call :meth:`run`."""

    choices: Choices
    faults: Faults
    now: float = 0.0
    events: list[tuple[float, int, int, Callable[[], None]]] = field(default_factory=list)
    trace: list[tuple[float, str, str]] = field(default_factory=list)
    violation: str = ""
    steps: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    actors: list[Actor] = field(default_factory=list)
    in_transaction: bool = False
    is_calm: bool = False  # nothing goes wrong or takes time any more
    _number: Iterator[int] = field(default_factory=itertools.count)
    _by_greenlet: dict[Any, Actor] = field(default_factory=dict)

    @property
    def time(self) -> datetime:
        """The database's time, in whole milliseconds."""
        return EPOCH + timedelta(milliseconds=round(self.now * 1000))

    def spawn(self, name: str, after: float, run: Callable[[], object], *, may_fail: bool, patience: float) -> Actor:
        """Let an actor begin ``after`` seconds."""
        actor = Actor(name, may_fail, patience, run)
        actor.greenlet = greenlet(lambda: self._live(actor))
        self._by_greenlet[actor.greenlet] = actor
        self.actors.append(actor)
        self.at(after, lambda: self._resume(actor))
        return actor

    def at(self, after: float, happen: Callable[[], None]) -> None:
        """Let something happen ``after`` seconds; of things at one moment the choices decide which is first."""
        moment = round(self.now + max(after, TICK), 3)
        first = self.choices.pick(_COIN) if self.events and not self.is_calm else 0
        heapq.heappush(self.events, (moment, first, next(self._number), happen))

    def run(self) -> None:
        """Let everything happen until nothing is left to, or something has that must not."""
        while self.events and not self.violation:
            self.now, _, _, happen = heapq.heappop(self.events)
            self.steps += 1
            happen()

    def close(self) -> None:
        """Let the actors that are still at work end without a trace."""
        for actor in self.actors:
            actor.is_dead = True
            if not actor.greenlet.dead:
                actor.greenlet.throw(GreenletExit)

    @property
    def actor(self) -> Actor | None:
        """Who is at work; None between two."""
        return self._by_greenlet.get(getcurrent())

    def tell(self, what: str) -> None:
        """Add a line to the trace."""
        actor = self.actor
        self.trace.append((self.now, actor.name if actor else "", what))

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    def violate(self, what: str) -> None:
        """Say that something happened that must not: the schedule ends."""
        if not self.violation and not any(actor.is_dead and actor is self.actor for actor in self.actors):
            self.violation = what
            self.tell(f"VIOLATION: {what}")

    def sleep(self, seconds: float) -> None:
        """Let the actor do nothing for so long."""
        actor = self._alive()
        if actor is not None:
            self.at(seconds, lambda: self._resume(actor))
            self._leave(actor)

    def pause(self) -> None:
        """Let the actor lose as much time as the choices want, while others go on."""
        actor = self._alive()
        if actor is not None:
            self.at(self._draw_pause(actor), lambda: self._resume(actor))
            self._leave(actor)

    def before_transaction(self, what: str) -> int:
        """Let the actor come to a transaction, which happens at once; return what will become of its answer."""
        actor = self._alive()
        if actor is None:
            return 0
        self.pause()
        fate = self.choices.pick(self.faults.transaction_fates) if actor.may_fail else 0
        if fate == 1:
            self._die(actor, f"dies before a {what}")
        return fate

    def after_transaction(self, what: str, fate: int) -> None:
        """Let the answer of a transaction that was committed come to the actor, or not."""
        actor = self._alive()
        if actor is None:
            return
        if fate == 2:
            self._die(actor, f"dies after a {what}")
        if fate == 3:
            self.count("lost answers")
            self.tell(f"the answer to a {what} is lost")
            raise UnavailableError(f"the answer to a {what} is lost")
        self.pause()

    def request(self, what: str, run: Callable[[], T], *, changes: bool) -> T:
        """Return what ``run`` returns, which happens when the request arrives; the answer may be late, or be lost.

        One that ``changes`` something may arrive after its sender gave it up or died, but on its way it is for
        ``longest_way`` at most.
        """
        if self.in_transaction:
            self.violate(f"{what} is asked of the store within a transaction")
        actor = self._alive()
        if actor is None:
            return run()
        fate = self.choices.pick(self.faults.fates) if actor.may_fail else 0
        way = min(self._draw_pause(actor), self.faults.longest_way) if changes else self._draw_pause(actor)
        answer: list[Any] = []

        def arrive() -> None:
            if fate != 3:
                self.trace.append((self.now, actor.name, what))
                try:
                    answer.append((run(), None))
                except LoregError as error:
                    answer.append((None, error))
            if actor.waits and fate in (0, 1):
                self.at(self._draw_pause(actor) if fate == 1 else 0, lambda: self._resume(actor))

        self.at(way, arrive)
        if fate == 4:
            self._die(actor, f"dies after it sent {what}")
        if fate in (2, 3):
            self.count("lost answers")
            self.tell(f"{what}: the {'answer' if fate == 2 else 'request'} will be lost")
            self.at(TIMEOUT, lambda: self._resume(actor))
        self._leave(actor)
        if fate in (2, 3):
            raise UnavailableError(f"{what}: no answer")
        result, error = answer[0]
        if error is not None:
            raise error
        return result

    def _draw_pause(self, actor: Actor) -> float:
        pause = self.faults.pauses[self.choices.pick(self.faults.pause_weights)]
        if pause > actor.patience:
            return 0.0
        if pause >= 1:
            actor.patience -= pause
        return pause

    def _alive(self) -> Actor | None:
        """Return who is at work, None outside of every actor. Raises GreenletExit in one that is dead."""
        actor = self.actor
        if actor is not None and (actor.is_dead or self.violation):
            raise GreenletExit
        return None if self.is_calm else actor

    def _die(self, actor: Actor, how: str) -> None:
        self.tell(how)
        self.count("crashes")
        actor.is_dead = True
        actor.outcome = "died"
        raise GreenletExit

    def _leave(self, actor: Actor) -> None:
        actor.waits = True
        actor.greenlet.parent.switch()

    def _resume(self, actor: Actor) -> None:
        if not actor.is_dead:
            actor.waits = False
            actor.greenlet.switch()

    def _live(self, actor: Actor) -> None:
        try:
            actor.run()
            actor.outcome = "done"
        except LoregError as error:
            actor.outcome = error.code
            self.tell(f"ends: {error.code}: {error.message}")
        except GreenletExit:
            pass
        except Exception as error:  # what no caller is told to expect
            actor.outcome = "failed"
            self.violate(f"{actor.name} ends with {type(error).__name__}: {error}")


_COIN = weights(0.3)


@contextlib.contextmanager
def closing(world: World) -> Iterator[World]:
    """End the actors of the world at the end."""
    try:
        yield world
    finally:
        world.close()
