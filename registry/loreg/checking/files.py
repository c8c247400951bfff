"""Rules on what lies beside the weights: configuration fields and files that do more than they seem to.

The docstring of a rule is what ``loreg check --explain`` prints: what is right.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

from loreg.adapters.base_path import contains_local_path
from loreg.adapters.keys import PREFIX
from loreg.adapters.structure import WEIGHTS_NAME
from loreg.adapters.weight_suffixes import PICKLES
from loreg.checking.rules import Subject, declare_rule
from loreg.entities import Severity


@declare_rule(
    "LR012",
    Severity.WARNING,
    "remove it: the folder of an adapter holds one safetensors file",
    "SGLang 0.5, LoRAX: *.safetensors",
)
def one_file_holds_the_weights(subject: Subject) -> Iterable[str]:
    """There is no second safetensors file: SGLang, LoRAX and TGI read every one in the folder."""
    for name in list_other_safetensors(subject.files):
        yield f"{name} lies beside {WEIGHTS_NAME}, and some servers read it too"


def list_other_safetensors(files: Iterable[str]) -> list[str]:
    """Return the safetensors files that lie in the folder beside the adapter's weights."""
    return [name for name in files if name.endswith(".safetensors") and name != WEIGHTS_NAME and "/" not in name]


@declare_rule(
    "LR013", Severity.WARNING, "remove it: whoever loads it runs what is in it", "Python documentation, pickle"
)
def no_pickle_lies_beside(subject: Subject) -> Iterable[str]:
    """No weights are pickled: loading a pickle runs code."""
    for name in subject.files:
        path = PurePosixPath(name)
        if path.suffix in PICKLES and path.name.startswith(("adapter_model", "pytorch_model")):
            yield f"{name} is a pickle"


@declare_rule(
    "LR014", Severity.ERROR, "remove the field: an adapter needs no code of its own", "transformers, trust_remote_code"
)
def no_field_asks_for_code(subject: Subject) -> Iterable[str]:
    """No configuration field makes a loader fetch and run somebody's code."""
    raw = subject.structure.config.raw
    for name in ("auto_map", "custom_pipelines"):
        if raw.get(name):
            yield f"adapter_config.json has {name}: a loader that trusts it runs the code that it names"


@declare_rule("LR015", Severity.WARNING, "loreg push takes it out", "")
def no_field_is_a_path_of_one_machine(subject: Subject) -> Iterable[str]:
    """No configuration value is a path that only the trainer's machine has."""
    for name, value in subject.structure.config.raw.items():
        if contains_local_path(value):
            yield f"{name} in adapter_config.json is an absolute path"


@declare_rule("LR016", Severity.ERROR, "save the adapter again with PEFT: what is named there is not in the file")
def what_is_saved_whole_is_there(subject: Subject) -> Iterable[str]:
    """What modules_to_save names is there: else PEFT goes on with the base's modules, or with random ones.

    PEFT itself names more than a model has: classifier and score, of which one exists.
    """
    field = subject.structure.config.raw.get("modules_to_save")
    names = [str(name) for name in field] if isinstance(field, list) else []
    modules = {key.removeprefix(PREFIX).rpartition(".")[0] for key in subject.structure.full_tensors}
    if names and not any(m == n or m.endswith(f".{n}") or f"{n}." in m for m in modules for n in names):
        yield f"modules_to_save names {', '.join(names)}, and no tensor of it is in the file"


@declare_rule("LR017", Severity.WARNING, "loreg tag REF ALIAS gives a version that is there another name", "")
def the_weights_are_new(subject: Subject) -> Iterable[str]:
    """No other adapter in the registry has the same weights.

    Versions of one adapter may share them. A folder counts as the adapter that it was pushed as first: one with a
    version of the same weights and the same configuration, whatever its card says.
    """
    if subject.copies:
        more = f" and {len(subject.copies) - 1} more" if len(subject.copies) > 1 else ""
        yield f"the same weights are {subject.copies[0]}{more} already"
