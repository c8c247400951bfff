"""What previews compute is kept within a limit: the files that were not used for longest go first."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deployments import HISTORY, NEWS, SCIENCE
from loreg.errors import ConflictError, NotAllowedError
from loreg.local import reduced_versions
from loreg.previewing.computed_files import ComputedFiles, read_computed
from loreg.registry import Registry


def names_of(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def use_at(path: Path, second: int) -> None:
    """Set when a file was last used."""
    os.utime(path, (second, path.stat().st_mtime))


class TestEviction:
    def test_what_was_not_used_for_longest_goes_first(self, tmp_path: Path):
        files = ComputedFiles(tmp_path, max_bytes=3 * 132)
        paths = {}
        for second, word in enumerate("abc"):
            files.write([word], bytes(100))
            place = files.find([word])
            assert place is not None
            paths[word] = place[0]
            use_at(paths[word], second)
        use_at(paths["a"], 10)
        files.write(["d"], bytes(100))
        assert {word for word in "abcd" if files.has([word])} == {"a", "c", "d"}

    def test_looking_counts_as_use(self, tmp_path: Path):
        files = ComputedFiles(tmp_path, max_bytes=2 * 132)
        for second, word in enumerate("ab"):
            files.write([word], bytes(100))
            place = files.find([word])
            assert place is not None
            use_at(place[0], second)
        assert files.find(["a"]) is not None
        files.write(["c"], bytes(100))
        assert {word for word in "abc" if files.has([word])} == {"a", "c"}

    def test_what_is_larger_than_all_may_be_is_not_kept(self, tmp_path: Path):
        files = ComputedFiles(tmp_path, max_bytes=100)
        files.write(["small"], bytes(60))
        files.write(["large"], bytes(101))
        assert files.has(["small"])
        assert not files.has(["large"])

    def test_files_of_others_stay(self, tmp_path: Path):
        (tmp_path / "notes.txt").write_bytes(bytes(1000))
        files = ComputedFiles(tmp_path, max_bytes=132)
        for word in "abc":
            files.write([word], bytes(100))
        assert "notes.txt" in names_of(tmp_path)
        assert len(names_of(tmp_path)) == 2

    def test_a_byte_that_changed_makes_it_missing(self, tmp_path: Path):
        files = ComputedFiles(tmp_path)
        files.write(["a"], b"payload")
        place = files.find(["a"])
        assert place is not None
        assert read_computed(place[0]) == b"payload"
        place[0].write_bytes(place[0].read_bytes().replace(b"payload", b"pay1oad"))
        assert read_computed(place[0]) is None


@pytest.fixture
def refs(home: Registry) -> list[str]:
    return [home.push(folder, f"team/{folder.name}").version.ref for folder in (SCIENCE, HISTORY, NEWS)]


class TestLimits:
    @pytest.mark.parametrize("limit", ["_MAX_BYTES", "_MAX_STEPS", "_MAX_FRAMES"])
    def test_what_is_too_much_is_refused(
        self, home: Registry, refs: list[str], monkeypatch: pytest.MonkeyPatch, limit: str
    ):
        home.spectra(refs[0])  # what was computed before is answered
        monkeypatch.setattr(reduced_versions, limit, 1000)
        assert home.spectra(refs[0]).modules
        for ask in (
            lambda: home.spectra(refs[1]),
            lambda: home.preview_merge(refs[:2]),
            lambda: home.compare_versions(refs[:2]),
        ):
            with pytest.raises(NotAllowedError, match="too much for a registry"):
                ask()

    def test_one_caller_at_a_time_reads_versions(
        self, home: Registry, refs: list[str], monkeypatch: pytest.MonkeyPatch
    ):
        home.spectra(refs[0])
        monkeypatch.setattr(reduced_versions, "_MAX_WAIT", 0.01)
        with reduced_versions.one_at_a_time():
            assert home.spectra(refs[0]).modules
            for ask in (lambda: home.spectra(refs[1]), lambda: home.compare_versions(refs[:2])):
                with pytest.raises(ConflictError, match="reads other adapters now"):
                    ask()
        assert home.spectra(refs[1]).modules

    def test_nothing_of_what_was_fetched_stays(
        self, home: Registry, refs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        (tmp_path / "temporary").mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
        home.compare_versions(refs[:2])
        assert names_of(tmp_path / "temporary") == set()
