"""Make the small broken registries beside this file: ``python tests/data/broken-registries/make.py [NAME…]``.

With names only these are made, and nothing else is changed: each then needs a catalog of its own.

Each folder is a store, as it is after one thing went wrong, and ``verdict.json``: what was done to it here, and so what
verify must say and what mends it: ``repair``, and ``next``, commands after which everything is as it was before. With
``owner`` the store is marked as another registry's. The catalog is ``catalog.sql`` of the folder, or else the one
beside this file, as SQLite writes it. The adapters that were pushed are in ``adapters/``, as they were before.
Versions: team/news:v1 and v2, of one configuration and different weights.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import sqlite3
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

import loreg
from loreg.catalog import Catalog, pending_uploads
from loreg.catalog.pending_uploads import PendingUpload
from loreg.entities import Access
from loreg.refs import AdapterName

HERE = Path(__file__).parent
ONLY = frozenset(sys.argv[1:])
V1, V2 = "team/news:v1", "team/news:v2"
CONFIG, WEIGHTS, CARD = "adapter_config.json", "adapter_model.safetensors", "README.md"


def write_adapter(folder: Path, seed: int) -> Path:
    """Write an adapter of rank 2 of one module, with a card that has the seed in it."""
    folder.mkdir(parents=True)
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
    config["base_model_name_or_path"] = "/home/ada/models/tiny"  # push takes it out: the stored bytes are others
    (folder / CONFIG).write_text(json.dumps(config, indent=2))
    (folder / CARD).write_text(f"# Trained with seed {seed}\n")
    numbers = np.random.default_rng(seed)
    prefix = "base_model.model.layers.0.self_attn.q_proj"
    factors = {"lora_A": (2, 20), "lora_B": (24, 2)}
    save_file(
        {f"{prefix}.{name}.weight": numbers.normal(size=shape).astype("float32") for name, shape in factors.items()},
        folder / WEIGHTS,
    )
    return folder


def dump(home: Path, path: Path, change: str = "") -> None:
    """Write the catalog as SQL, after the statement ``change``."""
    with contextlib.closing(sqlite3.connect(home / "catalog.db")) as connection:
        if change:
            connection.execute(change)
        path.write_text("\n".join(connection.iterdump()) + "\n")


def stored(folder: Path, sha256: str) -> Path:
    """Where the blob is."""
    return folder / "store" / "sha256" / sha256[:2] / sha256


class Broken:
    """One broken registry: a copy of a store, to be broken, and the verdict on it."""

    #: Where those are made that were not asked for.
    unasked = HERE

    def __init__(self, name: str, store: Path) -> None:
        self.folder = (HERE if not ONLY or name in ONLY else self.unasked) / name
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(store, self.folder / "store")
        for path in self.folder.rglob("*"):
            if path.is_file():
                path.chmod(0o644)
        self.broken: list[dict[str, Any]] = []
        self.orphans: list[str] = []
        self.leftovers = 0

    def damage(self, kind: str, sha256: str, *owners: tuple[str, str]) -> Path:
        """Note what verify must say of a blob; return where it is."""
        self.broken.append({"kind": kind, "sha256": sha256, "owners": sorted(map(list, owners))})
        return stored(self.folder, sha256)

    def finish(self, remedy: str, repair: list[str] | None, read_data: bool = False, **more: Any) -> None:
        """Write the verdict; ``repair`` are the arguments of the repair that mends it, None if there is none."""
        verdict = {
            "read_data": read_data,
            "broken": sorted(self.broken, key=lambda damage: str(damage["sha256"])),
            "orphans": sorted(self.orphans),
            "leftovers": self.leftovers,
            "remedy": remedy,
            "repair": repair,
            **more,
        }
        (self.folder / "verdict.json").write_text(json.dumps(verdict, indent=2) + "\n")


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        make(Path(temporary))


def make(temporary: Path) -> None:
    Broken.unasked = temporary / "unasked"
    shared = Broken.unasked if ONLY else HERE
    shutil.rmtree(shared / "adapters", ignore_errors=True)
    adapters = [write_adapter(shared / "adapters" / name, seed) for seed, name in enumerate(("first", "second"))]
    home = temporary / "home"
    with loreg.connect(home=str(home), author="ada") as registry:
        registry.push(adapters[0], "team/news", tasks=["topics"])
        dump(home, temporary / "older.sql")
        with contextlib.closing(sqlite3.connect(home / "catalog.db")) as reader:  # who reads keeps the log as it is
            reader.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            reader.execute("SELECT id FROM versions").fetchall()
            registry.push(adapters[1], "team/news")
            (temporary / "alone").mkdir()
            shutil.copyfile(home / "catalog.db", temporary / "alone" / "catalog.db")
        details = {ref: registry.show(ref) for ref in (V1, V2)}
    dump(home, shared / "catalog.sql")
    another = temporary / "another"
    with loreg.connect(home=str(another), author="bob") as registry:
        foreign = registry.push(write_adapter(temporary / "foreign", 7), "other/thing")
        of_foreign = {file.sha256 for file in registry.show(foreign.version.ref).files} | {foreign.version.digest}
    store = home / "store"
    files = {ref: {file.path: file.sha256 for file in details[ref].files} for ref in (V1, V2)}
    digests = {ref: details[ref].version.digest for ref in (V1, V2)}

    broken = Broken("missing-blob", store)
    broken.damage("missing", files[V1][WEIGHTS], (V1, WEIGHTS)).unlink()
    broken.finish("loreg repair --from DIR", ["--from", "adapters"])

    broken = Broken("flipped-bit", store)
    path = broken.damage("damaged", files[V2][WEIGHTS], (V2, WEIGHTS))
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    broken.finish("loreg repair --from DIR --read-data", ["--from", "adapters"], read_data=True)

    broken = Broken("lost-manifest", store)
    broken.damage("missing", digests[V1], (V1, "")).unlink()
    broken.finish("loreg repair", [])

    broken = Broken("orphan", store)
    content = b"of a push that was refused"
    orphan = stored(broken.folder, hashlib.sha256(content).hexdigest())
    orphan.parent.mkdir(exist_ok=True)
    orphan.write_bytes(content)
    broken.orphans = [orphan.name]
    broken.finish("", [])

    broken = Broken("other-size", store)
    path = broken.damage("other size", files[V1][CONFIG], (V1, CONFIG), (V2, CONFIG))
    path.write_bytes(path.read_bytes()[:50])
    broken.finish("loreg repair --from DIR", ["--from", "adapters"])

    broken = Broken("half-moved", store)
    path = broken.damage("missing", files[V2][WEIGHTS], (V2, WEIGHTS))
    content = path.read_bytes()
    path.unlink()
    path.with_name(".put-0123456789abcdef").write_bytes(content[: len(content) // 2])
    broken.leftovers = 1
    broken.finish("loreg repair --from DIR", ["--from", "adapters"])

    broken = Broken("older-catalog", store)
    shutil.copyfile(temporary / "older.sql", broken.folder / "catalog.sql")
    in_v1 = {*files[V1].values(), digests[V1]}
    of_v2 = [sha256 for sha256 in (*files[V2].values(), digests[V2]) if sha256 not in in_v1]
    broken.orphans = of_v2
    push_v2 = [["push", "adapters/second", "team/news"]]
    broken.finish("", [], next=push_v2)

    broken = Broken("wal-lost", store)
    dump(temporary / "alone", broken.folder / "catalog.sql")
    broken.orphans = of_v2
    broken.finish("", [], next=push_v2)

    broken = Broken("wrong-owner", store)
    dump(home, broken.folder / "catalog.sql")
    owner = (another / "store" / "owner").read_text()
    (broken.folder / "store" / "owner").write_text(owner)
    broken.finish("", [], owner=owner)

    stale = temporary / "stale"
    with loreg.connect(home=str(stale), author="ada") as registry:
        registry.push(adapters[0], "team/news")
    weights = next(file for file in details[V2].files if file.path == WEIGHTS)
    catalog = Catalog(f"sqlite:///{stale / 'catalog.db'}")
    with contextlib.closing(catalog), catalog.write(Access.superuser("ada")) as tx:
        pending_uploads.save(tx, AdapterName("team", "later"), "", PendingUpload((weights,), ""))
    broken = Broken("stale-draft", stale / "store")
    dump(stale, broken.folder / "catalog.sql", "UPDATE drafts SET updated_at = '2020-01-01 00:00:00.000000'")
    broken.damage("missing", weights.sha256, ("team/later", WEIGHTS))
    broken.finish("", ["--from", "adapters"])

    broken = Broken("store-of-another-catalog", another / "store")
    wanted: dict[str, list[tuple[str, str]]] = {}
    for ref in (V1, V2):
        for path_, sha256 in (*files[ref].items(), ("", digests[ref])):
            wanted.setdefault(sha256, []).append((ref, path_))
    for sha256, owners in wanted.items():
        if sha256 not in of_foreign:
            broken.damage("missing", sha256, *owners)
    broken.orphans = [sha256 for sha256 in of_foreign if sha256 not in wanted]
    broken.finish("", ["--from", "adapters"])

    broken = Broken("lost-row", store)
    dump(home, broken.folder / "catalog.sql", f"DELETE FROM files WHERE digest = '{files[V2][CARD]}'")
    broken.damage("inconsistent", digests[V2], (V2, ""))
    broken.orphans = [files[V2][CARD]]
    broken.finish("restore the catalog from a backup", None)


if __name__ == "__main__":
    main()
