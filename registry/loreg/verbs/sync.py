"""sync: keep a folder as a selection says, once or as it changes."""

from __future__ import annotations

import contextlib
import random
import re
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace

from loreg.checking.profile import Profile, read_profile
from loreg.entities import (
    DeployedVersion,
    DeploymentReport,
    Progress,
    Query,
    SelectedVersion,
    Selection,
    SyncedAdapter,
    SyncOptions,
    SyncProblem,
    SyncProblemKind,
    SyncReport,
    Version,
    no_progress,
)
from loreg.errors import (
    CheckFailedError,
    ConflictError,
    LoregError,
    NotAllowedError,
    NotFoundError,
    UnavailableError,
    UsageError,
)
from loreg.exporting.folder import digest_request
from loreg.live.folder import FollowedFolder, ShownVersion, open_followed
from loreg.refs import AdapterPattern
from loreg.selectors import Selector, parse_selector
from loreg.verbs.pull import pull
from loreg.workspace.context import Context

_PARALLEL = 4  # versions that are fetched at once
_SHOW_INTERVAL = 0.2  # seconds after which what was fetched is shown, while others are on their way
_RECHECK = 300.0  # seconds after which the selection is asked for though nothing was told
_RETRY = 15.0  # seconds after which it is asked for again where something is amiss
_MAX_REPLICA = 128  # characters
_MIN_PAUSE, _MAX_PAUSE = 0.2, 15.0  # seconds between two attempts to reach a registry that does not answer


class Followed(NamedTuple):
    """What is followed: selectors, or without any a search."""

    selectors: tuple[Selector, ...]
    query: Query | None

    @property
    def patterns(self) -> tuple[AdapterPattern, ...]:
        """Return which adapters' events matter: none if those of all do."""
        return () if self.query is not None else tuple({selector.pattern: None for selector in self.selectors})


def parse_selection(selection: str | Sequence[str] | Query) -> Followed:
    """Return what is selected. Raises UsageError for what is no selector, or if there is none."""
    if isinstance(selection, Query):
        return Followed((), selection)
    selectors = tuple(map(parse_selector, [selection] if isinstance(selection, str) else selection))
    if not selectors:
        raise UsageError("nothing is selected", hint="loreg sync 'team/*:prod' ./adapters")
    return Followed(selectors, None)


def sync(
    context: Context,
    selection: str | Sequence[str] | Query,
    folder: Path | str,
    options: SyncOptions,
    progress: Progress = no_progress,
) -> SyncReport:
    """Bring the folder to what the selection means now. See :meth:`loreg.registry.Registry.sync`."""
    followed, profile = parse_selection(selection), _read_profile(options)
    with open_followed(folder, is_flat=options.flat, is_pinned=options.pinned) as opened:
        follower = _Follower(context, followed, options, profile, opened)
        report = follower.follow_once(progress)
        follower.try_to_tell(is_changed=True)
        return report


def follow(
    context: Context,
    selection: str | Sequence[str] | Query,
    folder: Path | str,
    options: SyncOptions,
) -> Iterator[SyncReport | LoregError]:
    """Keep the folder as the selection says, and yield what changed. See :meth:`loreg.registry.Registry.follow`."""
    followed, profile = parse_selection(selection), _read_profile(options)
    with open_followed(folder, is_flat=options.flat, is_pinned=options.pinned) as opened:
        yield from _Follower(context, followed, options, profile, opened).follow()


def _read_profile(options: SyncOptions) -> Profile | None:
    """Return the profile, read before anything is made. Raises UsageError."""
    if options.keep < 0:
        raise UsageError(f"{options.keep} versions cannot be kept", hint="--keep 2")
    return read_profile(options.profile) if options.profile is not None else None


