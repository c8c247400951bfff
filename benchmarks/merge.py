"""loreg beside PEFT's ``add_weighted_adapter`` and beside a dense script, in one run: ``make bench-merge``.

Every case runs in a process of its own, so that its peak memory is its own. Ratios are of medians.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from shapes import ATTENTION, LLAMA, SMOLLM2, SQUARE, Shapes, factors, write

HERE = Path(__file__).parent
LOREG = str(Path(sys.executable).with_name("loreg"))
TIES = {"combination_type": "ties_svd", "density": 0.2}

#: Shapes, rank, sources, rank kept, bytes of a number, and whether the numbers cross from the host and back.
FLOORED = {
    "smollm2": (SMOLLM2, 16, 2, 16, 4, False),
    "square": (SQUARE, 16, 2, 16, 4, False),
    "llama": (LLAMA, 64, 8, 64, 2, True),
}
#: What the engine holds at a time.
BYTES = {"cpu": 8 * 1024**2, "cuda": 512 * 1024**2}


def peak_gb() -> float:
    """The most memory that this process held; its parent's, which getrusage reports too, left out."""
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) * 1024 / 1e9


def seconds(function: Callable[[], Any], runs: int) -> list[float]:
    function()
    measured = []
    for _ in range(runs):
        begin = time.perf_counter()
        function()
        measured.append(time.perf_counter() - begin)
    return measured


def loreg(folders: list[Path], rank: int, runs: int, device: str, **how: Any) -> dict[str, Any]:
    """Reading, merging and certifying: everything but writing the file."""
    from loreg.adapters.structure import read_structure
    from loreg.entities import Source
    from loreg.merging.execute import execute_recipe
    from loreg.merging.inputs import MergeInput
    from loreg.merging.ranks import RankRule
    from loreg.merging.recipe import Recipe

    inputs = [MergeInput(read_structure(folder), folder.name, f"{i:064x}") for i, folder in enumerate(folders)]
    sources = tuple(Source(source.label, source.digest, 1 / len(folders)) for source in inputs)
    recipe = Recipe(sources, rank=RankRule("fixed", rank), **how)
    run = lambda: execute_recipe(inputs, recipe, device=device)  # noqa: E731
    if runs:
        return {"seconds": seconds(run, runs), "peak": peak_gb()}
    begin = time.perf_counter()
    run()
    return {"seconds": [time.perf_counter() - begin], "peak": peak_gb()}


