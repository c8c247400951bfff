"""A folder that shows adapters by name: each name is a link to a folder named by digest, which is whole or not there.

    DIR/team/news                  a link to .loreg/versions/<digest>; with pinned names DIR/team/news@<12 digits>
    DIR/.loreg/sync.json           what each name means, and what it meant before
    DIR/.loreg/versions/<digest>   the files of a version

A name is recorded before it is shown: whoever goes on after a crash shows what is recorded, without asking anybody. A
folder by digest is removed when no name means it, nor was one of the last few that a name meant.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import shutil
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from loreg.decoding import decode
from loreg.errors import ConflictError, IntegrityError, UnderWayError, UsageError, explain_os_errors
from loreg.file_locks import lock_folder
from loreg.file_modes import sync_folder
from loreg.refs import parse_adapter_name
from loreg.storage.durable import AtomicFile, make_folders

STATE = "sync.json"
_OWN = ".loreg"
_REMOVED = "removed-"
_PINNED_DIGITS = 12
_FOLDER = r"^[0-9a-f]{64}[0-9a-z~-]{0,40}$"


class ShownVersion(msgspec.Struct, frozen=True):
    """What a name means: a version, the folder of its files, and where the registry's answer stood.

    ``recent`` are the folders that the name meant before, the newest first.
    """

    ref: str
    digest: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    folder: Annotated[str, Meta(pattern=_FOLDER)]
    selector: str
    position: Annotated[int, Meta(ge=0)]
    recent: tuple[Annotated[str, Meta(pattern=_FOLDER)], ...] = ()


class FolderState(msgspec.Struct, frozen=True):
    """What a followed folder shows, by name, of the registry with the id ``registry``; empty if of none yet."""

    schema: Literal["loreg.sync/1"] = "loreg.sync/1"
    registry: str = ""
    names: dict[str, ShownVersion] = msgspec.field(default_factory=dict)


class FollowedFolder:
    """A folder that one process writes and many read. Open it with :func:`open_followed`."""

    def __init__(self, root: Path, *, is_flat: bool, is_pinned: bool) -> None:
        self.root, self._is_flat, self._is_pinned = root, is_flat, is_pinned
        self._own = root / _OWN
        self.versions = self._own / "versions"
        self.state = self._read_state()

    def version_folder(self, folder: str) -> Path:
        """Return the folder of a version's files."""
        return self.versions / folder

    def list_versions(self) -> set[str]:
        """Return the names of the folders that are there, whole."""
        with self._explain_errors():
            return {path.name for path in self.versions.iterdir() if not path.name.startswith(".")}

    def link(self, name: str, folder: str) -> Path:
        """Return where a name is shown."""
        return self.root / self.shown_name(name, folder)

    def shown_name(self, name: str, folder: str) -> str:
        """Return the name, or its pinned form, as a path below the root."""
        name = self.pinned_name(name, folder) if self._is_pinned else name
        return name.replace("/", "--") if self._is_flat else name

    def pinned_name(self, name: str, folder: str) -> str:
        """Return a name that is of one version alone, so that no cache takes two for one."""
        return f"{name}@{folder[:_PINNED_DIGITS]}"

    def what_blocks(self, name: str, folder: str) -> str:
        """Return what lies in the place of a name that is no link of ours; empty if nothing does."""
        link = self.link(name, folder)
        if link.parent != self.root and (link.parent.is_symlink() or link.parent.is_file()):
            return f"{link.parent} is no folder"
        if os.path.lexists(link) and not self._is_ours(link):
            return f"{link} is there already, and is no link to a version"
        return ""

    def show(self, names: Mapping[str, ShownVersion], registry: str) -> None:
        """Record what each name means, and then show it: each link is replaced at once, others are removed."""
        state = FolderState(registry=registry, names=dict(names))
        if state != self.state:
            with self._explain_errors(), AtomicFile(self._own) as file:
                file.sink.write(msgspec.json.format(msgspec.json.encode(state)))
                file.commit(self._own / STATE)
            self.state = state
        self.show_recorded()

    def show_recorded(self) -> None:
        """Let the links be what is recorded, also after a crash between the two; what blocks one stays."""
        with self._explain_errors():
            expected = {
                self.link(name, folder): folder
                for name, shown in self.state.names.items()
                for folder in ((*shown.recent, shown.folder) if self._is_pinned else (shown.folder,))
                if not self.what_blocks(name, folder) and self.version_folder(folder).exists()
            }
            for link, folder in expected.items():
                target = os.path.relpath(self.version_folder(folder), link.parent)
                if not (link.is_symlink() and link.readlink() == Path(target)):
                    _replace_link(link, target)
            for link in self._list_links():
                if link not in expected:
                    link.unlink(missing_ok=True)
                    sync_folder(link.parent)
                    if link.parent != self.root:
                        with contextlib.suppress(OSError):
                            link.parent.rmdir()

    def touch(self, folder: str) -> None:
        """Have a version's folder count as just used, for :meth:`remove_unneeded`."""
        with contextlib.suppress(OSError):
            os.utime(self.version_folder(folder))

    def remove_unneeded(self, keep: int, in_use: Collection[str] = (), *, unused_for: float = 0) -> None:
        """Remove the folders that no name means, but the last ``keep`` that each meant before, and those ``in_use``.

        Those that were made or touched within ``unused_for`` seconds stay, too. So does what an interrupted download of
        one that is needed left: the next goes on with it.
        """
        needed = {*in_use}
        for shown in self.state.names.values():
            needed |= {shown.folder, *shown.recent[:keep]}
        with self._explain_errors():
            for path in tuple(self.versions.iterdir()):
                if path.name in needed or any(path.name.startswith(f".{name}.") for name in needed):
                    continue
                if unused_for and abs(time.time() - path.stat().st_mtime) < unused_for:
                    continue
                hidden = path if path.name.startswith(".") else self.versions / f".{_REMOVED}{secrets.token_hex(8)}"
                if hidden != path:  # under its name it is whole until it is gone
                    path.rename(hidden)
                shutil.rmtree(hidden, ignore_errors=True)

    def _read_state(self) -> FolderState:
        path = self._own / STATE
        with self._explain_errors():
            if not path.exists():
                return FolderState()
            content = path.read_bytes()
        try:
            state = decode(msgspec.json.decode(content), FolderState)
            for name in state.names:
                parse_adapter_name(name)
        except (ValueError, UsageError) as error:  # msgspec's DecodeError is a ValueError
            raise IntegrityError(f"{path} is damaged: {error}", hint=f"rm {shlex.quote(str(path))}") from error
        return state

    def _is_ours(self, path: Path) -> bool:
        if not path.is_symlink():
            return False
        target = Path(os.path.normpath(path.parent / path.readlink()))
        return target.parent == self.versions

    def _list_links(self) -> Iterator[Path]:
        for path in tuple(self.root.iterdir()):
            if path == self._own:
                continue
            if self._is_ours(path):
                yield path
            elif path.is_dir() and not path.is_symlink():
                yield from (below for below in tuple(path.iterdir()) if self._is_ours(below))

    def _explain_errors(self) -> contextlib.AbstractContextManager[None]:
        return explain_os_errors(self.root, "check the folder, its permissions and the room on its disk")


@contextlib.contextmanager
def open_followed(folder: Path | str, *, is_flat: bool = False, is_pinned: bool = False) -> Iterator[FollowedFolder]:
    """Open a folder to write it, made if it is missing, and finish what a killed process had recorded.

    Raises UnderWayError if another process has it open, IntegrityError if its record is damaged.
    """
    root = Path(folder).expanduser().resolve()
    if root.exists() and not root.is_dir():
        raise ConflictError(f"{folder} is no folder", hint="name a folder for the adapters")
    with explain_os_errors(root, "choose a folder that you may write"):
        make_folders(root / _OWN / "versions")

    def refuse_waiting() -> None:
        raise UnderWayError(f"another loreg sync writes {root}", hint="stop that one, or choose another folder")

    with lock_folder(root / _OWN, refuse_waiting):
        followed = FollowedFolder(root, is_flat=is_flat, is_pinned=is_pinned)
        followed.show_recorded()
        yield followed


def _replace_link(link: Path, target: str) -> None:
    make_folders(link.parent)
    temporary = link.with_name(f".{secrets.token_hex(8)}.loreg-link")
    try:
        temporary.symlink_to(target, target_is_directory=True)
        temporary.replace(link)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(link.parent)
