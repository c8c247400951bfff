"""Read the texts that a sweep evaluates on, by task, and split them: one half to choose by, the other to confirm on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from loreg.errors import NotFoundError, UsageError, explain_os_errors
from loreg.strict_json import parse_finite

_EXAMPLE = 'each line is {"task": "news", "text": "…"}'
_MAX_BYTES = 1 << 30


@dataclass(frozen=True)
class Document:
    """One text of a task, by the task's position."""

    task: int
    text: str


@dataclass(frozen=True)
class EvaluationData:
    """Texts of each of ``tasks``, in two halves that share no text: ``chosen_on`` and ``confirmed_on``.

    ``digest`` is the SHA-256 of all texts with their tasks, ``duplicates`` how many texts were left out because they
    were there already.
    """

    tasks: tuple[str, ...]
    chosen_on: tuple[Document, ...]
    confirmed_on: tuple[Document, ...]
    digest: str
    duplicates: int


def read_evaluation_data(sources: Sequence[str]) -> EvaluationData:
    """Read JSON Lines files, or ``TASK=FILE`` of plain text whose documents an empty line separates.

    Raises NotFoundError for a file that is not there, UsageError for one that is something else, naming the line, and
    for a task with fewer than two different texts.
    """
    texts: dict[str, dict[str, None]] = {}
    count = 0
    for source in sources:
        task, _, file = source.partition("=")
        if file and not Path(source).exists():
            pairs = [(task, text) for text in _read_plain(Path(file).expanduser())]
        else:
            pairs = _read_lines(Path(source).expanduser())
        for name, text in pairs:
            texts.setdefault(name, {})[text] = None
            count += 1
    return split_by_task({task: list(of_task) for task, of_task in texts.items()}, count)


def split_by_task(texts: Mapping[str, Sequence[str]], count: int | None = None) -> EvaluationData:
    """Split the different ``texts`` of each task by the order of their digests; ``count`` is how many there were.

    The halves of a task have about the same number of characters, and depend on the texts alone. Raises UsageError.
    """
    if not texts:
        raise UsageError("the evaluation data have no text", hint=_EXAMPLE)
    halves: tuple[list[Document], list[Document]] = ([], [])
    for position, (task, of_task) in enumerate(texts.items()):
        if len(of_task) < 2:
            raise UsageError(
                f"the task {task!r} has one text: expected two or more, half of them to confirm the choice on",
                hint="split long texts where a new topic begins, an empty line between them",
            )
        sizes = [0, 0]
        for text in sorted(of_task, key=_digest):
            smaller = int(sizes[1] < sizes[0])
            halves[smaller].append(Document(position, text))
            sizes[smaller] += len(text)
    whole = hashlib.sha256(json.dumps({task: sorted(t) for task, t in texts.items()}).encode()).hexdigest()
    different = sum(len(of_task) for of_task in texts.values())
    return EvaluationData(tuple(texts), tuple(halves[0]), tuple(halves[1]), whole, (count or different) - different)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _read(path: Path) -> str:
    if not path.is_file():
        raise NotFoundError(f"{path} does not exist", hint=f"--data names a JSON Lines file: {_EXAMPLE}")
    with explain_os_errors(path, "check its permissions"):
        if path.stat().st_size > _MAX_BYTES:
            raise UsageError(f"{path} has more than 1 GiB of text", hint=f"head -n 2000 {path} > sample.jsonl")
        content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8: {error}", hint=f"iconv -f latin1 -t utf-8 {path} > text.txt") from error


def _read_plain(path: Path) -> list[str]:
    documents = _read(path).replace("\r\n", "\n").split("\n\n")
    return [document.strip() for document in documents if document.strip()]


def _read_lines(path: Path) -> list[tuple[str, str]]:
    pairs = []
    for number, line in enumerate(_read(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            document = parse_finite(line.encode())
        except (ValueError, RecursionError) as error:
            raise _line_error(path, number, f"not JSON: {error}") from error
        task, text = (document.get(key) if isinstance(document, dict) else None for key in ("task", "text"))
        if not (isinstance(task, str) and isinstance(text, str) and task and text.strip()):
            raise _line_error(path, number, "no task and text")
        pairs.append((task, text.strip()))
    return pairs


def _line_error(path: Path, number: int, why: str) -> UsageError:
    return UsageError(f"line {number} of {path} is {why}"[:300], hint=f"{_EXAMPLE}; or --data news=FILE.txt")
