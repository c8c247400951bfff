"""What clients were told: a line for each operation, and what of it must be found when all is over."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faults.checker import Seen

#: The error of a pull that was answered with success and brought something else.
OTHER_FILES = "other files"
#: What a pull of something that was acknowledged must never say, whatever was killed meanwhile.
WRONG = frozenset({OTHER_FILES, "not-found", "integrity"})
#: Errors that say no, and not that something is away.
REFUSALS = frozenset(
    {"conflict", "stale", "not-found", "not-allowed", "check-failed", "usage", "adapter-format", "merge"}
)


@dataclass(frozen=True)
class Operation:
    """One operation: ``error`` is empty where it was answered with success, ``answer`` is what it promised."""

    kind: str
    error: str
    answer: dict[str, Any]
    message: str = ""


class Journal:
    """A file of one client; a line is in it before the next operation begins."""

    def __init__(self, path: Path) -> None:
        self._stream = path.open("a", encoding="utf-8")

    def write(self, kind: str, error: str = "", message: str = "", **answer: Any) -> None:
        self._stream.write(
            json.dumps({"kind": kind, "error": error, "answer": answer, "message": message[:300]}) + "\n"
        )
        self._stream.flush()


def read(folder: Path) -> list[Operation]:
    """Every line of all clients."""
    lines = [line for path in sorted(folder.glob("*.jsonl")) for line in path.read_text("utf-8").splitlines()]
    return [Operation(**json.loads(line)) for line in lines]


def lost(operations: Iterable[Operation], seen: Seen) -> Iterator[str]:
    """What was acknowledged and is not there, a sentence each."""
    versions = {row["id"]: row for row in seen["versions"]}
    digests: dict[str, set[str]] = defaultdict(set)
    numbers = {(seen.names[row["adapter_id"]], row["number"]): row for row in versions.values()}
    for row in versions.values():
        digests[seen.names[row["adapter_id"]]].add(row["digest"])
    moves = {(seen.names[r["adapter_id"]], r["alias"], r["number"]) for r in seen["alias_moves"]}
    metrics = {(row["version_id"], row["name"], row["dataset"], row["value"]) for row in seen["metrics"]}
    jobs = {row["id"]: row for row in seen["jobs"]}
    for operation in operations:
        answer = operation.answer
        if operation.error:
            continue
        if operation.kind == "push":
            row = numbers.get((answer["name"], answer["number"]))
            if row is None or row["digest"] != answer["digest"]:
                yield f"push: {answer['name']}:v{answer['number']}@{answer['digest'][:12]} is not there"
            if answer["alias"] and (answer["name"], answer["alias"], answer["number"]) not in moves:
                yield f"push: {answer['name']}:{answer['alias']} never meant v{answer['number']}"
        elif operation.kind == "tag" and (answer["name"], answer["alias"], answer["number"]) not in moves:
            yield f"tag: {answer['name']}:{answer['alias']} never meant v{answer['number']}"
        elif operation.kind == "metric":
            row = numbers.get((answer["name"], answer["number"]))
            if row is None or (row["id"], "accuracy", answer["dataset"], answer["value"]) not in metrics:
                yield f"metric: {answer['name']}:v{answer['number']} has no {answer['value']} on {answer['dataset']}"
        elif operation.kind == "hub" and not any(d.startswith(answer["commit"]) for d in digests[answer["name"]]):
            yield f"hub: {answer['name']} has no version of commit {answer['commit'][:12]}"
        elif operation.kind == "job":
            yield from _lost_job(answer, jobs.get(answer["id"]))


def _lost_job(answer: dict[str, Any], job: dict[str, Any] | None) -> Iterator[str]:
    if job is None:
        yield f"job: {answer['id']} is not there"
    elif job["state"] not in ("done", "failed"):
        yield f"job: {answer['id']} is {job['state']} still"
    elif job["state"] == "failed" and job["error"].get("code") != "unavailable":
        yield f"job: {answer['id']} failed: {job['error'].get('message', '')[:200]}"


def figures(operations: Iterable[Operation]) -> Iterator[str]:
    """How many operations of each kind were answered with success, refused, and failed for which reason.

    Refusals are quoted, the first of each sort: nothing that a client of the soak asks for is wrong.
    """
    quoted: dict[tuple[str, str], str] = {}
    done: Counter[str] = Counter()
    refused: dict[str, Counter[str]] = defaultdict(Counter)
    failed: dict[str, Counter[str]] = defaultdict(Counter)
    for operation in operations:
        if not operation.error:
            done[operation.kind] += 1
        else:
            (refused if operation.error in REFUSALS else failed)[operation.kind][operation.error] += 1
        if operation.error in REFUSALS:
            quoted.setdefault((operation.kind, operation.error), operation.message)
    for kind in sorted(done.keys() | refused.keys() | failed.keys()):
        refusals, failures = _format_counts(refused[kind]), _format_counts(failed[kind])
        yield f"  {kind:8} {done[kind]:6} answered   refused: {refusals}   failed: {failures}"
    sums = (sum(done.values()), *(sum(sum(c.values()) for c in by_kind.values()) for by_kind in (refused, failed)))
    yield f"  {'all':8} {sums[0]:6} answered   refused: {sums[1]}   failed: {sums[2]}"
    yield from (f"  {kind} was refused: {message}" for (kind, _), message in quoted.items())


def _format_counts(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in counts.most_common()) or "0"
