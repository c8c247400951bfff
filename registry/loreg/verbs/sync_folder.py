"""One round of following: ask what a selection means, fetch what is new of it, and show it in the folder."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace

from loreg.checking.profile import Profile
from loreg.entities import (
    Progress,
    Query,
    SelectedVersion,
    Selection,
    SyncOptions,
    SyncProblem,
    SyncProblemKind,
    Version,
)
from loreg.errors import CheckFailedError, ConflictError, LoregError, UnavailableError
from loreg.exporting.folder import digest_request
from loreg.live.folder import FollowedFolder, ShownVersion
from loreg.refs import AdapterPattern
from loreg.selectors import Selector
from loreg.verbs.pull import pull
from loreg.workspace.context import Context

_PARALLEL = 4  # versions that are fetched at once
_SHOW_INTERVAL = 0.2  # seconds after which what was fetched is shown, while others are on their way


class Followed(NamedTuple):
    """What is followed: selectors, or without any a search."""

    selectors: tuple[Selector, ...]
    query: Query | None

    @property
    def patterns(self) -> tuple[AdapterPattern, ...]:
        """Return which adapters' events matter: none if those of all do."""
        return () if self.query is not None else tuple({selector.pattern: None for selector in self.selectors})


class FolderReport(NamedTuple):
    """What a round did: by name what the folder showed before, what it shows, and where it keeps what it had."""

    before: Mapping[str, ShownVersion]
    shown: Mapping[str, ShownVersion]
    problems: tuple[SyncProblem, ...]
    #: The folders of all that the selection means, shown or not; None where it was not asked.
    folders: tuple[str, ...] | None


class FolderSync:
    """Brings an open folder to what a selection means, round by round."""

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

    def update(self, progress: Progress) -> FolderReport:
        """Show what the selection means now. Raises ConflictError for the folder of another registry."""
        selection = self._context.backend.select(self._followed.selectors, self._followed.query)
        self._refuse_other_registry(selection)
        before = self._folder.state.names
        self._verified &= self._folder.list_versions()
        shown, new, problems = self._sort_out(selection)
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
        folders = tuple(self._folder_name(selected.version) for selected in selection.versions)
        return FolderReport(before, shown, tuple(problems), folders)

    def _refuse_other_registry(self, selection: Selection) -> None:
        known = self._folder.state.registry
        if known and known != selection.registry:
            raise ConflictError(
                f"{self._folder.root} follows another registry than this one; nothing was changed",
                hint="name a new folder",
            )

    def _sort_out(
        self, selection: Selection
    ) -> tuple[dict[str, ShownVersion], list[SelectedVersion], list[SyncProblem]]:
        """Return what stays shown as it is, what is to be fetched, and what cannot be shown."""
        before, shown, new = self._folder.state.names, dict[str, ShownVersion](), list[SelectedVersion]()
        problems = [
            SyncProblem(SyncProblemKind.MISSING, missing.selector, "", missing.reason, "loreg ls")
            for missing in selection.missing
        ]
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
        return shown, new, problems

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


def _next_shown(selected: SelectedVersion, folder: str, before: ShownVersion | None, keep: int) -> ShownVersion:
    recent = before.recent if before is not None else ()
    if before is not None and before.folder != folder:
        recent = (before.folder, *(other for other in recent if other not in (folder, before.folder)))
    version = selected.version
    return ShownVersion(version.ref, version.digest, folder, selected.selector, selected.position, recent[:keep])


def _next_name(name: str) -> str:
    match = re.fullmatch(r"(.*)~(\d+)", name)
    return f"{match[1]}~{int(match[2]) + 1}" if match else f"{name}~1"
