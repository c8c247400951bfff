"""What the actors of a simulation push, and the registry that they find: made once for a process.

The adapters are the smallest that pass every check. They share blobs with each other and with an export, so that what
one version leaves behind is what another push is about to use.
"""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
import sqlite3
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from loreg.bases.identify import Identity, identify
from loreg.catalog import collection
from loreg.checking.policy import Policy
from loreg.entities import Access, no_progress
from loreg.local.backend import LocalBackend
from loreg.manifest import Manifest
from loreg.verbs.push import push
from loreg.workspace.context import Context
from loreg.workspace.inspect import inspect_adapter
from simulation.catalog import SimulatedCatalog
from simulation.store import SimulatedStore
from simulation.world import Choices, Faults, World

ACCESS = Access.superuser("ada")
PROFILE = "vllm"
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


@dataclass(frozen=True)
class Start:
    """A registry before a schedule: the catalog's images by whether its orphans are marked, and the store's objects.

    ``orphans`` are what pushes of every adapter that died have left in the store.
    """

    catalog: SimulatedCatalog
    images: dict[bool, sqlite3.Connection]
    objects: dict[str, bytes]
    orphans: dict[str, bytes]


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
    """Return a registry with one version, as it lies in memory; another one for each number."""
    made, catalog = inputs(), SimulatedCatalog()
    world = World(Choices(0), Faults((0.0,), (1.0,), 0.0), is_calm=True)
    store = SimulatedStore(world, {}, "")
    context = Context(LocalBackend(catalog, store, ACCESS, Policy()), store, root_of(made) / "cache", Policy())
    push(context, made.adapters[0], "team/a")
    plain = catalog.image()
    orphans = {}
    for folder in (*made.adapters[1:], made.export):
        for path in folder.iterdir():
            orphans[hashlib.sha256(path.read_bytes()).hexdigest()] = path.read_bytes()
    for content in (*(manifest.to_bytes() for manifest in made.manifests[1:]), made.identity.tensor_list):
        orphans[hashlib.sha256(content).hexdigest()] = content
    orphans = {digest: orphans[digest] for digest in sorted(orphans.keys() - store.objects.keys())}
    with catalog.write(ACCESS) as tx:
        collection.mark(tx, {digest: len(content) for digest, content in orphans.items()}, tx.at)
    return Start(catalog, {False: plain, True: catalog.image()}, dict(store.objects), orphans)


def root_of(made: Inputs) -> Path:
    """Return the folder of all inputs."""
    return made.model.parent


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="loreg-simulation-")


def _adapter(folder: Path, config: int, weights: int) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({**_CONFIG, "lora_alpha": config}))
    factors = {
        f"{_MODULE}.lora_A.weight": np.full((1, 2), weights, np.float32),
        f"{_MODULE}.lora_B.weight": np.full((2, 1), weights, np.float32),
    }
    save_file(factors, folder / "adapter_model.safetensors")
    return folder
