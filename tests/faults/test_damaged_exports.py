"""What a registry made of a version for a server, and then lost or has damaged, is made again by who pulls it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from deployments import Deployment
from factories import train
from loreg.checking.profile import read_profile
from loreg.errors import IntegrityError
from loreg.exporting.folder import digest_request
from loreg.manifest import File, Manifest
from loreg.refs import parse_ref
from loreg.registry import Registry
from loreg.storage import Blob, open_store
from server.conftest import Guarded
from stored_bytes import DAMAGES, Stored

SERVER = "sglang"


def made(registry: Registry, ref: str) -> Manifest:
    """What the registry has of the version for the server."""
    request = digest_request(read_profile(SERVER), registry.show(ref).version.base)
    manifest = registry.context.backend.export(parse_ref(ref), request)
    assert manifest is not None
    return manifest


def of_its_own(registry: Registry, ref: str) -> list[File]:
    """Those of its files that are not the version's too."""
    pushed = {file.sha256 for file in registry.show(ref).files}
    own = [file for file in made(registry, ref).files if file.sha256 not in pushed]
    assert [file.path for file in own] == ["adapter_config.json", "adapter_model.safetensors", "loreg_export.json"]
    return own


def whole(folder: Path, files: Manifest) -> bool:
    """Whether exactly these files are there."""
    there = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    return there == {file.path: file.sha256 for file in files.files}


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """One of which the server takes neither the configuration nor the weights as they are."""
    return train(tmp_path / "adapter", 1, use_rslora=True, rank_pattern={"layers.0.q_proj": 2})


@pytest.mark.parametrize("damage", DAMAGES)
def test_an_export_that_is_damaged_or_lost_is_made_again_by_who_pulls_it(
    registry: Registry, deployment: Deployment, adapter: Path, damage: str, tmp_path: Path
):
    if deployment.endpoint and damage == "longer":
        pytest.skip("who asks a server for the bytes that were promised gets them, and no word of what follows them")
    stored, store = Stored(deployment), open_store(deployment.storage_url, deployment.storage_endpoint)
    registry.push(adapter, "t/a")
    registry.pull("t/a", tmp_path / "before", profile=SERVER)
    files = made(registry, "t/a")
    own = of_its_own(registry, "t/a")
    for file in own:
        stored.change(file.sha256, DAMAGES[damage])
        registry.pull("t/a", tmp_path / file.path, profile=SERVER)
        assert whole(tmp_path / file.path, files)
        assert store.has(Blob(file.sha256, file.size))
    for file in own:  # all of it at once
        stored.change(file.sha256, DAMAGES[damage])
    registry.pull("t/a", tmp_path / "after", profile=SERVER)
    assert whole(tmp_path / "after", files)
    assert all(store.has(Blob(file.sha256, file.size)) for file in own)


@pytest.mark.parametrize("damage", ["flipped", "lost"])
@pytest.mark.parametrize("server", ["guarded", "guarded_folder"])
def test_who_may_only_read_makes_a_damaged_export_here(
    request: pytest.FixtureRequest, server: str, adapter: Path, damage: str, tmp_path: Path
):
    there: Guarded = request.getfixturevalue(server)
    settings = there.behind.settings
    there.behind.push(adapter, "team/a")
    there.registry("writer").pull("team/a", tmp_path / "before", profile=SERVER)
    files = made(there.behind, "team/a")
    for file in of_its_own(there.behind, "team/a"):
        Stored(Deployment("", settings.storage_url, settings.storage_endpoint)).change(file.sha256, DAMAGES[damage])
    there.registry("reader").pull("team/a", tmp_path / "after", profile=SERVER)
    assert whole(tmp_path / "after", files)


def test_a_version_that_is_damaged_itself_is_mended_by_pushing_it_again(
    registry: Registry, deployment: Deployment, adapter: Path, tmp_path: Path
):
    registry.push(adapter, "t/a")
    registry.pull("t/a", tmp_path / "before", profile=SERVER)
    for files in (registry.show("t/a"), made(registry, "t/a")):
        (weights,) = [file for file in files.files if file.path == "adapter_model.safetensors"]
        Stored(deployment).change(weights.sha256, DAMAGES["flipped"])
    with pytest.raises(IntegrityError) as error:
        registry.pull("t/a", tmp_path / "after", profile=SERVER)
    assert "push the adapter again" in error.value.hint
    registry.push(adapter, "t/a")
    registry.pull("t/a", tmp_path / "after", profile=SERVER)
    assert whole(tmp_path / "after", made(registry, "t/a"))
