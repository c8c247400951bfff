"""What the actors of a simulation push, and the registry that they find: made once for a process.

The adapters are the smallest that pass every check. They share blobs with each other and with an export, so that what
one version leaves behind is what another push is about to use.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from loreg.bases.identify import Identity, identify
from loreg.catalog import collection
from loreg.checking.policy import Policy
from loreg.entities import Access, VersionMetadata, no_progress
from loreg.local.backend import LocalBackend
from loreg.manifest import Manifest
from loreg.verbs.push import push
from loreg.workspace.context import Context
from loreg.workspace.inspect import inspect_adapter
from simulation.catalog import Image, SimulatedCatalog
from simulation.store import SimulatedStore
from simulation.world import EPOCH, Choices, Faults, World

ACCESS = Access.superuser("ada")
PROFILE = "vllm"
#: The number of the registry in which there is something to prune, and to delete.
HISTORY = 2
KEEP_LAST, KEEP_YANKED = 1, timedelta(hours=2)
_PUSHED = 5  # adapters, of which the first is in every registry, and the others may be pushed
_WITH_ALIAS = 2
_MODULE = "base_model.model.model.layers.0.self_attn.q_proj"
_CONFIG = {
    "peft_type": "LORA",
    "r": 1,
    "lora_alpha": 1,
    "target_modules": ["q_proj"],
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": "org/base",
}


@dataclass(frozen=True)
class Inputs:
    """Folders of adapters, with their manifests; of a model, with its identity; and of an export."""

    adapters: tuple[Path, ...]
    manifests: tuple[Manifest, ...]
    model: Path
    identity: Identity
    export: Path


class Orphans(StrEnum):
    """What is known of orphans: nothing, or they are marked since the time 0, or claimed then by one who died."""

    UNKNOWN = "unknown"
    MARKED = "marked"
    CLAIMED = "claimed"


@dataclass(frozen=True)
class Start:
    """A registry before a schedule: the catalog's images by what it knows of its orphans, and the store's objects.

    ``orphans`` are what pushes of every adapter that died have left in the store. ``copies`` are the folders that lie
    in ``named/``, each with the digests of its files by path.
    """

    catalog: SimulatedCatalog
    images: dict[Orphans, Image]
    objects: dict[str, bytes]
    orphans: dict[str, bytes]
    copies: dict[str, dict[str, str]]


@functools.cache
def inputs() -> Inputs:
    """Write the inputs into a folder, which is removed when the process ends."""
    root = Path(_folder().name)
    # 0 is pushed already. 1 and 2 share a configuration, 2 and 3 their weights; 4 shares both with others.
    adapters = (
        _adapter(root / "0", 1, 1),
        _adapter(root / "1", 2, 2),
        _adapter(root / "2", 2, 3),
        _adapter(root / "3", 3, 3),
        _adapter(root / "4", 3, 2),
        # These are in the registry with a history alone.
        _adapter(root / "5", 4, 4),
        _adapter(root / "6", 5, 5),
        _adapter(root / "7", 5, 6),
        # And this one is in none, and shares nothing.
        _adapter(root / "8", 6, 7),
        # Nor this one, which shares the configuration that only 5 has.
        _adapter(root / "9", 4, 8),
    )
    manifests = []
    for folder in adapters:
        with inspect_adapter(folder, no_progress) as inspected:
            manifests.append(inspected.manifest)
    export = root / "export"  # has the configuration and the weights of others, and one file of its own
    export.mkdir()
    shutil.copy(adapters[1] / "adapter_config.json", export)
    shutil.copy(adapters[3] / "adapter_model.safetensors", export)
    (export / "README.md").write_text("an export\n")
    model = root / "model"
    model.mkdir()
    weight = {"model.layers.0.self_attn.q_proj.weight": np.ones((2, 2), np.float32)}
    save_file(weight, model / "model.safetensors", {"format": "pt"})
    (model / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"], "model_type": "llama"}))
    return Inputs(adapters, tuple(manifests), model, identify(model, ("org/base",)), export)


@functools.cache
def start(registry: int) -> Start:
    """Return a registry with one version, as it lies in memory; another one for each number, HISTORY with eight."""
    made, catalog = inputs(), SimulatedCatalog()
    world = World(Choices(0), Faults((0.0,), (1.0,), 0.0), is_calm=True)
    store = SimulatedStore(world, {}, "")
    context = Context(LocalBackend(catalog, store, ACCESS, Policy()), store, root_of(made) / "cache", Policy())
    push(context, made.adapters[0], "team/a")
    if registry == HISTORY:
        _add_history(context, catalog)
    images = {Orphans.UNKNOWN: catalog.image()}
    orphans = {}
    for folder in (*made.adapters[1:_PUSHED], made.export):
        for path in folder.iterdir():
            orphans[hashlib.sha256(path.read_bytes()).hexdigest()] = path.read_bytes()
    for content in (*(manifest.to_bytes() for manifest in made.manifests[1:_PUSHED]), made.identity.tensor_list):
        orphans[hashlib.sha256(content).hexdigest()] = content
    orphans = {digest: orphans[digest] for digest in sorted(orphans.keys() - store.objects.keys())}
    with catalog.write(ACCESS) as tx:
        collection.mark(tx, {digest: len(content) for digest, content in orphans.items()}, tx.at)
    copies = {manifest.digest: {file.path: file.sha256 for file in manifest.files} for manifest in made.manifests}
    copies = {digest: files for digest, files in copies.items() if digest in store.objects}
    images[Orphans.MARKED] = catalog.image()
    marked_at, claimed_at = (f"{at:%Y-%m-%d %H:%M:%S.%f}" for at in (EPOCH - timedelta(days=2), EPOCH))
    catalog.ask("UPDATE garbage SET marked_at = ?, claimed_at = ?", marked_at, claimed_at)
    images[Orphans.CLAIMED] = catalog.image()
    return Start(catalog, images, dict(store.objects), orphans, copies)


def _add_history(context: Context, catalog: SimulatedCatalog) -> None:
    """Push what can be pruned and what cannot: v3 has an alias, v4 and v5 are yanked; two are merged.

    Of ``team/m``, v1 is merged from v2 of ``team/a`` and may go, before its parent; v2 is the newest, and keeps v1.
    """
    made = inputs()
    for number, name in ((1, "a"), (2, "a"), (3, "a"), (4, "a"), (5, "a"), (6, "m"), (7, "m")):
        metadata = VersionMetadata(aliases=["prod"] if number == _WITH_ALIAS else [])
        push(context, made.adapters[number], f"team/{name}", metadata)
    ids = dict(catalog.ask("SELECT digest, id FROM versions"))
    for child, parent in ((6, 1), (7, 0)):
        child_id, parent_digest = ids[made.manifests[child].digest], made.manifests[parent].digest
        catalog.ask("INSERT INTO merges (version_id, recipe, certificate) VALUES (?, '{}', '{}')", child_id)
        catalog.ask("INSERT INTO lineage VALUES (?, 0, ?, 'a parent', 1.0)", child_id, parent_digest)
    for yanked, at in ((3, EPOCH - timedelta(days=1)), (4, EPOCH - KEEP_YANKED / 2)):
        yanked_at = f"{at:%Y-%m-%d %H:%M:%S.%f}"
        catalog.ask("UPDATE versions SET yanked_at = ? WHERE digest = ?", yanked_at, made.manifests[yanked].digest)


def root_of(made: Inputs) -> Path:
    """Return the folder of all inputs."""
    return made.model.parent


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="loreg-simulation-", dir=folder_in_memory())


def folder_in_memory() -> str | None:
    """Return a folder that is no disk's, where the system has one; None for that of all temporary files."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _adapter(folder: Path, config: int, weights: int) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({**_CONFIG, "lora_alpha": config}))
    factors = {
        f"{_MODULE}.lora_A.weight": np.full((1, 2), weights, np.float32),
        f"{_MODULE}.lora_B.weight": np.full((2, 1), weights, np.float32),
    }
    save_file(factors, folder / "adapter_model.safetensors")
    return folder
