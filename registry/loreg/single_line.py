"""Show text that others wrote: in one line, without what moves a cursor. It imports nothing: every command needs it."""

from __future__ import annotations


def single_line(text: str) -> str:
    """Return the text in one line, without characters that move a cursor, colour a screen or turn a line round.

    >>> single_line("a\\x1b[2Jb\\u202e\\nc")
    'a�[2Jb� c'
    """
    return "".join(character if character.isprintable() else "�" for character in " ".join(text.splitlines()))
