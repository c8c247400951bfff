"""What has its name is on the disk: a file's bytes before it is named, the folder after; nothing half has one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from loreg.registry import Registry
from loreg.storage import Blob, digest_of, durable, open_store
from places import NEWS, Place


@dataclass
class Disk:
    """What was told to the disk, in order: inodes that were synced, and names that were given to inodes."""

    synced: list[int] = field(default_factory=list)
    named: list[tuple[Path, int, int, int]] = field(default_factory=list)

    def unsafe(self, below: Path) -> list[Path]:
        """Names below a folder that were given before the file was synced, or whose folder was not synced after."""
        return [
            path
            for path, inode, folder, when in self.named
            if path.is_relative_to(below)
            and ((path.is_file() and inode not in self.synced[:when]) or folder not in self.synced[when:])
        ]


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    seen = Disk()
    sync = os.fsync

    def fsync(handle: int) -> None:
        seen.synced.append(os.fstat(handle).st_ino)
        sync(handle)

    def naming(rename: Callable[..., None]) -> Callable[..., None]:
        def name(source: str | Path, target: str | Path, **more: int) -> None:
            rename(source, target, **more)
            folder = Path(f"/proc/self/fd/{more['dst_dir_fd']}").readlink() if "dst_dir_fd" in more else Path()
            path = folder / target
            where = (path.stat().st_ino, path.parent.stat().st_ino)
            seen.named.append((path.absolute(), *where, len(seen.synced)))

        return name

    monkeypatch.setattr(os, "fsync", fsync)
    for name in ("rename", "replace", "link"):
        monkeypatch.setattr(os, name, naming(getattr(os, name)))
    yield seen


@pytest.fixture(params=["unnamed files", "hidden names"])
def file_system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has files without a name, and one that has none."""
    if request.param == "hidden names":
        monkeypatch.delattr(os, "O_TMPFILE")


@pytest.mark.usefixtures("file_system")
def test_what_a_folder_stores_is_on_the_disk_when_it_says_so(disk: Disk, tmp_path: Path):
    store = open_store(str(tmp_path / "new" / "store"))
    (tmp_path / "in").write_bytes(b"weights")
    blob = digest_of(tmp_path / "in")
    assert store.put(blob, tmp_path / "in")
    (named,) = disk.named
    assert named[0].name == blob.sha256
    assert disk.unsafe(tmp_path) == []
    for folder in (tmp_path, tmp_path / "new", tmp_path / "new" / "store"):  # where new folders have their names
        assert folder.stat().st_ino in disk.synced
    path = named[0]
    path.chmod(0o644)
    path.write_bytes(b"damaged")
    assert store.put(blob, tmp_path / "in")
    assert disk.unsafe(tmp_path) == []
    assert [entry.name for entry in path.parent.iterdir()] == [blob.sha256]
    assert path.stat().st_mode & 0o222 == 0


def test_what_was_pulled_is_on_the_disk_when_it_has_its_name(registry: Registry, disk: Disk, tmp_path: Path):
    registry.push(NEWS, "t/news")
    registry.pull("t/news", tmp_path / "pulled")
    assert [path for path in disk.unsafe(tmp_path) if path.name != "catalog.db"] == []  # SQLite sees to its own
    for path in (tmp_path / "pulled").iterdir():
        assert path.stat().st_ino in disk.synced
    for folder in (tmp_path / "pulled", tmp_path):
        assert folder.stat().st_ino in disk.synced


STORES = """
import os, sys, signal
from pathlib import Path
from loreg.storage import digest_of, open_store
from loreg.storage import folder
path = Path(sys.argv[1])
count = 0
def stop(size):
    global count
    count += 1
    if count == 2:
        os.kill(os.getpid(), getattr(signal, sys.argv[3]))
open_store(sys.argv[2]).put(digest_of(path), path, stop)
"""


@pytest.mark.parametrize("kind", ["SIGTERM", "SIGKILL", "SIGINT"])
def test_a_writer_that_is_killed_leaves_nothing_in_the_store(kind: str, tmp_path: Path):
    if not _has_unnamed_files(tmp_path):
        pytest.skip("this file system has no files without a name")
    (tmp_path / "in").write_bytes(os.urandom(4 * 1024 * 1024))
    command = [sys.executable, "-c", STORES, str(tmp_path / "in"), str(tmp_path / "store"), kind]
    done = subprocess.run(command, stderr=subprocess.DEVNULL, check=False)
    assert done.returncode == -getattr(signal, kind)
    assert [path for path in (tmp_path / "store").rglob("*") if path.is_file()] == []
    blob = digest_of(tmp_path / "in")
    store = open_store(str(tmp_path / "store"))
    assert store.put(blob, tmp_path / "in")
    assert [path.name for path in (tmp_path / "store").rglob("*") if path.is_file()] == [blob.sha256]


def _has_unnamed_files(folder: Path) -> bool:
    with durable.NewFile(folder) as new:
        return new._name is None


@pytest.mark.usefixtures("file_system")
def test_a_file_that_changes_while_it_is_stored_leaves_nothing(tmp_path: Path):
    store = open_store(str(tmp_path / "store"))
    (tmp_path / "in").write_bytes(b"weights")
    with pytest.raises(Exception, match="changed while it was read"):
        store.put(Blob("0" * 64, 7), tmp_path / "in")
    assert [path for path in (tmp_path / "store").rglob("*") if path.is_file()] == []


def test_a_disk_that_is_full_where_a_pull_writes_is_named_and_not_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    store = open_store(str(tmp_path / "store"))
    (tmp_path / "in").write_bytes(b"weights" * 100_000)
    blob = digest_of(tmp_path / "in")
    store.put(blob, tmp_path / "in")
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    (tmp_path / "out").mkdir()
    from loreg.storage import folder

    monkeypatch.setattr(folder, "partial_of", lambda path, blob: tmp_path / "out" / "full")
    (tmp_path / "out" / "full").symlink_to("/dev/full")
    with pytest.raises(Exception, match="out/full cannot be used: No space left"):
        store.get(blob, tmp_path / "out" / "weights")


def test_a_place_of_a_registry_needs_no_more_than_its_folder(place: Place, registry: Registry):
    """Nothing hidden is left beside the blobs after a push."""
    registry.push(NEWS, "t/news")
    if not place.storage_endpoint:
        assert list(Path(place.storage_url).rglob(".*")) == []
