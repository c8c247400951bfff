"""Independent tasks side by side, without two of them fighting for the same cores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")


def side_by_side(function: Callable[[T], R], tasks: Sequence[T], device: torch.device) -> Iterator[R]:
    """``function`` of every task, in order.

    On a CPU each task has one core: the decompositions inside use several badly, and a result then does not depend
    on how many there are. On a GPU two tasks are under way, each on a stream of its own: one transfers while the
    other computes.
    """
    if device.type == "cuda":
        with ThreadPoolExecutor(2) as pool:
            yield from pool.map(lambda task: _on_a_stream(function, task, device), tasks)
        return
    if len(tasks) == 1:
        yield function(tasks[0])
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # what threads that start now will use
    try:
        with ThreadPoolExecutor(threads) as pool:
            yield from pool.map(function, tasks)
    finally:
        torch.set_num_threads(threads)


def _on_a_stream(function: Callable[[T], R], task: T, device: torch.device) -> R:
    with torch.cuda.stream(torch.cuda.Stream(device)):  # type: ignore[no-untyped-call]
        return function(task)
