"""pull gives back every byte, refuses to overwrite, and goes on where it was interrupted."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployments import MOVIES, NEWS
from loreg.errors import ConflictError, IntegrityError, NotAllowedError, UnavailableError
from loreg.registry import Registry
from loreg.storage import FolderStore


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def pushed(registry: Registry) -> Registry:
    registry.push(NEWS, "team/news", aliases=["prod"])
    return registry


def test_the_default_folder_is_the_name(pushed: Registry, tmp_path: Path):
    result = pushed.pull("team/news:prod")
    assert result.folder == Path("news")
    assert contents(tmp_path / "news") == contents(NEWS)
    assert result.version.ref == "team/news:v1"


def test_pulling_again_downloads_nothing(pushed: Registry, tmp_path: Path):
    assert pushed.pull("team/news", tmp_path / "a").downloaded > 300_000
    assert pushed.pull("team/news", tmp_path / "a").downloaded == 0


def test_an_empty_folder_is_filled(pushed: Registry, tmp_path: Path):
    (tmp_path / "a").mkdir()
    pushed.pull("team/news", tmp_path / "a")
    assert contents(tmp_path / "a") == contents(NEWS)


def test_a_folder_that_holds_anything_else_is_left_alone(pushed: Registry, tmp_path: Path):
    pushed.pull("team/news", tmp_path / "a")
    (tmp_path / "a" / "adapter_config.json").write_text("{}")
    before = contents(tmp_path / "a")
    for _ in range(2):
        with pytest.raises(ConflictError, match="nothing was changed"):
            pushed.pull("team/news", tmp_path / "a")
        assert contents(tmp_path / "a") == before
        (tmp_path / "a" / "mine.txt").write_text("mine")
        before = contents(tmp_path / "a")


def test_a_file_in_the_way_is_left_alone(pushed: Registry, tmp_path: Path):
    (tmp_path / "a").write_text("mine")
    with pytest.raises(ConflictError):
        pushed.pull("team/news", tmp_path / "a")
    assert (tmp_path / "a").read_text() == "mine"


def test_an_interrupted_pull_leaves_no_folder_and_is_gone_on_with(pushed: Registry, tmp_path: Path):
    def die(what: str, done: int, total: int) -> None:
        if done > 1200:  # the configuration is there, the weights are on their way
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pushed.pull("team/news", tmp_path / "a", progress=die)
    assert not (tmp_path / "a").exists()
    result = pushed.pull("team/news", tmp_path / "a")
    assert contents(tmp_path / "a") == contents(NEWS)
    assert result.downloaded == (NEWS / "adapter_model.safetensors").stat().st_size
    assert sorted(p.name for p in tmp_path.iterdir() if "partial" in p.name) == []


def test_a_file_that_was_changed_while_interrupted_is_downloaded_again(pushed: Registry, tmp_path: Path):
    def die(what: str, done: int, total: int) -> None:
        if done > 1200:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pushed.pull("team/news", tmp_path / "a", progress=die)
    (left,) = tmp_path.glob(".a.*.partial/adapter_config.json")
    left.write_text("{}")
    pushed.pull("team/news", tmp_path / "a")
    assert contents(tmp_path / "a") == contents(NEWS)


def test_two_pulls_into_one_folder_do_not_mix(pushed: Registry, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("loreg.verbs.pull.MAX_STALL", 0.0)
    second: list[BaseException] = []

    def pull_again(what: str, done: int, total: int) -> None:
        if not second:
            with pytest.raises(ConflictError, match="another pull is writing") as error:
                pushed.pull("team/news", tmp_path / "a")
            second.append(error.value)

    pushed.pull("team/news", tmp_path / "a", progress=pull_again)
    assert second
    assert contents(tmp_path / "a") == contents(NEWS)


def test_a_damaged_blob_never_becomes_a_folder(tmp_path: Path):
    from loreg.registry import connect

    registry = connect(home=str(tmp_path / "home"))
    registry.push(NEWS, "news")
    assert isinstance(registry.context.store, FolderStore)
    blob = max((tmp_path / "home" / "store").rglob("*"), key=lambda p: p.stat().st_size if p.is_file() else 0)
    blob.chmod(0o644)
    blob.write_bytes(blob.read_bytes()[:-1] + b"!")
    with pytest.raises(IntegrityError, match="is damaged"):
        registry.pull("news", tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_a_folder_below_a_file_cannot_be_made(pushed: Registry, tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises((UnavailableError, NotAllowedError)) as error:
        pushed.pull("team/news", tmp_path / "file" / "below")
    assert error.value.hint


def test_two_versions_lie_side_by_side(pushed: Registry, tmp_path: Path):
    pushed.push(MOVIES, "team/news")
    pushed.pull("team/news:v1", tmp_path / "one")
    pushed.pull("team/news:v2", tmp_path / "two")
    assert contents(tmp_path / "one") == contents(NEWS)
    assert contents(tmp_path / "two") == contents(MOVIES)
