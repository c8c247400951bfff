"""Versions of a registry as folders on this machine, for a server that has one base: those that fit it, and no others.

A version is pulled to a folder named by its digest: vLLM's prefix cache is keyed by name and path, and an alias that
moves must not hit what was cached for the previous version.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from loreg.base_names import public_base_name
from loreg.entities import Progress, Severity, Version, no_progress
from loreg.errors import LoregError, NotFoundError, YankedError, explain_os_errors
from loreg.file_modes import make_folder
from loreg.plugins.resolved import Resolved, forget, recall, remember
from loreg.plugins.served_folders import remove_unused, touch
from loreg.refs import Ref

if TYPE_CHECKING:
    from loreg.registry import Registry


class NotServedError(LoregError):
    """The version is not to be served; ``kind`` says why: unknown, yanked, wrong base, unfit or unreachable."""

    code = "not-served"

    def __init__(self, subject: object, kind: str, reason: str, hint: str = "") -> None:
        begin = f"{subject} is not loaded: {kind}"
        hides = kind == "unreachable"  # the reason names hosts and ports
        super().__init__(f"{begin}: {reason}", hint=hint, outside=begin if hides else "")
        self.kind = kind


class ServedVersions:
    """What the registry has for ``base``, a folder or a name, as a server takes it that the ``profile`` speaks of."""

    def __init__(self, registry: Registry, base: str, profile: str) -> None:
        self._registry, self._base, self._profile = registry, base, profile
        self._folder = registry.settings.home / "cache" / "served"

    def find(self, ref: Ref) -> Version:
        """Return the version that ``ref`` means now. Raises NotServedError for one that is unknown or yanked."""
        try:
            return self._registry.show(str(ref)).version
        except NotFoundError as error:
            kind = "yanked" if isinstance(error, YankedError) else "unknown"
            raise NotServedError(ref, kind, error.message, error.hint) from error

    def prepare(self, version: Version, progress: Progress = no_progress) -> Path:
        """Return the folder of the version, pulled if it is not there; ``progress`` is told how far that is.

        Raises NotServedError for one that the base or the server would not take.
        """
        self._refuse_unfit(version)
        folder = self._folder / version.digest
        if not folder.exists():
            with explain_os_errors(self._folder, "export LOREG_HOME=… to a folder you may write"):
                make_folder(self._folder)
            self._registry.pull(f"{version.ref}@sha256:{version.digest}", folder, progress=progress)
            touch(folder)
            with contextlib.suppress(OSError):  # another process is at it
                remove_unused(self._folder)
        else:
            touch(folder)
        return folder

    def record(self, ref: Ref, version: Version | None) -> None:
        """Record what ``ref`` means, a version that is prepared, for when the registry does not answer.

        None stands for nothing that may be served: then nothing is, until the registry says otherwise.
        """
        if version is None:
            forget(self._folder, self._request(ref))
        else:
            remember(self._folder, self._request(ref), Resolved(version.digest, version.pinned))

    def recall(self, ref: Ref) -> tuple[str, Path] | None:
        """Return the pinned ref that ``ref`` meant last, and its folder; None if it was never prepared here."""
        last = recall(self._folder, self._request(ref))
        if last is None or not (self._folder / last.digest).exists():
            return None
        return last.name, self._folder / last.digest

    def _request(self, ref: Ref) -> str:
        settings = self._registry.settings
        return f"{settings.endpoint or settings.database_url}\n{self._base}\n{ref}"

    def _refuse_unfit(self, version: Version) -> None:
        path = Path(self._base)
        base_names = version.base.names if version.base else ()
        names = {*base_names, version.facts.base_hint} - {""}
        if not path.is_dir() and names.isdisjoint((self._base, public_base_name(self._base))):
            trained_on = ", ".join(sorted(names)) or "an unknown base"
            raise NotServedError(version.ref, "wrong base", f"it was trained on {trained_on}, not {self._base}")
        candidate = str(path.absolute()) if path.is_dir() else version.base.digest if version.base else None
        (report,) = self._registry.check([version.ref], base=candidate, profiles=[self._profile], header_only=True)
        errors = [finding for finding in report.findings if finding.severity == Severity.ERROR]
        if errors:
            first = next((finding for finding in errors if finding.code.startswith("LB")), errors[0])
            kind = "wrong base" if first.code.startswith("LB") else "unfit"
            raise NotServedError(version.ref, kind, f"{first.code} {first.message}", first.remedy)
