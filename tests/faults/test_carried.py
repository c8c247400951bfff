"""What looks at backups and bundles can fail: each is damaged in the ways that it claims to see, and it says so."""

from __future__ import annotations

import gzip
import hashlib
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from deployments import Deployment, command_line
from factories import train
from faults.carried import look_at_backup, look_at_bundle


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with two versions, its backup ``kept`` and its bundle ``all.loreg``."""
    room = tmp_path_factory.mktemp("made")
    loreg = command_line(Deployment(f"sqlite:///{room}/catalog.db", f"{room}/store").environment)
    for command in (
        ("push", train(room / "one", 1), "team/one"),
        ("push", train(room / "two", 2), "team/one"),
        ("backup", room / "kept"),
        ("mirror", "*", "--to", room / "all.loreg"),
    ):
        outcome = loreg(*command)
        assert outcome.exit_code == 0, outcome.stderr
    return room


@pytest.fixture
def kept(made: Path, tmp_path: Path) -> Path:
    """A copy of the backup that can be damaged."""
    for path in (made / "kept").rglob("*"):
        if path.is_file():
            copy = tmp_path / "kept" / path.relative_to(made / "kept")
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    return tmp_path / "kept"


def _document(kept: Path) -> Path:
    (path,) = (kept / "snapshots").iterdir()
    return path


def _blob(kept: Path, digest: str) -> Path:
    return kept / "sha256" / digest[:2] / digest


def _part(kept: Path, name: str) -> Path:
    return _blob(kept, json.loads(_document(kept).read_text())[name]["sha256"])


def _first_blob(kept: Path) -> Path:
    return _blob(kept, gzip.decompress(_part(kept, "blobs").read_bytes()).decode().split(" ", 1)[0])


def _rewrite(kept: Path, **changes: object) -> None:
    """Write another document, with the digest of its bytes in its name."""
    path = _document(kept)
    content = json.dumps({**json.loads(path.read_text()), **changes}).encode()
    path.unlink()
    (path.parent / f"{path.stem[:-12]}{hashlib.sha256(content).hexdigest()[:12]}.json").write_bytes(content)


_BACKUPS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a blob is gone": (lambda kept: _first_blob(kept).unlink(), "blob .* is not there"),
    "a blob is another": (lambda kept: _first_blob(kept).write_bytes(b"x"), "lies another blob"),
    "the catalog is gone": (lambda kept: _part(kept, "catalog").unlink(), "its catalog is not there"),
    "the document is cut off": (lambda kept: _document(kept).write_text("{"), "has not the digest of its name"),
    "it is not marked": (lambda kept: (kept / "owner").unlink(), "it is marked as ''"),
    "it is of another registry": (lambda kept: _rewrite(kept, registry="0" * 32), "is of 0{32}"),
    "rows are missing": (lambda kept: _rewrite(kept, rows={}), "it has other rows than it says"),
}


@pytest.mark.parametrize("damage", _BACKUPS)
def test_of_a_backup_it_says_that(kept: Path, damage: str):
    sentences, contained = look_at_backup(str(kept))
    assert sentences == []
    assert {"team/one:v1", "team/one:v2"} <= contained.keys()
    do, words = _BACKUPS[damage]
    do(kept)
    sentences, _ = look_at_backup(str(kept))
    assert pytest.raises(AssertionError, match=words).matches(AssertionError("\n".join(sentences))), sentences


def test_a_backup_that_is_not_there_or_has_no_snapshot_yet_is_not_wrong(kept: Path, tmp_path: Path):
    assert look_at_backup(str(tmp_path / "none")) == ([], {})
    _document(kept).unlink()
    assert look_at_backup(str(kept)) == ([], {})


def test_a_bundle_is_absent_or_whole(made: Path, tmp_path: Path):
    whole = (made / "all.loreg").read_bytes()
    assert look_at_bundle(tmp_path / "none.loreg") == ([], {})
    sentences, contained = look_at_bundle(made / "all.loreg")
    assert sentences == []
    assert [adapter["versions"] for adapter in contained["adapters"]] == [2]
    for size in (0, 100, len(whole) // 2, len(whole) - 3000):
        path = tmp_path / f"{size}.loreg"
        path.write_bytes(whole[:size])
        assert "the bundle is half there" in look_at_bundle(path)[0][0], size


def test_a_bundle_with_other_bytes_or_without_a_blob_is_wrong(made: Path, tmp_path: Path):
    with tarfile.open(made / "all.loreg") as tar:
        blobs = [member for member in tar if member.name.startswith("sha256/")]
    content = bytearray((made / "all.loreg").read_bytes())
    content[blobs[0].offset_data] ^= 1
    (tmp_path / "flipped.loreg").write_bytes(content)
    assert "holds other bytes" in look_at_bundle(tmp_path / "flipped.loreg")[0][0]
    content = bytearray((made / "all.loreg").read_bytes())
    padded = -(-blobs[0].size // 512) * 512
    del content[blobs[0].offset : blobs[0].offset_data + padded]
    (tmp_path / "without.loreg").write_bytes(content)
    assert f"is without {blobs[0].name[10:22]}" in look_at_bundle(tmp_path / "without.loreg")[0][0]
