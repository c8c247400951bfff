"""Read the texts that a sweep evaluates on, by task, and split them: one half to choose by, the other to confirm on."""

from __future__ import annotations

import hashlib
import json
import shlex
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
            if not task:
                raise UsageError(f"{source!r} is plain text without a task", hint=f"--data news={shlex.quote(file)}")
            pairs = [(task, text) for text in _read_plain(Path(file).expanduser())]
        else:
            pairs = _read_lines(Path(source).expanduser())
        for name, text in pairs:
            texts.setdefault(name, {})[text] = None
            count += 1
    return split_by_task({task: list(of_task) for task, of_task in texts.items()}, count)


def split_by_task(texts: Mapping[str, Sequence[str]], count: int | None = None) -> EvaluationData:
    """Split the different ``texts`` of each task by the order of their digests; ``count`` is how many there were.

    The halves of a task have about the same number of characters, and depend on the texts alone; a text of several
    tasks lies in the same half of all. Raises UsageError.
    """
    if not texts:
        raise UsageError("the evaluation data have no text", hint=_EXAMPLE)
    half_of: dict[str, int] = {}
    for task in sorted(texts):
        _split(task, texts[task], half_of)
    halves: tuple[list[Document], list[Document]] = ([], [])
    for position, of_task in enumerate(texts.values()):
        for text in sorted(of_task, key=_digest):
            halves[half_of[text]].append(Document(position, text))
    whole = hashlib.sha256(json.dumps({task: sorted(t) for task, t in texts.items()}).encode()).hexdigest()
    different = sum(len(of_task) for of_task in texts.values())
    return EvaluationData(tuple(texts), tuple(halves[0]), tuple(halves[1]), whole, (count or different) - different)


def _split(task: str, texts: Sequence[str], half_of: dict[str, int]) -> None:
    """Say of each text of a task which half it is in, where no other task has said that. Raises UsageError."""
    if len(texts) < 2:
        raise UsageError(
            f"the task {task!r} has one text: expected two or more, half of them to confirm the choice on",
            hint="split long texts where a new topic begins, an empty line between them",
        )
    sizes = [0, 0]
    ordered = sorted(texts, key=_digest)
    for text in ordered:
        if text in half_of:
            sizes[half_of[text]] += len(text)
    for text in (text for text in ordered if text not in half_of):
        half_of[text] = int(sizes[1] < sizes[0])
        sizes[half_of[text]] += len(text)
    if 0 in sizes:
        raise UsageError(
            f"all texts of the task {task!r} are texts of another one too, and would lie in one half with it",
            hint=f"--data with more texts of {task}",
        )


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _read(path: Path) -> str:
    if path.is_dir():
        raise UsageError(f"{path} is a folder, expected a file", hint=f"--data names a JSON Lines file: {_EXAMPLE}")
    if not path.exists():
        raise NotFoundError(f"{path} does not exist", hint=f"--data names a JSON Lines file: {_EXAMPLE}")
    with explain_os_errors(path, "check its permissions"):
        if path.stat().st_size > _MAX_BYTES:
            hint = f"head -n 2000 {shlex.quote(str(path))} > sample.jsonl"
            raise UsageError(f"{path} has more than 1 GiB of text", hint=hint)
        content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        hint = f"iconv -f latin1 -t utf-8 {shlex.quote(str(path))} > text.txt"
        raise UsageError(f"{path} is not UTF-8: {error}", hint=hint) from error


def _read_plain(path: Path) -> list[str]:
    documents = _read(path).replace("\r\n", "\n").split("\n\n")
    return [document.strip() for document in documents if document.strip()]


def _read_lines(path: Path) -> list[tuple[str, str]]:
    pairs = []
    for number, line in enumerate(_read(path).split("\n"), 1):  # not at U+2028, which a text may have
        if not line.strip():
            continue
        try:
            document = parse_finite(line.encode())
        except (ValueError, RecursionError) as error:
            raise _line_error(path, number, f"not JSON: {error}") from error
        task, text = (document.get(key) if isinstance(document, dict) else None for key in ("task", "text"))
        if not (isinstance(task, str) and isinstance(text, str) and task and text.strip()):
            raise _line_error(path, number, "no task and text")
        if not (_is_unicode(task) and _is_unicode(text)):
            raise _line_error(path, number, "not Unicode: half of a surrogate pair")
        pairs.append((task, text.strip()))
    return pairs


def _is_unicode(text: str) -> bool:
    """Return whether no JSON escape made half a character of it, which nothing can write."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _line_error(path: Path, number: int, why: str) -> UsageError:
    return UsageError(f"line {number} of {path} is {why}"[:300], hint=f"{_EXAMPLE}; or --data news=FILE.txt")
