"""A base model on disk: its safetensors shards, its tensors by name, its configuration."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loreg.adapters.card import CARD_NAME, card_license, read_card
from loreg.adapters.header import Header, Tensor, read_header
from loreg.errors import AdapterFormatError, ConflictError, IntegrityError, NotFoundError

INDEX_NAME = "model.safetensors.index.json"
WEIGHTS_NAME = "model.safetensors"
_OF_PEFT = re.compile(r"^base_model\.model\.|\.lora_(A|B|embedding_A|embedding_B|magnitude_vector)\b|\.base_layer\.")
#: Names that torch.compile, FSDP and activation checkpointing put into those of a model.
_OF_A_WRAPPER = re.compile(r"(^|\.)(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_flat_param)(\.|$)")
#: Models that come with adapters inside.
_WITH_LORA_INSIDE = ("phi4mm", "phi4_multimodal")


@dataclass(frozen=True)
class Model:
    """The model at ``path``, a folder or one file: the header of each shard in order, ``config.json``, its license."""

    path: Path
    shards: Mapping[Path, Header]
    config: Mapping[str, Any]
    license: str = ""

    @property
    def tensors(self) -> dict[str, tuple[Path, Tensor]]:
        """Every tensor by its name, and the shard that it lies in."""
        return {tensor.name: (file, tensor) for file, h in self.shards.items() for tensor in h.tensors.values()}

    @property
    def size(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.end - tensor.start for h in self.shards.values() for tensor in h.tensors.values())

    @property
    def architectures(self) -> tuple[str, ...]:
        """The classes that the configuration names; whoever wrote it may have written anything."""
        named = self.config.get("architectures")
        return tuple(name for name in named if isinstance(name, str)) if isinstance(named, list) else ()

    @property
    def folder(self) -> Path:
        """Where the files beside the weights lie."""
        return self.path if self.path.is_dir() else self.path.parent


def read_model(path: Path) -> Model:
    """Read the headers and the configuration of the model at ``path``; no weight is read.

    Raises NotFoundError if there is no model or a shard is missing, AdapterFormatError if it is only there as a
    pickle or its index is not one, IntegrityError for a damaged file or an index that lies, ConflictError if two
    shards have a tensor of the same name.
    """
    shards: dict[Path, Header] = {}
    seen: dict[str, Path] = {}
    for file in _files(path):
        shards[file] = read_header(file)
        for name in shards[file].tensors:
            if name in seen:
                raise ConflictError(
                    f"{path} has the tensor {name!r} twice, in {seen[name].name} and {file.name}",
                    hint="leave one copy of the model in the folder",
                )
            seen[name] = file
    _refuse_an_index_that_lies(path, seen)
    folder = path if path.is_dir() else path.parent
    config = _config(path)
    _refuse_what_is_wrapped(path, seen, config)
    return Model(path, shards, config, card_license(read_card(folder / CARD_NAME)))


def _refuse_what_is_wrapped(path: Path, names: Iterable[str], config: Mapping[str, Any]) -> None:
    """Raise AdapterFormatError for the state dict of a model that others were wrapped around: no loader finds it."""
    for name in names:
        if _OF_PEFT.search(name) and config.get("model_type") not in _WITH_LORA_INSIDE:
            raise AdapterFormatError(
                f"{path} holds the state dict of a PeftModel, LoRA and base together: {name!r}",
                hint="model.unload().save_pretrained(DIR) saves the base alone, merge_and_unload() both as one model",
            )
        if _OF_A_WRAPPER.search(name):
            raise AdapterFormatError(
                f"{path} was saved with what the model was wrapped in: {name!r}",
                hint="accelerator.unwrap_model(model).save_pretrained(DIR) saves the model itself",
            )


def _files(path: Path) -> list[Path]:
    if path.is_file() and path.suffix == ".safetensors":
        return [path]
    index, whole = path / INDEX_NAME, path / WEIGHTS_NAME
    if index.is_file():
        files = [path / name for name in sorted(set(_weight_map(index).values()))]
        if missing := next((file for file in files if not file.is_file()), None):
            raise NotFoundError(
                f"the shard {missing.name} is missing: {index} names it", hint="download the model again"
            )
        return files
    found = [whole] if whole.is_file() else sorted(path.glob("*.safetensors"))
    if found:
        return found
    if path.suffix == ".bin" or any(path.glob("*.bin")):
        raise AdapterFormatError(
            f"{path} holds the model as a pickle, which loreg never opens",
            hint="model.save_pretrained(DIR) writes safetensors",
        )
    raise NotFoundError(
        f"there is no model at {path}: no *.safetensors",
        hint="name the folder of the base model: --base ./model",
    )


def _weight_map(index: Path) -> dict[str, str]:
    try:
        names: dict[str, str] = json.loads(index.read_bytes())["weight_map"]
        if names and all(isinstance(name, str) and "/" not in name and name != ".." for name in names.values()):
            return names
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise AdapterFormatError(f"{index} has no weight_map of shard names", hint="save the model again")


def _refuse_an_index_that_lies(path: Path, seen: Mapping[str, Path]) -> None:
    index = path / INDEX_NAME
    if not index.is_file():
        return
    named = _weight_map(index)
    for name in sorted(named.keys() | seen.keys()):
        said, found = named.get(name, "no shard"), seen[name].name if name in seen else "no shard"
        if said != found:
            raise IntegrityError(
                f"{index} does not tell the truth: it has {name!r} in {said}, the files have it in {found}",
                hint="download the model again, or save it again",
            )


def _config(path: Path) -> Mapping[str, Any]:
    """``config.json`` beside the weights; empty where there is none."""
    file = (path if path.is_dir() else path.parent) / "config.json"
    if not file.is_file():
        return {}
    try:
        document = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise AdapterFormatError(f"{file} is not JSON ({error})", hint="save the model again") from None
    if not isinstance(document, dict):
        raise AdapterFormatError(f"{file} is not a JSON object", hint="save the model again")
    return document
