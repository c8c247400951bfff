"""A base whose content changed is never taken for what it was, whatever its size and times say."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch

from factories import write_base
from loreg.bases.identify import identify


def other_weights(folder: Path) -> Path:
    return write_base(folder, {"head.bias": torch.full((3,), 0.25)})


def keep_times(of: os.stat_result, path: Path) -> None:
    os.utime(path, ns=(of.st_atime_ns, of.st_mtime_ns))


def test_other_content_of_the_same_size_and_time_is_hashed_again(tmp_path: Path):
    base, cache = write_base(tmp_path / "base"), tmp_path / "cache"
    first = identify(base, cache_folder=cache).base.digest
    file = base / "model.safetensors"
    before = file.stat()
    other_weights(base)
    keep_times(before, file)
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert identify(base, cache_folder=cache).base.digest == identify(base).base.digest != first


def test_a_bit_that_is_written_in_place_is_seen_though_the_time_is_set_back(tmp_path: Path):
    base, cache = write_base(tmp_path / "base"), tmp_path / "cache"
    first = identify(base, cache_folder=cache).base.digest
    file = base / "model.safetensors"
    before = file.stat()
    with file.open("r+b") as stream:
        stream.seek(-1, os.SEEK_END)
        last = stream.read(1)[0]
        stream.seek(-1, os.SEEK_END)
        stream.write(bytes([last ^ 1]))
    keep_times(before, file)
    assert identify(base, cache_folder=cache).base.digest == identify(base).base.digest != first


def test_another_file_that_is_moved_there_with_its_time_is_hashed_again(tmp_path: Path):
    """As ``cp -p`` and ``rsync -t`` do, and a link that is turned to another file."""
    base, cache = write_base(tmp_path / "base"), tmp_path / "cache"
    first = identify(base, cache_folder=cache).base.digest
    file = base / "model.safetensors"
    other = other_weights(tmp_path / "other") / "model.safetensors"
    keep_times(file.stat(), other)
    shutil.copy2(other, tmp_path / "copy")
    (tmp_path / "copy").replace(file)
    second = identify(base, cache_folder=cache).base.digest
    assert second == identify(base).base.digest != first
    file.unlink()
    file.symlink_to(write_base(tmp_path / "third") / "model.safetensors")
    keep_times(other.stat(), file)
    assert identify(base, cache_folder=cache).base.digest == first
