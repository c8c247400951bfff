"""Hold what a page shows against what a command printed."""

from __future__ import annotations

import re

# What differs from day to day and from processor to processor. A digest may be any, but the same one everywhere.
_TOKEN = re.compile(
    r"(?P<digest>\b(?=[0-9a-f]*\d)[0-9a-f]{12,64}\b)"
    r"|(?P<day>\d{4}-\d\d-\d\d)|(?P<time>\b\d\d:\d\d(:\d\d)?\b)"
    r"|(?P<size>\b[\d.,]+ (?:B|kB|MB|GB)\b)|(?P<token>\blrg_[\w-]+…?)|(?P<any>…)"
)
_PATTERNS = {
    "day": r"\d{4}-\d\d-\d\d",
    "time": r"\d\d:\d\d(?::\d\d)?",
    "size": r"[\d.,]+ (?:B|kB|MB|GB)",
    "token": r"lrg_[\w-]+",
    "any": r"[^\n]*",
}


class Comparison:
    """Remembers over a whole page which digest stands for which."""

    def __init__(self) -> None:
        self._printed: dict[str, str] = {}

    def matches(self, shown: list[str], printed: list[str]) -> bool:
        """Whether ``printed`` is what is shown; a line ``…`` stands for any number of lines, also for none."""
        digests: list[str] = []
        pattern = "".join(
            r"(?:[^\n]*\n)*?" if line.strip() == "…" else self._pattern_of(line, digests) + r"\n"
            for line in normalise(shown)
        )
        match = re.fullmatch(pattern, "".join(line + "\n" for line in normalise(printed)))
        if match is None:
            return False
        for digest, printed in zip(digests, match.groups(), strict=True):
            if self._printed.setdefault(digest[:12], printed[:12]) != printed[:12]:
                return False
        return True

    def _pattern_of(self, line: str, digests: list[str]) -> str:
        pattern, end = "", 0
        for token in _TOKEN.finditer(line):
            pattern += re.escape(line[end : token.start()])
            kind = token.lastgroup or ""
            if kind == "digest":
                digests.append(token[0])
                pattern += rf"([0-9a-f]{{{len(token[0])}}})"
            else:
                pattern += _PATTERNS[kind]
            end = token.end()
        return pattern + re.escape(line[end:])


def normalise(lines: list[str]) -> list[str]:
    """Take out what the width of a column decides, ends of lines, and empty lines at both ends."""
    text = "\n".join(re.sub(r"─+", "─", re.sub(r" {2,}", "  ", line.rstrip())) for line in lines)
    return text.strip("\n").split("\n") if text.strip("\n") else []
