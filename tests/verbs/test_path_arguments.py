"""Path objects: each names a folder or file, and never an adapter, whatever it looks like as text."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import loreg
from deployments import NEWS, SCIENCE, empty_home
from factories import copy
from loreg import connect
from loreg.entities import ImportOptions, MergeOptions
from loreg.errors import NotFoundError
from loreg.refs import is_path, source_text
from loreg.registry import Registry

ONE, TWO, BASE = Path("one"), Path("two"), Path("base")  # without a slash: as text each is a name

#: Every method that takes an adapter, a model or a place, called with path objects alone.
CALLS: dict[str, Callable[[Registry], object]] = {
    "push": lambda registry: registry.push(ONE, "x", base=BASE),
    "import_runs": lambda registry: registry.import_runs([ONE], ImportOptions(name="x", base=BASE)),
    "export": lambda registry: registry.export(ONE, "peft", Path("exported"), base=BASE),
    "merge": lambda registry: registry.merge([ONE, TWO], MergeOptions([0.5, 0.5], extras=ONE), folder=Path("merged")),
    "rerank": lambda registry: registry.rerank(ONE, 4, folder=Path("reranked")),
    "identify": lambda registry: registry.identify(ONE),
    "compare": lambda registry: registry.compare([ONE, TWO], base=BASE),
    "bake": lambda registry: registry.bake([ONE], BASE, Path("baked"), MergeOptions(extras=ONE)),
    "check": lambda registry: registry.check([ONE], base=BASE, profiles=[Path("mine.toml")]),
    "diff": lambda registry: registry.diff(ONE, TWO),
    "bases.add": lambda registry: registry.bases.add(BASE),
    "bases.match": lambda registry: registry.bases.match(ONE),
    "backup": lambda registry: registry.backup(Path("backup")),
    "repair": lambda registry: registry.repair([ONE]),
    "mirror": lambda registry: [registry.push(ONE, "x"), registry.mirror(to=Path("other"))],
    "move": lambda registry: registry.move("sqlite:///new.db", Path("store")),
}


@pytest.fixture
def local_registry(tmp_path: Path, minilm: Path) -> Registry:
    shutil.copy(Path(loreg.__file__).parent / "checking" / "profiles" / "peft.toml", "mine.toml")
    copy(NEWS, tmp_path / ONE)
    copy(NEWS, tmp_path / TWO)
    BASE.symlink_to(minilm)
    return connect(home=Path(empty_home(tmp_path / "home")), author="ada")


@pytest.mark.parametrize("name", CALLS)
def test_a_path_object_names_a_folder(local_registry: Registry, name: str):
    with local_registry:
        CALLS[name](local_registry)


def test_any_object_that_is_a_path_will_do(local_registry: Registry):
    class Folder:
        def __fspath__(self) -> str:
            return "one"

    with local_registry:
        assert local_registry.identify(Folder()).sha256 == local_registry.identify("./one").sha256


def test_the_same_text_is_the_name_of_an_adapter(local_registry: Registry):
    with local_registry, pytest.raises(NotFoundError, match="there is no adapter 'one'"):
        local_registry.identify("one")


def test_initial_adapters_may_be_path_objects(local_registry: Registry):
    with local_registry, pytest.raises(NotFoundError, match="nowhere"):
        local_registry.compare([ONE, TWO], initial=[Path("nowhere")])
    with local_registry, pytest.raises(NotFoundError, match="nowhere"):
        local_registry.merge([ONE, TWO], MergeOptions(initial=[Path("nowhere")]))


@pytest.mark.parametrize("text", ["runs/42", "hf:org/name", "x.safetensors", "team/news:v1"])
def test_a_path_object_is_text_that_reads_as_a_path(text: str):
    assert not is_path(text)
    assert source_text(text) == text
    assert is_path(source_text(Path(text)))
    assert Path(source_text(Path(text))) == Path(text)


@pytest.mark.parametrize("text", [".", "..", "./here", "~/there", "/root", ".hidden", str(SCIENCE)])
def test_what_reads_as_a_path_stays_as_it_is(text: str):
    assert is_path(text)
    assert source_text(Path(text)) == str(Path(text)) or text == "./here"
