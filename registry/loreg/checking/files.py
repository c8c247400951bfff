"""Rules on what lies beside the weights: configuration fields and files that do more than they seem to."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

from loreg.adapters.base_path import holds_a_path
from loreg.adapters.keys import PREFIX
from loreg.adapters.structure import WEIGHTS_NAME
from loreg.checking.rules import Subject, declare_rule

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


@declare_rule(
    "LR012",
    "warning",
    "remove it: the folder of an adapter holds one safetensors file",
    "SGLang 0.5, LoRAX: *.safetensors",
)
def one_file_holds_the_weights(subject: Subject) -> Iterable[str]:
    """There is no second safetensors file: SGLang, LoRAX and TGI read every one in the folder."""
    for name in subject.files:
        if name.endswith(".safetensors") and name != WEIGHTS_NAME and "/" not in name:
            yield f"{name} lies beside {WEIGHTS_NAME}, and some servers read it too"


@declare_rule("LR013", "warning", "remove it: whoever loads it runs what is in it", "Python documentation, pickle")
def no_pickle_lies_beside(subject: Subject) -> Iterable[str]:
    """No weights are pickled: loading a pickle runs code."""
    for name in subject.files:
        if PurePosixPath(name).suffix in _PICKLES and PurePosixPath(name).name.startswith(
            ("adapter_model", "pytorch_model")
        ):
            yield f"{name} is a pickle"


@declare_rule(
    "LR014", "error", "remove the field: an adapter needs no code of its own", "transformers, trust_remote_code"
)
def no_field_asks_for_code(subject: Subject) -> Iterable[str]:
    """No configuration field makes a loader fetch and run somebody's code."""
    raw = subject.structure.config.raw
    for name in ("auto_map", "custom_pipelines"):
        if raw.get(name):
            yield f"adapter_config.json has {name}: a loader that trusts it runs the code that it names"


@declare_rule("LR015", "warning", "loreg push takes it out", "")
def no_field_is_a_path_of_one_machine(subject: Subject) -> Iterable[str]:
    """No configuration value is a path that only the trainer's machine has."""
    for name, value in subject.structure.config.raw.items():
        if holds_a_path(value):
            yield f"{name} in adapter_config.json is an absolute path"


@declare_rule("LR016", "error", "save the adapter again with PEFT: what is named there is not in the file")
def what_is_saved_whole_is_there(subject: Subject) -> Iterable[str]:
    """What modules_to_save names is there: else PEFT goes on with the base's modules, or with random ones.

    PEFT itself names more than a model has: classifier and score, of which one exists.
    """
    names = subject.structure.config.raw.get("modules_to_save")
    named = [str(name) for name in names] if isinstance(names, list) else []
    wholes = {name.removeprefix(PREFIX).rpartition(".")[0] for name in subject.structure.full_tensors}
    if named and not any(w == n or w.endswith(f".{n}") or f"{n}." in w for w in wholes for n in named):
        yield f"modules_to_save names {', '.join(named)}, and no tensor of it is in the file"


@declare_rule("LR017", "warning", "loreg tag REF ALIAS gives a version that is there another name", "")
def the_weights_are_new(subject: Subject) -> Iterable[str]:
    """No version in the registry has the same weights under another name."""
    if subject.copies:
        more = f" and {len(subject.copies) - 1} more" if len(subject.copies) > 1 else ""
        yield f"the same weights are {subject.copies[0]}{more} already"
