"""Move one version to a new base: the same weights as the next version of its adapter, with where it comes from."""

from __future__ import annotations

import json

from loreg.adapters.config import CONFIG_NAME, dump_config
from loreg.adapters.structure import WEIGHTS_NAME
from loreg.base_names import is_hub_name
from loreg.entities import BaseModel, Commit, Details
from loreg.manifest import File, Manifest
from loreg.refs import parse_ref
from loreg.storage import put_bytes
from loreg.storage.collected import attempts_to_commit
from loreg.upgrading import move_record
from loreg.workspace.context import Context
from loreg.workspace.opened_base import OpenedBase


def move_version(context: Context, details: Details, old: BaseModel, new: OpenedBase) -> str:
    """Record the version on the base ``new``; return the ref of its version there, which may be there already.

    Files, tasks and labels are those of the version; the configuration names the new base, and ``loreg_move.json`` the
    version. No metric is carried over: each was measured on the old base. Raises what a push raises.
    """
    version, backend = details.version, context.backend
    files = {file.path: file for file in details.files}
    weights = files[WEIGHTS_NAME].sha256
    if moved := _find_moved(context, details, weights, new.base):
        return moved
    hint = next((name for name in new.base.names if "/" in name and is_hub_name(name)), "")
    record = move_record.write_move_record(version, weights, old.digest, new.base.digest)
    written = {
        CONFIG_NAME: _name_base(context.store.read(files[CONFIG_NAME].sha256), hint),
        move_record.FILE_NAME: record,
    }
    sketch = backend.sketch(parse_ref(version.ref))
    for attempt in attempts_to_commit():
        with attempt:
            backend.lease([*(file.sha256 for file in details.files), new.base.digest])
            for path, content in written.items():
                blob = put_bytes(context.store, content)
                files[path] = File(path, blob.sha256, blob.size)
            if new.identity is not None:
                put_bytes(context.store, new.identity.tensor_list)
            manifest = Manifest(tuple(sorted(files.values(), key=lambda file: file.path)))
            committed = backend.commit(
                Commit(
                    adapter=version.adapter,
                    manifest=manifest,
                    base=new.base,
                    base_hint=hint,
                    message=f"moved from {version.ref} to {new.base.title}",
                    tasks=version.tasks,
                    labels=version.labels,
                    sketch=sketch,
                )
            )
    return committed.version.ref


def _find_moved(context: Context, details: Details, weights: str, new: BaseModel) -> str:
    """Return the ref of the version of the same adapter with these weights on the new base; empty without one."""
    for text in context.backend.with_file(weights):
        ref = parse_ref(text)
        if ref.adapter == details.version.adapter:
            moved = context.backend.show(ref).version
            if not moved.yanked and moved.base is not None and moved.base.digest == new.digest:
                return text
    return ""


def _name_base(config: bytes, name: str) -> bytes:
    """Return the configuration with the new base's name, or none, and without the revision of the old one."""
    document = {**json.loads(config), "base_model_name_or_path": name or None}
    if "revision" in document:
        document["revision"] = None
    return dump_config(document)
