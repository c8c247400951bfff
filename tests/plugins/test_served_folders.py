"""The folders of served versions: few, and none is removed that a server may still read."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from loreg.file_locks import lock_file
from loreg.plugins import served_folders
from loreg.plugins.resolved import Resolved, recall, remember
from loreg.plugins.served_folders import FolderLocks, remove_unused

_HOLD = """
import sys
from pathlib import Path
from loreg.plugins.served_folders import FolderLocks
locks = FolderLocks()
locks.lock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eight versions, all used a day ago, the first longest ago; two may stay."""
    monkeypatch.setattr(served_folders, "MAX_FOLDERS", 2)
    for number in range(8):
        folder = tmp_path / f"{number:064x}"
        folder.mkdir()
        (folder / "adapter_config.json").write_text("{}")
        remember(tmp_path, f"team/news:v{number}", Resolved(folder.name, f"team/news:v{number}@sha256:{number:012x}"))
        os.utime(folder, (number, number))
    return tmp_path


def numbers(served: Path) -> list[int]:
    return sorted(int(path.name, 16) for path in served.iterdir() if path.name not in ("names", "locks"))


def test_those_used_last_stay_with_what_meant_them(served: Path):
    remove_unused(served)
    assert numbers(served) == [6, 7]
    assert [recall(served, f"team/news:v{number}") is None for number in range(8)] == [True] * 6 + [False] * 2
    assert len(list((served / "names").iterdir())) == 2


def test_what_was_used_a_moment_ago_stays(served: Path):
    os.utime(served / f"{3:064x}")
    remove_unused(served)
    assert numbers(served) == [3, 7]


def test_what_a_process_has_locked_stays_until_it_is_released_and_was_not_used_for_a_while(
    served: Path, monkeypatch: pytest.MonkeyPatch
):
    locks, folder = FolderLocks(), served / f"{1:064x}"
    locks.lock(folder)
    locks.lock(folder)
    remove_unused(served)
    assert numbers(served) == [1, 6, 7]
    locks.release(folder)
    remove_unused(served)
    assert numbers(served) == [1, 7], "it was used until now"
    os.utime(folder, (1, 1))
    monkeypatch.setattr(served_folders, "MAX_FOLDERS", 1)
    remove_unused(served)
    assert numbers(served) == [7]


def test_what_another_process_has_locked_stays_until_that_ends_however_it_ends(served: Path):
    folder = served / f"{1:064x}"
    command = [sys.executable, "-c", _HOLD, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        remove_unused(served)
        assert numbers(served) == [1, 6, 7]
        process.kill()
    os.utime(folder, (1, 1))
    remove_unused(served)
    assert numbers(served) == [6, 7]


def test_a_lock_holds_up_nobody_who_pulls_the_same_version(served: Path):
    """He waits for a lock on the folder that the other fills, and that has its final name by now."""
    folder = served / f"{1:064x}"
    FolderLocks().lock(folder)
    descriptor = os.open(folder, os.O_RDONLY)
    assert lock_file(descriptor)
    os.close(descriptor)


def test_nothing_is_left_of_a_lock_but_that_of_what_is_there(served: Path):
    for number in range(8):
        locks, folder = FolderLocks(), served / f"{number:064x}"
        locks.lock(folder)
        locks.release(folder)
        os.utime(folder, (number, number))
    remove_unused(served)
    assert len(list((served / "locks").iterdir())) == 2


def test_what_a_killed_removal_left_is_removed(served: Path):
    (served / f".removed-{1:064x}-1").mkdir()
    remove_unused(served)
    assert numbers(served) == [6, 7]
