"""Bases: fingerprints beside sha256sum, baking beside copying and beside PEFT, extracting beside a dense SVD, in one
run: ``make bench-bake``. Every figure is a median; every case of loreg or PEFT is a process of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from models import write_model
from shapes import ATTENTION, SMOLLM2, transformer, write

HERE = Path(__file__).parent
LOREG = str(Path(sys.executable).with_name("loreg"))
CORES = os.cpu_count() or 1
SMALL = transformer(6, 2560, 640, 8192)
LARGE = transformer(24, 2560, 640, 8192)


def median(runs: int, call: Callable[[], Any], before: Callable[[], Any] = lambda: None) -> float:
    """Seconds of the call; ``before`` is not counted, and the disk is quiet when it starts."""
    measured = []
    for _ in range(runs):
        before()
        os.sync()
        begin = time.perf_counter()
        call()
        measured.append(time.perf_counter() - begin)
    return statistics.median(measured)


#: A process forked from a large one is counted as large itself: this small one stands between.
SMALL_PARENT = """
import os, subprocess, sys
running = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
_, status, usage = os.wait4(running.pid, 0)
print(usage.ru_maxrss)
sys.exit(1 if status else 0)
"""


def process(command: list[Any]) -> float:
    """Run a command to its end; its peak memory in GB."""
    words = [sys.executable, "-c", SMALL_PARENT, *map(str, command)]
    return int(subprocess.run(words, check=True, capture_output=True, text=True).stdout) / 1e6


def within(*words: Any) -> float:
    """Median seconds of a call of the library, in a process of its own that is up already."""
    command = [sys.executable, __file__, "call", *map(str, words)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def fingerprints(folder: Path) -> None:
    print(f"\nfingerprints of a model of 0.5 G parameters, {CORES} cores, files in memory\n", flush=True)
    from loreg.bases.identify import identify

    for dtype, expected in (("BF16", 0.8), ("F16", 0.4), ("F32", 0.4)):
        model = write_model(folder / dtype, SMALL, 2560, 32000, dtype)
        files = sorted(model.glob("*.safetensors"))
        size = sum(file.stat().st_size for file in files) / 1e9
        ours = size / median(5, lambda model=model: identify(model))
        theirs = size / median(3, lambda files=files: process(["sha256sum", *files]))
        ratio = ours / (theirs * CORES)
        print(
            f"  {dtype:5} {size:.1f} GB   loreg {ours:5.2f} GB/s   sha256sum {theirs:5.2f} GB/s a core   "
            f"{ratio:5.2f} of sha256sum × {CORES} (aim {expected})",
            flush=True,
        )
        shutil.rmtree(model)


def copied(model: Path, target: Path) -> None:
    """What a bake cannot do without: every file copied, and on the disk."""
    target.mkdir()
    for file in model.iterdir():
        shutil.copyfile(file, target / file.name)
        descriptor = os.open(target / file.name, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def baking(folder: Path) -> None:
    for title, shapes in (("1.2 GB", SMALL), ("4.1 GB", LARGE)):
        model = write_model(folder / "base", shapes, 2560, 32000)
        projections = {name: shape for name, shape in shapes.items() if name.endswith(("q_proj", "v_proj"))}
        adapters = {
            "q and v": write(folder / "qv", projections, 16, 1),
            "all seven projections": write(folder / "all", shapes, 16, 1),
        }
        print(f"\nbake into a sharded Llama of {title} in bf16\n", flush=True)
        clean = lambda: shutil.rmtree(folder / "out", ignore_errors=True)  # noqa: E731
        base = median(5, lambda model=model: copied(model, folder / "out"), clean)
        print(f"  copying the files with fsync{'':24} {base:6.2f} s", flush=True)
        for label, adapter in adapters.items():
            peaks = []

            def bake(adapter: Path = adapter, model: Path = model, peaks: list[float] = peaks) -> None:
                command = [LOREG, "--home", folder / "home", "bake", adapter, "--base", model, "--to", folder / "out"]
                peaks.append(process(command))

            took = median(5, bake, clean)
            alone = within("bake", model, adapter, folder / "out")
            print(
                f"  loreg bake, rank 16 on {label:24}     {took:6.2f} s   {took / base:4.2f} × copying   "
                f"(the call alone {alone:.2f} s, {alone / base:4.2f} ×)   peak {max(peaks):.2f} GB",
                flush=True,
            )
        clean()
        for used in (model, *adapters.values()):
            shutil.rmtree(used)


def call(verb: str, one: Path, other: Path, target: Path) -> float:
    import loreg

    clean = lambda: shutil.rmtree(target, ignore_errors=True)  # noqa: E731
    with loreg.connect(home=str(target.parent / "home")) as registry:
        if verb == "bake":
            return median(5, lambda: registry.bake([str(other)], one, target), clean)
        registry.extract(one, other, rank=64, folder=target)  # imports torch
        return median(5, lambda: registry.extract(one, other, rank=64, folder=target), clean)


def smollm2(folder: Path) -> None:
    from transformers import LlamaConfig

    model = write_model(folder / "smollm2", SMOLLM2, 576, 49152)
    config = LlamaConfig(
        hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3,
        vocab_size=49152, tie_word_embeddings=False, architectures=["LlamaForCausalLM"],
    )  # fmt: skip
    config.save_pretrained(model)
    adapter = write(folder / "adapter", SMOLLM2, 16, 1)
    print(
        "\nSmolLM2-135M, whole processes: load, merge an adapter of rank 16 on all seven projections, save\n",
        flush=True,
    )
    commands = {
        "PEFT merge_and_unload": [sys.executable, HERE / "peft_bake.py", model, adapter, folder / "out"],
        "loreg bake": [LOREG, "--home", folder / "home", "bake", adapter, "--base", model, "--to", folder / "out"],
    }
    first = 0.0
    largest = 49152 * 576 * 2 / 1e9
    for label, command in commands.items():
        peaks: list[float] = []
        clean = lambda: shutil.rmtree(folder / "out", ignore_errors=True)  # noqa: E731
        took = median(5, lambda command=command, peaks=peaks: peaks.append(process(command)), clean)
        first = first or took
        print(f"  {label:24} {took:6.2f} s   peak {max(peaks):.2f} GB   {first / took:5.1f} ×", flush=True)
    print(f"  three times the largest tensor and 300 MB: {3 * largest + 0.3:.2f} GB")


def extraction(folder: Path) -> None:
    """A fine-tune whose changes fall off as trained ones do, and the same energy by a dense SVD."""
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    old, new, changes = {}, {}, {}
    for name, (out, in_) in ATTENTION.items():
        weight = (0.02 * torch.randn(out, in_)).bfloat16()
        u, v = torch.linalg.qr(torch.randn(out, 512)).Q, torch.linalg.qr(torch.randn(in_, 512)).Q
        tuned = (weight.float() + 3 * u * torch.arange(1, 513).float().pow(-1.0) @ v.T).bfloat16()
        old[f"{name}.weight"], new[f"{name}.weight"] = weight, tuned
        changes[name] = tuned.float() - weight.float()
    for label, tensors in (("old", old), ("new", new)):
        (folder / label).mkdir()
        save_file(tensors, folder / label / "model.safetensors")
    print("\nextract rank 64 from q, k, v and o of a Llama-3-8B layer in bf16\n", flush=True)
    kept: list[float] = []

    def dense() -> None:
        lost = whole = 0.0
        for change in changes.values():
            s = torch.linalg.svd(change, full_matrices=False).S.double().square()
            lost, whole = lost + float(s[64:].sum()), whole + float(s.sum())
        kept.append(1 - lost / whole)

    base = median(1, dense)
    print(f"  dense SVD in float32, nothing else   {base:8.2f} s   energy {kept[0]:.5f}", flush=True)
    alone = within("extract", folder / "old", folder / "new", folder / "out")
    print(f"  loreg, reading and writing included  {alone:8.2f} s   {base / alone:5.1f} ×", flush=True)
    command = [LOREG, "--home", folder / "home", "extract", "--base", folder / "old", "--tuned", folder / "new"]
    command += ["--rank", "64", "--to", folder / "out"]
    peaks: list[float] = []
    clean = lambda: shutil.rmtree(folder / "out", ignore_errors=True)  # noqa: E731
    took = median(3, lambda: peaks.append(process(command)), clean)
    energy = json.loads((folder / "out" / "loreg_extract.json").read_text())["retained_energy"]
    ratio = f"energy {energy:.5f}   {base / took:5.1f} ×   peak {max(peaks):.2f} GB"
    print(f"  loreg extract, the whole process     {took:8.2f} s   {ratio}", flush=True)


def main(parts: list[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="loreg-bench-") as name:
        for part in parts or ["fingerprints", "baking", "smollm2", "extraction"]:
            folder = Path(name) / part
            folder.mkdir()
            {"fingerprints": fingerprints, "baking": baking, "smollm2": smollm2, "extraction": extraction}[part](folder)
            shutil.rmtree(folder)


if __name__ == "__main__":
    if sys.argv[1:2] == ["call"]:
        print(call(sys.argv[2], *map(Path, sys.argv[3:])))
    else:
        main(sys.argv[1:])
