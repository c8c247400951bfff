"""Where versions are: what folders and servers tell that they have, and how that differs from what they should have."""

from __future__ import annotations

from datetime import datetime

from loreg.value import Value


class DeployedVersion(Value, frozen=True):
    """What a folder or a server has under ``name``: the version ``ref``, and the alias that it follows, if it does."""

    name: str
    ref: str
    alias: str = ""


class DeploymentReport(Value, frozen=True):
    """Everything that one replica of a server, or one folder, has now: what is not named, it has not any more.

    ``kind`` says what it is: ``folder``, ``vllm``, … ``versions`` is None where it has what it told last.
    """

    server: str
    replica: str
    kind: str
    versions: tuple[DeployedVersion, ...] | None


class Deployment(Value, frozen=True):
    """A version that a replica of a server, or a folder, has under ``name`` since a time, as ``author`` told.

    ``seen_at`` is when it last told anything, ``is_silent`` whether that is too long ago. ``drift`` says how what it
    has differs from what the registry says: the alias that it follows means another version now, or this one was
    yanked; empty if it does not.
    """

    server: str
    replica: str
    kind: str
    name: str
    ref: str
    digest: str
    since: datetime
    seen_at: datetime
    author: str
    is_silent: bool
    drift: str

    @property
    def state(self) -> str:
        """Return what is amiss, in a word or three; empty if nothing is."""
        return "silent" if self.is_silent else self.drift
