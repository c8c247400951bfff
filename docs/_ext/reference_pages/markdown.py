"""Write Markdown: tables, and sentences of the data in which code, commands and sources are marked up as such."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import click

from loreg_cli.main import cli

_COMMANDS = "|".join(sorted(cli.list_commands(click.Context(cli)), key=len, reverse=True))
#: The repositories that sources name in short: ``vllm#34186``.
_REPOSITORIES = {
    "vllm": "vllm-project/vllm",
    "sglang": "sgl-project/sglang",
    "peft": "huggingface/peft",
    "transformers": "huggingface/transformers",
    "accelerate": "huggingface/accelerate",
    "trl": "huggingface/trl",
    "DeepSpeed": "deepspeedai/DeepSpeed",
    "lorax": "predibase/lorax",
    "llama.cpp": "ggml-org/llama.cpp",
    "ollama": "ollama/ollama",
    "mergekit": "arcee-ai/mergekit",
    "unsloth": "unslothai/unsloth",
    "axolotl": "axolotl-ai-cloud/axolotl",
}
_ARGUMENT = r"--profile [\w.:=-]*\w|--[a-z][\w-]*(?: [A-Z][A-Z|.]*\b)?|[A-Z][A-Z|:]+\b|\./[\w.]*\w"
_TOKENS = re.compile(
    r"``(?P<code>.+?)``"
    r"|(?P<arxiv>arXiv (?P<paper>\d{4}\.\d{4,5}))"
    r"|(?P<issue>\b(?P<repository>[\w.]+)#(?P<number>\d+))"
    rf"|(?P<command>\bloreg (?:{_COMMANDS})\b(?: (?:add|ls|relate|{_ARGUMENT}))*)"
    r"|(?P<flag>(?<!\w)--[a-z][\w-]*)"
    r"|(?P<name>(?<![\w/])[\w./:-]*(?:[A-Za-z0-9]_\w|\.(?:py|json|toml|md|safetensors|h|cpp|go)\b)[\w./:]*\b(?:\(\))?)"
)
_SPECIAL = re.compile(r"([\\`*_\[\]<>|#~$&])")


def escape(text: str) -> str:
    """Escape what Markdown would take for markup."""
    return _SPECIAL.sub(r"\\\1", text)


def code(text: str) -> str:
    """Return ``text`` as code, which in a table may hold no bare bar."""
    return f"`{text.replace('|', chr(92) + '|')}`" if text else ""


def sentence(text: str) -> str:
    """Return a sentence of the data as Markdown: names and commands as code, papers and issues as links."""
    parts, end = [], 0
    for match in _TOKENS.finditer(text := " ".join(text.split())):
        parts += [escape(text[end : match.start()]), _mark_up(match)]
        end = match.end()
    return "".join((*parts, escape(text[end:])))


def _mark_up(match: re.Match[str]) -> str:
    if match["arxiv"]:
        return f"[arXiv {match['paper']}](https://arxiv.org/abs/{match['paper']})"
    if match["issue"]:
        repository = _REPOSITORIES.get(match["repository"])
        issue = escape(match["issue"])
        return f"[{issue}](https://github.com/{repository}/issues/{match['number']})" if repository else issue
    return code(match["code"] or match[0])


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; its cells are Markdown already."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def plural(count: int, noun: str) -> str:
    """Return a count with its noun."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
