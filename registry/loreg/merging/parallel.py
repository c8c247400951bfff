"""Run independent tasks side by side, without two of them fighting for the same cores."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")


def parallel_map(function: Callable[[T], R], tasks: Sequence[T], device: torch.device) -> Iterator[R]:
    """Yield ``function`` of every task, in order.

    On a CPU each task has one core: the decompositions inside use several badly, and a result then does not depend
    on how many there are. On a GPU two tasks are under way, each on a stream of its own: one transfers, or has the
    host decompose, while the other computes.
    """
    on_gpu = device.type == "cuda"
    if len(tasks) == 1 and not on_gpu:
        yield function(tasks[0])
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # what threads that start now will use
    try:
        if on_gpu:
            yield from _on_two_streams(function, tasks, device)
            return
        with ThreadPoolExecutor(threads) as pool:
            yield from pool.map(function, tasks)
    finally:
        torch.set_num_threads(threads)


def _on_two_streams(function: Callable[[T], R], tasks: Sequence[T], device: torch.device) -> Iterator[R]:
    """Run two tasks at a time, each on a stream of its thread.

    The streams live as long as all tasks: memory that one has freed is given out again on the same stream only.
    """
    thread = threading.local()

    def begin() -> None:
        thread.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def run(task: T) -> R:
        with torch.cuda.stream(thread.stream):
            result = function(task)
        thread.stream.synchronize()  # the caller works on another stream
        return result

    torch.cuda.current_stream(device).synchronize()  # the tasks' own tensors were made on the caller's stream
    with ThreadPoolExecutor(2, initializer=begin) as pool:
        yield from pool.map(run, tasks)
