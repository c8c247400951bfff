"""What a sweep keeps of what it measured: whole, or told as damaged, with the command that mends it."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loreg.errors import IntegrityError, NotFoundError
from loreg.sweeping.journal import Journal

KEY = {"measured": {"method": "linear", "weights": [0.5, 0.25]}}
DOCUMENT = {"scores": {"news": 0.1 + 0.2, "chät": -1e-300}, "merge": 0.25}
ARRAYS = {"news": np.arange(6.0), "a/b\\..": np.array([[1, 2]])}

#: What a disk, an editor or a program that was ended leaves of a file.
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "zeros": lambda content: bytes(len(content)),
    "other JSON": lambda content: b"[1, 2]",
    "nested JSON": lambda content: b"[" * 100_000,
    "not UTF-8": lambda content: b"\xff\xfe" + content,
    "a larger number": lambda content: content.replace(b"2", b"3"),
}


def full_journal(folder: Path) -> Journal:
    journal = Journal(folder)
    with journal.drive():
        journal.record(KEY, DOCUMENT)
        journal.record_arrays(KEY, ARRAYS)
        journal.record_file("moments.safetensors", b"moments 2")
    return journal


def recall_all(journal: Journal) -> list[object]:
    arrays = journal.recall_arrays(KEY)
    file = journal.recall_file("moments.safetensors")
    return [
        {name: value for name, value in (journal.recall(KEY) or {}).items() if name in DOCUMENT},
        {name: array.tolist() for name, array in (arrays or {}).items()},
        file and file.read_bytes(),
    ]


def test_what_is_recorded_is_recalled_and_nothing_else_lies_there(tmp_path: Path):
    journal = full_journal(tmp_path)
    whole = [DOCUMENT, {name: array.tolist() for name, array in ARRAYS.items()}, b"moments 2"]
    assert recall_all(journal) == whole
    journal.record(KEY, DOCUMENT)  # again, in place of what is there
    assert recall_all(Journal(tmp_path)) == whole
    assert not [path for path in tmp_path.iterdir() if path.suffix not in {".json", ".npz", ".safetensors", ""}]
    assert journal.recall({"measured": "another"}) is None
    assert journal.recall_arrays({"measured": "another"}) is None
    assert journal.recall_file("another.safetensors") is None


@pytest.mark.parametrize("damage", DAMAGES)
def test_each_damaged_file_is_told_with_the_command_that_mends_it(tmp_path: Path, damage: str):
    journal = full_journal(tmp_path)
    files = [path for path in tmp_path.iterdir() if path.name != ".lock"]
    assert len(files) == 5  # and the two that say what the arrays and the file are
    for path in files:
        content = path.read_bytes()
        path.write_bytes(DAMAGES[damage](content))
        with pytest.raises(IntegrityError) as refusal:
            recall_all(journal)
        assert str(path) in refusal.value.message
        remove = shlex.split(refusal.value.hint.partition(";")[0])
        assert remove == ["rm", "-f", str(path)]
        path.unlink()
        assert recall_all(journal) != recall_all(full_journal(tmp_path / "whole"))  # that one is measured anew
        path.write_bytes(content)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_flipped_bit_never_passes_for_a_measurement(tmp_path: Path, data: st.DataObject):
    journal = full_journal(tmp_path)
    whole = recall_all(journal)
    path = data.draw(st.sampled_from(sorted(path for path in tmp_path.iterdir() if path.is_file() and path.suffix)))
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    with contextlib.suppress(IntegrityError):
        assert recall_all(journal) == whole  # a space that became a tab changes nothing


def test_a_file_whose_writer_was_ended_is_not_there(tmp_path: Path):
    journal = full_journal(tmp_path)
    (record,) = (path for path in tmp_path.glob("*.json") if b"moments.safetensors" in path.read_bytes())
    record.unlink()
    assert journal.recall_file("moments.safetensors") is None
    (tmp_path / ".put-0123").write_bytes(b"mome")
    assert journal.recall_file("moments.safetensors") is None


def test_how_a_sweep_was_asked_for_is_read_or_told_as_damaged(tmp_path: Path):
    journal = Journal(tmp_path)
    with pytest.raises(NotFoundError, match="there is no sweep"):
        journal.read_request()
    for content in (b"", b"{", b"[]", b"{}", b'{"sources": "all"}', b"\xff", b"[" * 100_000):
        (tmp_path / "sweep.json").write_bytes(content)
        with pytest.raises(IntegrityError, match=r"sweep\.json does not say how the sweep was asked for") as refusal:
            journal.read_request()
        assert "as it was typed then" in refusal.value.hint
