"""Read a base model on disk: its safetensors shards, its tensors by name, its configuration."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from loreg.adapters.card import CARD_NAME, card_license, read_card
from loreg.adapters.header import Header, Tensor, read_header
from loreg.adapters.weight_suffixes import TORCH_PICKLES
from loreg.errors import AdapterFormatError, ConflictError, IntegrityError, NotFoundError

INDEX_NAME = "model.safetensors.index.json"
WEIGHTS_NAME = "model.safetensors"
_PEFT_KEY = re.compile(r"^base_model\.model\.|\.lora_(A|B|embedding_A|embedding_B|magnitude_vector)\b|\.base_layer\.")
#: Names that torch.compile, FSDP and activation checkpointing put into those of a model.
_WRAPPER_KEY = re.compile(r"(^|\.)(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_flat_param)(\.|$)")
#: Models that come with adapters inside.
_TYPES_WITH_LORA_INSIDE = ("phi4mm", "phi4_multimodal")


@dataclass(frozen=True)
class Model:
    """The model at ``path``, a folder or one file: the header of each shard in order, ``config.json``, its license."""

    path: Path
    shards: Mapping[Path, Header]
    config: Mapping[str, object]
    license: str = ""

    @property
    def tensors(self) -> dict[str, tuple[Path, Tensor]]:
        """Every tensor by its name, with the shard that it is stored in."""
        return {
            tensor.name: (file, tensor) for file, header in self.shards.items() for tensor in header.tensors.values()
        }

    @property
    def size(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.end - tensor.start for header in self.shards.values() for tensor in header.tensors.values())

    @property
    def architectures(self) -> tuple[str, ...]:
        """The classes that the configuration names; anything may be written there."""
        classes = self.config.get("architectures")
        return tuple(name for name in classes if isinstance(name, str)) if isinstance(classes, list) else ()

    @property
    def folder(self) -> Path:
        """The folder of the files beside the weights."""
        return self.path if self.path.is_dir() else self.path.parent


def read_model(path: Path) -> Model:
    """Read the headers and the configuration of the model at ``path``; no weight is read.

    Raises NotFoundError if there is no model or a shard is missing, AdapterFormatError if it is only there as a
    pickle or its index or configuration is malformed, IntegrityError for a damaged file or an index that contradicts
    the files, ConflictError if two shards have a tensor of the same name.
    """
    shards: dict[Path, Header] = {}
    shard_of: dict[str, Path] = {}
    for file in _find_shards(path):
        shards[file] = read_header(file)
        for name in shards[file].tensors:
            if name in shard_of:
                raise ConflictError(
                    f"{path} has the tensor {name!r} twice, in {shard_of[name].name} and {file.name}",
                    hint="leave one copy of the model in the folder",
                )
            shard_of[name] = file
    _refuse_wrong_index(path, shard_of)
    folder = path if path.is_dir() else path.parent
    config = _read_config(path)
    _refuse_wrapped(path, shard_of, config)
    return Model(path, shards, config, card_license(read_card(folder / CARD_NAME)))


def _refuse_wrapped(path: Path, names: Iterable[str], config: Mapping[str, object]) -> None:
    """Raise AdapterFormatError for the state dict of a model in a wrapper (PEFT, FSDP): no loader finds its names."""
    for name in names:
        if _PEFT_KEY.search(name) and config.get("model_type") not in _TYPES_WITH_LORA_INSIDE:
            raise AdapterFormatError(
                f"{path} holds the state dict of a PeftModel, LoRA and base together: {name!r}",
                hint="model.unload().save_pretrained(DIR) saves the base alone, merge_and_unload() both as one model",
            )
        if _WRAPPER_KEY.search(name):
            raise AdapterFormatError(
                f"{path} was saved with what the model was wrapped in: {name!r}",
                hint="accelerator.unwrap_model(model).save_pretrained(DIR) saves the model itself",
            )


def _find_shards(path: Path) -> list[Path]:
    if path.is_file() and path.suffix == ".safetensors":
        return [path]
    index, single = path / INDEX_NAME, path / WEIGHTS_NAME
    if index.is_file():
        files = [path / name for name in sorted(set(_read_weight_map(index).values()))]
        if missing := next((file for file in files if not file.is_file()), None):
            raise NotFoundError(
                f"the shard {missing.name} is missing: {index} names it", hint="download the model again"
            )
        return files
    shards = [single] if single.is_file() else sorted(path.glob("*.safetensors"))
    if shards:
        return shards
    if any(file.suffix in TORCH_PICKLES for file in (path, *path.glob("*"))):
        raise AdapterFormatError(
            f"{path} holds the model as a pickle, which loreg never opens",
            hint="model.save_pretrained(DIR) writes safetensors",
        )
    raise NotFoundError(
        f"there is no model at {path}: no *.safetensors",
        hint="name the folder of the base model: --base ./model",
    )


def _read_weight_map(index: Path) -> dict[str, str]:
    try:
        names: dict[str, str] = json.loads(index.read_bytes())["weight_map"]
        if names and all(isinstance(name, str) and "/" not in name and name != ".." for name in names.values()):
            return names
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise AdapterFormatError(f"{index} has no weight_map of shard names", hint="save the model again")


def _refuse_wrong_index(path: Path, shard_of: Mapping[str, Path]) -> None:
    index = path / INDEX_NAME
    if not index.is_file():
        return
    weight_map = _read_weight_map(index)
    for name in sorted(weight_map.keys() | shard_of.keys()):
        listed, actual = weight_map.get(name, "no shard"), shard_of[name].name if name in shard_of else "no shard"
        if listed != actual:
            raise IntegrityError(
                f"{index} does not tell the truth: it has {name!r} in {listed}, the files have it in {actual}",
                hint="download the model again, or save it again",
            )


def _read_config(path: Path) -> Mapping[str, object]:
    """Return ``config.json`` beside the weights; empty where there is none."""
    file = (path if path.is_dir() else path.parent) / "config.json"
    if not file.is_file():
        return {}
    try:
        document = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise AdapterFormatError(f"{file} is not JSON ({error})", hint="save the model again") from error
    if not isinstance(document, dict):
        raise AdapterFormatError(f"{file} is not a JSON object", hint="save the model again")
    return document
