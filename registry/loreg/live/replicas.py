"""Keep what the replicas of a server have loaded equal to what a followed folder shows: all have it, or it is not done.

Each version is loaded under a name of its own, ``team/news@74824d86c206``, from its folder by digest: no cache of a
server takes two versions for one. Nothing is remembered that a server can be asked: whoever goes on after a crash, or
after a server was started again, lists what is loaded and does the rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from loreg.entities import SyncProblem, SyncProblemKind
from loreg.errors import CheckFailedError, LoregError, NotAllowedError, UnavailableError
from loreg.live.adapter_servers import AdapterServer
from loreg.live.folder import FollowedFolder, ShownVersion

_REFUSAL_LIFE = 300.0  # seconds after which a server is asked again for what it has refused
_PARALLEL = 16  # servers that are asked at once


class ReplicasReport(NamedTuple):
    """What a round did, by the names of a selection.

    ``done`` are those whose version every replica has, ``new`` those of them that not every one had before, ``loaded``
    those whose version each replica has that could be asked. ``in_use`` are the folders that one may read, None where
    not all could be asked.
    """

    done: frozenset[str]
    new: frozenset[str]
    problems: tuple[SyncProblem, ...]
    loaded: Mapping[AdapterServer, frozenset[str]]
    in_use: frozenset[str] | None


class _Listing(NamedTuple):
    """What each replica has loaded, path by name, and why others did not say."""

    loaded: Mapping[AdapterServer, Mapping[str, str]]
    errors: Mapping[AdapterServer, LoregError]


class _Target(NamedTuple):
    """A version as a server is to have it: the name that it is loaded under, and its folder as the server sees it."""

    name: str
    path: str


class Replicas:
    """The replicas of one server. All see the folder, as ``path`` where that is not the path that it has here."""

    def __init__(self, servers: Sequence[AdapterServer], folder: FollowedFolder, path: str) -> None:
        self._servers, self._folder = servers, folder
        self._versions = f"{(path or str(folder.root)).rstrip('/')}/{folder.versions.relative_to(folder.root)}/"
        #: When and why a server has refused a path.
        self._refusals: dict[tuple[AdapterServer, str], tuple[float, CheckFailedError]] = {}

    def request_name(self, name: str, folder: str) -> str:
        """Return how a request to one of the servers names the version."""
        target = self._target(name, folder)
        return self._servers[0].request_name(target.name, target.path)

    def update(self, names: Mapping[str, ShownVersion]) -> ReplicasReport:
        """Load the version of each name everywhere, and then unload what no name needs any more.

        Until every replica has a name's version, each keeps what it had of the name.
        """
        targets = {name: self._target(name, shown.folder) for name, shown in names.items()}
        before = self._list_loaded()
        errors = _for_each(before.loaded, lambda server: self._load(server, targets.values(), before.loaded[server]))
        is_as_before = all(_is_everywhere(target, before) for target in targets.values())
        after = before if is_as_before else self._list_loaded()
        errors |= {**before.errors, **after.errors}
        done = frozenset(name for name, target in targets.items() if not errors and _is_everywhere(target, after))
        errors |= _for_each(after.loaded, lambda server: self._unload(server, names, done, after.loaded[server]))
        return ReplicasReport(
            done,
            frozenset(name for name in done if not _is_everywhere(targets[name], before)),
            self._find_problems(names, targets, after, errors),
            {
                server: frozenset(name for name, target in targets.items() if _has(loaded, target))
                for server, loaded in after.loaded.items()
            },
            None if errors else self._find_in_use(before, after),
        )

    def _target(self, name: str, folder: str) -> _Target:
        return _Target(self._folder.pinned_name(name, folder), f"{self._versions}{folder}")

    def _list_loaded(self) -> _Listing:
        loaded: dict[AdapterServer, Mapping[str, str]] = {}

        def ask(server: AdapterServer) -> None:
            loaded[server] = server.list_loaded()

        errors = _for_each(self._servers, ask)
        return _Listing({server: loaded[server] for server in self._servers if server in loaded}, errors)

    def _load(self, server: AdapterServer, targets: Collection[_Target], loaded: Mapping[str, str]) -> None:
        """Load what is missing; what the server refuses is recorded, and asked for again after a while."""
        for target in targets:
            if _has(loaded, target) or self._refusal(server, target) is not None:
                continue
            try:
                if target.name in loaded:  # as another profile wrote it
                    self._require_own(server, target.name, loaded)
                    server.unload(target.name)
                server.load(*target)
            except CheckFailedError as error:
                self._refusals[server, target.path] = time.monotonic(), error

    def _require_own(self, server: AdapterServer, name: str, loaded: Mapping[str, str]) -> None:
        if not loaded[name].startswith(self._versions):
            raise CheckFailedError(
                f"{server.label} has {name} from {loaded[name] or 'somewhere else'}",
                hint="unload it there, or let one loreg sync write the folder of all that this server loads",
            )

    def _unload(
        self, server: AdapterServer, names: Mapping[str, ShownVersion], done: frozenset[str], loaded: Mapping[str, str]
    ) -> None:
        """Unload what is of this folder and no name needs; its files stay for a while, for requests under way."""
        needed = {
            self._target(name, folder) for name, shown in names.items() for folder in (shown.folder, *shown.recent)
        }
        for name, path in loaded.items():
            selected = name.rpartition("@")[0]
            if not path.startswith(self._versions) or (name, path) in needed or selected in names.keys() - done:
                continue
            self._folder.touch(path.removeprefix(self._versions))
            server.unload(name)

    def _find_problems(
        self,
        names: Mapping[str, ShownVersion],
        targets: Mapping[str, _Target],
        listing: _Listing,
        errors: Mapping[AdapterServer, LoregError],
    ) -> tuple[SyncProblem, ...]:
        problems = [
            SyncProblem(SyncProblemKind.SERVER, server.label, "", error.message, error.hint)
            for server, error in errors.items()
        ]
        for server, loaded in listing.loaded.items():
            for name, target in targets.items():
                if _has(loaded, target) or server in errors:
                    continue
                kind, error = SyncProblemKind.REFUSED, self._refusal(server, target)
                if error is None:
                    kind, error = SyncProblemKind.SERVER, _dropped(server, target.name)
                problems.append(SyncProblem(kind, name, names[name].ref, error.message, error.hint))
        return tuple(problems)

    def _refusal(self, server: AdapterServer, target: _Target) -> LoregError | None:
        at, error = self._refusals.get((server, target.path), (-_REFUSAL_LIFE, None))
        return error if time.monotonic() - at < _REFUSAL_LIFE else None

    def _find_in_use(self, *listings: _Listing) -> frozenset[str]:
        paths = [path for listing in listings for loaded in listing.loaded.values() for path in loaded.values()]
        return frozenset(path.removeprefix(self._versions) for path in paths if path.startswith(self._versions))


def _for_each(
    servers: Collection[AdapterServer], work: Callable[[AdapterServer], None]
) -> dict[AdapterServer, LoregError]:
    """Do the work for all servers at once; return the errors of those where it broke off."""

    def attempt(server: AdapterServer) -> LoregError | None:
        try:
            work(server)
        except (UnavailableError, NotAllowedError) as error:
            return error
        return None

    with ThreadPoolExecutor(_PARALLEL) as pool:
        results = zip(servers, pool.map(attempt, servers), strict=True)
        return {server: error for server, error in results if error is not None}


def _has(loaded: Mapping[str, str], target: _Target) -> bool:
    return loaded.get(target.name) == target.path


def _is_everywhere(target: _Target, listing: _Listing) -> bool:
    return all(_has(loaded, target) for loaded in listing.loaded.values())


def _dropped(server: AdapterServer, name: str) -> LoregError:
    return UnavailableError(
        f"{server.label} took {name} and has dropped it since: more are selected than it holds",
        hint="select fewer, or start it with room for more: SGLang with --max-loaded-loras",
    )