class _Follower:
    """Follows a selection with an open folder."""

    def __init__(
        self,
        context: Context,
        followed: Followed,
        options: SyncOptions,
        profile: Profile | None,
        folder: FollowedFolder,
    ) -> None:
        self._context, self._followed, self._options = context, followed, options
        self._profile, self._folder = profile, folder
        #: Folders by digest that are there, every file of them read since this began; and what no server would take.
        self._verified: set[str] = set()
        self._refused: dict[str, SyncProblem] = {}

    def follow(self) -> Iterator[SyncReport | LoregError]:
        """Yield the first report, and each later one with something new in it; an error once while it lasts."""
        last: SyncReport | None = None
        reason, pause, has_told = "", _MIN_PAUSE, False
        with closing(self._context.backend.stream_events(self._followed.patterns)) as stream:
            while True:
                is_told = True
                try:
                    if not reason:  # what was told last was not done yet: nobody may tell of it again
                        stream.read(_RETRY if last is not None and last.problems else _RECHECK)
                except UnavailableError:
                    is_told = False
                    stream.close()
                try:
                    report = self.follow_once()
                except (UnavailableError, ConflictError) as error:
                    if error.code != reason:  # the words differ from one attempt to the next
                        yield error
                    reason, is_told = error.code, False
                else:
                    has_told = self.try_to_tell(is_changed=not has_told or bool(report.updated or report.removed))
                    if reason or last is None or report.updated or report.removed or report.problems != last.problems:
                        yield report
                    reason, last = "", report
                pause = _MIN_PAUSE if is_told else min(2 * pause, _MAX_PAUSE)
                if not is_told:
                    time.sleep(pause * random.uniform(0.5, 1))  # noqa: S311  # so that not all come back at once

    def follow_once(self, progress: Progress = no_progress) -> SyncReport:
        """Ask what the selection means, fetch what is new of it, and show it."""
        selection = self._context.backend.select(self._followed.selectors, self._followed.query)
        self._refuse_other_registry(selection)
        before = self._folder.state.names
        self._verified &= self._folder.list_versions()
        problems = [
            SyncProblem(SyncProblemKind.MISSING, missing.selector, "", missing.reason, "loreg ls")
            for missing in selection.missing
        ]
        shown = dict[str, ShownVersion]()
        new = []
        blocked = self._find_blocked(selection)
        for selected in selection.versions:
            name = selected.name
            problem = blocked.get(name) or self._why_older(selected)
            if problem is None:
                new.append(selected)
                continue
            problems.append(problem)
            if name in before and problem.kind == SyncProblemKind.OLDER:
                shown[name] = before[name]
        last_shown = time.monotonic()
        with ThreadPoolExecutor(_PARALLEL) as pool:
            results = zip(new, pool.map(self._fetch, new), strict=True)
            for done, (selected, result) in enumerate(results, start=1):
                progress("syncing", done, len(new))
                name = selected.name
                if isinstance(result, SyncProblem):
                    problems.append(result)
                    shown |= {name: before[name]} if name in before else {}
                    continue
                shown[name] = _next_shown(selected, result, before.get(name), self._options.keep)
                if time.monotonic() - last_shown > _SHOW_INTERVAL:
                    self._folder.show({**self._folder.state.names, **shown}, selection.registry)
                    last_shown = time.monotonic()
        self._folder.show(shown, selection.registry)
        self._folder.remove_unneeded(
            self._options.keep, [self._folder_name(selected.version) for selected in selection.versions]
        )
        return self._report(before, shown, problems)

    def try_to_tell(self, *, is_changed: bool) -> bool:
        """Tell the registry what the folder has; return False if it does not answer."""
        try:
            self._tell(is_changed=is_changed)
        except UnavailableError:
            return False
        return True

    def _tell(self, *, is_changed: bool) -> None:
        """Tell the registry what the folder has, or that it has what was told last; nothing where it may not."""
        options, folder = self._options, self._folder
        server, replica = options.server or socket.gethostname(), str(folder.root)[-_MAX_REPLICA:]
        versions = tuple(
            DeployedVersion(name, shown.ref, _alias_of(shown.selector)) for name, shown in folder.state.names.items()
        )
        report = DeploymentReport(server, replica, "folder", versions if is_changed else None)
        with contextlib.suppress(NotAllowedError):
            try:
                self._context.backend.report_deployment(report)
            except NotFoundError:
                if not is_changed:
                    self._tell(is_changed=True)

    def _refuse_other_registry(self, selection: Selection) -> None:
        known = self._folder.state.registry
        if known and known != selection.registry:
            raise ConflictError(
                f"{self._folder.root} follows another registry than this one; nothing was changed",
                hint="name a new folder",
            )

    def _find_blocked(self, selection: Selection) -> dict[str, SyncProblem]:
        """Return the names that cannot be shown: for what lies there, or because another name takes the place."""
        blocked = dict[str, SyncProblem]()
        taken = dict[Path, str]()
        places = [(selected, self._folder_name(selected.version)) for selected in selection.versions]
        folders = {self._folder.link(selected.name, folder).parent for selected, folder in places}
        for selected, folder in places:
            name, link = selected.name, self._folder.link(selected.name, folder)
            reason = self._folder.what_blocks(name, folder)
            if link in folders:
                reason = f"{link} is the folder of other names"
            if link in taken:
                reason = f"{link} is {taken[link]} already"
            if reason:
                hint = f"loreg sync NAME={selected.version.adapter} gives it another name"
                blocked[name] = SyncProblem(SyncProblemKind.BLOCKED, name, selected.version.ref, reason, hint)
            else:
                taken[link] = name
        return blocked

    def _why_older(self, selected: SelectedVersion) -> SyncProblem | None:
        shown = self._folder.state.names.get(selected.name)
        if shown is None or shown.selector != selected.selector or self._options.accept_older:
            return None
        if selected.position >= shown.position:
            return None
        return SyncProblem(
            SyncProblemKind.OLDER,
            selected.name,
            selected.version.ref,
            f"the registry's answer is older than {shown.ref}, which the folder has",
            "if the registry was restored from a backup: loreg sync --accept-older",
        )

    def _fetch(self, selected: SelectedVersion) -> str | SyncProblem:
        """Return the name of the folder with the version's files, fetched and verified.

        Raises UnavailableError if the registry does not answer.
        """
        version = selected.version
        name = self._folder_name(version)
        if name in self._refused:
            return replace(self._refused[name], name=selected.name, ref=version.ref)
        try:
            return self._fetch_to(name, version)
        except UnavailableError as error:
            if not isinstance(error.__cause__, OSError):
                raise
            hint = f"make room on the disk of {self._folder.root}, and look at its permissions"
            return SyncProblem(SyncProblemKind.FAILED, selected.name, version.ref, error.message, hint)
        except CheckFailedError as error:
            kind = SyncProblemKind.REFUSED
            self._refused[name] = SyncProblem(kind, selected.name, version.ref, error.message, error.hint)
            return self._refused[name]
        except LoregError as error:
            return SyncProblem(SyncProblemKind.FAILED, selected.name, version.ref, error.message, error.hint)

    def _fetch_to(self, name: str, version: Version) -> str:
        ref = f"{version.ref}@sha256:{version.digest}"
        while name not in self._verified:
            path = self._folder.version_folder(name)
            try:
                pull(self._context, ref, path, profile=self._options.profile)
            except ConflictError:
                if not path.exists():
                    raise
                name = _next_name(name)  # that one is damaged: another takes its place, and it is shown until then
            else:
                self._verified.add(name)
        return name

    def _folder_name(self, version: Version) -> str:
        """Return the name by digest of the version, and of what it becomes for a server."""
        if self._profile is None:
            return version.digest
        return f"{version.digest}-{digest_request(self._profile, version.base)[:16]}"

    def _report(
        self, before: Mapping[str, ShownVersion], shown: Mapping[str, ShownVersion], problems: Sequence[SyncProblem]
    ) -> SyncReport:
        updated, unchanged = list[SyncedAdapter](), list[SyncedAdapter]()
        for name, version in shown.items():
            previous = before.get(name)
            is_new = previous is None or previous.folder != version.folder
            previous_ref = previous.ref if previous is not None and is_new else ""
            path = self._folder.version_folder(version.folder)
            adapter = SyncedAdapter(name, version.ref, version.digest, path, previous_ref)
            (updated if is_new else unchanged).append(adapter)
        removed = tuple(name for name in before if name not in shown)
        return SyncReport(self._folder.root, tuple(updated), removed, tuple(unchanged), tuple(problems))


def _next_shown(selected: SelectedVersion, folder: str, before: ShownVersion | None, keep: int) -> ShownVersion:
    recent = before.recent if before is not None else ()
    if before is not None and before.folder != folder:
        recent = (before.folder, *(other for other in recent if other not in (folder, before.folder)))
    version = selected.version
    return ShownVersion(version.ref, version.digest, folder, selected.selector, selected.position, recent[:keep])


def _alias_of(selector: str) -> str:
    """Return the alias that a selector names; empty for one without, and for a search."""
    return parse_selector(selector).alias or ""


def _next_name(name: str) -> str:
    match = re.fullmatch(r"(.*)~(\d+)", name)
    return f"{match[1]}~{int(match[2]) + 1}" if match else f"{name}~1"
