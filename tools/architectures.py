"""Make the table of architectures that loreg knows, from the installed release of transformers.

For every class that an Auto class can load: which weights one flag ties, how names in files become names in memory, and
which weights are kept transposed. Each model is made on the meta device, without a weight. Run ``make architectures``.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
warnings.filterwarnings("ignore")

import torch
import transformers
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import PrefixChange, WeightConverter, WeightRenaming
from transformers.models.auto import modeling_auto
from transformers.pytorch_utils import Conv1D

TABLE = Path(__file__).parents[1] / "registry" / "loreg" / "bases" / "architectures.json"
#: Sizes that only make a model slow to build; names do not depend on how many layers there are.
_DEPTHS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers", "encoder_layers", "decoder_layers",
           "num_decoder_layers", "num_encoder_layers", "num_local_experts", "num_experts", "n_routed_experts",
           "moe_num_experts")  # fmt: skip
#: Values for what some configurations leave open.
_OPEN = {"prediction_length": 4, "vocabulary_map": {"<image>": 1}, "rms_norm_eps": 1e-6, "moe_topk": 2}
#: The same by model type or class of a configuration, where a model needs some value to be made at all.
_SETTINGS: dict[str, dict[str, Any]] = {
    "gpt2": {"add_cross_attention": True},  # the class has more modules then
    "dots1": {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1, "first_k_dense_replace": 1},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2, "num_hidden_layers": 4},
    "DbrxAttentionConfig": {"rope_theta": 10000.0},
    "siglip_vision_model": {"num_attention_heads": 16},
}
#: PEFT's task types, and the Auto mapping that says which class of a model type does the task.
_TASKS = {
    "CAUSAL_LM": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "SEQ_2_SEQ_LM": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
    "SEQ_CLS": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
    "TOKEN_CLS": "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES",
    "QUESTION_ANS": "MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES",
    "FEATURE_EXTRACTION": "MODEL_MAPPING_NAMES",
}


def main(only: str = "") -> None:
    """Write the table, and say which classes could not be made."""
    rules: list[Any] = []
    classes: dict[str, Any] = {}
    failed: dict[str, str] = {}
    for name in sorted(class_names()):
        if only and not re.search(only, name):
            continue
        try:
            classes[name] = describe(name, rules)
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
    document = {"transformers": transformers.__version__, "classes": classes, "tasks": tasks(), "renames": rules}
    TABLE.write_text(to_json(document) if not only else json.dumps(document, indent=1), encoding="utf-8")
    print(f"{len(classes)} classes, {len(rules)} lists of renames, {len(failed)} classes that could not be made")
    for name, reason in failed.items():
        print(f"  {name}: {reason}")


def to_json(document: dict[str, Any]) -> str:
    """One line for each class and each list of renames, so that a change of the table can be read."""
    lines = [f'"transformers": {json.dumps(document["transformers"])}']
    for part in ("classes", "tasks"):
        rows = (f"{json.dumps(key)}: {json.dumps(row, sort_keys=True)}" for key, row in sorted(document[part].items()))
        lines.append(f'"{part}": {{\n' + ",\n".join(rows) + "\n}")
    lines.append('"renames": [\n' + ",\n".join(map(json.dumps, document["renames"])) + "\n]")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def class_names() -> set[str]:
    """Every class that some Auto class loads."""
    names: set[str] = set()
    for name in dir(modeling_auto):
        if name.startswith("MODEL_") and name.endswith("MAPPING_NAMES"):
            for classes in getattr(modeling_auto, name).values():
                names.update([classes] if isinstance(classes, str) else classes)
    return names


def tasks() -> dict[str, dict[str, str]]:
    """By model type, the class of each of PEFT's tasks."""
    classes: dict[str, dict[str, str]] = {}
    for task, mapping in _TASKS.items():
        for model_type, name in getattr(modeling_auto, mapping).items():
            classes.setdefault(model_type, {})[task] = name if isinstance(name, str) else name[0]
    return classes


