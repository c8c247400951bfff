"""Merging, baking and extracting on a GPU beside the CPU of the same machine and beside their two floors, in one run:
``make gpu``. ``--device cpu --small`` proves that it runs where there is no GPU; its figures say nothing.

A floor is what no implementation can go below: the bytes that must cross at the bandwidth measured here, the
operations that must be done at the rate measured here. Figures are medians.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from bake import copied, median
from merge import floors, format_floors, measure, seconds
from models import write_model
from safetensors.torch import save_file
from shapes import ATTENTION, LLAMA, SMOLLM2, Shapes, transformer, write

from loreg.entities import MergeOptions

TINY = transformer(1, 256, 128, 512)


def on(kind: str, what: str, device: str) -> str:
    """A case of ``merge.py`` by name."""
    return f"{kind}:{what}" + ("@cuda" if device == "cuda" else "")


def row(label: str, took: float, more: str = "") -> None:
    print(f"  {label:52} {took:9.3f} s   {more}", flush=True)


def finish(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def merging(folder: Path, device: str, small: bool) -> None:
    """The large case: every adapter read, merged to the rank that each had, certified."""
    kind, shapes, rank, count, dtype = (
        ("smollm2", SMOLLM2, 16, 2, torch.float32) if small else ("llama", LLAMA, 64, 8, torch.bfloat16)
    )
    for number in range(count):
        write(folder / f"{kind}-{number}", shapes, rank, number, dtype)
    print(f"\nmerge, {kind} shapes, {count} adapters of rank {rank} to rank {rank}, read and certified\n", flush=True)
    limits = measure(on(kind, "floors", device), folder)
    cpu = statistics.median(measure(on(kind, "loreg", "cpu"), folder)["seconds"])
    gpu = statistics.median(measure(on(kind, "loreg", device), folder)["seconds"])
    below = max(limits["bytes"], limits["flops"])
    row(f"the CPU, {os.cpu_count()} cores", cpu)
    row(device, gpu, f"{cpu / gpu:.1f} × the CPU (aim 20)   {gpu / below:.1f} × the larger floor (aim 3)")
    print(f"  {format_floors(limits)}")
    where_the_time_goes(sorted(folder.glob(f"{kind}-*")), rank, device)


def entrywise(folder: Path, device: str, small: bool) -> None:
    """A method that makes every entry of the deltas."""
    kind, shapes = ("attention", dict.fromkeys(ATTENTION, (512, 512)) if small else ATTENTION)
    for number in range(8):
        write(folder / f"{kind}-{number}", shapes, 64, number, torch.bfloat16)
    print("\nties, q, k, v and o of one layer, 8 adapters of rank 64 to rank 16, read and certified\n", flush=True)
    entries = sum(out * in_ for out, in_ in shapes.values())
    for precision, dtype in (("double", torch.float64), ("single", torch.float32)):
        times = [
            statistics.median(measure(on(kind, f"ties-{precision}", where), folder)["seconds"])
            for where in ("cpu", device)
        ]
        # Each entry of each source is formed once to find the cut and once to be merged.
        below = 2 * entries * 8 * 2 * 64 / rate(device, dtype)
        row(f"{precision}, the CPU", times[0])
        row(f"{precision}, {device}", times[1], f"{times[0] / times[1]:.1f} × the CPU   {times[1] / below:.1f} × flops")


def where_the_time_goes(folders: list[Path], rank: int, device: str) -> None:
    """The same merge once more, one task after another and waiting for each part: the parts add up to more."""
    from merge import loreg

    from loreg.algebra import decompositions
    from loreg.merging import batch, certificate, engine

    spent: dict[str, float] = {}
    with ExitStack() as stack:
        for owner, name, label in (
            (engine.MergeEngine, "_load", "reading and transferring"),
            (batch, "framed", "frames: Gram matrices and Cholesky"),
            (decompositions, "svd", "singular values"),
            (certificate, "certify", "certifying"),
            (engine.MergeEngine, "_merge", "all of it"),
        ):
            stack.enter_context(timed(owner, name, label, spent, device))
        stack.enter_context(patch.object(engine, "parallel_map", lambda function, tasks, device: map(function, tasks)))
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # as while tasks run side by side
        loreg(folders, rank, 1, device)
        torch.set_num_threads(threads)
    print("\n  where the time goes, twice the same merge, one task after another\n", flush=True)
    for label, took in spent.items():
        row(label, took)


@contextmanager
def timed(owner: Any, name: str, label: str, spent: dict[str, float], device: str) -> Iterator[None]:
    """Add up what the calls of a function take, the device waited for; of nested calls the outermost counts."""
    function, inside = getattr(owner, name), threading.local()
    spent[label] = 0.0

    def call(*args: Any, **how: Any) -> Any:
        if getattr(inside, "yes", False):
            return function(*args, **how)
        inside.yes = True
        finish(device)
        begin = time.perf_counter()
        try:
            result = function(*args, **how)
            finish(device)
        finally:
            inside.yes = False
            spent[label] += time.perf_counter() - begin
        return result

    with ExitStack() as stack:
        places = [owner] if isinstance(owner, type) else [owner, *users(owner, name)]
        for place in places:
            stack.enter_context(patch.object(place, name, call))
        yield


def users(owner: Any, name: str) -> list[Any]:
    """Every module of loreg that has the function under its name."""
    function = getattr(owner, name)
    return [
        module
        for place, module in sys.modules.items()
        if place.startswith("loreg.") and module is not owner and vars(module).get(name) is function
    ]


def decomposing(device: str, small: bool) -> None:
    """What loreg has the host do, beside what the device's own library takes for it."""
    from loreg.algebra import decompositions

    count, side, tall = (4, 64, 512) if small else (28, 512, 14336)
    cores = torch.randn(count, side, side, dtype=torch.float64, device=device)
    gram = cores @ cores.mT
    factor = torch.randn(1, tall, side, dtype=torch.float64, device=device)
    print(f"\n{count} cores of {side} × {side} in float64\n", flush=True)
    rows: dict[str, Callable[[], Any]] = {
        "singular values and vectors, as loreg has them": lambda: decompositions.svd(cores),
        "the device's library": lambda: torch.linalg.svd(cores, full_matrices=False),
        "eigenvalues and vectors of symmetric ones": lambda: torch.linalg.eigh(gram),
        "Cholesky factors": lambda: torch.linalg.cholesky_ex(gram),
        f"QR of one factor of {tall} × {side}": lambda: torch.linalg.qr(factor),
    }
    if device == "cuda":
        rows["the device's library, gesvd"] = lambda: torch.linalg.svd(cores, full_matrices=False, driver="gesvd")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as while tasks run side by side
    for label, call in rows.items():
        row(label, statistics.median(seconds(lambda call=call: (call(), finish(device)), 3)))  # type: ignore[misc]
    torch.set_num_threads(threads)


