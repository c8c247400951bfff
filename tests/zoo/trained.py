"""Adapters as training leaves them, made, saved and loaded by PEFT: no training, but every number that it would move.

PEFT's model after save and load is the oracle of the zoo.
"""

from __future__ import annotations

import copy
import tempfile
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.utils.other import AuxiliaryTrainingWrapper, TrainableTokensWrapper
from torch import Tensor, nn

from zoo.inputs import answer, difference, run
from zoo.models import Base, seeded
from zoo.options import Fields, Option

TOLERANCE = 2e-5

_TASKS = {"CausalLM": "CAUSAL_LM", "Seq2SeqLM": "SEQ_2_SEQ_LM", "SequenceClassification": "SEQ_CLS"}
_NEW_TOKENS = 3


class NotTrainableError(Exception):
    """Say why PEFT does not train such an adapter, or not save and load it."""


@dataclass(frozen=True)
class Trained:
    """An adapter in its folder, with the answer of PEFT's model, and the fields that it was trained with."""

    folder: Path
    model: Any
    answer: Tensor
    fields: Fields
    start: Any

    @property
    def trains_whole(self) -> bool:
        """Say whether modules are trained whole, or rows of them, or biases."""
        wrapped = any(isinstance(module, AuxiliaryTrainingWrapper) for module in self.model.modules())
        return wrapped or self.fields.get("bias", "none") != "none"

    def has_factors_of(self, parameter: str) -> bool:
        """Say whether what changes a parameter of the base are factors, to be weighted in a merge."""
        module = parameter
        while module := module.rpartition(".")[0]:
            if isinstance(self._modules.get(f"base_model.model.{module}"), LoraLayer):
                return not parameter.endswith("bias") or bool(self.fields.get("lora_bias"))
        return False

    @cached_property
    def _modules(self) -> dict[str, nn.Module]:
        return dict(self.model.named_modules())


def train(base: Base, option: Option, fields: Fields, seed: str, folder: Path) -> Trained:
    """Write an adapter with random numbers in all that a training would move.

    Modules that get no gradient, because the model's code goes past PEFT's wrapper, are left out of the adapter: what
    is trained stays zero there. Raises NotTrainableError with PEFT's words.
    """
    start = _grown(base.model) if option.grown else base.model
    task = _TASKS.get(base.architecture.head)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model = _with_the_bias_of_the_head(_wrapped(start, {**fields, "task_type": task}, base.inputs))
            _fill(model, seeded(f"{base.architecture.name} {option.name} {seed}"))
            before = answer(model, base.inputs)
            model.save_pretrained(folder, save_embedding_layers=True if option.saves_embeddings else "auto")
            loaded = load(start, folder)
        except NotTrainableError:
            raise
        except Exception as error:
            raise NotTrainableError(f"{type(error).__name__}: {error}") from error
        after = answer(loaded, base.inputs)
    if (error := difference(after, before)) > TOLERANCE:
        raise NotTrainableError(f"PEFT's own save and load changes its answers by {error:.1e}")
    if difference(after, answer(start, base.inputs)) < 1e-4:
        raise NotTrainableError("it changes no answer")
    return Trained(folder, loaded, after, fields, start)


