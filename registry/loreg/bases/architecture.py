"""What loreg knows of the class of a model: which weights are one, how files call them, which lie transposed.

The table is made from transformers by ``tools/architectures.py``; nothing here is guessed from a name.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import msgspec

from loreg.bases.renaming import Rule, WeightInFile, read_rules, weights_in_file

_CLASSIFIERS = ("SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS")
#: What a ``config.json`` says that shapes do not: in how many heads a matrix is cut.
OF_THE_HEADS = ("num_attention_heads", "num_key_value_heads")
_OF_THE_CLASS = ("architectures", "model_type", "tie_word_embeddings")
_PLAIN_NAME = re.compile(r"[\w.]+\.(?:weight|bias)")


@dataclass(frozen=True)
class Tie:
    """Weights of one group are the same tensor while the flag ``tie_word_embeddings`` at ``flag`` in ``config.json`` is
    set: ``text_config``, or empty for its top.

    ``groups`` are names in memory, ``sources`` those whose tensor the others of their group take; ``patterns`` are
    regular expressions of names that are tied in other ways. A ``forced`` flag is set whatever the configuration says:
    only weights that differ in the files are not tied then. One that is ``unlisted`` is no field of the configuration:
    PEFT does not see it. By one that ``computes`` the model computes otherwise: Switch Transformers scales its answers.
    """

    flag: str
    groups: tuple[frozenset[str], ...]
    sources: frozenset[str] = frozenset()
    patterns: tuple[str, ...] = ()
    forced: bool = False
    unlisted: bool = False
    computes: bool = False


@dataclass(frozen=True)
class Architecture:
    """One class of transformers. ``prefix`` is what the model inside a model with a head is called."""

    name: str
    model_type: str
    prefix: str
    rules: tuple[Rule, ...]
    ties: tuple[Mapping[str, Any], ...]
    transposed: frozenset[str]
    experts_transposed: frozenset[str]
    embeddings: frozenset[str]
    without_layers: frozenset[str]

    def weights_in_file(self, name: str) -> Iterator[WeightInFile]:
        """What the tensor that a file calls ``name`` is in memory."""
        return weights_in_file(name, self.rules)

    def is_transposed(self, module: str) -> bool:
        """Whether the module keeps its weight as (in, out), as transformers' Conv1D does."""
        return module.rpartition(".")[2] in self.transposed

    def is_embedding(self, module: str) -> bool:
        """Whether the module is an embedding, whose factors lie otherwise than those of a linear layer."""
        return module.rpartition(".")[2] in self.embeddings

    def is_layer(self, module: str) -> bool:
        """Whether factors can be added to the module as a layer: a router that is no layer has a mere parameter."""
        parts = module.split(".")
        return self.without_layers.isdisjoint((parts[-1], ".".join(parts[-2:])))

    def has_transposed_experts(self, weight: str) -> bool:
        """Whether the parameter keeps the matrices of its experts as (experts, in, out)."""
        return ".".join(weight.split(".")[-2:]) in self.experts_transposed

    @property
    def all_ties(self) -> tuple[Tie, ...]:
        """What each flag ties where it is set."""
        return _ties(self.ties)

    def tied(self, config: Mapping[str, Any]) -> tuple[Tie, ...]:
        """The flags that are set in a model's ``config.json``, and what each of them ties."""
        return _ties([row for row in self.ties if _is_set(row, config)])


def find_architecture(
    config: Mapping[str, Any], task: str = "", trained: str = "", *, whole: bool = False
) -> Architecture | None:
    """The class that the model with this ``config.json`` is with an adapter; None for one that the table lacks.

    That is the class that it was saved as, and what that ties holds, whatever class the adapter was trained on. Only a
    model without a head becomes one with the head of the adapter's ``task`` or of the class that it says it was
    ``trained`` on, and one with a head a classifier, where the adapter brings modules ``whole``.
    """
    model_type = str(config.get("model_type") or "")
    named = config.get("architectures")
    saved = str(named[0]) if isinstance(named, list) and named else ""
    by_task = _table()["tasks"].get(model_type, {})
    headless, other = by_task.get("FEATURE_EXTRACTION", ""), by_task.get(task, "")
    if not saved:  # a head that is there is at worst a tensor more
        candidates = [trained, other, *(by_task.get(name, "") for name in ("CAUSAL_LM", "SEQ_2_SEQ_LM")), headless]
    elif not _is_known(saved, model_type):
        return None
    elif saved == headless:
        candidates = [trained, other, saved]
    elif whole:
        candidates = [trained if trained != headless else "", other if task in _CLASSIFIERS else "", saved]
    else:
        candidates = [saved]
    return next((architecture_called(name) for name in candidates if _is_known(name, model_type)), None)


