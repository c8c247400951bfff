"""The one canonical form of JSON: what is hashed or compared by its bytes is written in it."""

from __future__ import annotations

import json


def canonical_json(document: object, *, ascii_only: bool = True) -> bytes:
    """Return the document with sorted keys and without spaces.

    Characters beyond ASCII are escaped; with ``ascii_only`` False they are UTF-8, which is RFC 8785 for objects, texts
    and whole numbers. A digest is always taken over the same of the two. Raises TypeError for what JSON does not have.
    """
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=ascii_only)
    return text.encode()
