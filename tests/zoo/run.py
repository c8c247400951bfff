"""Hold loreg to PEFT and transformers over the zoo: ``python -m zoo.run`` with ``tests`` in PYTHONPATH.

A case is an architecture, its tying and an option: ``--only gpt_neox/default --options head`` does one.
"""

from __future__ import annotations

import argparse
import fnmatch
import gc
import json
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers

from loreg.registry import connect
from zoo.architectures import Architecture, all_architectures
from zoo.facts import facts_of
from zoo.judging import Case, Verdict, assess
from zoo.models import TYINGS, UnbuildableError, build
from zoo.options import OPTIONS, Option, fields_of
from zoo.report import BAD, Outcome, lines, markdown
from zoo.trained import NotTrainableError, train


def try_out(architecture: Architecture, tying: str, patterns: Sequence[str]) -> list[Outcome]:
    """Run every option whose name a pattern matches on one base."""
    options = [option for option in OPTIONS if any(fnmatch.fnmatch(option.name, p) for p in patterns)]
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory(prefix="loreg-zoo-") as name:
        outcomes = list(_try_out(architecture, tying, options, Path(name)))
    gc.collect()
    return outcomes


def _try_out(architecture: Architecture, tying: str, options: Sequence[Option], room: Path) -> Iterator[Outcome]:
    try:
        base = build(architecture, tying, room / "base")
        facts = facts_of(base.model)
    except Exception as error:
        reason = str(error) if isinstance(error, UnbuildableError) else f"{type(error).__name__}: {error}"
        yield Outcome(architecture.name, tying, "", (), reason)
        return
    with connect(home=str(room / "home"), author="zoo") as registry:
        for option in options:
            started = time.monotonic()
            fields = fields_of(option, facts)
            if fields is None or (tying == "opposite" and not option.about_tying):
                continue
            case_room = room / "case"
            case_room.mkdir()
            try:
                first = train(base, option, fields, "first", case_room / "first")
                second = train(base, option, fields, "second", case_room / "second")
            except NotTrainableError as error:
                yield Outcome(architecture.name, tying, option.name, (), str(error), time.monotonic() - started)
            else:
                verdicts = tuple(assess(Case(base, option, first, second, case_room, registry)))
                yield Outcome(architecture.name, tying, option.name, verdicts, seconds=time.monotonic() - started)
            shutil.rmtree(case_room)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; its exit status is 1 if anything is wrong."""
    asked = _parse(arguments)
    torch.set_num_threads(1)
    number, count = map(int, asked.shard.split("/"))
    work = [
        (architecture, tying)
        for architecture in all_architectures()[number - 1 :: count]
        for tying in TYINGS
        if any(fnmatch.fnmatch(f"{architecture.name}/{tying}", p if "/" in p else f"{p}/*") for p in asked.only)
    ]
    outcomes = [outcome for file in asked.read for outcome in read(file)]
    if asked.read:
        work = []
    for results in _results(work, asked.options, asked.jobs):
        outcomes += results
        print(*lines(results), sep="\n", flush=True)
        if asked.json:  # base by base: a run that is ended early is not lost
            with asked.json.open("a", encoding="utf-8") as stream:
                stream.writelines(json.dumps(asdict(o)) + "\n" for o in results)
    text = markdown(outcomes)
    if asked.out:
        asked.out.write_text(text, encoding="utf-8")
    print(text.partition("| | ")[0])
    return int(any(verdict.kind in BAD for outcome in outcomes for verdict in outcome.verdicts))


def _results(work: Sequence[tuple[Architecture, str]], patterns: Sequence[str], jobs: int) -> Iterator[list[Outcome]]:
    """The outcomes of each base, in order; in this process if there is to be one only."""
    if jobs == 1:
        yield from (try_out(architecture, tying, patterns) for architecture, tying in work)
        return
    with ProcessPoolExecutor(jobs, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        futures = [pool.submit(try_out, architecture, tying, patterns) for architecture, tying in work]
        yield from (future.result() for future in futures)


def read(file: Path) -> list[Outcome]:
    """Read the outcomes that ``--json`` wrote."""
    rows = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    return [Outcome(**{**row, "verdicts": tuple(Verdict(**verdict) for verdict in row["verdicts"])}) for row in rows]


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="zoo", description="Hold loreg to PEFT and transformers.")
    parser.add_argument("--only", nargs="+", default=["*"], help="patterns of ARCHITECTURE or ARCHITECTURE/TYING")
    parser.add_argument("--options", nargs="+", default=["*"], help=f"patterns of {', '.join(o.name for o in OPTIONS)}")
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side")
    parser.add_argument("--shard", default="1/1", help="the part of the work to do: 2/5 is the second of five")
    parser.add_argument("--json", type=Path, help="file for every verdict, a line each case")
    parser.add_argument("--read", type=Path, nargs="+", default=[], help="run nothing: report what --json wrote")
    parser.add_argument("--out", type=Path, help="Markdown file for the tables")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