def rate(device: str, dtype: torch.dtype) -> float:
    """Operations a second of a large product."""
    side = 4096 if device == "cuda" else 1024
    square = torch.ones(side, side, dtype=dtype, device=device)
    return 2 * side**3 / min(seconds(lambda: (square @ square, finish(device)), 5))


def baking(folder: Path, device: str, small: bool) -> None:
    """Eight adapters merged and added to a model, which is written: the device has a part in the merge alone."""
    import loreg

    shapes, hidden = (TINY, 256) if small else (transformer(6, 2560, 640, 8192), 2560)
    model = write_model(folder / "base", shapes, hidden, 32000)
    adapters = [str(write(folder / f"adapter-{number}", shapes, 16, number)) for number in range(8)]
    target = folder / "out"
    clean = lambda: shutil.rmtree(target, ignore_errors=True)  # noqa: E731
    size = sum(file.stat().st_size for file in model.iterdir()) / 1e9
    print(f"\nbake 8 adapters of rank 16, merged to rank 16, into a Llama of {size:.1f} GB in bf16\n", flush=True)
    floor = median(5, lambda: copied(model, target), clean)
    row("floor: copying the files with fsync", floor)
    with loreg.connect(home=str(folder / "home")) as registry:
        for where in ("cpu", device):
            bake = lambda where=where: registry.bake(adapters, model, target, MergeOptions(rank=16), device=where)  # noqa: E731
            clean()
            bake()
            took = median(3, bake, clean)
            row(where, took, f"{took / floor:.2f} × copying")


