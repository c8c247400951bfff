from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from loreg.errors import IntegrityError
from loreg.manifest import File, Manifest, resolve_inside

FILES = (File("b/é.txt", "b" * 64, 2), File("a.json", "a" * 64, 1))


def test_the_digest_is_the_sha256_of_canonical_json():
    text = (
        '{"files":[{"path":"a.json","sha256":"' + "a" * 64 + '","size":1},'
        '{"path":"b/é.txt","sha256":"' + "b" * 64 + '","size":2}],"schema":"loreg.manifest/1"}'
    )
    assert Manifest(FILES).digest == hashlib.sha256(text.encode()).hexdigest()


def test_the_order_of_files_does_not_matter():
    assert Manifest(FILES).digest == Manifest(FILES[::-1]).digest


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "a\\b", ""])
def test_no_file_of_a_version_leaves_its_folder(tmp_path: Path, path: str):
    with pytest.raises(IntegrityError):
        resolve_inside(tmp_path, path)


def test_files_may_lie_in_folders(tmp_path: Path):
    assert resolve_inside(tmp_path, "1_Pooling/config.json") == tmp_path / "1_Pooling" / "config.json"
