"""Probes: functions from an adapter to facts, those that come with loreg and those that other packages bring.

A package brings one by an entry point of the group ``loreg.probes``: a function of a :class:`ProbedAdapter` that
returns an object for JSON. Its release is that of the package.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path

import msgspec

from loreg.checking.profile import read_known_profile
from loreg.checking.servers import rules_release
from loreg.entities import Commit, MapOptions, NewExport, NewFacts, ProbedVersion
from loreg.errors import LoregError, MissingExtraError, NotFoundError, UnavailableError, UsageError
from loreg.manifest import Manifest
from loreg.probes.adapter import ProbedAdapter
from loreg.suggestions import suggest

GROUP = "loreg.probes"
_EXPORT, _RERANK = "export", "rerank"
#: Errors that say nothing of an adapter: no space, no quota, no more files, no memory.
_OF_THE_MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_MAX_ERROR = 500  # characters of an error that is recorded
_MAX_VALUE = 16 * 1024**2  # bytes of facts, as JSON

ProbeFunction = Callable[[ProbedAdapter], Mapping[str, object]]


@dataclass(frozen=True)
class Probe:
    """A function from an adapter to facts. What it says may differ from release to release, and by nothing else.

    If it does not read the weights, the structure of the adapter that it is given has no file of them. One that makes
    something leaves it in the folder of the adapter's output, and ``to_made`` returns what is to be recorded of that
    folder, whose files are stored as the manifest says.
    """

    name: str
    release: str
    reads_weights: bool
    function: ProbeFunction
    to_made: Callable[[ProbedVersion, Path, Manifest], NewExport | Commit] | None = None

    def run(self, adapter: ProbedAdapter) -> NewFacts:
        """Return what the probe says of an adapter. Raises what :meth:`call` raises."""
        return self.call(lambda: self.function(adapter))

    def call(self, function: Callable[[], Mapping[str, object]]) -> NewFacts:
        """Return what ``function``, which does what the probe's does, says; an error of it is what it says, too.

        Raises UnavailableError where something outside does not answer: that says nothing of the adapter.
        """
        try:
            return self.facts(function())
        except (UnavailableError, KeyboardInterrupt):
            raise
        except BaseException as error:  # also what exits, and a panic of Rust: the next adapter is read all the same
            if isinstance(error, OSError) and error.errno in _OF_THE_MACHINE:
                raise UnavailableError(
                    f"the machine of the probe {self.name} has no room: {error.strerror}", hint="df -h; ulimit -a"
                ) from error
            return self.failure(error)

    def facts(self, value: Mapping[str, object]) -> NewFacts:
        """Return what the function returned as facts. Raises UsageError for what JSON cannot say."""
        try:
            document = json.loads(json.dumps(value, allow_nan=False))
            size = len(msgspec.json.encode(document))  # half a character nobody could be sent
        except (TypeError, ValueError, RecursionError) as error:
            raise UsageError(
                f"the probe {self.name} returned what is no JSON: {error}",
                hint="return dicts, lists, texts, numbers",
            ) from error
        if not isinstance(document, dict):
            raise UsageError(f"the probe {self.name} returned {type(value).__name__}", hint="return a dict")
        if size > _MAX_VALUE:
            raise UsageError(
                f"the probe {self.name} returned {size:,} bytes, expected {_MAX_VALUE:,} at most",
                hint="return what is small, and write the rest to a file",
            )
        return NewFacts(self.name, self.release, document)

    def failure(self, error: BaseException | str) -> NewFacts:
        """Return the facts of an adapter of which the probe can say nothing, and why."""
        message = error.message if isinstance(error, LoregError) else _text_of(error)
        kind = "" if isinstance(error, LoregError | str) else f"{type(error).__name__}{': ' if message else ''}"
        readable = f"{kind}{message}".replace("\x00", "").encode(errors="replace").decode()
        return NewFacts(self.name, self.release, {}, readable[:_MAX_ERROR] or "it says not why")


def _text_of(error: BaseException | str) -> str:
    """Return what an error says of itself; nothing if that is an error, too."""
    try:
        return str(error)
    except Exception:
        return ""


def list_probes() -> tuple[str, ...]:
    """Return the names of all probes that are installed."""
    return tuple(sorted({*_BUILT_IN, _EXPORT, _RERANK, *(point.name for point in entry_points(group=GROUP))}))


def find_probe(name: str, options: MapOptions = MapOptions()) -> Probe:
    """Return the probe of that name, which takes the options.

    Raises NotFoundError, and UsageError for an entry point that does not load, and for options that the probe does not
    take or misses.
    """
    if name == _EXPORT:
        return _export(options)
    if name == _RERANK:
        return _rerank(options)
    if options != MapOptions():
        raise UsageError(f"the probe {name} takes no such options", hint=f"loreg map {name}")
    if name in _BUILT_IN:
        return _BUILT_IN[name]()
    point = next(iter(entry_points(group=GROUP, name=name)), None)
    if point is None:
        raise NotFoundError(
            f"there is no probe {name!r}",
            hint=f"loreg map {' | '.join(list_probes())}",
            suggestion=suggest(name, list_probes()),
        )
    return _load(point)


def _load(point: EntryPoint) -> Probe:
    package = f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.value
    try:
        function = point.load()
    except Exception as error:
        raise UsageError(
            f"the probe {point.name} of {package} does not load: {error}", hint=f"python -c 'import {point.module}'"
        ) from error
    if not callable(function):
        raise UsageError(
            f"the probe {point.name} of {package} is no function: {point.value} is {type(function).__name__}",
            hint=f"python -c 'import {point.module}'",
        )
    reads_weights = bool(getattr(function, "reads_weights", True))
    return Probe(point.name, point.dist.version if point.dist is not None else "", reads_weights, function)


def _export(options: MapOptions) -> Probe:
    from loreg.probes import export

    if not options.profile:
        raise UsageError("the server to export for is not named", hint="loreg map export --profile vllm")
    if options != MapOptions(options.profile):
        raise UsageError("an export has a server, and no rank or name", hint="loreg map export --profile vllm")
    profile = read_known_profile(options.profile)
    return Probe(
        f"{_EXPORT} {options.profile}",
        export.release_of(profile),
        True,
        partial(export.export, profile),
        partial(export.to_export, options.profile, profile),
    )


def _rerank(options: MapOptions) -> Probe:
    from loreg.probes import rerank

    rerank.require_options(options)
    if options.profile:
        raise UsageError("rerank is for no server", hint="loreg map export --profile vllm")
    if find_spec("torch") is None:
        raise MissingExtraError("merging needs torch, which is not installed", hint="pip install 'loreg[merge]'")
    return Probe(
        f"{_RERANK} {options.rank} {options.name}",
        rerank.RELEASE,
        True,
        partial(rerank.rerank, options),
        partial(rerank.to_commit, options),
    )


def _check() -> Probe:
    from loreg.probes import check

    return Probe(check.NAME, rules_release(), False, check.check)


def _sketch() -> Probe:
    from loreg.probes import sketch

    return Probe(sketch.NAME, sketch.RELEASE, True, sketch.sketch)


def _spectra() -> Probe:
    from loreg.probes import spectra

    return Probe(spectra.NAME, spectra.RELEASE, True, spectra.spectra)


#: Those that come with loreg, by name; NumPy is imported for those alone that need it.
_BUILT_IN: Mapping[str, Callable[[], Probe]] = {"check": _check, "sketch": _sketch, "spectra": _spectra}