def describe(name: str, rules: list[Any]) -> dict[str, Any]:
    """The row of one class; its list of renames is added to ``rules`` if it is a new one."""
    model = make(name)
    transforms = [to_rule(t) for t in get_model_conversion_mapping(model, add_legacy=False)]
    legacy = [to_rule(t) for t in get_model_conversion_mapping(model)][len(transforms) :]
    renames = transforms + legacy
    if renames not in rules:
        rules.append(renames)
    transposed = {n.rpartition(".")[2] for n, m in model.named_modules() if isinstance(m, Conv1D)}
    if plain := transposed & {n.rpartition(".")[2] for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)}:
        raise ValueError(f"{', '.join(plain)} is a Conv1D and a Linear: the last part of a name does not tell")
    embeddings = {n.rpartition(".")[2] for n, m in model.named_modules() if isinstance(m, torch.nn.Embedding)}
    row: dict[str, Any] = {
        "model_type": model.config.model_type,
        "prefix": model.base_model_prefix,
        "renames": rules.index(renames),
        "ties": list(ties(model)),
        "transposed": sorted(transposed),
        "embeddings": sorted(embeddings),
        "without_layers": sorted(set(without_layers(model))),
        "experts_transposed": sorted(set(transposed_experts(model))),
    }
    return {key: value for key, value in row.items() if value not in ("", [])}


def without_layers(model: PreTrainedModel) -> Iterator[str]:
    """What modules are called that have a matrix and are no layer to which PEFT can add factors: the last part of their
    names, or the last two where a layer has that one."""
    layers = (torch.nn.Linear, torch.nn.Embedding, torch.nn.modules.conv._ConvNd, Conv1D)
    of_layers = {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, layers)}
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, torch.nn.Parameter) and weight.ndim > 1 and not isinstance(module, layers):
            parts = name.split(".")
            yield ".".join(parts[-2:]) if parts[-1] in of_layers else parts[-1]


def make(name: str) -> PreTrainedModel:
    """The model on the meta device: as its configuration comes, else with what that leaves open filled in, and shallow
    where it can be."""
    cls = getattr(transformers, name)
    errors = []
    for changes in ((shorten, fill), (shorten,), (fill,), ()):
        try:
            config = cls.config_class()
            for change in changes:
                change(config)
            settle(config)
            with torch.device("meta"):
                return cls(config)
        except Exception as error:
            errors.append(error)
    raise errors[0]


def shorten(config: PreTrainedConfig) -> None:
    """Leave four layers, here and in every configuration inside."""
    for field in _DEPTHS:
        if isinstance(vars(config).get(field), int) and vars(config)[field] > 4:
            setattr(config, field, 4)
    if isinstance(vars(config).get("layer_types"), list):
        config.layer_types = config.layer_types[:4]
    for _, inner in inside(config):
        shorten(inner)


def fill(config: PreTrainedConfig) -> None:
    """Give sizes that a configuration leaves open some value, here and in every configuration inside."""
    heads = getattr(config, "num_attention_heads", None)
    for field, value in {"num_key_value_heads": heads, "vocab_size": 64, "pad_token_id": 0, **_OPEN}.items():
        if field in vars(config) and vars(config)[field] is None:
            setattr(config, field, value)
    if getattr(config, "head_dim", 0) is None and isinstance(heads, int):
        config.head_dim = config.hidden_size // heads
    for _, inner in inside(config):
        fill(inner)


def settle(config: PreTrainedConfig) -> None:
    """Set what models of this type need, here and in every configuration inside."""
    for kind in (config.model_type, type(config).__name__):
        for field, value in _SETTINGS.get(kind, {}).items():
            setattr(config, field, value)
    for _, inner in inside(config):
        settle(inner)


def inside(config: PreTrainedConfig) -> Iterator[tuple[str, PreTrainedConfig]]:
    """The configurations inside one, by the name of their field."""
    for field, value in vars(config).items():
        if isinstance(value, PreTrainedConfig):
            yield field, value


