"""Checking a thousand adapters by their headers, beside its floor and its peers, in one run: ``make bench-check``.

The floor is Python that opens the two files of an adapter and parses their JSON. The peers are what people have in
their scripts: safetensors' reader with every shape, and PEFT's LoraConfig, which answer fewer questions. Times are
medians of rounds in which each one meets all adapters; every row is a process of its own that is up already, and the
last ones are whole processes.
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

HERE = Path(__file__).parent
LOREG = str(Path(sys.executable).with_name("loreg"))
COUNT, ROUNDS, WHOLE_ROUNDS = 1000, 9, 3
SERVERS = ["vllm", "sglang", "lorax", "tgi", "tensorrt-llm", "llama.cpp", "peft:0.10"]


def make(folder: Path, only: tuple[str, ...]) -> int:
    """COUNT adapters of 30 layers; their weights are links to one file, for no header differs. How many tensors."""
    from shapes import transformer, write  # torch comes with it, which no check needs

    shapes = transformer(30, 576, 192, 1536, only)
    first = write(folder / "000", shapes, 8, 1)
    for number in range(1, COUNT):
        other = folder / f"{number:03d}"
        other.mkdir()
        os.link(first / "adapter_model.safetensors", other / "adapter_model.safetensors")
        shutil.copy(first / "adapter_config.json", other / "adapter_config.json")
    return 2 * len(shapes)


def floor(folders: list[Path]) -> None:
    for folder in folders:
        json.loads((folder / "adapter_config.json").read_bytes())
        with (folder / "adapter_model.safetensors").open("rb") as file:
            json.loads(file.read(int.from_bytes(file.read(8), "little")))


def by_safetensors(folders: list[Path]) -> None:
    from safetensors import safe_open

    for folder in folders:
        json.loads((folder / "adapter_config.json").read_bytes())
        with safe_open(folder / "adapter_model.safetensors", "numpy") as file:
            for name in file.keys():  # noqa: SIM118  it is no mapping
                part = file.get_slice(name)
                part.get_shape(), part.get_dtype()


def by_peft(folders: list[Path]) -> None:
    from peft import LoraConfig
    from safetensors import safe_open

    for folder in folders:
        LoraConfig.from_pretrained(folder)
        with safe_open(folder / "adapter_model.safetensors", "pt") as file:
            for name in file.keys():  # noqa: SIM118  it is no mapping
                file.get_slice(name).get_shape()


def loreg(profiles: list[str], home: Path) -> Callable[[list[Path]], None]:
    from loreg.registry import connect

    registry = connect(home=str(home))

    def check(folders: list[Path]) -> None:
        reports = registry.check([str(folder) for folder in folders], profiles=profiles, header_only=True)
        assert len(reports) == COUNT
        assert all(report.findings == () for report in reports) or profiles

    return check


def within(row: str, folder: Path) -> None:
    """Print the median milliseconds per adapter of one row."""
    folders = sorted(path for path in folder.iterdir() if path.name.isdigit())
    home = folder / "home"
    rows: dict[str, Callable[[], Callable[[list[Path]], None]]] = {
        "floor": lambda: floor,
        "safetensors": lambda: by_safetensors,
        "peft": lambda: by_peft,
        "loreg": lambda: loreg([], home),
        "loreg, one server": lambda: loreg(["vllm"], home),
        "loreg, every server": lambda: loreg(SERVERS, home),
    }
    call = rows[row]()
    call(folders)
    measured = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        call(folders)
        measured.append(time.perf_counter() - begin)
    print(1000 * statistics.median(measured) / COUNT)


def whole(command: list[str], environment: dict[str, str]) -> float:
    """Median milliseconds per adapter of a whole process that checks all of them."""
    measured = []
    for _ in range(WHOLE_ROUNDS):
        begin = time.perf_counter()
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        measured.append(time.perf_counter() - begin)
    return 1000 * statistics.median(measured) / COUNT


def main() -> None:
    labels = {
        "floor": "floor: open two files, parse their JSON",
        "safetensors": "safetensors: every name, dtype and shape",
        "peft": "PEFT's LoraConfig, safetensors: every shape",
        "loreg": "loreg, the adapter itself",
        "loreg, one server": "loreg, and vLLM",
        "loreg, every server": f"loreg, and {len(SERVERS)} servers",
    }
    whole_labels = {"loreg check --header-only": [], "the same, --profile vllm": ["--profile", "vllm"]}
    for modules, only in {"q and v": ("q_proj", "v_proj"), "all seven projections": ()}.items():
        with tempfile.TemporaryDirectory(prefix="loreg-bench-") as name:
            folder = Path(name)
            tensors = make(folder, only)
            print(
                f"{COUNT} adapters of {tensors} tensors ({modules}), headers alone; ms an adapter, median of {ROUNDS}\n"
            )
            times = {}
            for row, label in labels.items():
                command = [sys.executable, __file__, row, name]
                times[row] = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                print(f"  {label:44} {times[row]:6.2f} ms {times[row] / times['floor']:6.1f} × the floor", flush=True)
            environment = {**os.environ, "LOREG_HOME": str(folder / "home")}
            folders = [str(folder / f"{number:03d}") for number in range(COUNT)]
            for label, more in whole_labels.items():
                took = whole([LOREG, "check", *folders, "--header-only", *more], environment)
                print(f"  {label + ', a whole process':44} {took:6.2f} ms", flush=True)
            print()


if __name__ == "__main__":
    if len(sys.argv) == 3:
        within(sys.argv[1], Path(sys.argv[2]))
    else:
        main()