def _is_known(name: str, model_type: str) -> bool:
    row = _table()["classes"].get(name)
    return row is not None and row["model_type"] == model_type


def class_for(model_type: str, task: str) -> str:
    """The class of models of that type that does one of PEFT's tasks; empty if none is known."""
    return str(_table()["tasks"].get(model_type, {}).get(task, ""))


def describe_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a ``config.json`` says of the class of a model, of its heads and of what it ties; nothing of a machine."""
    kept = {key: config[key] for key in (*_OF_THE_CLASS, *OF_THE_HEADS) if key in config}
    inner = {key: describe_config(value) for key, value in config.items() if isinstance(value, dict)}
    said = {key: value for key, value in inner.items() if "tie_word_embeddings" in value}
    text = {"text_config": inner["text_config"]} if inner.get("text_config") else {}
    return kept | said | text


def set_flag(config: Mapping[str, Any], flag: str, value: bool) -> dict[str, Any]:
    """The fields of ``config.json`` that change where the flag at that place is set to ``value``.

    At the top, a flag inside ``text_config`` follows: older releases of transformers read that one.
    """
    if flag:
        first, _, rest = flag.partition(".")
        inner = config.get(first)
        inner = inner if isinstance(inner, dict) else {}
        return {first: {**inner, **set_flag(inner, rest, value)}}
    changed: dict[str, Any] = {"tie_word_embeddings": value}
    text = config.get("text_config")
    if isinstance(text, dict) and "tie_word_embeddings" in text:
        changed["text_config"] = {**text, "tie_word_embeddings": value}
    return changed


def transformers_release() -> str:
    """The release of transformers that the table was made from."""
    return str(_table()["transformers"])


@functools.cache
def _table() -> Any:
    return msgspec.json.decode((resources.files("loreg.bases") / "architectures.json").read_bytes())


@functools.cache
def architecture_called(name: str) -> Architecture:
    """The class of that name, which the table must have."""
    row = _table()["classes"][name]
    return Architecture(
        name,
        row["model_type"],
        row.get("prefix", ""),
        _rules(row["renames"]),
        tuple(row.get("ties", ())),
        frozenset(row.get("transposed", ())),
        frozenset(row.get("experts_transposed", ())),
        frozenset(row.get("embeddings", ())),
        frozenset(row.get("without_layers", ())),
    )


@functools.cache
def _rules(number: int) -> tuple[Rule, ...]:
    return read_rules(_table()["renames"][number])


def _is_set(row: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """Whether the flag of a row is set: where it stands, in the configuration that it follows, or by default."""
    for path in (row.get("config", ""), row.get("follows")):
        if path is None or row.get("forced"):
            continue
        inner: Any = config
        for field in filter(None, path.split(".")):
            inner = inner.get(field) if isinstance(inner, Mapping) else None
        if isinstance(inner, Mapping) and isinstance(inner.get("tie_word_embeddings"), bool):
            return bool(inner["tie_word_embeddings"])
    return bool(row["default"])


def _ties(rows: Sequence[Mapping[str, Any]]) -> tuple[Tie, ...]:
    """What these rows tie, by their flags."""
    by_flag: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_flag.setdefault(row.get("config", ""), []).append(row)
    return tuple(_tie(flag, some) for flag, some in by_flag.items())


def _tie(flag: str, rows: Sequence[Mapping[str, Any]]) -> Tie:
    """What the rows of one flag tie together."""
    pairs: list[tuple[str, str]] = []
    patterns: list[str] = []
    for row in rows:
        before = f"{row['at']}." if "at" in row else ""
        for target, source in row["pairs"].items():
            pair = (target, source.rstrip("$"))
            if all(map(_PLAIN_NAME.fullmatch, pair)):
                pairs.append((before + pair[0], before + pair[1]))
            else:
                patterns += [re.escape(before) + name.lstrip("^") for name in pair]
    return Tie(
        flag,
        tuple(_joined(map(set, pairs))),
        frozenset(source for _, source in pairs) - {target for target, _ in pairs},
        tuple(patterns),
        forced=any(row.get("forced") for row in rows),
        unlisted=any(row.get("unlisted") for row in rows),
        computes=any(row.get("computes") for row in rows),
    )


def _joined(pairs: Iterable[set[str]]) -> list[frozenset[str]]:
    """Pairs that share a name become one group."""
    groups: list[set[str]] = []
    for pair in pairs:
        meeting = [group for group in groups if group & pair]
        groups = [group for group in groups if not group & pair] + [pair.union(*meeting)]
    return [frozenset(group) for group in groups]
