"""Where the mathematics runs, and what to say when it has no room there."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import torch

from loreg.errors import MergeError, UsageError

#: An allocation that failed: PyTorch's own, the driver's, and what the libraries need of their own.
_NO_ROOM = re.compile(r"out of memory|STATUS_ALLOC_FAILED|(cublas|cusolverDn)Create")


def choose_device(name: str) -> str:
    """``cpu``, ``cuda`` or ``cuda:1``; ``auto`` is a GPU where there is one. Raises UsageError for one that is not."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = name.partition(":")
    count = torch.cuda.device_count() if kind == "cuda" else int(kind == "cpu" and not number)
    if (number and not number.isdecimal()) or int(number or 0) >= count:
        raise UsageError(f"there is no device {name!r} here", hint="--device cpu")
    return name


@contextlib.contextmanager
def explain_out_of_memory(device: torch.device) -> Iterator[None]:
    """Raise MergeError, saying what to do, where what runs in the block finds no room on a GPU."""
    try:
        yield
    except RuntimeError as error:
        if device.type != "cuda" or not _NO_ROOM.search(str(error)):
            raise
        said = re.split(r"\n| GPU ", str(error))[0].rstrip(".")
        raise MergeError(
            f"there is not enough memory on the device {str(device)!r}: {said}",
            hint="--device cpu, or free the GPU's memory (nvidia-smi tells who has it)",
        ) from None
