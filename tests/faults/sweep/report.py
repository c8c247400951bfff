"""What the sweep found, as a table for people and as Markdown to be kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from faults.sweep.sweep import Swept

_TITLES = {"sqlite": "SQLite + folder", "postgres": "PostgreSQL + S3"}


def line(swept: Swept) -> str:
    """One verb on one place, and each of its faults."""
    lines = [
        f"{swept.case}/{swept.backend}: {len(swept.labels)} points, {swept.swept} swept, {len(swept.faults)} faults, "
        f"{swept.left} left something behind ({swept.seconds:.0f} s)"
    ]
    lines += [f"  {fault.number} {fault.point}, {fault.when}: {fault.sentences}" for fault in swept.faults]
    lines += [f"  not reached: {label}" for label in swept.missed]
    return "\n".join(lines)


def markdown(rows: Sequence[Swept], seed: int) -> str:
    """The table and every fault."""
    return "\n".join([*_head(), *_table(rows), "", *_faults(rows, seed)]) + "\n"


def _head() -> list[str]:
    return [
        "# What kills leave behind",
        "",
        "`make faults` writes this page. It runs every verb that changes something, counts the points at which it",
        "changes what outlives it (a file opened for writing, renamed, linked, flushed or removed, a folder made or",
        "removed, a database commit, a PUT, POST, copy or DELETE to S3), and kills it with SIGKILL before each of",
        "them, after each opening, and at its end. After the kill, and after the same command was given once more, a",
        "checker that shares no code with loreg reads database, store and folders: nothing recorded may be lost or",
        "half, the command must succeed, and the result must be that of an undisturbed run, byte by byte. Where",
        "another command follows, it may be refused; else there is what it makes alone, or after the first one.",
        "What stays behind are temporary files and unfinished uploads, which no later command minds.",
        "",
        "Some verbs begin with something done before: garbage of a killed push, broken blobs, a backup. What a verb",
        "makes elsewhere is looked at too: a backup's snapshots, another registry, a bundle. The claim of a killed",
        "collector holds for 15 minutes: it is dated back before gc, delete and job-gc are repeated, and in",
        "delete-at-once it is not, where the repetition is refused by name or removes the rest.",
        "",
    ]


def _table(rows: Sequence[Swept]) -> Iterator[str]:
    yield "| verb | place | points | swept | left something behind | faults | seconds |"
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: |"
    for row in rows:
        yield (
            f"| {row.case} | {_TITLES[row.backend]} | {len(row.labels)} | {row.swept} | {row.left} | {len(row.faults)}"
            f" | {row.seconds:.0f} |"
        )
    points, swept, faults = (
        sum(column) for column in zip(*((len(r.labels), r.swept, len(r.faults)) for r in rows), strict=True)
    )
    left, seconds = sum(r.left for r in rows), sum(r.seconds for r in rows)
    yield f"| all | | {points} | {swept} | {left} | {faults} | {seconds:.0f} |"


def _faults(rows: Sequence[Swept], seed: int) -> Iterator[str]:
    yield f"Faults (seed {seed}):" if any(row.faults for row in rows) else "No fault was found."
    yield ""
    for row in rows:
        for fault in row.faults:
            where = f"{row.case} on {_TITLES[row.backend]}, point {fault.number}, `{fault.point}`"
            yield f"- {where}, {fault.when}: {fault.sentences}"
    missed = [f"{row.case}/{row.backend}: {label}" for row in rows for label in row.missed]
    if missed:
        yield f"Counted and not reached again: {'; '.join(missed)}."
