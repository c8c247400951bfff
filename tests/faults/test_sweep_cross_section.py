"""A cross-section of the sweep: what `make faults` does at every point of every verb, at some of eight of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_TESTS = Path(__file__).parents[1]
#: A store that writes blobs where they are looked for: whoever is killed meanwhile leaves a half one.
_BROKEN = """
import sys
from faults.sweep.run import main
from loreg.storage.folder import FolderStore

def put(self, blob, path, on_bytes=lambda count: None):
    target = self.folder / "sha256" / blob.sha256[:2] / blob.sha256
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(path.read_bytes())
    return True

FolderStore.put = put
sys.exit(main(["--only", "push/sqlite", "--points", "1..4"]))
"""
#: A bundle that is written where it is looked for.
_IN_PLACE = """
import os, sys
from faults.sweep.run import main
from loreg.storage.durable import AtomicFile
from loreg.verbs import bundle

class InPlace(AtomicFile):
    def _open(self):
        return os.open(self._folder / "all.loreg", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)

    def commit(self, target):
        self.sink.flush()

bundle.AtomicFile = InPlace
sys.exit(main(["--only", "mirror-to-bundle/sqlite"]))
"""


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    alone = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(_TESTS)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, env={**os.environ, **alone}, capture_output=True, text=True, timeout=300)


def test_killed_at_some_points_push_pull_bake_and_upgrade_lose_nothing_and_succeed_again(tmp_path: Path):
    only = ["push/sqlite", "pull/sqlite", "bake/sqlite", "base-upgrade/sqlite"]
    done = _run(
        "-m", "faults.sweep", "--only", *only, "--sample", "3", "--seed", "1", "--out", str(tmp_path / "out.md")
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "12 points swept" in done.stdout
    table = (tmp_path / "out.md").read_text()
    for verb in ("push", "pull", "bake", "base-upgrade"):
        assert f"| {verb} | SQLite + folder |" in table
    assert "No fault was found." in table


def test_the_sweep_finds_a_store_that_is_not_written_at_once():
    done = _run("-c", _BROKEN)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "opened registry/store" in done.stdout
    assert "lie 0 bytes with sha256" in done.stdout


def test_killed_at_some_points_what_removes_and_carries_away_loses_nothing_and_succeeds_again():
    only = ["gc/sqlite", "delete/sqlite", "backup-again/sqlite", "move/sqlite"]
    done = _run("-m", "faults.sweep", "--only", *only, "--sample", "3", "--seed", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "12 points swept" in done.stdout


def test_the_sweep_finds_a_bundle_that_is_not_written_at_once():
    done = _run("-c", _IN_PLACE)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "opened work/all.loreg, killed: the bundle is half there" in done.stdout
