"""Look up the class of a model: which weights are tied, what files call them, which are stored transposed.

The table is made from transformers by ``tools/architectures.py``; nothing here is guessed from a name.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import NotRequired, TypedDict

import msgspec

from loreg.bases.renaming import RenameRow, Rule, WeightInFile, read_rules, weights_in_file

_CLASSIFIERS = ("SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS")
#: What ``config.json`` says that shapes do not: into how many heads a matrix is cut.
HEAD_COUNT_FIELDS = ("num_attention_heads", "num_key_value_heads")
_CLASS_FIELDS = ("architectures", "model_type", "tie_word_embeddings")
_PLAIN_NAME = re.compile(r"[\w.]+\.(?:weight|bias)")


@dataclass(frozen=True)
class Tie:
    """Weights of one group are the same tensor while the flag ``tie_word_embeddings`` at ``flag`` in ``config.json`` is
    set: ``text_config``, or empty for its top.

    ``groups`` are names in memory, ``sources`` those whose tensor the others of their group take; ``patterns`` are
    regular expressions of names that are tied in other ways. A ``forced`` flag is set whatever the configuration says:
    only weights that differ in the files are not tied then. One that is ``not_in_config`` is no field of the
    configuration: PEFT does not see it. One that ``changes_computation`` does more than tie: Switch Transformers scales
    its outputs by it.
    """

    flag: str
    groups: tuple[frozenset[str], ...]
    sources: frozenset[str] = frozenset()
    patterns: tuple[str, ...] = ()
    forced: bool = False
    not_in_config: bool = False
    changes_computation: bool = False


class TieRow(TypedDict):
    """Weights that a flag of ``config.json`` ties, in the table of architectures.

    ``config`` is the path of the flag, ``follows`` that of another which holds where it is not set, ``default`` what
    holds where neither is; ``at`` is the prefix of the names in ``pairs``, which map a weight to what it is tied to.
    """

    pairs: Mapping[str, str]
    default: bool
    at: NotRequired[str]
    config: NotRequired[str]
    follows: NotRequired[str]
    forced: NotRequired[bool]
    unlisted: NotRequired[bool]
    computes: NotRequired[bool]


class _ClassRow(TypedDict):
    """A model class in the table; ``renames`` is the position of its list of renames."""

    model_type: str
    renames: int
    prefix: NotRequired[str]
    ties: NotRequired[Sequence[TieRow]]
    transposed: NotRequired[Sequence[str]]
    experts_transposed: NotRequired[Sequence[str]]
    embeddings: NotRequired[Sequence[str]]
    without_layers: NotRequired[Sequence[str]]


class _Table(TypedDict):
    """The file ``architectures.json``: classes by name, and of each type of model the class for each task."""

    transformers: str
    classes: Mapping[str, _ClassRow]
    tasks: Mapping[str, Mapping[str, str]]
    renames: Sequence[Sequence[RenameRow]]


@dataclass(frozen=True)
class Architecture:
    """One model class of transformers. ``prefix`` is the name of the model inside a model with a head."""

    name: str
    model_type: str
    prefix: str
    rules: tuple[Rule, ...]
    tie_rows: tuple[TieRow, ...]
    transposed: frozenset[str]
    experts_transposed: frozenset[str]
    embeddings: frozenset[str]
    without_layers: frozenset[str]

    def weights_in_file(self, name: str) -> Iterator[WeightInFile]:
        """Yield the weights in memory of which the tensor that a file calls ``name`` is the whole or a part."""
        return weights_in_file(name, self.rules)

    def is_transposed(self, module: str) -> bool:
        """Return whether the module keeps its weight as (in, out), as transformers' Conv1D does."""
        return module.rpartition(".")[2] in self.transposed

    def is_embedding(self, module: str) -> bool:
        """Return whether the module is an embedding, whose factors are transposed to those of a linear layer."""
        return module.rpartition(".")[2] in self.embeddings

    def is_layer(self, module: str) -> bool:
        """Return whether factors can be added to the module as a layer; a router may have a bare parameter instead."""
        parts = module.split(".")
        return self.without_layers.isdisjoint((parts[-1], ".".join(parts[-2:])))

    def has_transposed_experts(self, weight: str) -> bool:
        """Return whether the parameter keeps the matrices of its experts as (experts, in, out)."""
        return ".".join(weight.split(".")[-2:]) in self.experts_transposed

    @property
    def all_ties(self) -> tuple[Tie, ...]:
        """What each flag ties where it is set."""
        return _merge_rows(self.tie_rows)

    def active_ties(self, config: Mapping[str, object]) -> tuple[Tie, ...]:
        """Return what the flags that are set in a model's ``config.json`` tie."""
        return _merge_rows([row for row in self.tie_rows if _is_set(row, config)])


