"""hf:NAME with the real huggingface_hub, against a server that answers as the Hub does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments import empty_home
from factories import train, write_base
from fake_hub import Hub, serve, use
from loreg.errors import AdapterFormatError, MissingExtraError, NotAllowedError, NotFoundError, UnavailableError
from loreg.registry import Registry, connect


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    folder = write_base(tmp_path / "on-the-hub")
    (folder / "config.json").write_text('{"model_type": "tiny"}')
    with serve(folder, tmp_path / "cache", monkeypatch) as served:
        yield served


@pytest.fixture
def local_registry(tmp_path: Path) -> Registry:
    return connect(home=empty_home(tmp_path / "home"))


def test_names_shapes_and_digests_come_without_the_weights(hub: type[Hub], local_registry: Registry, tmp_path: Path):
    added = local_registry.bases.add("hf:org/tiny", ["tiny"])
    assert added.base.names == ("org/tiny", "tiny")
    assert not added.base.complete
    assert hub.sent < hub.folder.joinpath("model.safetensors").stat().st_size + 200_000
    assert local_registry.bases.show("org/tiny").files == {"model.safetensors": "ab" * 32}
    local = local_registry.bases.add(hub.folder, ["local"]).base
    assert local.struct == added.base.struct
    (match,) = [m for m in local_registry.bases.match(str(train(tmp_path / "a", 1))) if m.base == added.base]
    assert match.verdict.kind == "struct-only"


def test_what_the_hub_refuses_is_one_clear_line(hub: type[Hub], local_registry: Registry):
    with pytest.raises(NotFoundError, match="hf:org/nobody: there is no such model on the Hub"):
        local_registry.bases.add("hf:org/nobody")
    with pytest.raises(NotFoundError, match="org/tiny has no such revision"):
        local_registry.bases.add("hf:org/tiny@nowhere")
    with pytest.raises(NotAllowedError, match="hf:org/gated is gated"):
        local_registry.bases.add("hf:org/gated")
    with pytest.raises(AdapterFormatError, match="hf:org/pickled has no safetensors"):
        local_registry.bases.add("hf:org/pickled")
    with pytest.raises(NotFoundError, match="there is no such model"):
        local_registry.bases.add("hf:not a name")
    assert local_registry.bases.list().items == ()


@pytest.mark.parametrize("offline", [True, False])
def test_without_a_network_the_hint_is_the_local_folder(
    local_registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: bool
):
    use(monkeypatch, "http://127.0.0.1:9", tmp_path / "cache", offline=offline)
    with pytest.raises(UnavailableError, match="hf:org/tiny cannot be looked up, the Hub does not answer") as error:
        local_registry.bases.add("hf:org/tiny")
    assert "loreg base add ./the/downloaded/folder works offline" in error.value.hint


def test_without_the_extra_it_is_named(local_registry: Registry, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError) as error:
        local_registry.bases.add("hf:org/tiny")
    assert error.value.hint == "pip install 'loreg[hub]'"
