"""Kill every verb at every point: ``python -m faults.sweep`` with ``tests`` in PYTHONPATH.

``--only push/sqlite --points 3..7`` does a part of it.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path

from faults.sweep.backends import Backend, PostgresAndS3, SqliteAndFolder
from faults.sweep.cases import CASES, Case
from faults.sweep.inputs import write_inputs
from faults.sweep.processes import import_everything
from faults.sweep.report import line, markdown
from faults.sweep.sweep import Before, Swept, fill, state_before, sweep
from services import ACCESS_KEY, SECRET_KEY, postgres_server, s3_server

Work = tuple[Case, Backend, Before]
BACKENDS = ("sqlite", "postgres")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; its exit status is 1 if a fault was found, or a point was not reached again."""
    asked = _parse(arguments)
    chosen = [
        (case, name) for name in BACKENDS for case in CASES if name in case.backends and _is_asked(case, name, asked)
    ]
    if not chosen:
        print(f"no such verb: {', '.join(case.name for case in CASES)}, each /sqlite or /postgres")
        return 2
    print(f"seed {asked.seed}", flush=True)
    _be_alone()
    import_everything()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="loreg-faults-") as name, contextlib.ExitStack() as stack:
        room = Path(name).resolve()
        inputs = write_inputs(room / "in")
        work = _prepared(chosen, room, inputs, stack)
        rows = list(_swept(work, asked, room, inputs))
    if asked.out:
        asked.out.write_text(markdown(rows, asked.seed), encoding="utf-8")
    faults, points = sum(len(row.faults) for row in rows), sum(row.swept for row in rows)
    missed = sum(len(row.missed) for row in rows)
    print(f"{points} points swept in {time.monotonic() - started:.0f} s: {faults} faults, {missed} points not reached")
    return int(faults + missed > 0)


def _prepared(chosen: Sequence[tuple[Case, str]], room: Path, inputs: Path, stack: contextlib.ExitStack) -> list[Work]:
    """Start what the chosen cases need, and make the registry that each begins with."""
    backends: dict[str, Backend] = {"sqlite": SqliteAndFolder()}
    if any(name == "postgres" for _, name in chosen):
        backends["postgres"] = PostgresAndS3(stack.enter_context(postgres_server()), stack.enter_context(s3_server()))
    filled = {name: fill(backends[name], room / f"filled-{name}", inputs) for name in {name for _, name in chosen}}
    return [
        (case, backends[name], state_before(case, backends[name], filled[name], room / f"{case.name}-{name}", inputs))
        for case, name in chosen
    ]


def _swept(work: Sequence[Work], asked: argparse.Namespace, room: Path, inputs: Path) -> Iterator[Swept]:
    """What was found, case by case; the points of each are dealt out to the processes."""
    context = get_context("fork")
    pipes: list[Connection] = []
    for job in range(asked.jobs):
        ours, theirs = context.Pipe(duplex=False)
        folder = room / f"job-{job}"
        folder.mkdir()
        context.Process(target=_job, args=(theirs, job, work, asked, folder, inputs), daemon=False).start()
        theirs.close()
        pipes.append(ours)
    parts: dict[tuple[str, str], list[Swept]] = {}
    while pipes:
        for pipe in wait(pipes):
            assert isinstance(pipe, Connection)
            try:
                part: Swept = pipe.recv()
            except EOFError:
                pipes.remove(pipe)
                continue
            partial = parts.setdefault((part.case, part.backend), [])
            partial.append(part)
            if len(partial) == asked.jobs:
                row = _together(partial)
                print(line(row), flush=True)
                if asked.list:
                    print(*(f"  {number} {label}" for number, label in enumerate(row.labels, 1)), sep="\n")
                yield row
    if incomplete := [key for key, partial in parts.items() if len(partial) < asked.jobs] or len(parts) < len(work):
        raise RuntimeError(f"a process of the sweep ended early: {incomplete}")


def _job(
    pipe: Connection, job: int, work: Sequence[Work], asked: argparse.Namespace, folder: Path, inputs: Path
) -> None:
    """Sweep this process's share of the points of every case."""
    for case, backend, before in work:

        def share(count: int, case: Case = case, backend: Backend = backend) -> list[int]:
            if asked.list:
                return []
            first, last = asked.points or (1, count)
            numbers = range(first, min(last, count) + 1)
            if asked.sample and asked.sample < len(numbers):
                drawn = random.Random(f"{asked.seed} {case.name} {backend.name}")
                return sorted(drawn.sample(numbers, asked.sample))[job :: asked.jobs]
            return list(numbers)[job :: asked.jobs]

        pipe.send(sweep(case, backend, before, folder, inputs, share))


def _together(parts: Sequence[Swept]) -> Swept:
    """The shares of all processes."""
    first = parts[0]
    return replace(
        first,
        swept=sum(part.swept for part in parts),
        missed=tuple(label for part in parts for label in part.missed),
        faults=tuple(sorted((fault for part in parts for fault in part.faults), key=lambda fault: fault.number)),
        left=sum(part.left for part in parts),
        seconds=max(part.seconds for part in parts),
    )


def _be_alone() -> None:
    """Let nothing of the person who runs this get in, and nothing begin a thread that a fork would lose."""
    for name in [name for name in os.environ if name.startswith(("LOREG_", "AWS_", "HF_"))]:
        del os.environ[name]
    os.environ |= {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
    }
    sys.dont_write_bytecode = True


def _is_asked(case: Case, backend: str, asked: argparse.Namespace) -> bool:
    name = f"{case.name}/{backend}"
    return any(fnmatch.fnmatch(name, pattern if "/" in pattern else f"{pattern}/*") for pattern in asked.only)


def _range(text: str) -> tuple[int, int]:
    first, _, last = text.partition("..")
    return int(first), int(last or first)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="faults.sweep", description="Kill every verb at every point, and look.")
    parser.add_argument("--only", nargs="+", default=["*"], help="patterns of VERB or VERB/sqlite or VERB/postgres")
    parser.add_argument("--points", type=_range, metavar="A..B", help="only the points of these numbers")
    parser.add_argument("--sample", type=int, default=0, metavar="N", help="only N of the points, drawn with --seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--list", action="store_true", help="print the points, kill at none")
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side")
    parser.add_argument("--out", type=Path, help="Markdown file for the table and the faults")
    return parser.parse_args(arguments)
