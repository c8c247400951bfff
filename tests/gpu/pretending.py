"""A device that pretends to be a GPU: its tensors lie on the CPU, say that they do not, and mix with no others.

What runs on it takes the ways that a GPU's tensors take, and fails as there where a tensor was made without saying
where, or is looked at as NumPy's. It counts how often the CPU waits for the device. It says nothing of CUDA's own
arithmetic, nor of streams.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map

GPU = torch.device("cuda")

#: What is asked of a GPU's tensor and answered on the CPU, when all that was started before has ended.
_WAITS = (
    Tensor.item,
    Tensor.tolist,
    Tensor.cpu,
    Tensor.nonzero,
    Tensor.__bool__,
    Tensor.__int__,
    Tensor.__float__,
    Tensor.__index__,
    Tensor.__contains__,
    torch.nonzero,
    torch.equal,
    torch.allclose,
)
#: What takes a tensor of the CPU beside one of a GPU.
_MIXES = (Tensor.copy_, Tensor.__getitem__, Tensor.__setitem__, Tensor.tensor_split, torch.tensor_split)


class Elsewhere(Tensor):
    """A tensor that says that it lies on a GPU."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _called(func, args, kwargs or {}, [])


class Pretending(TorchFunctionMode):
    """While it is on, ``device="cuda"`` is this device. ``waits`` names what the CPU waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _called(func, args, kwargs or {}, self.waits)


@contextmanager
def pretending(monkeypatch: Any) -> Iterator[Pretending]:
    """The device, with tasks one after another: it has no streams."""

    def one_by_one(function: Callable[[Any], Any], tasks: Any, device: torch.device) -> Iterator[Any]:
        return map(function, tasks)

    with monkeypatch.context() as patch, Pretending() as device:
        patch.setattr("loreg.merging.parallel._on_two_streams", one_by_one)
        yield device


def _called(func: Any, args: Any, kwargs: Any, waits: list[str]) -> Any:
    tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
    there = any(isinstance(x, Elsewhere) for x in tensors)
    if func == Tensor.device.__get__ and there:  # type: ignore[attr-defined]
        return GPU
    if func == Tensor.is_cuda.__get__:  # type: ignore[attr-defined]
        return there
    if func is Tensor.pin_memory:
        return args[0]
    if func is Tensor.numpy and there:
        raise TypeError("can't convert a tensor of a GPU to NumPy")
    goes_to, args, kwargs = _destination(func, args, kwargs, there)
    if there and func not in _MIXES and func is not Tensor.to:
        alone = [tuple(x.shape) for x in tensors if not isinstance(x, Elsewhere) and x.dim()]
        if alone:
            raise RuntimeError(f"{_name(func)}: tensors on cuda, but of shape {alone[0]} on cpu")
    if there and (func in _WAITS or goes_to == "cpu" or _picks_by_mask(func, args)):
        waits.append(_name(func))
    with torch._C.DisableTorchFunctionSubclass():
        result = func(*tree_map(_here, args), **tree_map(_here, kwargs))
    return tree_map(_there, result) if goes_to == "cuda" else result


def _destination(func: Any, args: Any, kwargs: Any, there: bool) -> tuple[str, Any, Any]:
    """Where the result lies, and the arguments without a word of it."""
    kwargs = dict(kwargs)
    asked = kwargs.pop("device", None)
    if func is Tensor.cpu:
        asked = "cpu"
    if func is Tensor.to and len(args) > 1:
        first = args[1]
        if isinstance(first, str | torch.device):
            asked, args = first, (args[0], *(args[2:] or (args[0].dtype,)))
        elif isinstance(first, Tensor):
            asked = GPU if isinstance(first, Elsewhere) else "cpu"
    if asked is not None:
        return torch.device(asked).type, args, kwargs
    return "cuda" if there else "cpu", args, kwargs


def _picks_by_mask(func: Any, args: Any) -> bool:
    return func is Tensor.__getitem__ and isinstance(args[1], Tensor) and args[1].dtype == torch.bool


def _name(func: Any) -> str:
    return str(getattr(func, "__name__", func))


def _here(x: Any) -> Any:
    return x.as_subclass(Tensor) if isinstance(x, Elsewhere) else x


def _there(x: Any) -> Any:
    return x.as_subclass(Elsewhere) if isinstance(x, Tensor) else x