def extraction(folder: Path, device: str, small: bool) -> None:
    """``extract`` on the CPU and on the device, and beside it what its mathematics alone takes."""
    import loreg

    shapes: Shapes = dict.fromkeys(ATTENTION, (512, 512)) if small else ATTENTION
    changes = fine_tune(folder, shapes)
    print("\nextract rank 64 from q, k, v and o of one layer in bf16\n", flush=True)
    target = folder / "out"
    clean = lambda: shutil.rmtree(target, ignore_errors=True)  # noqa: E731
    with loreg.connect(home=str(folder / "home")) as registry:
        for where in ("cpu", device):

            def extract(where: str = where) -> None:
                registry.extract(folder / "old", folder / "new", rank=64, device=where, folder=target)

            clean()
            extract()
            row(f"loreg extract, reading and writing, {where}", median(3, extract, clean))
    for where in ("cpu", device):
        took = statistics.median(seconds(lambda where=where: factored(changes, where), 3))  # type: ignore[misc]
        row(f"the decompositions alone, {where}", took)
    numbers = sum(out * in_ for out, in_ in shapes.values())
    limits = floors(shapes, 64, 1, 64, 4, device, copied=True)
    crossing, arithmetic = 4 * numbers / limits["bandwidth"], 2 * 5 * numbers * 74 / rate(device, torch.float32)
    print(f"  floors: every change across once {crossing:.4f} s, five products with 74 columns {arithmetic:.4f} s")


def fine_tune(folder: Path, shapes: Shapes) -> list[torch.Tensor]:
    """Two models whose difference falls off as trained ones do; returns the differences."""
    torch.manual_seed(0)
    old, new = {}, {}
    for name, (out, in_) in shapes.items():
        weight = (0.02 * torch.randn(out, in_)).bfloat16()
        fall = torch.arange(1, 129).rsqrt() * 3 / (out * in_) ** 0.5
        change = (torch.randn(out, 128) * fall) @ torch.randn(128, in_)
        old[f"{name}.weight"], new[f"{name}.weight"] = weight, (weight.float() + change).bfloat16()
    for label, tensors in (("old", old), ("new", new)):
        (folder / label).mkdir()
        save_file(tensors, folder / label / "model.safetensors")
    return [new[name].float() - old[name].float() for name in old]


def factored(changes: list[torch.Tensor], device: str) -> None:
    from loreg.algebra.sketch import randomized_svd

    for change in changes:
        there = change.to(device)
        randomized_svd(lambda there=there: [(0, there)], tuple(there.shape), 64, there.device)
    finish(device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("there is no GPU here: --device cpu --small proves that the benchmark runs")
    name = torch.cuda.get_device_name() if arguments.device == "cuda" else "no GPU"
    print(f"{name}, {os.cpu_count()} cores, PyTorch {torch.__version__}", flush=True)
    with tempfile.TemporaryDirectory(prefix="loreg-bench-") as place:
        for part in (merging, entrywise, baking, extraction):
            folder = Path(place) / part.__name__
            folder.mkdir()
            part(folder, arguments.device, arguments.small)
            shutil.rmtree(folder)
    decomposing(arguments.device, arguments.small)


if __name__ == "__main__":
    main()
