"""Small adapters that are really there: files in a folder, and the rows of the catalog that a push would have written.

Each is twelve modules of rank 4, 52 KB, of its own random numbers; all share a configuration.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from safetensors.numpy import save
from sqlalchemy import create_engine, func, insert, select

from loreg.catalog import schema

NAMES = ("adapter_config.json", "adapter_model.safetensors")
GROUPS = 10  # namespaces: group0/a1 to group9/a10
_CONFIG = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}
_PAGE = 5000
_AT = datetime(2026, 1, 1, tzinfo=UTC)

#: The paths of the configuration and of the weights of one adapter.
Files = tuple[Path, Path]


def fill(url: str, store: Path, count: int) -> list[Files]:
    """Write ``count`` adapters, a tenth in each group, beside what the catalog has; return their paths by group."""
    config = _write_blob(store, json.dumps(_CONFIG).encode())
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        adapter_id = connection.execute(select(func.max(schema.adapter_table.c.id))).scalar() or 0
        version_id = connection.execute(select(func.max(schema.version_table.c.id))).scalar() or 0
        blob = {"digest": config.name, "size": config.stat().st_size}
        connection.execute(insert(schema.blob_table), blob)
        weights: list[Path] = []
        for start in range(0, count, _PAGE):
            page = [_write_blob(store, _make_weights(seed)) for seed in range(start, min(start + _PAGE, count))]
            sizes = [path.stat().st_size for path in page]
            numbers = range(start + 1, start + len(page) + 1)
            adapters = [_adapter_row(adapter_id + i, i, count) for i in numbers]
            versions = [
                _version_row(version_id + i, adapter_id + i, size) for i, size in zip(numbers, sizes, strict=True)
            ]
            blobs = [{"digest": path.name, "size": size} for path, size in zip(page, sizes, strict=True)]
            files = [
                {"version_id": version_id + i, "path": name, **content}
                for i, of_weights in zip(numbers, blobs, strict=True)
                for name, content in zip(NAMES, (blob, of_weights), strict=True)
            ]
            connection.execute(insert(schema.adapter_table), adapters)
            connection.execute(insert(schema.blob_table), blobs)
            connection.execute(insert(schema.version_table), versions)
            connection.execute(insert(schema.file_table), files)
            weights += page
    engine.dispose()
    return [(config, path) for path in weights]


def _adapter_row(adapter_id: int, number: int, count: int) -> dict[str, object]:
    group = (number - 1) * GROUPS // count
    return {"id": adapter_id, "namespace": f"group{group}", "name": f"a{number}", "created_at": _AT}


def _version_row(version_id: int, adapter_id: int, size: int) -> dict[str, object]:
    return {
        "id": version_id, "adapter_id": adapter_id, "number": 1, "digest": f"{version_id:064x}", "base_hint": "",
        "variant": "lora", "task_type": "", "rank_min": 4, "rank_max": 4, "alpha": 8.0, "parameters": 12_288,
        "bytes": size, "dtype": "F32", "author": "bench", "message": "", "card": "", "created_at": _AT,
    }  # fmt: skip


def _make_weights(seed: int) -> bytes:
    generator = np.random.default_rng(seed)
    tensors = {
        f"base_model.model.model.layers.{layer}.self_attn.{module}.lora_{part}.weight": generator.standard_normal(
            (4, 128) if part == "A" else (128, 4), np.float32
        )
        for layer in range(6)
        for module in ("q_proj", "v_proj")
        for part in "AB"
    }
    return bytes(save(tensors))


def _write_blob(store: Path, content: bytes) -> Path:
    digest = hashlib.sha256(content).hexdigest()
    path = store / "sha256" / digest[:2] / digest
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path
