"""sync: keep a folder, and what servers have loaded of it, as a selection says, once or as it changes."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from loreg.backend import EventStream
from loreg.checking.profile import Profile, read_profile
from loreg.entities import Progress, Query, SyncedAdapter, SyncOptions, SyncReport, no_progress
from loreg.errors import ConflictError, LoregError, UnavailableError, UsageError
from loreg.live.adapter_servers import KINDS, AdapterServer, parse_servers
from loreg.live.folder import FollowedFolder, open_followed
from loreg.live.replicas import Replicas, ReplicasReport
from loreg.pauses import GrowingPauses
from loreg.selectors import parse_selector
from loreg.settings import Settings
from loreg.verbs.sync_deployments import DeploymentReporter
from loreg.verbs.sync_folder import FolderReport, FolderSync, Followed
from loreg.workspace.context import Context

_RECHECK = 300.0  # seconds after which the selection is asked for though nothing was told
_RETRY = 15.0  # seconds after which it is asked for again where something is amiss
_LOOK = 15.0  # seconds after which servers are asked what they have: one may have been started again
_UNUSED = 600.0  # seconds for which the files of what a server has unloaded stay: requests may be under way
_MIN_PAUSE, _MAX_PAUSE = 0.2, 15.0  # seconds between two attempts to reach a registry that does not answer


def sync(
    context: Context,
    settings: Settings,
    selection: str | Sequence[str] | Query,
    folder: Path | str | None,
    options: SyncOptions,
    progress: Progress = no_progress,
) -> SyncReport:
    """Bring the folder to what the selection means now. See :meth:`loreg.registry.Registry.sync`."""
    with _open(context, settings, selection, folder, options) as follower:
        return follower.follow_once(progress)


def follow(
    context: Context,
    settings: Settings,
    selection: str | Sequence[str] | Query,
    folder: Path | str | None,
    options: SyncOptions,
) -> Iterator[SyncReport | LoregError]:
    """Keep the folder as the selection says, and yield what changed. See :meth:`loreg.registry.Registry.follow`."""
    with _open(context, settings, selection, folder, options) as follower:
        yield from follower.follow()


@contextlib.contextmanager
def _open(
    context: Context,
    settings: Settings,
    selection: str | Sequence[str] | Query,
    folder: Path | str | None,
    options: SyncOptions,
) -> Iterator[_Follower]:
    """Open the folder to follow with; nothing is made for what is wrong from the start. Raises UsageError."""
    if options.keep < 0:
        raise UsageError(f"{options.keep} versions cannot be kept", hint="--keep 2")
    followed = _parse_selection(selection)
    profile = read_profile(options.profile) if options.profile is not None else None
    servers = parse_servers(options.servers, settings.server_key)
    if servers:
        _require_profile(servers[0].kind, profile)
    if folder is None:
        if not servers:
            raise UsageError("no folder is named", hint="loreg sync 'team/*:prod' ./adapters")
        folder = _default_folder(settings.home, servers)
    with open_followed(folder, is_flat=options.flat, is_pinned=options.pinned or bool(servers)) as opened:
        yield _Follower(context, followed, options, profile, opened, servers)


def _parse_selection(selection: str | Sequence[str] | Query) -> Followed:
    """Return what is selected. Raises UsageError for what is no selector, or if there is none."""
    if isinstance(selection, Query):
        return Followed((), selection)
    selectors = tuple(map(parse_selector, [selection] if isinstance(selection, str) else selection))
    if not selectors:
        raise UsageError("nothing is selected", hint="loreg sync 'team/*:prod' ./adapters")
    return Followed(selectors, None)


def _require_profile(kind: str, profile: Profile | None) -> None:
    """Raise UsageError unless the files are as a server of the kind takes them."""
    parameters = ":max_lora_rank=64" if kind == "vllm" else ""
    if profile is None:
        raise UsageError(
            f"--server needs the profile that says what {kind} takes", hint=f"--profile {kind}{parameters}"
        )
    if profile.name in KINDS and profile.name != kind:
        raise UsageError(
            f"the files of profile {profile.name} are not for {kind}", hint=f"--profile {kind}{parameters}"
        )


def _default_folder(home: Path, servers: Sequence[AdapterServer]) -> Path:
    digest = hashlib.sha256("\n".join(sorted(server.label for server in servers)).encode()).hexdigest()
    return home / "cache" / "sync" / digest[:16]


class _Follower:
    """Follows a selection with an open folder, and with servers that load what is in it."""

    def __init__(
        self,
        context: Context,
        followed: Followed,
        options: SyncOptions,
        profile: Profile | None,
        folder: FollowedFolder,
        servers: Sequence[AdapterServer],
    ) -> None:
        self._context, self._followed, self._options, self._folder = context, followed, options, folder
        self._folder_sync = FolderSync(context, followed, options, profile, folder)
        self._replicas = Replicas(servers, folder, options.server_path) if servers else None
        self._reporter = DeploymentReporter(context.backend, folder, options.server_name)
        self._asked_at = float("-inf")
        self._folder_report = FolderReport(folder.state.names, folder.state.names, (), None)
        self._last: SyncReport | None = None

    def follow(self) -> Iterator[SyncReport | LoregError]:
        """Yield the first report, and each later one with something new in it; an error once while it lasts."""
        reason, pauses = "", GrowingPauses(_MIN_PAUSE, _MAX_PAUSE)
        with closing(self._context.backend.stream_events(self._followed.patterns)) as stream:
            while True:
                # What was told last was not done yet where there is a reason: nobody may tell of it again.
                is_heard, is_due = (True, True) if reason else self._wait(stream)
                report, error = None, None
                try:
                    report = self.follow_once() if is_due else self._serve_again()
                except (UnavailableError, ConflictError) as raised:
                    error, is_heard = raised, False
                    if error.code != reason:  # the words differ from one attempt to the next
                        yield error
                    with contextlib.suppress(UnavailableError):  # the folder cannot be written either
                        report = self._serve_again()
                if report is not None:
                    if self._has_news(report) or (error is None and (self._last is None or reason)):
                        yield report
                    self._last = report
                reason = error.code if error is not None else ""
                if is_heard:
                    pauses.reset()
                else:
                    time.sleep(pauses.next())

    def follow_once(self, progress: Progress = no_progress) -> SyncReport:
        """Ask what the selection means, and show it in the folder and in the servers."""
        self._folder_report = self._folder_sync.update(progress)
        self._asked_at = time.monotonic()
        return self._serve()

    def _wait(self, stream: EventStream) -> tuple[bool, bool]:
        """Return whether events can be heard of, and whether the selection is to be asked for."""
        interval = _RETRY if self._last is not None and self._last.problems else _RECHECK
        due_at = self._asked_at + interval
        seconds = min(due_at - time.monotonic(), _LOOK if self._replicas is not None else interval)
        try:
            has_events = bool(stream.read(max(seconds, 0)))
        except UnavailableError:
            stream.close()
            return False, True
        return True, has_events or time.monotonic() >= due_at

    def _serve_again(self) -> SyncReport | None:
        """Bring what the folder shows to servers that have not got it; return None if there are none."""
        if self._replicas is None:
            return None
        self._folder_report = self._folder_report._replace(before=self._folder_report.shown)
        return self._serve()

    def _serve(self) -> SyncReport:
        """Bring what the folder shows to the servers, remove what nobody needs, and tell the registry."""
        folders, replicas = self._folder_report.folders, None
        if self._replicas is None:
            self._folder.remove_unneeded(self._options.keep, folders or ())
            self._reporter.report_folder()
        else:
            replicas = self._replicas.update(self._folder_report.shown)
            if replicas.in_use is not None and folders is not None:
                in_use = {*folders, *replicas.in_use}
                self._folder.remove_unneeded(self._options.keep, in_use, unused_for=_UNUSED)
            self._reporter.report_servers(replicas.loaded)
        return self._new_report(replicas)

    def _new_report(self, replicas: ReplicasReport | None) -> SyncReport:
        before, shown, problems, _ = self._folder_report
        updated, unchanged = list[SyncedAdapter](), list[SyncedAdapter]()
        for name, version in shown.items():
            previous = before.get(name)
            is_new = previous is None or previous.folder != version.folder
            previous_ref = previous.ref if previous is not None and is_new else ""
            if replicas is not None:
                if name not in replicas.done:
                    continue
                is_new = is_new or name in replicas.new
            adapter = SyncedAdapter(
                name,
                version.ref,
                version.digest,
                self._folder.version_folder(version.folder),
                self._request_name(name, version.folder),
                previous_ref,
            )
            (updated if is_new else unchanged).append(adapter)
        removed = tuple(name for name in before if name not in shown)
        problems += replicas.problems if replicas is not None else ()
        return SyncReport(self._folder.root, tuple(updated), removed, tuple(unchanged), problems)

    def _request_name(self, name: str, folder: str) -> str:
        if self._replicas is not None:
            return self._replicas.request_name(name, folder)
        return self._folder.shown_name(name, folder)

    def _has_news(self, report: SyncReport) -> bool:
        known = self._last.problems if self._last is not None else ()
        return bool(report.updated or report.removed or report.problems != known)
