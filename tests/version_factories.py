"""Versions for the catalog alone, without any files."""

from __future__ import annotations

import hashlib
from typing import Any

from msgspec.structs import replace

from loreg.entities import Facts, ModuleType, NewVersion
from loreg.manifest import File, Manifest
from loreg.refs import parse_adapter_name


def new_version(name: str, content: str, **options: Any) -> NewVersion:
    """A version of ``name``; options are fields of the draft or of its facts, ``modules`` names module types."""
    facts = Facts("lora", "CAUSAL_LM", 8, 8, 16.0, 1000, "F32", (), "")
    ranks = options.pop("ranks", (8, 8))
    modules = tuple(ModuleType(m, 2, *ranks) for m in options.pop("modules", ("q_proj", "v_proj")))
    facts_options = {key: options.pop(key) for key in ("variant", "base_hint") if key in options}
    facts = replace(facts, rank_min=ranks[0], rank_max=ranks[1], module_types=modules, **facts_options)
    digest = hashlib.sha256(content.encode()).hexdigest()
    files = (File("adapter_model.safetensors", digest, options.pop("size", 100)),)
    return NewVersion(parse_adapter_name(name), Manifest(files), facts, **options)
