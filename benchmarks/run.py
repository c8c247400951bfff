"""What people wait for, as whole processes: medians over several runs after one that is not counted.

Run it with ``make bench``. Times of this machine; the floor beside each is what Python alone costs here. With
``--instructions`` it counts what the processes execute instead, with valgrind, which does not vary with the load.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
ADAPTERS = ROOT / "examples" / "adapters"
LOREG = str(Path(sys.executable).with_name("loreg"))
RUNS = 9
#: How a command is measured: what it costs in which environment, how much of that is one of the unit, and its name.
Measure = tuple[Callable[[list[str], dict[str, str]], float], float, str]


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


def instructions_of(command: list[str], environment: dict[str, str]) -> int:
    """Instructions of the whole process in user space; the first run of two may still write bytecode."""
    cachegrind = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
    for _ in range(2):
        done = subprocess.run([*cachegrind, *command], env=environment, check=True, capture_output=True, text=True)
    count = re.search(r"I\s+refs:\s+([\d,]+)", done.stderr)
    assert count, done.stderr
    return int(count[1].replace(",", ""))


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


@contextlib.contextmanager
def server(environment: dict[str, str]) -> Iterator[str]:
    """Yield the address of a server on the registry of ``environment``, in a process of its own."""
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    endpoint = f"http://127.0.0.1:{port}"
    command = [LOREG, "serve", "--port", str(port)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while subprocess.run(
            [LOREG, "--endpoint", endpoint, "ls"], env=environment, capture_output=True, check=False
        ).returncode:
            if process.poll() is not None:
                raise SystemExit("the server did not start")
        yield endpoint
    finally:
        process.terminate()
        process.wait()


def print_group(
    floor: str, command: list[str], rows: dict[str, list[str]], environment: dict[str, str], measure: Measure
) -> None:
    """Print the floor of some commands, and what each costs beside it."""
    of, unit, count = measure
    least = of(command, environment)
    print(f"{floor:64} {least / unit:5.0f} {count}")
    for label, row in rows.items():
        cost = of(row, environment)
        print(f"  {label:62} {cost / unit:5.0f} {count}  {cost / least:4.2f} ×", flush=True)


def main() -> None:
    science, history = ADAPTERS / "smollm2-science-r8", ADAPTERS / "smollm2-history-r8"
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instructions", action="store_true", help="count instructions, for which valgrind is needed")
    counting = parser.parse_args().instructions
    if counting and shutil.which("valgrind") is None:
        raise SystemExit("valgrind is not installed: apt-get install valgrind")
    measure: Measure = (instructions_of, 1e6, "M") if counting else (median_of, 1e-3, "ms")
    with tempfile.TemporaryDirectory(prefix="loreg-bench-") as name:
        folder = Path(name)
        environment = {**os.environ, "LOREG_HOME": str(folder / "home"), "PYTHONHASHSEED": "0"}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for source, adapter in ((science, "science"), (history, "history")):
            subprocess.run([LOREG, "push", source, adapter], env=environment, check=True, stdout=subprocess.DEVNULL)
        of_what = "millions of instructions" if counting else f"median of {RUNS} runs"
        print(f"{of_what}, whole processes; × is how many times the floor above them\n")
        print_group(
            "python -c 'import click'",
            python("import click"),
            {"loreg --help": [LOREG, "--help"], "loreg --version": [LOREG, "--version"]},
            environment,
            measure,
        )
        print_group(
            "python -c 'import click, sqlalchemy, sqlalchemy.dialects.sqlite'",
            python("import click, sqlalchemy, sqlalchemy.dialects.sqlite"),
            {
                "loreg ls": [LOREG, "ls"],
                "loreg show science": [LOREG, "show", "science"],
                "loreg search --module q_proj": [LOREG, "search", "--module", "q_proj"],
                "loreg tag science best": [LOREG, "tag", "science", "best"],
                "loreg push (1.9 MB, known content)": [LOREG, "push", str(science), "science"],
            },
            environment,
            measure,
        )
        with server(environment) as endpoint:
            through = [LOREG, "--endpoint", endpoint]
            print_group(
                "python -c 'import click, httpx; httpx.get(…)', the same server",
                python(f"import click, httpx; httpx.get('{endpoint}/healthz')"),
                {
                    "python -c 'import click, httpx'": python("import click, httpx"),
                    "the same with urllib3": python(
                        f"import click, urllib3; urllib3.request('GET', '{endpoint}/healthz')"
                    ),
                    **{f"loreg --endpoint … {verb}": [*through, *verb.split()] for verb in ("ls", "show science")},
                },
                environment,
                measure,
            )
        if counting:  # what computes takes minutes there
            return
        out, merged = folder / "out", folder / "merged"
        merge = [LOREG, "merge", "science", "history", "--weights", "0.7,0.3", "--to", str(merged)]
        alone: dict[str, tuple[list[str], Path | None]] = {
            "loreg pull (1.9 MB)": ([LOREG, "pull", "science", str(out)], out),
            "python -c 'import torch'": (python("import torch"), None),
            "loreg merge (60 modules, rank 8 + 8)": (merge, merged),
        }
        for label, (command, fresh) in alone.items():
            print(f"{label:64} {1000 * median_of(command, environment, fresh):5.0f} ms", flush=True)


if __name__ == "__main__":
    main()
