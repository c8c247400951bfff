"""Read and replace the ``model`` that a request to an OpenAI-style server names, and nothing else of its body."""

from __future__ import annotations

import json
from typing import Any

import msgspec

_decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def read_model(body: bytes) -> str | None:
    """Return the text that a JSON object has as ``model``; None if it has none, or is none.

    >>> read_model(b'{"model": "team/news:prod", "n": 1}'), read_model(b"[]")
    ('team/news:prod', None)
    """
    try:
        model = msgspec.json.decode(_decode(body)["model"])
    except KeyError:
        return None
    except (ValueError, RecursionError):  # what servers read is more than JSON: NaN, UTF-16
        document = _read_leniently(body)
        model = document.get("model") if isinstance(document, dict) else None
    return model if isinstance(model, str) else None


def replace_model(body: bytes, model: str) -> bytes:
    """Return the object with another ``model``; every other value has the bytes that it had.

    >>> replace_model(b'{"model": "a", "seed": 1.50}', "b")
    b'{"model":"b","seed":1.50}'
    """
    try:
        return msgspec.json.encode({**_decode(body), "model": model})
    except (ValueError, RecursionError):
        return json.dumps({**json.loads(body), "model": model}).encode()


def _read_leniently(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