def to_rule(transform: Any) -> dict[str, Any]:
    """What a transform does to a name of a file, and how it puts tensors together or takes them apart.

    ``match`` has pairs of a position and a pattern, to be tried in this order, ``to`` the replacements.
    """
    if type(transform) not in (WeightRenaming, PrefixChange, WeightConverter):
        raise ValueError(f"{type(transform).__name__} is more than a renaming")
    patterns = []
    for position, source in sorted(enumerate(transform.source_patterns), key=lambda pair: -len(pair[1])):
        pattern = source.replace("*.", r".*\.")
        patterns.append([position, pattern + (r"(?!\w)" if re.search(r"[a-zA-Z0-9]$", pattern) else "")])
    rule: dict[str, Any] = {"match": patterns, "to": list(transform.target_patterns)}
    if transform.scope_prefix is not None:
        rule |= {"scope": transform.scope_prefix, "prefix": transform.base_model_prefix}
    if isinstance(transform, WeightConverter):
        rule["how"] = " ".join(map(describe_operation, transform.operations))
    return rule


def describe_operation(operation: Any) -> str:
    """An operation in one word: its name and the dimensions that it works on, ``Concatenate(1)``."""
    dimensions = [str(vars(operation)[field]) for field in ("dim", "dim0", "dim1") if field in vars(operation)]
    return f"{type(operation).__name__}({','.join(dimensions)})"


def ties(model: PreTrainedModel) -> Iterator[dict[str, Any]]:
    """What each flag ties: the pairs of a model or of a model inside, and where in ``config.json`` the flag stands."""
    for at, module in model.named_modules(remove_duplicate=False):
        pairs = getattr(module, "_tied_weights_keys", None)
        if not isinstance(module, PreTrainedModel) or not pairs:
            continue
        flag = find_config_path(model.config, module.config)
        row = {
            "pairs": pairs,
            "default": bool(getattr(flag_of(model.config_class(), flag), "tie_word_embeddings", False)),
        }
        if at:
            row["at"] = at
        if flag:
            row["config"] = flag
        if not flag and (follows := follows_which(model.config_class)):
            row["follows"] = follows
        if "tie_word_embeddings" not in model.config.to_dict():
            row["unlisted"] = True
        if is_forced(model.config_class, flag):
            row["forced"] = True
        if "config.tie_word_embeddings" in inspect.getsource(type(module).forward):
            row["computes"] = True
        yield row


def is_forced(cls: type[PreTrainedConfig], path: str) -> bool:
    """Whether the flag is set whatever ``config.json`` says: T5 reads another meaning out of it."""
    document: dict[str, Any] = {"tie_word_embeddings": False}
    for field in reversed(list(filter(None, path.split(".")))):
        document = {field: document}
    with contextlib.suppress(Exception):  # one that cannot be made without more of its fields
        return bool(getattr(flag_of(cls.from_dict(document), path), "tie_word_embeddings", False))
    return False


def find_config_path(root: PreTrainedConfig, searched: PreTrainedConfig, path: str = "") -> str:
    """Where the configuration of a model inside stands in that of the whole: ``text_config``; empty for the whole."""
    if root is searched:
        return path
    for field, inner in inside(root):
        below = find_config_path(inner, searched, f"{path}.{field}".lstrip("."))
        if below:
            return below
    if not path:  # a copy that the model made for a part of itself
        for field, inner in inside(root):
            if type(inner) is type(searched):
                return field
    return ""


def flag_of(config: PreTrainedConfig, path: str) -> PreTrainedConfig:
    """The configuration at a path in another."""
    for field in filter(None, path.split(".")):
        config = getattr(config, field)
    return config


def follows_which(cls: type[PreTrainedConfig]) -> str:
    """The inner configuration whose flag a configuration takes over where it has none of its own."""
    for field in cls.sub_configs:
        with contextlib.suppress(Exception):  # one that cannot be made without more of its fields
            configs = [cls.from_dict({field: {"tie_word_embeddings": tied}}) for tied in (True, False)]
            if [getattr(config, "tie_word_embeddings", None) for config in configs] == [True, False]:
                return field
    return ""


def transposed_experts(model: PreTrainedModel) -> Iterator[str]:
    """The parameters of experts that lie as (experts, in, out): transformers marks the module that has them."""
    for name, module in model.named_modules():
        if getattr(module, "is_transposed", False):
            for parameter, tensor in module.named_parameters(recurse=False):
                if tensor.ndim == 3:
                    yield f"{name.rpartition('.')[2]}.{parameter}"


if __name__ == "__main__":
    main(*sys.argv[1:2])
