"""Documents of a task in three parts that share none: to train on, to sweep on, and to test on at the very end.

The parts depend on nothing but the texts: a document's place is its SHA-256, so neither a generator of random numbers
nor the order of the source decides. ``digest`` tells whether two machines have read the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

from sweep_tasks import Document

#: Shares of the training and the development documents; the rest is the test.
TRAIN, DEV = 0.6, 0.2
#: Words in a shingle, and the share of a held-out document's shingles from which on it repeats what others had.
SHINGLE, REPEATED = 8, 0.05


class Splits(NamedTuple):
    train: list[Document]
    dev: list[Document]
    test: list[Document]
    #: Held-out documents that were dropped because they repeat an earlier split.
    repeated: int


def split(documents: Iterable[Document]) -> Splits:
    """Split documents 60 : 20 : 20, without exact duplicates and without held-out ones that repeat an earlier split.

    Of the duplicates, which differ in case and white space at most, the first is kept. A held-out document goes when
    5 % or more of its shingles of eight words stand in the training documents, a test document also when they stand
    in the development documents.
    """
    unique: dict[str, Document] = {}
    for document in documents:
        if text := document.text.strip():
            unique.setdefault(_digest(" ".join(text.lower().split())), document._replace(text=text))
    ordered = [unique[key] for key in sorted(unique)]
    first, second = int(TRAIN * len(ordered)), int((TRAIN + DEV) * len(ordered))
    train, dev, test = ordered[:first], ordered[first:second], ordered[second:]
    known = set().union(*map(shingles, train))
    new_dev = [document for document in dev if _share_known(document, known) < REPEATED]
    known |= set().union(*map(shingles, new_dev))
    new_test = [document for document in test if _share_known(document, known) < REPEATED]
    return Splits(train, new_dev, new_test, len(dev) + len(test) - len(new_dev) - len(new_test))


def shingles(document: Document) -> set[tuple[str, ...]]:
    """The runs of eight words of a document; of a shorter one none."""
    words = document.text.lower().split()
    return {tuple(words[i : i + SHINGLE]) for i in range(len(words) - SHINGLE + 1)}


def digest(documents: Iterable[Document]) -> str:
    """SHA-256 over the documents in their order, each with its label; the first 16 digits."""
    return _digest("\0".join(f"{_digest(document.text)} {document.label}" for document in documents))[:16]


def _share_known(document: Document, known: set[tuple[str, ...]]) -> float:
    own = shingles(document)
    return len(own & known) / len(own) if own else 0.0


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