def find_architecture(
    config: Mapping[str, object], task: str = "", trained_class: str = "", *, has_full_modules: bool = False
) -> Architecture | None:
    """Return the class of the model with this ``config.json`` and an adapter; None if the table lacks it.

    That is the class that the model was saved as, and its ties hold, whatever class the adapter was trained on. Only a
    model without a head becomes one with the head of the adapter's ``task`` or of its ``trained_class``, and one with a
    head a classifier, where the adapter ``has_full_modules``.
    """
    model_type = str(config.get("model_type") or "")
    classes = config.get("architectures")
    saved = str(classes[0]) if isinstance(classes, list) and classes else ""
    by_task = _table()["tasks"].get(model_type, {})
    headless, of_task = by_task.get("FEATURE_EXTRACTION", ""), by_task.get(task, "")
    if not saved:  # a head that the model does not have is at worst a tensor more
        candidates = [
            trained_class,
            of_task,
            *(by_task.get(name, "") for name in ("CAUSAL_LM", "SEQ_2_SEQ_LM")),
            headless,
        ]
    elif not _is_in_table(saved, model_type):
        return None
    elif saved == headless:
        candidates = [trained_class, of_task, saved]
    elif has_full_modules:
        candidates = [
            trained_class if trained_class != headless else "",
            of_task if task in _CLASSIFIERS else "",
            saved,
        ]
    else:
        candidates = [saved]
    return next((get_architecture(name) for name in candidates if _is_in_table(name, model_type)), None)


def _is_in_table(name: str, model_type: str) -> bool:
    row = _table()["classes"].get(name)
    return row is not None and row["model_type"] == model_type


def class_for(model_type: str, task: str) -> str:
    """Return the class of models of that type for one of PEFT's tasks; empty if none is known."""
    return str(_table()["tasks"].get(model_type, {}).get(task, ""))


def describe_config(config: Mapping[str, object]) -> dict[str, object]:
    """Return what a ``config.json`` says of the model's class, heads and ties, and nothing of a machine."""
    fields = {key: config[key] for key in (*_CLASS_FIELDS, *HEAD_COUNT_FIELDS) if key in config}
    inner = {key: describe_config(value) for key, value in config.items() if isinstance(value, dict)}
    with_flag = {key: value for key, value in inner.items() if "tie_word_embeddings" in value}
    text = {"text_config": inner["text_config"]} if inner.get("text_config") else {}
    return fields | with_flag | text


def set_flag(config: Mapping[str, object], flag: str, value: bool) -> dict[str, object]:
    """Return the fields of ``config.json`` that change when the flag at the path ``flag`` is set to ``value``.

    With a flag at the top, one inside ``text_config`` follows: older releases of transformers read that one.
    """
    if flag:
        first, _, rest = flag.partition(".")
        inner = config.get(first)
        inner = inner if isinstance(inner, dict) else {}
        return {first: {**inner, **set_flag(inner, rest, value)}}
    changed: dict[str, object] = {"tie_word_embeddings": value}
    text = config.get("text_config")
    if isinstance(text, dict) and "tie_word_embeddings" in text:
        changed["text_config"] = {**text, "tie_word_embeddings": value}
    return changed


def transformers_release() -> str:
    """Return the release of transformers that the table was made from."""
    return str(_table()["transformers"])


@functools.cache
def _table() -> _Table:
    table: _Table = msgspec.json.decode((resources.files("loreg.bases") / "architectures.json").read_bytes())
    return table


@functools.cache
def get_architecture(name: str) -> Architecture:
    """Return the class of that name. Raises KeyError if the table lacks it."""
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


def _is_set(row: TieRow, config: Mapping[str, object]) -> bool:
    """Return whether the flag of a row is set: at its own path, in the configuration that it follows, or by default."""
    for path in (row.get("config", ""), row.get("follows")):
        if path is None or row.get("forced"):
            continue
        inner: object = config
        for field in filter(None, path.split(".")):
            inner = inner.get(field) if isinstance(inner, Mapping) else None
        if isinstance(inner, Mapping) and isinstance(inner.get("tie_word_embeddings"), bool):
            return bool(inner["tie_word_embeddings"])
    return bool(row["default"])


def _merge_rows(rows: Sequence[TieRow]) -> tuple[Tie, ...]:
    """Return one tie for each flag of these rows."""
    by_flag: dict[str, list[TieRow]] = {}
    for row in rows:
        by_flag.setdefault(row.get("config", ""), []).append(row)
    return tuple(_build_tie(flag, of_flag) for flag, of_flag in by_flag.items())


def _build_tie(flag: str, rows: Sequence[TieRow]) -> Tie:
    pairs: list[tuple[str, str]] = []
    patterns: list[str] = []
    for row in rows:
        prefix = f"{row['at']}." if "at" in row else ""
        for target, source in row["pairs"].items():
            pair = (target, source.rstrip("$"))
            if all(map(_PLAIN_NAME.fullmatch, pair)):
                pairs.append((prefix + pair[0], prefix + pair[1]))
            else:
                patterns += [re.escape(prefix) + name.lstrip("^") for name in pair]
    return Tie(
        flag,
        tuple(_join_overlapping(map(set, pairs))),
        frozenset(source for _, source in pairs) - {target for target, _ in pairs},
        tuple(patterns),
        forced=any(row.get("forced") for row in rows),
        not_in_config=any(row.get("unlisted") for row in rows),
        changes_computation=any(row.get("computes") for row in rows),
    )


def _join_overlapping(pairs: Iterable[set[str]]) -> list[frozenset[str]]:
    """Return the groups of names that pairs with a name in common make."""
    groups: list[set[str]] = []
    for pair in pairs:
        overlapping = [group for group in groups if group & pair]
        groups = [group for group in groups if not group & pair] + [pair.union(*overlapping)]
    return [frozenset(group) for group in groups]
