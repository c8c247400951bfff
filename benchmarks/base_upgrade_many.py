"""Time ``base upgrade`` of many adapters in one call beside its floor: one pass over the bytes of both bases.

The bases have the shapes of SmolLM2-135M, with a head of its own, and random numbers; every linear weight of the
second is changed by one hundredth of its norm. Each adapter has factors of rank 8 on all 210 linear modules. Every
figure is of a process of its own. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from models import write_model
from safetensors.torch import load_file, save_file
from shapes import SMOLLM2, write

from loreg import connect

_CHANGE = 0.01
_RANK = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--adapters", type=int, default=500)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="loreg-many-") as name:
        folder = Path(name)
        counts = [1, options.adapters // 10, options.adapters]
        _make_bases(folder)
        print("| | seconds | of CPU | bytes read | peak memory |")
        print("| --- | --: | --: | --: | --: |")
        _print("both bases read and subtracted (the floor)", "floor", folder)
        pushed = 0
        for count in counts:
            pushed = _push(folder, pushed, count)
            what = "adapter" if count == 1 else "adapters"
            if count == 1:
                _print("1 adapter, bases hashed for the first time", "upgrade", folder)
            _print(f"{count} {what}", "upgrade", folder)
        _print(f"{options.adapters} adapters, by digests alone", "digests", folder)


def _make_bases(folder: Path) -> None:
    old = write_model(folder / "old", SMOLLM2, 576, 49_152)
    new = Path(shutil.copytree(old, folder / "new"))
    generator = torch.Generator().manual_seed(1)
    for file in new.glob("*.safetensors"):
        tensors = load_file(file)
        for name, tensor in tensors.items():
            if "_proj" in name:
                noise = torch.randn(tensor.shape, generator=generator)
                tensors[name] = (tensor + _CHANGE * tensor.float().std() * noise).bfloat16()
        save_file(tensors, file)


def _push(folder: Path, pushed: int, count: int) -> int:
    with connect(home=folder / "home", author="bench") as registry:
        for number in range(pushed, count):
            adapter = write(folder / "adapter", SMOLLM2, _RANK, seed=number)
            registry.push(adapter, f"team/a{number}", base=folder / "old")
            shutil.rmtree(adapter)
        if not pushed:
            shutil.rmtree(folder / "home" / "cache")
    return count


def _print(title: str, what: str, folder: Path) -> None:
    command = [sys.executable, Path(__file__).with_name("base_upgrade_call.py"), what, folder]
    document = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    seconds, cpu, read, peak = json.loads(document.splitlines()[-1])
    print(f"| {title} | {seconds:.1f} | {cpu:.1f} | {read / 1e6:,.0f} MB | {peak / 1e6:,.0f} MB |", flush=True)


if __name__ == "__main__":
    main()
