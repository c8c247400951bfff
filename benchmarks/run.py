"""What people wait for, as whole processes: medians over several runs after one that is not counted.

Run it with ``make bench``. Times of this machine; the floor beside each is what Python alone costs here.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
ADAPTERS = ROOT / "examples" / "adapters"
LOREG = str(Path(sys.executable).with_name("loreg"))
RUNS = 9


def median_of(command: list[str], environment: dict[str, str], fresh: Path | None = None) -> float:
    """Seconds of the whole process; ``fresh`` is a folder that each run finds absent."""
    seconds = []
    for run in range(RUNS + 1):
        if fresh is not None:
            subprocess.run(["rm", "-rf", fresh], check=True)
        begin = time.perf_counter()
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        if run:
            seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


def main() -> None:
    science, history = ADAPTERS / "smollm2-science-r8", ADAPTERS / "smollm2-history-r8"
    with tempfile.TemporaryDirectory(prefix="loreg-bench-") as name:
        folder = Path(name)
        environment = {**os.environ, "LOREG_HOME": str(folder / "home")}
        for source, adapter in ((science, "science"), (history, "history")):
            subprocess.run([LOREG, "push", source, adapter], env=environment, check=True, stdout=subprocess.DEVNULL)
        rows = {
            "python -c pass": ([sys.executable, "-c", "pass"], None),
            "python -c 'import click'": ([sys.executable, "-c", "import click"], None),
            "loreg --help": ([LOREG, "--help"], None),
            "python -c 'import sqlalchemy.orm'": ([sys.executable, "-c", "import sqlalchemy.orm"], None),
            "loreg search --module q_proj": ([LOREG, "search", "--module", "q_proj"], None),
            "loreg push (1.9 MB, known content)": ([LOREG, "push", str(science), "science"], None),
            "loreg pull (1.9 MB)": ([LOREG, "pull", "science", str(folder / "out")], folder / "out"),
            "python -c 'import torch'": ([sys.executable, "-c", "import torch"], None),
            "loreg merge (60 modules, rank 8 + 8)": (
                [LOREG, "merge", "science", "history", "--weights", "0.7,0.3", "--to", str(folder / "merged")],
                folder / "merged",
            ),
        }
        print(f"median of {RUNS} runs, whole process\n")
        for label, (command, fresh) in rows.items():
            print(f"{label:40} {1000 * median_of(command, environment, fresh):7.0f} ms", flush=True)


if __name__ == "__main__":
    main()