def load(start: Any, folder: Path) -> Any:
    """Load an adapter with PEFT on a copy of the model that it was trained on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _with_the_bias_of_the_head(PeftModel.from_pretrained(copy.deepcopy(start), str(folder)).eval())


def _with_the_bias_of_the_head(model: Any) -> Any:
    """PEFT 0.21 computes a head that it ties to an embedding without its bias, which nobody trained: add it again."""
    for module in model.modules():
        if not isinstance(module, AuxiliaryTrainingWrapper):
            continue
        bias = getattr(module.original_module, "bias", None)
        inner = getattr(module, "modules_to_save", {})
        forgotten = isinstance(module, TrainableTokensWrapper) or any(
            getattr(copy_, "bias", None) is None for copy_ in inner.values()
        )
        if isinstance(module.original_module, nn.Linear) and bias is not None and forgotten:
            module.register_forward_hook(lambda _, __, output, bias=bias: output + bias)
    return model


def dense(model: Any) -> Any:
    """Return a plain model in float64 with the adapter merged by PEFT, every weight on its own, none tied."""
    alone = untied(model).double()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return alone.merge_and_unload()


@torch.no_grad()
def merged_by_hand(base: Base, sources: list[Trained], weights: list[float]) -> Tensor:
    """Return the answer of the base plus the weighted sum of PEFT's deltas in float64.

    What is trained whole is taken from the first. Raises NotTrainableError where PEFT's merged model is not its own.
    """
    start = sources[0].start
    states = [parameters_of(dense(source.model)) for source in sources]
    sound = untied(start)
    _put(sound, states[0])
    if (error := difference(answer(sound, base.inputs), sources[0].answer)) > TOLERANCE:
        raise NotTrainableError(f"PEFT's merge_and_unload is {error:.1e} away from PEFT")
    total = untied(start)
    own = parameters_of(total)
    for name, tensor in own.items():
        first = tensor.double()
        deltas = (w * (state.get(name, first) - first) for w, state in zip(weights, states, strict=True))
        own[name] = first + sum(deltas) if sources[0].has_factors_of(name) else states[0].get(name, first)
    _put(total, own)
    return answer(total, base.inputs)


def untied(model: nn.Module) -> Any:
    """Return a copy in which no two modules share a parameter."""
    alone = copy.deepcopy(model)
    for module in alone.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if not hasattr(module, "parametrizations"):
                setattr(module, name, nn.Parameter(parameter.detach().clone(), requires_grad=False))
    return alone


def parameters_of(model: nn.Module) -> dict[str, Tensor]:
    """Return every parameter under each of its names."""
    return {name: p.detach() for name, p in model.named_parameters(remove_duplicate=False)}


def _put(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    for name, parameter in model.named_parameters(remove_duplicate=False):
        parameter.data.copy_(tensors.get(name, parameter))


def _refuse_what_transformers_cannot_load(model: Any) -> None:
    with tempfile.TemporaryDirectory(prefix="loreg-zoo-") as folder:
        model.save_pretrained(folder)
        try:
            type(model).from_pretrained(folder)
        except Exception as error:
            raise NotTrainableError("transformers cannot load what it resized itself") from error


def _grown(model: Any) -> Any:
    grown = copy.deepcopy(model)
    torch.manual_seed(17)
    size = grown.get_input_embeddings().weight.shape[0]
    try:
        grown.resize_token_embeddings(size + _NEW_TOKENS, mean_resizing=False)
    except Exception as error:
        raise NotTrainableError(f"transformers cannot resize it: {type(error).__name__}: {error}") from error
    _refuse_what_transformers_cannot_load(grown)
    return grown


def _wrapped(start: Any, fields: Fields, inputs: dict[str, Tensor]) -> Any:
    """Wrap a copy by PEFT, without the modules whose factors get no gradient."""
    model = get_peft_model(copy.deepcopy(start), LoraConfig(**fields)).eval()
    idle = _idle(model, inputs)
    factored = sorted({name.partition(".lora_")[0] for name in idle if ".lora_" in name})
    if any("modules_to_save" in name or "trainable_tokens" in name for name in idle):
        raise NotTrainableError("the forward of the model does not use what is trained whole")
    if not factored:
        return model
    names = [name.removeprefix("base_model.model.") for name in factored]
    model = get_peft_model(copy.deepcopy(start), LoraConfig(**fields, exclude_modules=names)).eval()
    if _idle(model, inputs):
        raise NotTrainableError("the forward of the model does not use the adapter")
    return model


def _idle(model: Any, inputs: dict[str, Tensor]) -> list[str]:
    """Return the parameters of the adapter that get no gradient; biases of the base that are trained are not among."""
    generator = torch.Generator().manual_seed(1)
    output = run(model, inputs)
    if not output.requires_grad:
        raise NotTrainableError("the forward of the model does not use the adapter")
    (output * torch.randn(output.shape, generator=generator)).sum().backward()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    idle = [n for n, p in trained.items() if p.grad is None and (".lora_" in n or ".modules_to_save." in n)]
    idle += [n for n, p in trained.items() if p.grad is None and "trainable_tokens" in n]
    for parameter in trained.values():
        parameter.grad = None
    return idle


@torch.no_grad()
def _fill(model: nn.Module, generator: torch.Generator) -> None:
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        noise = torch.randn(parameter.shape, generator=generator)
        if ".lora_A." in name:
            parameter.copy_(noise / parameter[0].numel() ** 0.5)
        elif ".lora_B." in name and parameter.ndim > 1:
            parameter.copy_(noise * 0.1)
        elif ".lora_embedding_" in name:
            parameter.copy_(noise * 0.2)
        elif "magnitude" in name:
            parameter.mul_(1 + 0.2 * noise)
        else:
            parameter.add_(noise * (0.5 * float(parameter.std()) if parameter.numel() > 1 else 0.1) + 0.02 * noise)
