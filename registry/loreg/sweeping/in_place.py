"""A language model that is loaded once, and whose adapters are swapped in place: losses and logits, nothing baked.

An adapter is added by hooks to the output of the modules that it touches, ``y + B(Ax)``. The factors of several lie
side by side, so that another mixture of them is another number for each row of A, and nothing is copied.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from loreg.algebra.factors import Factors
from loreg.bases.names import canonical_name
from loreg.entities import Progress, no_progress
from loreg.errors import MissingExtraError, UsageError
from loreg.merging.cross_moments import CrossMoments
from loreg.sweeping.evaluation_data import Document

_ROW = 256  # tokens of a document that are read together
_TOKENS = 512  # in one pass of the model: larger ones are no faster on a CPU, and the logits of K + 1 passes are held


@dataclass(frozen=True)
class Adapters:
    """The factors of K adapters side by side: by module ``b (out, k)``, ``a (k, in)``, and whose each of k is."""

    factors: Mapping[str, Factors]
    owners: Mapping[str, Tensor]

    def row_weights(self, weights: Sequence[float]) -> dict[str, Tensor]:
        """Return the number for each row of A, by module, that mixes the K adapters with ``weights``."""
        of_source = torch.tensor(weights)
        return {module: of_source[owners] for module, owners in self.owners.items()}


def lay_side_by_side(adapters: Sequence[Mapping[str, Factors]]) -> Adapters:
    """Stack the factors of several adapters; a module has the rows of those that touch it."""
    factors, owners = {}, {}
    for module in sorted({name for adapter in adapters for name in adapter}):
        parts = [(i, adapter[module]) for i, adapter in enumerate(adapters) if module in adapter]
        factors[module] = Factors(torch.cat([part.b for _, part in parts], 1), torch.cat([part.a for _, part in parts]))
        owners[module] = torch.cat([torch.full((part.rank,), i) for i, part in parts])
    return Adapters(factors, owners)


@dataclass(frozen=True)
class Rows:
    """Tokens of documents: ``ids (R, L)``, padded on the right, and of each row the document and how many are real.

    ``tasks`` (D) is the task of each document.
    """

    ids: Tensor
    lengths: Tensor
    documents: npt.NDArray[np.int64]
    tasks: npt.NDArray[np.int64]

    def tokens(self) -> npt.NDArray[np.float64]:
        """Return how many tokens of each document are predicted, (D): all of a row but its first."""
        predicted = (self.lengths - 1).double().numpy()
        return np.bincount(self.documents, predicted, minlength=len(self.tasks)).astype(np.float64)


@dataclass(frozen=True)
class Batch:
    """Rows that go through the model together: which positions (B, L) are real, which predict a real token.

    ``labels`` (N) are the tokens that are predicted, ``documents`` (N) whose they are.
    """

    ids: Tensor
    real: Tensor
    predicts: Tensor
    labels: Tensor
    documents: npt.NDArray[np.int64]


class InPlaceModel:
    """A causal language model in evaluation mode, to whose modules adapters are added while it runs."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        transformers = _import_transformers()
        if not (folder / "config.json").is_file():
            raise UsageError(f"{folder} is no model: it has no config.json", hint="--base names the model's folder")
        load: Any = {"pretrained_model_name_or_path": folder, "local_files_only": True}
        try:
            with _quiet(transformers):
                loaded = transformers.AutoModelForCausalLM.from_pretrained(**load, dtype=torch.float32)
                self._tokenizer: Any = transformers.AutoTokenizer.from_pretrained(**load)
        except (ValueError, OSError, KeyError, RuntimeError, ImportError) as error:
            text = str(error).splitlines()[0] if str(error) else type(error).__name__
            hint = "evaluate it with a program of yours: --eval 'python score.py {dir}'"
            raise UsageError(
                f"{folder} is no causal language model with a tokenizer: {text}"[:300], hint=hint
            ) from error
        self.device = torch.device(device)
        text = loaded.config.get_text_config()
        self._row = min(_ROW, getattr(text, "max_position_embeddings", None) or _ROW)
        self._model: nn.Module = loaded.to(self.device).eval().requires_grad_(False)
        self._modules = {canonical_name(f"{name}."): module for name, module in self._model.named_modules() if name}

    def tokenize(self, documents: Sequence[Document]) -> Rows:
        """Return the documents as rows of 256 tokens at most, fewer where the model has fewer positions.

        A row of a single token predicts nothing and is dropped, and so is a document of no other. Raises UsageError.
        """
        rows, lengths, owners = [], [], []
        for number, document in enumerate(documents):
            ids = self._tokenizer(document.text, add_special_tokens=True).input_ids
            for start in range(0, len(ids), self._row):
                if len(row := ids[start : start + self._row]) > 1:
                    rows.append(row)
                    lengths.append(len(row))
                    owners.append(number)
        if not rows:
            raise UsageError("no text has two tokens", hint="--data names longer texts")
        width = max(lengths)
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        self._refuse_other_words(int(ids.max()))
        numbers, renumbered = np.unique(owners, return_inverse=True)
        tasks = np.array([documents[number].task for number in numbers], dtype=np.int64)
        return Rows(ids, torch.tensor(lengths), renumbered.astype(np.int64), tasks)

    def _refuse_other_words(self, largest: int) -> None:
        """Raise UsageError for a token that the model has no embedding of."""
        embeddings: Any = self._model.get_input_embeddings()  # type: ignore[operator]
        if largest >= (count := embeddings.weight.shape[0]):
            raise UsageError(
                f"the tokenizer beside the model makes a token {largest} of the texts, the model knows {count} tokens",
                hint="--base names a folder whose tokenizer is that of the model",
            )

    @contextlib.contextmanager
    def adding(self, factors: Mapping[str, Factors], moments: MomentsOfTask | None = None) -> Iterator[RowWeights]:
        """Add ``B(Ax)`` to the module of each name while the context lasts; yield what mixes the rows of A.

        Raises UsageError, naming the first, for modules that the model does not have in that shape.
        """
        weights = RowWeights(self.device)
        hooks = []
        try:
            for name, part in factors.items():
                module = self._modules.get(canonical_name(f"{name}."))
                shape = tuple(getattr(getattr(module, "weight", None), "shape", ()))
                if module is None or shape not in (part.shape, part.shape[::-1]):
                    has = f"has it as {shape}" if module is not None else "has no such module"
                    raise UsageError(
                        f"module {name} of an adapter is {part.shape}, and the model {has}",
                        hint="--base names the folder of the model that the adapters were trained on",
                    )
                hook = _AddDelta(name, part.b.float().to(self.device), part.a.float().to(self.device), weights, moments)
                hooks.append(module.register_forward_hook(hook))
            yield weights
        finally:
            for handle in hooks:
                handle.remove()

    def losses(self, rows: Rows, progress: Progress = no_progress) -> npt.NDArray[np.float64]:
        """Return the summed loss of each document, (D), in nats, with what is added now."""
        sums = np.zeros(len(rows.tasks))
        for batch in self.batches(rows, "evaluating", progress):
            losses = nn.functional.cross_entropy(self.logits(batch), batch.labels, reduction="none").double()
            sums += np.bincount(batch.documents, losses.cpu().numpy(), minlength=len(sums))
        return sums

    def batches(self, rows: Rows, what: str = "", progress: Progress = no_progress) -> Iterator[Batch]:
        """Yield the rows in groups of about 512 tokens, the longest first, so that little of them is padding.

        ``progress`` is told how many rows are done; ``what`` says of what.
        """
        order = rows.lengths.argsort(descending=True, stable=True)
        start = 0
        while start < len(order):
            progress(what, start, len(order))
            width = int(rows.lengths[order[start]])
            chosen = order[start : start + max(1, _TOKENS // width)]
            start += len(chosen)
            ids = rows.ids[chosen, :width]
            real = torch.arange(width) < rows.lengths[chosen].unsqueeze(-1)
            predicts = real[:, 1:]
            owners = torch.from_numpy(rows.documents)[chosen].unsqueeze(-1).expand(-1, width - 1)
            labels = ids[:, 1:][predicts].to(self.device)
            yield Batch(
                ids.to(self.device), real.to(self.device), predicts.to(self.device), labels, owners[predicts].numpy()
            )
        progress(what, len(order), len(order))

    @torch.inference_mode()
    def logits(self, batch: Batch) -> Tensor:
        """Return the logits (N, V) of the N real tokens that the batch predicts."""
        # Causal attention: no real token sees the padding on its right.
        output: Tensor = self._model(input_ids=batch.ids, use_cache=False).logits
        return output[:, :-1][batch.predicts].float()


class RowWeights:
    """What each row of A is multiplied with, by module; 1 where nothing is set."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.by_module: dict[str, Tensor] = {}

    def set(self, by_module: Mapping[str, Tensor]) -> None:
        """Replace all of them."""
        self.by_module = {module: weights.float().to(self._device) for module, weights in by_module.items()}


@dataclass
class MomentsOfTask:
    """Where the rows of A are collected while a task runs; ``keep`` (B, L) says which positions are real."""

    moments: CrossMoments
    task: str
    grams: Mapping[str, Tensor]
    keep: Tensor | None = None


@dataclass(frozen=True)
class _AddDelta:
    """A forward hook that adds the delta of one module to its output."""

    name: str
    b: Tensor
    a: Tensor
    weights: RowWeights
    moments: MomentsOfTask | None

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        rows = inputs[0] @ self.a.T
        if self.moments is not None:
            kept = rows[self.moments.keep] if self.moments.keep is not None else rows
            self.moments.moments.add(self.moments.task, self.name, kept, gram=self.moments.grams[self.name])
        if (weights := self.weights.by_module.get(self.name)) is not None:
            rows = rows * weights
        return output + rows @ self.b.T


def _import_transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        hint = "pip install 'loreg[sweep]'"
        raise MissingExtraError("a sweep on texts needs transformers, which is not installed", hint=hint) from error
    return transformers


@contextlib.contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Let transformers print neither bars nor advice while it loads."""
    logging = transformers.utils.logging
    level, has_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if has_bars:
            logging.enable_progress_bar()
