"""Names of any script fit wherever they fit at all: what a file system counts is bytes, not characters."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from deployments import NEWS, Loreg
from factories import copy, train, write_base
from loreg.adapters.folder import select_files
from loreg.entities import Commit
from loreg.errors import AdapterFormatError, IntegrityError
from loreg.manifest import Manifest, hidden_sibling
from loreg.refs import parse_adapter_name
from loreg.registry import Registry
from loreg.storage import Blob
from loreg.storage.blobs import partial_path

NAMES = [
    "𐍈" * 60,  # 240 bytes
    "𐍈" * 63 + "abc",  # 255, the most that can be
    "文" * 85,
    "é" * 127,
    "a" * 255,
    "नमूना" * 17,
    "عينة" * 20,
    "плюс/" + "ж" * 127,
]


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_every_name_that_can_be_pushed_can_be_pulled(registry: Registry, tmp_path: Path):
    adapter = copy(NEWS, tmp_path / "adapter")
    for number, name in enumerate(NAMES):
        (adapter / name).parent.mkdir(exist_ok=True)
        (adapter / name).write_text(f"{number}")
    assert registry.push(adapter, "news").left_out == ()
    registry.pull("news", tmp_path / "pulled")
    assert contents(tmp_path / "pulled") == contents(adapter)
    (tmp_path / "empty").mkdir()
    registry.pull("news", tmp_path / "empty")
    assert contents(tmp_path / "empty") == contents(adapter)


@pytest.mark.parametrize("name", ["n" * 240, "n" * 255, "𐍈" * 60, "𐍈" * 63, "文" * 85])
def test_a_target_of_any_name_that_a_folder_can_have_is_written(local: Loreg, tmp_path: Path, name: str):
    adapter = train(tmp_path / "adapter", 1)
    base = write_base(tmp_path / "base")
    assert local("push", adapter, "mine").exit_code == 0
    for verb, arguments in {
        "pull": ("pull", "mine"),
        "merge": ("merge", "mine", "mine", "--weights", "0.5,0.5", "--to"),
        "export": ("export", "mine", "--profile", "vllm", "--to"),
        "bake": ("bake", "mine", "--base", base, "--to"),
    }.items():
        above = tmp_path / verb
        above.mkdir()
        outcome = local(*arguments, above / name)
        assert outcome.exit_code == 0, outcome.stderr
        assert [path.name for path in above.iterdir()] == [name]
    assert local("pull", "mine", tmp_path / "pull" / name).exit_code == 0


def test_targets_whose_names_begin_alike_grow_apart():
    one, other = (hidden_sibling(Path("/x") / ("n" * 250 + end), "0123456789ab.partial") for end in "ab")
    assert one != other
    assert max(len(path.name) for path in (one, other)) <= 255
    assert hidden_sibling(Path("/x/name"), "partial") == Path("/x/.name.partial")


@pytest.mark.parametrize("name", NAMES)
def test_what_grows_has_a_name_that_can_be(tmp_path: Path, name: str):
    growing = partial_path(tmp_path / Path(name).name, Blob("0" * 64, 1))
    growing.touch()
    growing.name.encode().decode()  # no character is cut in two


@pytest.mark.parametrize("name", ["𐍈" * 64, "a" * 256, "文" * 86, "below/" + "é" * 128, ("ж" * 128) + "/x"])
def test_a_name_that_no_file_can_have_is_refused_at_the_push(registry: Registry, name: str):
    with pytest.raises(AdapterFormatError, match="named longer than a file can be") as error:
        commit(registry, name)
    assert len(str(error.value)) < 300
    assert [str(entry.adapter) for entry in registry.adapters().items] == ["pushed"]


def test_a_name_that_would_be_a_file_and_a_folder_is_refused_at_the_push(registry: Registry):
    with pytest.raises(IntegrityError, match="'notes' as a file and as a folder"):
        commit(registry, "notes", "notes/one.txt")
    assert [str(entry.adapter) for entry in registry.adapters().items] == ["pushed"]


def test_in_a_folder_such_a_file_is_left_out_with_a_word(tmp_path: Path, monkeypatch):
    """Some file systems count characters (NTFS, APFS): what they hold cannot be pulled on others."""
    adapter = copy(NEWS, tmp_path / "adapter")
    (adapter / "note").write_text("")
    monkeypatch.setattr("loreg.adapters.folder.MAX_NAME_BYTES", 30)
    (adapter / ("文" * 11)).write_text("")
    assert ("文" * 11, "named longer than a file can be (30 bytes)") in select_files(adapter).left_out


def commit(registry: Registry, *names: str) -> None:
    """As a client of another make would: with files of any name."""
    registry.push(NEWS, "pushed")
    files = registry.show("pushed").files
    more = tuple(replace(files[0], path=name) for name in names)
    registry.context.backend.commit(Commit(parse_adapter_name("news"), Manifest((*files, *more))))
