"""Tell the registry what a followed folder shows, or what each server has loaded: when it changes, and now and then."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from loreg.backend import Backend
from loreg.entities import DeployedVersion, DeploymentReport
from loreg.errors import NotAllowedError, NotFoundError, UnavailableError
from loreg.live.adapter_servers import AdapterServer
from loreg.live.folder import FollowedFolder, ShownVersion
from loreg.selectors import parse_selector

_INTERVAL = 300.0  # seconds after which it is told again that nothing has changed
_MAX_REPLICA = 128  # characters


class DeploymentReporter:
    """Reports to a registry, as who follows ``folder``, under ``server_name`` if that is not empty."""

    def __init__(self, backend: Backend, folder: FollowedFolder, server_name: str) -> None:
        self._backend, self._folder, self._server_name = backend, folder, server_name
        #: What the registry knows of each replica, and since when.
        self._known: dict[tuple[str, str], tuple[DeploymentReport, float]] = {}

    def report_folder(self) -> bool:
        """Tell what the folder shows; return False if the registry does not answer."""
        server, replica = self._server_name or socket.gethostname(), str(self._folder.root)
        return self._report([_new_report(server, replica, "folder", self._folder.state.names)])

    def report_servers(self, loaded: Mapping[AdapterServer, Iterable[str]]) -> bool:
        """Tell the versions of which names each server has loaded; return False if the registry does not answer."""
        names = self._folder.state.names
        return self._report(
            [
                _new_report(
                    self._server_name or server.address.rpartition(":")[0] or server.address,
                    server.address,
                    server.kind,
                    {self._folder.pinned_name(name, names[name].folder): names[name] for name in sorted(has)},
                )
                for server, has in loaded.items()
            ]
        )

    def _report(self, reports: Iterable[DeploymentReport]) -> bool:
        try:
            for report in reports:
                self._report_one(report)
        except UnavailableError:
            return False
        return True

    def _report_one(self, report: DeploymentReport) -> None:
        """Tell what one replica has, or that it has what was told last; nothing where the caller may not."""
        key = report.server, report.replica
        known, at = self._known.get(key, (None, 0.0))
        if known == report and time.monotonic() - at < _INTERVAL:
            return
        with contextlib.suppress(NotAllowedError, NotFoundError):
            try:
                self._backend.report_deployment(replace(report, versions=None) if known == report else report)
            except NotFoundError:
                self._backend.report_deployment(report)
        self._known[key] = report, time.monotonic()


def _new_report(server: str, replica: str, kind: str, names: Mapping[str, ShownVersion]) -> DeploymentReport:
    versions = tuple(
        DeployedVersion(name, shown.ref, parse_selector(shown.selector).alias or "") for name, shown in names.items()
    )
    return DeploymentReport(server, replica[-_MAX_REPLICA:], kind, versions)