def mathematics(shapes: Shapes, rank: int, count: int, keep: int, runs: int, device: str) -> dict[str, Any]:
    """Tensors in memory to tensors in memory, as PEFT's call: no reading, no certificate."""
    from loreg.algebra.factors import Factors, stack
    from loreg.merging.batch import Batch
    from loreg.merging.methods import find_method
    from loreg.merging.parallel import parallel_map

    sources = [factors(shapes, rank, number) for number in range(count)]
    buckets: dict[tuple[int, int], list[str]] = {}
    for name, shape in shapes.items():
        buckets.setdefault(shape, []).append(name)
    tasks = []
    for (out, in_), names in buckets.items():
        step = max(1, BYTES[device] // (8 * (out + in_) * rank * count))
        for group in (names[start : start + step] for start in range(0, len(names), step)):
            b = [torch.stack([source[name][0] for name in group]).to(device) for source in sources]
            a = [torch.stack([2 * source[name][1] for name in group]).to(device) for source in sources]
            tasks.append([Factors(*pair) for pair in zip(b, a, strict=True)])
    method = find_method("linear")

    def merge(parts: list[Factors]) -> tuple[torch.Tensor, torch.Tensor]:
        n = len(parts[0].b)
        weights = torch.full((n, count), 1 / count, dtype=torch.float64, device=device)
        batch = Batch(stack(parts), weights, tuple(range(count)), ("",) * count, ("",) * n)
        kept = method.merge(batch, {}).truncate(torch.full((n,), keep, device=device))
        return kept.b.float(), kept.a.float()

    def run() -> None:
        list(parallel_map(merge, tasks, torch.device(device)))
        if device == "cuda":
            torch.cuda.synchronize()

    return {"seconds": seconds(run, runs), "peak": peak_gb()}


def floor(shapes: Shapes, rank: int, count: int, keep: int, folders: list[Path], out: Path) -> dict[str, float]:
    """What reading, the QR and SVD flops and writing need at the rates of this machine, each core busy."""
    k, cores = rank * count, torch.get_num_threads()
    begin = time.perf_counter()
    for folder in folders:
        (folder / "adapter_model.safetensors").read_bytes()
    read = time.perf_counter() - begin
    torch.set_num_threads(1)
    sizes = [size for shape in shapes.values() for size in shape]
    qr_of = {}
    for size in sorted(set(sizes)):
        stacked = torch.randn(size, k, dtype=torch.float64)
        qr_of[size] = min(seconds(lambda x=stacked: torch.linalg.qr(x), 2))  # type: ignore[misc]
    core = torch.randn(k, k, dtype=torch.float64)
    svd_one = min(seconds(lambda: torch.linalg.svd(core), 2))
    torch.set_num_threads(cores)
    begin = time.perf_counter()
    out.write_bytes(bytes(sum(4 * keep * size for size in sizes)))
    written = time.perf_counter() - begin
    return {
        "read": read,
        "qr": sum(qr_of[size] for size in sizes) / cores,
        "svd": svd_one * len(shapes) / cores,
        "write": written,
    }


def floors(shapes: Shapes, rank: int, count: int, keep: int, width: int, device: str, copied: bool) -> dict[str, Any]:
    """The two floors of a device: every factor read and written once at the bandwidth measured here, from and to the
    host where ``copied``; the float64 flops of the Gram matrices and of both products at the rate measured here."""
    sides = sum(out + in_ for out, in_ in shapes.values())
    moved = width * sides * (rank * count + keep)
    flops = 2 * sides * rank * count * (rank * count + keep)
    finish = torch.cuda.synchronize if device == "cuda" else lambda: None
    pinned = device == "cuda" and copied
    source = torch.ones(1 << 28, dtype=torch.uint8, device="cpu" if copied else device, pin_memory=pinned)
    target = torch.empty_like(source, device=device, pin_memory=False)
    square = torch.ones(4096, 4096, dtype=torch.float64, device=device)

    def fastest(call: Callable[[], Any]) -> float:
        return min(seconds(lambda: (call(), finish()), 5))

    crossed = source.numel() * (1 if copied else 2)  # on one device a copy reads and writes
    bandwidth = crossed / fastest(lambda: target.copy_(source, non_blocking=True))
    rate = 2 * 4096**3 / fastest(lambda: square @ square)
    return {"bytes": moved / bandwidth, "flops": flops / rate, "bandwidth": bandwidth, "rate": rate}


def format_floors(floors: dict[str, Any]) -> str:
    """The two floors in words."""
    return (
        f"floors: bytes {floors['bytes']:.4f} s at {floors['bandwidth'] / 1e9:.0f} GB/s, "
        f"flops {floors['flops']:.4f} s at {floors['rate'] / 1e12:.2f} TFLOP/s"
    )


def case(name: str, folder: Path) -> dict[str, Any]:
    """One measurement, by name."""
    device = "cuda" if name.endswith("@cuda") else "cpu"
    kind, _, what = name.removesuffix("@cuda").partition(":")
    two = {"smollm2": SMOLLM2, "square": SQUARE}
    folders = sorted(folder.glob(f"{kind}-*"))
    if what == "loreg":
        rank = {"smollm2": 16, "square": 16, "llama": 64}[kind]
        return loreg(folders, rank, 0 if kind == "llama" and device == "cpu" else 7, device)
    if what.startswith("ties-"):
        parameters = {"density": 0.2, "precision": what.removeprefix("ties-")}
        return loreg(folders, 16, 3, device, method="ties", parameters=parameters)
    if what == "mathematics":
        return mathematics(two[kind], 16, 2, 16, 9, device)
    if what == "floors":
        shapes, rank, count, keep, width, copied = FLOORED[kind]
        return floors(shapes, rank, count, keep, width, device, copied)
    if what == "floor":
        return floor(LLAMA, 64, 8, 64, folders, folder / "written")
    import peers

    if what == "dense":
        return {"seconds": [peers.dense_seconds(two[kind], 16, [0.5, 0.5], 16) for _ in range(3)], "peak": peak_gb()}
    if what == "peft-ties":
        model = peers.peft_model(ATTENTION, 64, 8)
        return {"seconds": peers.peft_seconds(model, [1 / 8] * 8, 1, svd_rank=16, **TIES), "peak": peak_gb()}
    how = {"combination_type": "svd", "svd_rank": 16, "svd_full_matrices": what == "peft"}
    model = peers.peft_model(two[kind], 16, 2)
    return {"seconds": peers.peft_seconds(model, [0.5, 0.5], 3, **how), "peak": peak_gb()}


def measure(name: str, folder: Path) -> dict[str, Any]:
    """The case in a process of its own."""
    printed = subprocess.run([sys.executable, __file__, name, folder], check=True, capture_output=True, text=True)
    figures: dict[str, Any] = json.loads(printed.stdout.splitlines()[-1])
    return figures


def report(title: str, rows: dict[str, str], folder: Path, peer: str) -> None:
    """Print medians, peaks, and how many times as fast as ``peer`` each row is."""
    print(f"\n{title}\n", flush=True)
    figures_by_label = {label: measure(name, folder) for label, name in rows.items()}
    base = statistics.median(figures_by_label[peer]["seconds"])
    for label, figures in figures_by_label.items():
        median = statistics.median(figures["seconds"])
        print(f"  {label:44} {median:9.3f} s   peak {figures['peak']:5.2f} GB   {base / median:8.1f} ×", flush=True)


def llama(folder: Path, device: str) -> None:
    """The large case beside its floor."""
    print(f"\nLlama-3-8B shapes, 8 adapters of rank 64 in bf16 to rank 64, {device}\n", flush=True)
    size = sum((path / "adapter_model.safetensors").stat().st_size for path in folder.glob("llama-*")) / 1e9
    figures = measure("llama:loreg" + ("@cuda" if device == "cuda" else ""), folder)
    took = statistics.median(figures["seconds"])
    if device == "cuda":
        limits = measure("llama:floors@cuda", folder)
        below = max(limits["bytes"], limits["flops"])
        print(f"  {format_floors(limits)}")
        print(f"  loreg with reading and certificate {took:.2f} s: {took / below:.1f} times the larger floor")
        return
    parts = measure("llama:floor", folder)
    print("  floor: " + ", ".join(f"{name} {value:.1f} s" for name, value in parts.items()))
    print(f"  floor {sum(parts.values()):.1f} s, loreg {took:.1f} s: {took / sum(parts.values()):.2f} of the floor")
    print(
        f"  inputs {size:.2f} GB, peak memory {figures['peak']:.2f} GB: {figures['peak'] / size:.2f} times the inputs"
    )


def processes(folder: Path) -> None:
    """Whole processes: ``loreg merge`` beside the shortest PEFT script that does the same."""
    script = HERE / "peft_script.py"
    base = folder / "base"
    subprocess.run([sys.executable, script, "--base", base], check=True, capture_output=True)
    adapters = sorted(folder.glob("smollm2-*"))
    commands = {
        "the shortest PEFT script": [sys.executable, script, base, *adapters, folder / "by-peft"],
        "loreg merge": [
            LOREG, "--home", folder / "home", "merge", *adapters, "--weights", "0.5,0.5", "--rank", "16",
            "--to", folder / "by-loreg",
        ],
    }  # fmt: skip
    print("\nwhole processes, SmolLM2-135M: start, read two adapters of rank 16, merge to rank 16, write\n", flush=True)
    medians = {}
    for label, command in commands.items():

        def run(command: list[Any] = command) -> None:
            subprocess.run(["rm", "-rf", folder / "by-peft", folder / "by-loreg"], check=True)
            subprocess.run(command, check=True, capture_output=True)

        medians[label] = statistics.median(seconds(run, 3))
        print(f"  {label:44} {medians[label]:9.3f} s   {medians['the shortest PEFT script'] / medians[label]:25.1f} ×")


def main(parts: list[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="loreg-bench-") as name:
        folder = Path(name)
        for kind, shapes, rank, count, dtype in (
            ("smollm2", SMOLLM2, 16, 2, torch.float32),
            ("square", SQUARE, 16, 2, torch.float32),
            ("attention", ATTENTION, 64, 8, torch.bfloat16),
            ("llama", LLAMA, 64, 8, torch.bfloat16),
        ):
            for number in range(count if kind in parts else 0):
                write(folder / f"{kind}-{number}", shapes, rank, number, dtype)
        for kind, title in (("smollm2", "SmolLM2-135M shapes, 210 modules"), ("square", "one layer of 4096 × 4096")):
            rows = {
                "PEFT svd": f"{kind}:peft",
                "PEFT svd, svd_full_matrices=False": f"{kind}:peft-reduced",
                "dense script, float32": f"{kind}:dense",
                "loreg, read, merged and certified": f"{kind}:loreg",
                "loreg, tensors to tensors as PEFT": f"{kind}:mathematics",
            }
            if torch.cuda.is_available():
                rows["loreg, tensors to tensors, CUDA"] = f"{kind}:mathematics@cuda"
            if kind in parts:
                report(f"{title}, 2 adapters of rank 16 to rank 16", rows, folder, "PEFT svd")
            if kind in parts and torch.cuda.is_available():
                print("  CUDA " + format_floors(measure(f"{kind}:floors@cuda", folder)))
        if "smollm2" in parts:
            processes(folder)
        if "attention" in parts:
            rows = {
                "PEFT ties_svd, float32": "attention:peft-ties",
                "loreg ties": "attention:ties-double",
                "loreg ties, precision=single": "attention:ties-single",
            }
            title = "ties, attention of one Llama-3-8B layer (q, k, v, o), 8 adapters of rank 64 to rank 16"
            report(title, rows, folder, "PEFT ties_svd, float32")
        if "llama" in parts:
            for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
                llama(folder, device)


if __name__ == "__main__":
    if len(sys.argv) > 2 and ":" in sys.argv[1]:
        print(json.dumps(case(sys.argv[1], Path(sys.argv[2]))))
    else:
        main(sys.argv[1:] or ["smollm2", "square", "attention", "llama"])
