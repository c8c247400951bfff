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
from torch import ones

from deployments import NEWS, Deployment
from factories import copy, new_model, train, write_base
from loreg.baking import bake
from loreg.entities import MergeOptions
from loreg.errors import UnavailableError
from loreg.registry import Registry, connect
from loreg.storage import Blob, digest_of, durable, folder, open_store
from loreg.workspace.atomic_folder import UNFINISHED


@dataclass(frozen=True)
class Named:
    """A name that was given: to which inode, in which folder's inode, after how many syncs, and of which kind."""

    path: Path
    inode: int
    folder: int
    when: int
    is_file: bool


@dataclass
class Disk:
    """What was told to the disk, in order: inodes that were synced, and names that were given to inodes."""

    synced: list[int] = field(default_factory=list)
    named: list[Named] = field(default_factory=list)

    def unsafe(self, below: Path) -> list[Path]:
        """Names below a folder that were given before the file was synced, or whose folder was not synced after."""
        return [
            name.path
            for name in self.named
            if name.path.is_relative_to(below) and name.path.name != "catalog.db"  # SQLite sees to its own
            if (name.is_file and name.inode not in self.synced[: name.when])
            or name.folder not in self.synced[name.when :]
        ]

    def unsynced(self, target: Path, above: Path) -> list[Path]:
        """What is in the folder ``target``, and the folders from there up to ``above``, and was never synced."""
        folders = [folder for folder in target.parents if folder.is_relative_to(above)]
        paths = [target, *target.rglob("*"), *folders]
        return [path for path in paths if path.stat().st_ino not in self.synced]


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
            path = (folder / target).absolute()
            inodes = (path.stat().st_ino, path.parent.stat().st_ino)
            seen.named.append(Named(path, *inodes, len(seen.synced), path.is_file()))

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
    assert named.path.name == blob.sha256
    assert disk.unsafe(tmp_path) == []
    for above in (tmp_path, tmp_path / "new", tmp_path / "new" / "store"):  # where new folders have their names
        assert above.stat().st_ino in disk.synced
    path = named.path
    path.chmod(0o644)
    path.write_bytes(b"damaged")
    assert store.put(blob, tmp_path / "in")
    assert disk.unsafe(tmp_path) == []
    assert [entry.name for entry in path.parent.iterdir()] == [blob.sha256]
    assert path.stat().st_mode & 0o222 == 0


WRITE: dict[str, Callable[[Registry, Path, Path], object]] = {
    "pull": lambda registry, _, target: registry.pull("t/news", target),
    "pull for a server": lambda registry, _, target: registry.pull("t/news", target, profile="sglang"),
    "merge": lambda registry, tmp, target: registry.merge(
        ["t/news", str(tmp / "adapter")], MergeOptions(weights=[0.5, 0.5]), folder=target
    ),
    "export": lambda registry, _, target: registry.export("t/news", "sglang", target),
    "extract": lambda registry, tmp, target: registry.extract(tmp / "base", tmp / "tuned", rank=2, folder=target),
    "bake": lambda registry, tmp, target: registry.bake([str(tmp / "adapter")], tmp / "base", target),
}


@pytest.mark.parametrize("there", ["in new folders", "in one that is there"])
@pytest.mark.parametrize("verb", WRITE)
def test_what_was_written_is_on_the_disk_when_it_has_its_name(disk: Disk, verb: str, there: str, tmp_path: Path):
    changed = {"layers.0.q_proj.weight": new_model().layers[0].q_proj.weight.detach() + ones(24, 20)}
    write_base(tmp_path / "base")
    write_base(tmp_path / "tuned", changed)
    train(tmp_path / "adapter", 1)
    target = tmp_path / "some" / "new" / "folder"
    if there == "in one that is there":
        target.mkdir(parents=True)
    with connect(home=str(tmp_path / "home")) as registry:
        registry.push(train(tmp_path / "news", 2), "t/news")
        disk.synced.clear()
        disk.named.clear()
        WRITE[verb](registry, tmp_path, target)
    placed = [name for name in disk.named if name.path.is_relative_to(target) and UNFINISHED not in str(name.path)]
    first = min(name.when for name in placed)
    assert disk.unsafe(target) == []
    files = [path for path in target.rglob("*") if path.is_file()]
    assert files
    assert [path for path in files if path.stat().st_ino not in disk.synced[:first]] == []  # before any has its name
    assert disk.unsynced(target, target if there == "in one that is there" else tmp_path) == []


def test_folders_within_what_is_pulled_are_on_the_disk(registry: Registry, disk: Disk, tmp_path: Path):
    adapter = copy(NEWS, tmp_path / "adapter")
    (adapter / "runs" / "first").mkdir(parents=True)
    (adapter / "runs" / "first" / "notes.txt").write_text("good")
    registry.push(adapter, "t/news")
    (tmp_path / "there").mkdir()
    for target in (tmp_path / "there", tmp_path / "new"):
        registry.pull("t/news", target)
        assert (target / "runs" / "first" / "notes.txt").is_file()
        assert disk.unsafe(target) == []
        assert disk.unsynced(target, target) == []


def test_the_plan_of_a_bake_is_on_the_disk_before_its_first_shard(
    disk: Disk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    keep, seen = bake.finish_shard, []

    def look_and_keep(written: Path, shard: Path) -> None:
        plan = shard.parents[1] / bake.PLAN_NAME
        seen.append({plan.stat().st_ino, plan.parent.stat().st_ino} <= set(disk.synced))
        keep(written, shard)
        seen.append(shard.stat().st_ino in disk.synced[: disk.named[-1].when])

    monkeypatch.setattr(bake, "finish_shard", look_and_keep)
    with connect(home=str(tmp_path / "home")) as registry:
        registry.bake([str(train(tmp_path / "adapter", 1))], write_base(tmp_path / "base"), tmp_path / "baked")
    assert seen == [True, True]


def test_a_registry_that_was_made_just_now_has_its_name_on_the_disk(disk: Disk, tmp_path: Path):
    home = tmp_path / "some" / "home"
    with connect(home=str(home)) as registry:
        registry.push(NEWS, "t/news")
    for above in (tmp_path, tmp_path / "some", home, home / "store"):
        assert above.stat().st_ino in disk.synced


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
    with durable.AtomicFile(folder) as new:
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
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")

    def full(path: Path, blob: Blob) -> Path:
        partial = path.with_name("full")
        partial.symlink_to("/dev/full")
        return partial

    monkeypatch.setattr(folder, "partial_path", full)
    with connect(home=str(tmp_path / "home")) as registry:
        registry.push(NEWS, "t/news")
        with pytest.raises(UnavailableError, match="out cannot be used: No space left") as error:
            registry.pull("t/news", tmp_path / "out")
    assert "store" not in str(error.value)
    assert error.value.hint == "free some space and try again"


def test_a_place_of_a_registry_needs_no_more_than_its_folder(deployment: Deployment, registry: Registry):
    """Nothing hidden is left beside the blobs after a push."""
    registry.push(NEWS, "t/news")
    if not deployment.storage_endpoint:
        assert list(Path(deployment.storage_url).rglob(".*")) == []
