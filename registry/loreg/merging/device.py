"""Choose the device on which torch runs, and say what to do when its memory is full."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import torch

from loreg.errors import MergeError, UsageError

#: An allocation that failed: PyTorch's own, the driver's, and what the libraries need of their own.
_OUT_OF_MEMORY = re.compile(r"out of memory|STATUS_ALLOC_FAILED|(cublas|cusolverDn)Create")


def choose_device(name: str) -> str:
    """Return the device ``cpu``, ``cuda`` or ``cuda:1``; for ``auto`` a GPU if there is one.

    Raises UsageError for a device that is not there.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = name.partition(":")
    count = torch.cuda.device_count() if kind == "cuda" else int(kind == "cpu" and not number)
    if (number and not number.isdecimal()) or int(number or 0) >= count:
        raise UsageError(f"there is no device {name!r} here", hint="--device cpu")
    return name


@contextlib.contextmanager
def explain_out_of_memory(device: torch.device) -> Iterator[None]:
    """Raise MergeError, saying what to do, if the memory of a GPU does not suffice for what runs in the block."""
    try:
        yield
    except RuntimeError as error:
        if device.type != "cuda" or not _OUT_OF_MEMORY.search(str(error)):
            raise
        reason = re.split(r"\n| GPU ", str(error))[0].rstrip(".")
        raise MergeError(
            f"there is not enough memory on the device {str(device)!r}: {reason}",
            hint="--device cpu, or free the GPU's memory (nvidia-smi tells who has it)",
        ) from error
