"""What people wait for, as whole processes: medians over several runs after one that is not counted.

Run it with ``make bench``. Times of this machine; the floor beside each is what Python alone costs here.
"""

from __future__ import annotations

import contextlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
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


def print_group(floor: str, command: list[str], rows: dict[str, list[str]], environment: dict[str, str]) -> None:
    """Print the floor of some commands, and what each costs beside it."""
    least = median_of(command, environment)
    print(f"{floor:64} {1000 * least:5.0f} ms")
    for label, row in rows.items():
        seconds = median_of(row, environment)
        print(f"  {label:62} {1000 * seconds:5.0f} ms  {seconds / least:4.2f} ×", flush=True)


def main() -> None:
    science, history = ADAPTERS / "smollm2-science-r8", ADAPTERS / "smollm2-history-r8"
    with tempfile.TemporaryDirectory(prefix="loreg-bench-") as name:
        folder = Path(name)
        environment = {**os.environ, "LOREG_HOME": str(folder / "home")}
        for source, adapter in ((science, "science"), (history, "history")):
            subprocess.run([LOREG, "push", source, adapter], env=environment, check=True, stdout=subprocess.DEVNULL)
        print(f"median of {RUNS} runs, whole processes; × is how many times the floor above them\n")
        print_group(
            "python -c 'import click'",
            python("import click"),
            {"loreg --help": [LOREG, "--help"], "loreg --version": [LOREG, "--version"]},
            environment,
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
        )
        with server(environment) as endpoint:
            through = [LOREG, "--endpoint", endpoint]
            print_group(
                "python -c 'import click, httpx; httpx.get(…)', the same server",
                python(f"import click, httpx; httpx.get('{endpoint}/healthz')"),
                {
                    "the same with urllib3": python(
                        f"import click, urllib3; urllib3.request('GET', '{endpoint}/healthz')"
                    ),
                    **{f"loreg --endpoint … {verb}": [*through, *verb.split()] for verb in ("ls", "show science")},
                },
                environment,
            )
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
