"""Read the fenced code blocks of a Markdown page."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r"^(?P<fence>```+)(?P<language>[^\n]*)\n(?P<text>.*?)^(?P=fence)$", re.DOTALL | re.MULTILINE)
_FILE = re.compile(r"`(?P<name>[\w./-]+)`:\s*$")  # `loreg.toml`: before a block says that it is this file


@dataclass(frozen=True)
class Block:
    """One fenced block: its place, its language, what stands in it, and the file that it is, if it is one."""

    page: str
    line: int
    language: str
    text: str
    file: str = ""

    def __str__(self) -> str:
        return f"{self.page}:{self.line} ({self.language})"


@dataclass(frozen=True)
class Command:
    """What is typed, and the lines that the page shows as printed; None if it shows nothing, as in a script."""

    text: str
    output: tuple[str, ...] | None


def read_blocks(path: Path, page: str) -> list[Block]:
    """Return the page's blocks in order."""
    content = path.read_text()
    blocks = []
    for match in _FENCE.finditer(content):
        named = _FILE.search(content[: match.start()].rstrip("\n").rpartition("\n\n")[2])
        line = content.count("\n", 0, match.start()) + 1
        language = match["language"].strip()
        blocks.append(Block(page, line, language, match["text"], named["name"] if named else ""))
    return blocks


def read_commands(block: Block) -> list[Command]:
    """Return the commands of a console block with what they print, or those of a script without it."""
    if block.language == "sh":
        return [Command(text, None) for text in join_lines(block.text.splitlines())]
    typed: list[tuple[list[str], list[str]]] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            typed.append(([line[2:]], []))
        elif typed and not typed[-1][1] and typed[-1][0][-1].endswith("\\"):
            typed[-1][0].append(line)
        else:
            assert typed, f"{block} begins with what no command printed: {line}"
            typed[-1][1].append(line.rstrip())
    return [Command("\n".join(command), tuple(output)) for command, output in typed]


def join_lines(lines: list[str]) -> list[str]:
    """Join the lines that end with a backslash to the next ones; leave out comments and empty lines."""
    joined: list[str] = []
    goes_on = False
    for line in lines:
        if goes_on:
            joined[-1] += "\n" + line
        elif line.strip() and not line.lstrip().startswith("#"):
            joined.append(line)
        goes_on = line.endswith("\\")
    return joined
