"""Read the card of an adapter or a model: the YAML at the top of its README.md, as the Hub reads it.

Format: https://huggingface.co/docs/hub/model-cards — a line of three dashes, YAML, another such line.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from loreg.strict_yaml import parse_yaml

CARD_NAME = "README.md"
MAX_CARD_CHARACTERS = 65536


def read_card(path: Path) -> str:
    """Return the beginning of the text of the card at ``path``; empty where there is none."""
    try:
        if not path.is_file():  # a pipe would be waited for
            return ""
        with path.open("rb") as stream:
            return decode_card(stream.read(4 * MAX_CARD_CHARACTERS))  # UTF-8 takes up to four bytes a character
    except OSError:
        return ""


def decode_card(content: bytes) -> str:
    """Return the text of a card that is stored: its beginning, up to MAX_CARD_CHARACTERS, without NUL."""
    return content.decode(errors="replace").replace("\r\n", "\n")[:MAX_CARD_CHARACTERS].replace("\x00", "")


def parse_card_fields(card: str) -> Mapping[str, object]:
    """Return the fields of a card's YAML; none where it has no YAML, or none that can be read."""
    lines = card.lstrip("\ufeff").splitlines()
    if not lines or lines[0].rstrip() != "---":
        return {}
    end = next((i for i, line in enumerate(lines[1:], 1) if line.rstrip() == "---"), None)
    if end is None:
        return {}
    return parse_yaml("\n".join(lines[1:end]))


def card_license(card: str) -> str:
    """Return the license that a card names, in the Hub's lower-case words: ``apache-2.0``; empty where it names none.

    Where the card says ``other``, it is ``license_name``. At most 64 characters.
    """
    fields = parse_card_fields(card)
    name = fields.get("license")
    if isinstance(name, list) and len(name) == 1:
        name = name[0]
    if name == "other" and isinstance(fields.get("license_name"), str):
        name = fields["license_name"]
    return name.strip().lower()[:64] if isinstance(name, str) else ""
